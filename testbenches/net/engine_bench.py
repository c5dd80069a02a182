"""A message engine on a memory and a NIC in plain Python, for its tests."""
import random
from collections import defaultdict

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from cosim.golden import message_engine as golden
from rtl.net.interfaces import completion_layout, work_layout
from rtl.pe.interfaces import (
    MESSAGE_ENGINE,
    AccessError,
    launch_layout,
    report_layout,
    request_layout,
    response_layout,
)
from testbenches import sim
from testbenches.pe.memory_model import ADDRESS, DATA, TAG, MemoryModel, mask_bits

LINE = 64
SIZE = 1 << 18                      # bytes of memory; nothing is behind it
DOORBELLS = SIZE - 0x1000           # 64 of them, the upper lines of memory
PORT = 0x1000                       # offset of the completion port
ERRORS = {golden.Code.BAD_ADDRESS: AccessError.ADDRESS, golden.Code.POISON: AccessError.POISON,
          golden.Code.LINK_DOWN: AccessError.LINK_DOWN}
NIC_NAMES = {kind.value: kind.name for kind in golden.NIC}


class EngineMemory(MemoryModel):
    """Reads when a request is taken, writes when it is answered: the worst for who does not wait.

    Checks that tags of requests under way differ.
    """

    def __init__(self, dut, rng, **options):
        super().__init__(dut, rng, **options)
        self.ring, self.times, self.frozen_lines = None, [], set()

    def _take(self, request):
        address, tag = request & (1 << ADDRESS) - 1, request >> ADDRESS & 0xFF
        write, line = request >> ADDRESS + TAG & 1, address // LINE
        assert address % LINE == 0
        assert all(other & 0xFF != tag for _, other, *_ in self.pending), f"tag {tag:#x} twice"
        self.requests.append((address, tag, write))
        self.times.append(self.now)
        error = ERRORS[self.errors[line]].value if line in self.errors else (
            AccessError.ADDRESS.value if address >= SIZE else 0)
        data = 0 if write or error else self.lines.get(line, 0)
        effect = None
        if write and not error:
            value = request >> ADDRESS + TAG + 1 & (1 << DATA) - 1
            effect = line, value, request >> ADDRESS + TAG + 1 + DATA & (1 << LINE) - 1
        late = 1 << 60 if line in self.frozen_lines else self.rng.randint(*self.latency)
        self.pending.append((self.now + late, tag | write << TAG | error << TAG + 1
                             | data << TAG + 3, effect))

    def _act(self, line, value, mask):
        if line * LINE >= DOORBELLS:
            assert mask == (1 << LINE) - 1
            self.ring(line * LINE, value)
            return
        bits = mask_bits(mask)
        self.lines[line] = self.lines.get(line, 0) & ~bits | value & bits

    async def run(self):
        """Runs until cancelled."""
        dut, rng, shown = self.dut, self.rng, False
        while True:
            await RisingEdge(dut.clk)
            self.now += 1
            if dut.request__valid.value and dut.request__ready.value:
                self._take(int(dut.request__payload.value))
            assert dut.response__ready.value
            due = [p for p in self.pending if p[0] <= self.now]
            shown = bool(due) and not self.frozen and rng.random() < self.rate
            dut.response__valid.value = int(shown)
            if shown:
                answer = rng.choice(due)
                self.pending.remove(answer)
                dut.response__payload.value = answer[1]
                if answer[2]:
                    self._act(*answer[2])
            dut.request__ready.value = int(not self.frozen and rng.random() < self.rate)


class Transfers:
    """What the NIC of these tests does: queue pairs that are joined to themselves.

    WRITE and READ copy in the same memory, a SEND goes to the oldest receive of its doorbell.
    ``load`` and ``store`` are those of the memory.
    """

    def __init__(self, load, store):
        self.load, self.store = load, store
        self.sends, self.receives = defaultdict(list), defaultdict(list)

    def post(self, doorbell, line):
        """The cookies of requests that are done with this one."""
        work = work_layout().from_bits(line)
        name = NIC_NAMES[int(work.opcode.value)]
        if name in ("WRITE", "WRITE_IMM"):
            self.store(work.remote, self.load(work.local, work.length))
        elif name == "READ":
            self.store(work.local, self.load(work.remote, work.length))
        else:
            (self.sends if name == "SEND" else self.receives)[doorbell].append(work)
            if not (self.sends[doorbell] and self.receives[doorbell]):
                return []
            send, receive = self.sends[doorbell].pop(0), self.receives[doorbell].pop(0)
            self.store(receive.local, self.load(send.local, send.length))
            return [send.cookie, receive.cookie]
        return [work.cookie]


class Bench:
    """Drives a message engine; ``memory`` is what it works on."""

    def __init__(self, dut, *, latency=(1, 12), rate=0.8, nic_cycles=(1, 60), gaps=0.2):
        self.dut, self.rng = dut, random.Random(random.getrandbits(32))
        self.memory = EngineMemory(dut, self.rng, latency=latency, rate=rate)
        self.memory.ring = self._ring
        self.transfers = Transfers(self.memory.load, self.memory.store)
        self.nic_cycles, self.gaps, self.patience = nic_cycles, gaps, 200_000
        self.doorbells, self.waiting = [], []       # what was posted; (time, doorbell, line)
        self.outbox, self.asked, self.answers = [], [], []
        self.silent, self.epoch, self.arrivals, self.hold_nic = False, 0, 0, False
        self.opens, self.statuses, self.barriers = [], {}, (1, 40)

    async def start(self):
        dut = self.dut
        await sim.reset(dut, dut.launch__valid, dut.go, dut.drop, dut.proceed, dut.abort,
                        dut.report__ready, dut.request__ready, dut.response__valid,
                        dut.access__valid, dut.access_response__ready, dut.response__payload,
                        dut.access__payload, dut.launch__payload)
        self.tasks = [cocotb.start_soon(self.memory.run()), cocotb.start_soon(self._edges())]
        while not dut.idle.value:
            await RisingEdge(dut.clk)

    def _ring(self, doorbell, line):
        self.doorbells.append((doorbell, line))
        if not self.silent:
            self.waiting.append((self.memory.now + self.rng.randint(*self.nic_cycles),
                                 doorbell, line))

    def complete(self, cookie, *, status=0, address=0):
        """A completion for the port."""
        line = completion_layout().const({"cookie": cookie, "status": status,
                                          "address": address, "opcode": 1}).as_bits()
        self.outbox.append((PORT, 1, line))

    async def read(self, offset):
        """A line of the window: its 16 words."""
        count = len(self.answers)
        self.outbox.append((offset, 0, 0))
        while len(self.answers) == count:
            await RisingEdge(self.dut.clk)
        answer = self.answers[-1]
        assert not answer.write
        return answer.error, np.frombuffer(int(answer.data).to_bytes(LINE, "little"), "<u4")

    async def _edges(self):
        """The NIC, the window and the barriers, once a clock."""
        dut, rng, offered = self.dut, self.rng, False
        while True:
            await RisingEdge(dut.clk)
            if offered and dut.access__ready.value:
                offered = False
            if dut.access_response__valid.value and dut.access_response__ready.value:
                answer = response_layout().from_bits(int(dut.access_response__payload.value))
                assert answer.tag == self.asked.pop(0), "answers are not in order"
                self.answers.append(answer)
            dut.access_response__ready.value = int(rng.random() >= self.gaps)
            begun = set()       # requests of a queue pair are done in order
            for job in [] if self.hold_nic else list(self.waiting):
                if job[0] <= self.memory.now and job[1] not in begun:
                    self.waiting.remove(job)
                    for cookie in self.transfers.post(*job[1:]):
                        self.complete(cookie, status=self.statuses.pop(cookie & 0xFFF, 0),
                                      address=0x123456)
                    continue
                begun.add(job[1])
            if self.outbox and not offered and rng.random() >= self.gaps:
                at, write, line = self.outbox.pop(rng.randrange(len(self.outbox)))
                tag = rng.getrandbits(8)
                self.asked.append(tag)
                dut.access__payload.value = request_layout().const({
                    "address": at, "tag": tag, "write": write, "data": line,
                    "mask": (1 << LINE) - 1}).as_bits()
                offered = True
            dut.access__valid.value = int(offered)
            if dut.arrive.value:
                assert not self.opens, "it stands at a barrier"
                self.arrivals += 1
                self.opens.append(self.memory.now + rng.randint(*self.barriers))
            opens = [time for time in self.opens if time <= self.memory.now]
            self.opens = [time for time in self.opens if time > self.memory.now]
            assert len(opens) <= 1
            dut.proceed.value = len(opens)

    async def launch(self, program, *, watchdog=0, go=True):
        dut = self.dut
        dut.launch__payload.value = launch_layout().const(
            {"program": program, "watchdog": watchdog}).as_bits()
        dut.launch__valid.value = 1
        await RisingEdge(dut.clk)
        while not dut.launch__ready.value:
            await RisingEdge(dut.clk)
        dut.launch__valid.value = 0
        if go:
            await self.pulse(dut.go)

    async def pulse(self, signal):
        signal.value = 1
        await RisingEdge(self.dut.clk)
        signal.value = 0

    async def report(self):
        dut = self.dut
        while self.rng.random() < self.gaps:
            await RisingEdge(dut.clk)
        dut.report__ready.value = 1
        for _ in range(self.patience):
            await RisingEdge(dut.clk)
            if dut.report__valid.value:
                break
        else:
            raise AssertionError("no report comes")
        dut.report__ready.value = 0
        bits = int(dut.report__payload.value)
        fields = {name: bits >> field.offset & (1 << field.width) - 1
                  for name, field in report_layout()}
        assert fields.pop("unit") == MESSAGE_ENGINE
        return golden.Report(**fields | {"code": golden.Code(fields["code"])})

    async def run(self, program, *, watchdog=0):
        """Runs a program; its report. All of its requests were answered by then."""
        self.epoch = (self.epoch + 1) % 16
        await self.launch(program, watchdog=watchdog)
        report = await self.report()
        assert not self.memory.pending and not self.dut.request__valid.value
        return report

    async def settle(self, cycles=300):
        await ClockCycles(self.dut.clk, cycles)


class Image:
    """The same bytes for the golden model and for the memory of a bench; programs in it."""

    def __init__(self, rng, *, first=0x20000):
        self.rng, self.memory = rng, golden.Memory(SIZE)
        self.memory.bytes[:first] = rng.integers(0, 256, first, dtype=np.uint8)
        self.free, self.posted = first, []

    def place(self, payload):
        """Puts bytes at the next free line."""
        at = self.free
        self.memory.write(at, payload)
        self.free += -(-len(payload) // LINE) * LINE
        return at

    def program(self, *subgraphs):
        """A program of lists of encoded entries; its address."""
        return self.place(golden.encode_program(
            [(self.place(b"".join(entries)), len(entries)) for entries in subgraphs]))

    def copy_to(self, memory):
        memory.lines = {line: int.from_bytes(
            self.memory.bytes[line * LINE:(line + 1) * LINE].tobytes(), "little")
            for line in range(self.free // LINE)}
        memory.errors = dict(self.memory.errors)

    def compare(self, memory):
        """All of memory, but for the doorbells, has the bytes of the golden model."""
        for line in range(DOORBELLS // LINE):
            want = self.memory.bytes[line * LINE:(line + 1) * LINE].tobytes()
            got = memory.lines.get(line, 0).to_bytes(LINE, "little")
            assert got == want, f"line {line:#x}: {got.hex()} and not {want.hex()}"

    def golden_nic(self):
        """The NIC of the bench, on the golden model's memory."""
        transfers = Transfers(self.memory.read, self.memory.write)

        def nic(posted):
            self.posted += [(doorbell, int.from_bytes(line, "little")) for doorbell, line in posted]
            return [(cookie, 0, 0) for doorbell, line in posted
                    for cookie in transfers.post(doorbell, int.from_bytes(line, "little"))]
        return nic

    def run(self, program, *, epoch=1, rng=None):
        return golden.run(self.memory, program, self.golden_nic(), epoch=epoch, rng=rng)


async def agree(bench, image, program, *, code=golden.Code.OK, watchdog=8000):
    """Runs a program on both: all of memory, the doorbells and the report are the same."""
    image.copy_to(bench.memory)
    bench.doorbells.clear()
    report = await bench.run(program, watchdog=watchdog)
    assert report == image.run(program, epoch=bench.epoch, rng=image.rng), report
    assert report.code == code, report
    image.compare(bench.memory)
    assert sorted(bench.doorbells) == sorted(image.posted)
    return report
