"""Bench of an SRAM slice: requests with gaps, a memory that answers in any order, the model."""
import random
from collections import deque

from cocotb.triggers import RisingEdge

from cosim.golden.cache import WHOLE, Contents, Hint
from rtl.memory.slice.interfaces import (
    Counter,
    inject_layout,
    memory_request_layout,
    memory_response_layout,
    slice_request_layout,
    slice_response_layout,
)
from rtl.memory.slice.slice import SramSlice
from rtl.pe.interfaces import AccessError
from testbenches import sim
from testbenches.noc.traffic import Sink, Source

LINES, WAYS, BANKS, NAME_BITS, MSHRS = 32, 4, 4, 6, 8
SETS = LINES // WAYS
MEMORY_NAME_BITS = 3
REQUEST = slice_request_layout(name_bits=NAME_BITS)
RESPONSE = slice_response_layout(name_bits=NAME_BITS)
MEMORY_REQUEST = memory_request_layout(name_bits=MEMORY_NAME_BITS)
MEMORY_RESPONSE = memory_response_layout(name_bits=MEMORY_NAME_BITS)
INJECT = inject_layout()
OK, ADDRESS, POISON = (e.value for e in (AccessError.NONE, AccessError.ADDRESS,
                                         AccessError.POISON))


def make():
    return SramSlice(lines=LINES, ways=WAYS, banks=BANKS, name_bits=NAME_BITS, mshrs=MSHRS,
                     targets=2 * MSHRS)


def pack(layout, **fields):
    """Bits of a payload; fields that are not given are zero."""
    value = 0
    for name, field in layout:
        value |= (int(fields.pop(name, 0)) & (1 << field.width) - 1) << field.offset
    assert not fields
    return value


def unpack(layout, bits):
    return {name: bits >> field.offset & (1 << field.width) - 1 for name, field in layout}


def number(data):
    return int.from_bytes(data, "little")


def expand(mask):
    """Bits that a byte mask selects."""
    return number(bytes(255 if mask >> n & 1 else 0 for n in range(64)))


def first_value(line):
    """What memory holds before anybody wrote to it."""
    return random.Random(line).randbytes(64)


def random_mask():
    words = random.getrandbits(8)
    return random.choice([
        WHOLE, WHOLE, 0, random.getrandbits(64), 1 << random.randrange(64),
        sum(255 << 8 * n for n in range(8) if words >> n & 1)])


class Memory:
    """HBM behind the slice: takes requests, answers in any order but one line's in theirs."""

    def __init__(self, dut, *, take=1.0, send=1.0, latency=(0, 0)):
        self.sink = Sink(dut, "memory_request", rate=take)
        self.source = Source(dut, "memory_response", rate=send)
        self.lines, self.errors, self.poisoned = {}, {}, set()
        self.latency, self.waiting, self.events, self.now = latency, [], [], 0
        self.names, self.most = set(), 0

    def value(self, line):
        return self.lines.get(line, first_value(line))

    def busy(self):
        return self.waiting or self.source.queue or self.source.offered is not None

    def edge(self):
        self.now += 1
        if (payload := self.sink.edge()) is not None:
            self.take(unpack(MEMORY_REQUEST, payload))
        self.source.edge()
        ready = [w for n, w in enumerate(self.waiting) if w[0] <= self.now and all(
            earlier[1] != w[1] for earlier in self.waiting[:n])]
        if ready and not self.source.queue:
            chosen = random.choice(ready) if self.latency[1] else ready[0]
            self.waiting.remove(chosen)
            self.source.queue.append(chosen[2])
            if not chosen[3]:
                self.names.discard(chosen[4])

    def take(self, request):
        line, write = request["line"], request["write"]
        self.events.append(("write" if write else "read", line))
        error = self.errors.get(line, OK)
        if write and error != ADDRESS:
            kept = number(self.value(line)) & ~expand(request["mask"])
            self.lines[line] = (kept | request["data"] & expand(request["mask"])).to_bytes(
                64, "little")
            if request["poison"]:
                self.poisoned.add(line)
            elif request["mask"] == WHOLE:
                self.poisoned.discard(line)
                error = OK
                self.errors.pop(line, None)
        if not write:
            assert request["name"] not in self.names, "two reads of one name under way"
            self.names.add(request["name"])
        if error == OK and line in self.poisoned and not write:
            error = POISON
        data = 0 if write or error else number(self.value(line))
        self.waiting.append((self.now + random.randint(*self.latency), line, pack(
            MEMORY_RESPONSE, name=request["name"], write=write, error=error, data=data),
            write, request["name"]))
        self.most = max(self.most, len(self.waiting))


class Bench:
    """Drives a slice, and compares every answer with what the model said on acceptance."""

    def __init__(self, dut, *, send=1.0, take=1.0, **memory):
        self.dut = dut
        self.source, self.sink = Source(dut, "request", rate=send), Sink(dut, "response",
                                                                         rate=take)
        self.memory = Memory(dut, **memory)
        self.contents = {0: Contents(), 1: Contents()}      # scratch, HBM
        self.pending, self.fields, self.names = {}, deque(), deque(range(1 << NAME_BITS))
        self.answers, self.cycles, self.rested, self.ways = [], 0, 0, 0
        self.may_fail = set()       # lines of HBM with an error

    async def start(self, *, ways=0, fresh=False):
        dut = self.dut
        for signal in (dut.flush, dut.tick, dut.inject, dut.request__payload,
                       dut.memory_response__payload):
            signal.value = 0
        dut.cache_ways.value = 0
        await sim.reset(dut)
        for line in range(LINES if not fresh else 0):   # a reset leaves what tests before wrote
            self.contents[0].forget(line)
        await self.configure(ways)

    async def configure(self, ways):
        """Change the number of cache ways, and wait until it is in force."""
        self.dut.cache_ways.value = ways
        self.change(ways)
        await self.cycle()
        await self.until(lambda: not self.dut.busy.value)

    def change(self, ways):
        for line in range((WAYS - self.ways) * SETS, (WAYS - ways) * SETS):
            self.contents[0].forget(line)
        self.ways = ways

    def ask(self, line, *, cached, write=0, data=None, mask=WHOLE, hint=Hint.NONE):
        """Queue a request."""
        data = random.randbytes(64) if data is None else data
        self.fields.append({"line": line, "cached": cached, "hint": int(hint), "write": write,
                            "data": number(data) if write else 0, "mask": mask if write else 0})

    def model(self, request):
        """What the answer must be: error, data, and which bits of them count."""
        line, contents = request["line"], self.contents[request["cached"]]
        if not request["cached"] and line >= (WAYS - self.ways) * SETS:
            return ADDRESS, 0, 0
        if request["cached"] and line not in contents.lines:
            contents.write(line, first_value(line))
        if request["write"]:
            contents.write(line, request["data"].to_bytes(64, "little"), request["mask"])
            if request["cached"] and request["mask"] == WHOLE:
                self.may_fail.discard(line)
            return OK, 0, 0
        data, known = contents.read(line)
        if request["cached"] and request["hint"] == Hint.PREFETCH:
            return OK, 0, 0
        if request["cached"] and request["hint"] == Hint.NO_WRITE_BACK:
            contents.forget(line)
        if request["cached"] and line in self.may_fail:
            return POISON, 0, 0
        return OK, number(data), expand(known)

    async def cycle(self):
        await RisingEdge(self.dut.clk)
        self.cycles += 1
        self.rested += not self.dut.awake.value
        self.memory.edge()
        if self.fields and self.names and not self.source.queue:
            fields = self.fields.popleft()
            self.source.queue.append(pack(REQUEST, name=self.names.popleft(), **fields))
        offered = self.source.offered
        if self.source.edge():
            request = unpack(REQUEST, offered)
            self.pending[request["name"]] = request, self.model(request), self.cycles
        if (payload := self.sink.edge()) is not None:
            self.answer(unpack(RESPONSE, payload))

    def answer(self, got):
        request, (error, data, known), taken = self.pending.pop(got["name"])
        self.names.append(got["name"])
        assert got["write"] == request["write"]
        assert got["error"] == error, f"{request}: error {got['error']}, not {error}"
        assert not (got["data"] ^ data) & known, (
            f"{request}: {got['data']:0128x}, not {data:0128x}")
        self.answers.append((request, got, self.cycles - taken))

    def idle(self):
        return not (self.fields or self.source.queue or self.source.offered is not None
                    or self.pending)

    async def until(self, condition, *, limit=20000):
        for _ in range(limit):
            if condition():
                return
            await self.cycle()
        raise AssertionError(f"nothing came of it in {limit} cycles; waiting: {self.pending}")

    async def settle(self):
        """Wait until everything is answered, and memory knows of everything sent to it."""
        await self.until(self.idle)
        await self.until(lambda: not (self.memory.busy() or self.dut.awake.value
                                      or self.dut.memory_request__valid.value))

    async def flush(self):
        self.dut.flush.value = 1
        await self.cycle()
        self.dut.flush.value = 0
        await self.cycle()
        await self.until(lambda: not self.dut.busy.value)

    async def pulse(self, signal, value=1):
        signal.value = value
        await self.cycle()
        signal.value = 0

    async def inject(self, mask, *, tag=0):
        await self.pulse(self.dut.inject, pack(INJECT, valid=1, tag=tag, mask=mask))

    def count(self, name):
        return int(self.dut.counters.value) >> 32 * Counter[name] & 0xFFFFFFFF

    def check_memory(self):
        """After a flush memory holds what the model says."""
        for line, (data, known) in self.contents[1].lines.items():
            if line not in self.may_fail:
                bits = expand(known)
                assert number(self.memory.value(line)) & bits == number(data) & bits, hex(line)


def cached_lines(*, sets=SETS, each=7, far=0):
    """Lines of which some sets have too many."""
    return [far + s + SETS * n for s in range(sets) for n in range(each)]


def random_requests(bench, count, *, lines, scratch=0.3, hints=tuple(Hint), writes=0.5, out=0.02):
    for _ in range(count):
        write = int(random.random() < writes)
        if random.random() < scratch:
            line = random.randrange((WAYS - bench.ways) * SETS or 1)
            if random.random() < out:
                line = random.choice([(WAYS - bench.ways) * SETS, LINES, 1 << 33])
            bench.ask(line, cached=0, write=write, mask=random_mask(), hint=random.choice(hints))
        else:
            bench.ask(random.choice(lines), cached=1, write=write, mask=random_mask(),
                      hint=random.choice(hints))
