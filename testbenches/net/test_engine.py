"""Tests of rtl/net/engine.py against cosim/golden/message_engine.py: order, words, doorbells."""
import operator
import random

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from cosim.golden.message_engine import Code, Kind, encode
from rtl.net.engine import MessageEngine
from testbenches import sim
from testbenches.net.engine_bench import DOORBELLS, LINE, Bench, Image, agree

FLAGS = 0x1F000         # words that subgraphs tell each other


def fresh():
    return np.random.default_rng(random.getrandbits(32))


class Writer:
    """Draws a program without races: each entry waits for those whose bytes it touches.

    A subgraph works in an area of its own. Now and then it publishes an area that nobody writes
    later, and another one waits for the word that says so.
    """

    def __init__(self, rng, subgraphs):
        self.rng = rng
        self.lists = [[] for _ in range(subgraphs)]
        self.touched = [[] for _ in range(subgraphs)]   # (reads, writes) of each entry
        self.known = [set() for _ in range(subgraphs)]  # entries that have ended, by conditions
        self.fences = [set() for _ in range(subgraphs)]
        self.receives = [set() for _ in range(subgraphs)]
        self.published = 0

    def add(self, n, reads, writes, *, sync=False, **fields):
        entries, at = self.lists[n], len(self.lists[n])
        known = self.known[n]
        known |= self.fences[n]

        def conflict(other):
            theirs = self.touched[n][other]
            return any(a < d and c < b for mine, their in (
                (reads + writes, theirs[1]), (writes, theirs[0]))
                for a, b in mine for c, d in their)

        missing = {other for other in range(at) if other not in known and conflict(other)}
        if sync or len(missing) > 1 and not missing <= self.receives[n]:
            fields["sync"] = 1
            known |= set(range(at))
        elif missing and missing <= self.receives[n]:
            fields["rx_sync"] = 1
            known |= self.receives[n]
        elif missing:
            fields["back"] = at - next(iter(missing))
            known |= missing
        if self.rng.random() < 0.05 and fields["kind"] != Kind.RECV:    # its SEND comes later
            fields["fence"] = 1
        if fields.get("fence"):
            self.fences[n].add(at)
        if fields["kind"] == Kind.RECV:
            self.receives[n].add(at)
        entries.append(encode(**fields))
        self.touched[n].append((reads, writes))

    def step(self):
        rng, n = self.rng, int(self.rng.integers(len(self.lists)))
        base, size = n * 0x2000, int(rng.integers(1, 200))
        a, b = (base + int(rng.integers(0x1C00)) for _ in range(2))
        s = base + int(rng.integers(0x70)) * LINE
        doorbell = DOORBELLS + n * LINE

        def run(at, count=size):
            return [(at, at + count)]

        match rng.integers(8):
            case 0:
                self.add(n, run(a), run(s), kind=Kind.COPY, length=size, local=s, remote=a)
            case 1:
                size &= ~1
                self.add(n, run(a) + run(b), run(s), kind=Kind.REDUCE, format=2, length=size,
                         local=s, remote=a, third=b)
            case 2:
                self.add(n, run(a), run(b), kind=Kind.WRITE, length=size, local=a, remote=b,
                         third=doorbell)
            case 3:
                self.add(n, run(a), run(b), kind=Kind.READ, length=size, local=b, remote=a,
                         third=doorbell, local_key=7, remote_key=9, immediate=11)
            case 4:
                # What is sent is never written: a SEND that waits would wait for its receive.
                self.add(n, [], run(b), kind=Kind.RECV, length=size, local=b, third=doorbell)
                self.add(n, [], [], kind=Kind.SEND, length=size, local=0x18000 + a, third=doorbell)
            case 5:
                self.add(n, [], run(a & ~3, 4), kind=Kind.SET, local=a & ~3,
                         immediate=int(rng.integers(1 << 32)))
            case 6:
                self.add(n, [], [], kind=Kind.ARRIVE)
            case 7 if self.published < 100:
                self.publish(n)

    def publish(self, n):
        """Another subgraph reads what this one has, when the flag says that it stands there."""
        rng, other = self.rng, int(self.rng.integers(len(self.lists)))
        flag, there = FLAGS + 4 * self.published, 0x10000 + LINE * self.published
        self.published += 1
        a, s = n * 0x2000 + int(rng.integers(0x1C00)), other * 0x2000 + LINE * int(rng.integers(99))
        self.add(n, [(a, a + LINE)], [(there, there + LINE)], kind=Kind.COPY, length=LINE,
                 local=there, remote=a)
        self.add(n, [], [], kind=Kind.SET, local=flag, immediate=1, sync=True)
        self.add(other, [], [], kind=Kind.WAIT, local=flag, immediate=1, local_key=0xFF, compare=0,
                 fence=1)
        self.add(other, [], [(s, s + LINE)], kind=Kind.COPY, length=LINE, local=s, remote=there)


@cocotb.test()
@cocotb.parametrize(subgraphs=[1, 3, 7, 7], rate=[0.4, 0.95])
async def random_programs(dut, subgraphs, rate):
    """All of memory, all doorbells and the report are those of the golden model."""
    rng = fresh()
    bench = Bench(dut, latency=(1, 50), rate=rate)
    await bench.start()
    for _ in range(2):
        image, writer = Image(rng), Writer(rng, subgraphs)
        image.memory.bytes[FLAGS:FLAGS + 0x1000] = 0
        for n in range(subgraphs):      # none is empty
            writer.add(n, [], [], kind=Kind.SET, local=0x1E000 + 4 * n, immediate=n)
        for _ in range(12 * subgraphs + 8):
            writer.step()
        bench.transfers.sends.clear()
        bench.transfers.receives.clear()
        await agree(bench, image, image.program(*writer.lists))


def write(a, b, **fields):
    return encode(**{"kind": Kind.WRITE, "length": LINE, "local": a, "remote": b,
                     "third": DOORBELLS} | fields)


def copy(a, s, **fields):
    return encode(kind=Kind.COPY, length=LINE, local=s, remote=a, **fields)


def receive(b, **fields):
    return encode(kind=Kind.RECV, length=LINE, local=b, third=DOORBELLS, **fields)


def send(a, **fields):
    return encode(kind=Kind.SEND, length=LINE, local=a, third=DOORBELLS, **fields)


# Each ends otherwise if the flag is ignored, or taken for another one that waits for more.
PROGRAMS = {
    "sync": [write(0, 0x1000), write(0x40, 0x1040), copy(0x1000, 0x2000, sync=1),
             copy(0x1040, 0x2040)],
    "back": [write(0, 0x1000), receive(0x1040), copy(0x1000, 0x2000, back=2), send(0x2000)],
    "back by one": [receive(0x1080), write(0, 0x1000), copy(0x1000, 0x2000, back=1),
                    send(0x2000)],
    "back before the first": [copy(0, 0x1000, back=1), copy(0x40, 0x2000, back=255)],
    "rx_sync": [receive(0x1000), receive(0x1040), write(0, 0x1080), send(0), send(0x40),
                copy(0x1000, 0x2000, rx_sync=1), copy(0x1040, 0x2040)],
    "fence": [receive(0x1000), write(0, 0x1040, fence=1), copy(0x1040, 0x2000), send(0x2000)],
    "none": [receive(0x1000), receive(0x1040), copy(0, 0x2000), send(0), send(0x40)],
}


@cocotb.test()
@cocotb.parametrize(name=list(PROGRAMS))
async def conditions_hold_back_what_they_should_and_no_more(dut, name):
    bench = Bench(dut, nic_cycles=(200, 400))
    await bench.start()
    image = Image(fresh())
    await agree(bench, image, image.program(PROGRAMS[name]))


@cocotb.test()
async def an_end_means_that_memory_has_it(dut):
    """Words and lines are read by those that follow; a write counts when it is answered."""
    bench = Bench(dut, latency=(20, 60))
    await bench.start()
    image, chain = Image(fresh()), []
    for n in range(8):
        at = 0x1000 + LINE * n
        chain += [encode(kind=Kind.SET, local=at + 4 * n, immediate=n, sync=1),
                  copy(at, at + 0x1000, sync=1), copy(at + 0x1000, at + LINE, back=1)]
    await agree(bench, image, image.program(chain))


@cocotb.test()
async def receives_are_waited_for_and_nothing_else(dut):
    """With ``rx_sync`` an entry starts while a WRITE is under way."""
    bench = Bench(dut)
    await bench.start()
    image = Image(fresh())
    program = image.program([write(0, 0x1000), receive(0x1040), send(0),
                             copy(0x1040, 0x2000, rx_sync=1)])
    image.copy_to(bench.memory)
    bench.silent = True
    await bench.launch(program)
    await bench.settle()
    assert len(bench.doorbells) == 3
    bench.complete(1 << 12 | 1)
    bench.complete(1 << 12 | 2)
    await bench.settle()
    assert bench.memory.lines[0x2000 // LINE] == bench.memory.lines[0x1040 // LINE]
    bench.complete(1 << 12 | 0)
    assert (await bench.report()).code == Code.OK


@cocotb.test()
async def seven_subgraphs_run_beside_each_other(dut):
    """Each waits for the one after it, so none may hold back another."""
    bench = Bench(dut)
    await bench.start()
    image = Image(fresh())
    image.memory.bytes[FLAGS:FLAGS + 64] = 0
    lists = [[encode(kind=Kind.WAIT, local=FLAGS + 4 * n + 4, immediate=1, local_key=1),
              encode(kind=Kind.SET, local=FLAGS + 4 * n, immediate=1, sync=1)] for n in range(6)]
    lists.append([encode(kind=Kind.SET, local=FLAGS + 24, immediate=1)])
    await agree(bench, image, image.program(*lists))


@cocotb.test()
@cocotb.parametrize(compare=[0, 1, 2, 3], busy=[False, True])
async def words_are_read_until_the_comparison_holds(dut, compare, busy):
    """Every 16 cycles, also while a copy keeps the clock running and the port busy."""
    bench = Bench(dut, latency=(3, 9), rate=1.0)
    await bench.start()
    holds = (operator.eq, operator.ne, operator.lt, operator.ge)[compare]
    for _ in range(10):
        image, rng = Image(fresh()), fresh()
        mask, value = (int(x) for x in rng.integers(0, 1 << 32, 2))
        value &= mask
        at = 0x1000 + 4 * int(rng.integers(16))
        program = image.program([encode(kind=Kind.WAIT, local=at, immediate=value, local_key=mask,
                                        compare=compare)],
                                *[[encode(kind=Kind.COPY, length=0x4000, local=0x4000,
                                          remote=0x8000)]] * busy)
        image.copy_to(bench.memory)
        other = ~mask & int(rng.integers(1 << 32))      # bits that do not count
        near = [v & mask for v in (value - 1, value, value + 1, value ^ (mask & -mask))]
        bad, good = ([v for v in (*near, 0, mask) if holds(v, value) == so] for so in (False, True))
        if not bad or not good:
            continue
        bench.memory.store(at, (int(rng.choice(bad)) | other).to_bytes(4, "little"))
        bench.memory.requests.clear()
        bench.memory.times.clear()
        await bench.launch(program)
        await bench.settle(300)
        assert not dut.report__valid.value
        times = [time for (address, _, _), time in zip(
            bench.memory.requests, bench.memory.times, strict=True) if address == 0x1000]
        gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
        least, most = (1, 64) if busy else (16, 16)     # the port is shared
        assert 10 <= len(gaps) <= 20 and gaps[0] <= 64, gaps
        assert all(least <= gap <= most for gap in gaps[1:]), gaps
        bench.memory.store(at, (int(rng.choice(good)) | other).to_bytes(4, "little"))
        assert (await bench.report()).code == Code.OK


@cocotb.test()
async def sixteen_entries_of_a_subgraph_are_under_way(dut):
    bench = Bench(dut)
    await bench.start()
    image = Image(fresh())
    program = image.program([receive(0x1000 + LINE * n) for n in range(18)])
    image.copy_to(bench.memory)
    bench.silent = True
    await bench.launch(program)
    await bench.settle(800)
    assert len(bench.doorbells) == 16
    bench.complete(1 << 12 | 9)         # not the oldest
    await bench.settle(200)
    assert len(bench.doorbells) == 17
    for n in [*range(9), *range(10, 17)]:
        bench.complete(1 << 12 | n)
    await bench.settle()
    bench.complete(1 << 12 | 17)
    assert (await bench.report()).code == Code.OK


@cocotb.test()
async def an_entry_waits_for_that_256_before_it(dut):
    """Else their completions could not be told from each other."""
    bench = Bench(dut, latency=(1, 4), rate=1.0)
    await bench.start()
    image, word = Image(fresh()), 0x1000
    program = image.program([receive(0x2000), *(encode(kind=Kind.SET, local=word, immediate=n)
                                                for n in range(1, 300))])
    image.copy_to(bench.memory)
    bench.silent = True
    await bench.launch(program)
    await bench.settle(8000)
    assert int.from_bytes(bench.memory.load(word, 4), "little") == 255
    bench.complete(1 << 12)
    assert (await bench.report()).code == Code.OK
    assert int.from_bytes(bench.memory.load(word, 4), "little") == 299


@cocotb.test()
async def barriers_are_joined_one_at_a_time(dut):
    """The bench checks that no other one is reached before the first has opened."""
    bench = Bench(dut)
    await bench.start()
    bench.barriers = (100, 200)
    image = Image(fresh())
    arrive = encode(kind=Kind.ARRIVE)
    program = image.program([arrive, copy(0, 0x1000, sync=1), arrive], [arrive], [arrive])
    image.copy_to(bench.memory)
    await bench.launch(program)
    await bench.settle(60)
    assert bench.arrivals == 1 and bench.memory.lines[0x1000 // LINE] != bench.memory.lines[0]
    assert (await bench.report()).code == Code.OK
    assert bench.arrivals == 4 and bench.memory.lines[0x1000 // LINE] == bench.memory.lines[0]


@cocotb.test()
async def completions_are_taken_while_nothing_else_moves(dut):
    """The memory takes no request and gives no answer; the port takes all that comes."""
    bench = Bench(dut, latency=(1, 9))
    await bench.start()
    image = Image(fresh())
    program = image.program([receive(0x1000 + LINE * n) for n in range(8)],
                            [encode(kind=Kind.COPY, length=0x4000, remote=0x8000, local=0x2000)])
    image.copy_to(bench.memory)
    bench.silent = True
    await bench.launch(program)
    while len(bench.doorbells) < 8:
        await RisingEdge(dut.clk)
    bench.memory.frozen = True
    await bench.settle(40)
    assert dut.request__valid.value and not dut.request__ready.value
    count = len(bench.answers)
    for n in range(8):
        bench.complete(1 << 12 | n)
        bench.complete(5 << 12 | n)     # of another program: dropped
    await bench.settle(200)
    assert len(bench.answers) == count + 16
    bench.memory.frozen = False
    assert (await bench.report()).code == Code.OK


@cocotb.test()
async def it_rests_while_it_waits(dut):
    """Nothing but a completion can come: no register takes an edge. So without a program."""
    bench = Bench(dut)
    await bench.start()
    image = Image(fresh())
    program = image.program([receive(0x1000)])
    image.copy_to(bench.memory)
    bench.silent = True
    for epoch in range(1, 4):
        await bench.settle()
        for _ in range(20):
            await RisingEdge(dut.clk)
            assert not dut.awake.value and dut.idle.value
        await bench.launch(program)
        await bench.settle()
        for _ in range(20):
            await RisingEdge(dut.clk)
            assert not dut.awake.value and not dut.idle.value
        bench.complete(epoch << 12)
        assert (await bench.report()).code == Code.OK
        await ClockCycles(dut.clk, 10)


@cocotb.test()
async def states_show_what_it_does(dut):
    rng = fresh()
    bench, shown = Bench(dut, rate=0.6), np.zeros(6, int)
    await bench.start()

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            value = int(dut.states.value)
            shown[value & 3] += 1
            shown[4:] += value >> 2 & 1, value >> 3

    cocotb.start_soon(watch())
    image = Image(rng)
    await agree(bench, image, image.program(
        [encode(kind=Kind.REDUCE, length=640, local=0x100, remote=0x1000, third=0x2003),
         write(0, 0x3000), write(0x40, 0x3040)]))
    await bench.settle(10)
    moved = sum(tag < 0xC0 for _, tag, _ in bench.memory.requests)
    assert moved == 10 + 11 + 10 and shown[1] == moved and shown[2] > 0 and shown[3] > 0
    assert shown[4] == shown[5] == 2


@sim.on_simulators
def test_engine(tmp_path, simulator):
    sim.run(MessageEngine(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
