"""Tests of rtl/pe/local_memory.py: the cocotb tests, then the pytest functions that run them."""
import os
import random

import cocotb
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped
from cocotb.triggers import RisingEdge

from rtl.pe.interfaces import LocalRead, LocalWrite
from rtl.pe.local_memory import LocalMemory, SharedRead, SharedWrite
from testbenches import sim

LINES, BANKS, READERS, WRITERS = 32, 4, 4, 3
LINE_BITS = 512
SHARED = bool(os.environ.get("SHARED"))     # all ports but reader 0 share one reader, one writer


class SharedMemory(wiring.Component):
    """Local memory whose readers 1 and up share one port, as do all its writers."""

    def __init__(self):
        super().__init__({"reads": In(LocalRead(lines=LINES)).array(READERS),
                          "writes": In(LocalWrite(lines=LINES)).array(WRITERS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = LocalMemory(lines=LINES, banks=BANKS, readers=2, writers=1)
        m.submodules.read = read = SharedRead(lines=LINES, ports=READERS - 1)
        m.submodules.write = write = SharedWrite(lines=LINES, ports=WRITERS)
        connect(m, flipped(self.reads[0]), memory.reads[0])
        connect(m, read.o, memory.reads[1])
        connect(m, write.o, memory.writes[0])
        for outer, inner in zip([*self.reads[1:], *self.writes], [*read.ports, *write.ports],
                                strict=True):
            connect(m, flipped(outer), inner)
        return m


def get(dut, *path):
    return getattr(dut, "__".join(str(p) for p in path))


class Ports:
    """Random reads and writes on every port, checked against a plain array of lines."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.lines = {}
        self.expected = [None] * READERS        # line that stands on ``data`` in this cycle
        self.waits = [0] * (READERS + WRITERS)
        self.longest = [0] * (READERS + WRITERS)
        self.accepted = [0] * (READERS + WRITERS)

    def valid_ports(self):
        return [get(self.dut, "reads", r, "address__valid") for r in range(READERS)] + [
            get(self.dut, "writes", w, "o__valid") for w in range(WRITERS)]

    def note(self, index, valid, ready):
        self.accepted[index] += bool(valid and ready)
        self.waits[index] = self.waits[index] + 1 if valid and not ready else 0
        self.longest[index] = max(self.longest[index], self.waits[index])

    async def cycle(self, address, read_rate, write_rate):
        """One edge: check what stood before it, then drive the next requests."""
        dut, rng = self.dut, self.rng
        await RisingEdge(dut.clk)
        reads, writes = [], []
        for r in range(READERS):
            assert bool(get(dut, "reads", r, "valid").value) == (self.expected[r] is not None)
            if self.expected[r] not in (None, "unknown"):
                assert int(get(dut, "reads", r, "data").value) == self.expected[r]
            valid = get(dut, "reads", r, "address__valid").value
            ready = valid and get(dut, "reads", r, "address__ready").value
            at = int(get(dut, "reads", r, "address__payload").value)
            self.note(r, valid, ready)
            self.expected[r] = self.lines.get(at, "unknown") if ready else None
            reads += [at % BANKS] if ready else []
            if ready or not valid:
                get(dut, "reads", r, "address__valid").value = int(rng.random() < read_rate)
                get(dut, "reads", r, "address__payload").value = address(r)
        for w in range(WRITERS):
            valid = get(dut, "writes", w, "o__valid").value
            ready = valid and get(dut, "writes", w, "o__ready").value
            self.note(READERS + w, valid, ready)
            payload = int(get(dut, "writes", w, "o__payload").value)
            if ready:
                at = payload & LINES - 1
                writes.append(at % BANKS)
                data, mask = payload >> 5 & (1 << LINE_BITS) - 1, payload >> 5 + LINE_BITS
                bits = sum(0xFF << 8 * i for i in range(64) if mask >> i & 1)
                if at in self.lines or mask == (1 << 64) - 1:
                    self.lines[at] = self.lines.get(at, 0) & ~bits | data & bits
            if ready or not valid:
                get(dut, "writes", w, "o__valid").value = int(rng.random() < write_rate)
                mask = rng.choice([(1 << 64) - 1, rng.getrandbits(64), 0])
                get(dut, "writes", w, "o__payload").value = (
                    address(READERS + w) | rng.getrandbits(LINE_BITS) << 5
                    | mask << 5 + LINE_BITS)
        assert not SHARED or len(reads) <= 2 and len(writes) <= 1
        assert len(set(reads)) == len(reads) and len(set(writes)) == len(writes), "bank used twice"


async def start(dut, seed):
    rng = random.Random(seed)
    ports = Ports(dut, rng)
    await sim.reset(dut, *ports.valid_ports(), *[
        get(dut, "reads", r, "address__payload") for r in range(READERS)], *[
        get(dut, "writes", w, "o__payload") for w in range(WRITERS)])
    return rng, ports


@cocotb.test()
@cocotb.parametrize(rates=[(1.0, 1.0), (0.5, 0.5), (0.2, 0.9)])
async def reads_give_what_was_written(dut, rates):
    """Random lines: most of the banks work in every cycle, and reader 0 never waits."""
    rng, ports = await start(dut, 1)
    for _ in range(500):
        await ports.cycle(lambda _: rng.randrange(LINES), *rates)
    assert ports.longest[0] == 0
    assert max(ports.longest) < 60
    assert min(ports.accepted) > 40


@cocotb.test()
async def ports_of_one_bank_take_turns(dut):
    """All want bank 1: reader 0 once in two cycles, the others share what is left."""
    rng, ports = await start(dut, 2)

    def pick(port):
        return rng.randrange(LINES // BANKS) * BANKS + (1 if port else rng.randrange(2))

    for _ in range(400):
        await ports.cycle(pick, 1.0, 1.0)
    others, writers = ports.accepted[1:READERS], ports.accepted[READERS:]
    assert max(others) - min(others) <= 20 and sum(others) > (100 if SHARED else 160)
    assert max(writers) - min(writers) <= 3 and sum(writers) >= 395
    assert ports.longest[0] == 0 and max(ports.longest[READERS:]) <= WRITERS


@cocotb.test(skip=SHARED)
async def different_banks_do_not_wait_for_each_other(dut):
    rng, ports = await start(dut, 3)
    for _ in range(300):
        await ports.cycle(lambda port: rng.randrange(LINES // BANKS) * BANKS + port % BANKS, 1, 1)
    assert max(ports.longest[:READERS]) == 0
    assert min(ports.accepted[:READERS]) >= 298


@sim.on_simulators
def test_local_memory(tmp_path, simulator):
    sim.run(LocalMemory(lines=LINES, banks=BANKS, readers=READERS, writers=WRITERS),
            test_module=__name__, build_dir=tmp_path, simulator=simulator)


@sim.on_simulators
def test_shared_ports(tmp_path, simulator):
    sim.run(SharedMemory(), test_module=__name__, build_dir=tmp_path, simulator=simulator,
            env={"SHARED": "1"})
