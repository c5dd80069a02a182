"""Tests of rtl/noc/combine.py: the cocotb tests, then the pytest functions."""
import random
from collections import Counter, deque

import cocotb
from cocotb.triggers import RisingEdge

from rtl.noc.combine import Combiner
from rtl.noc.packets import MeshLayout, request_packet_layout
from testbenches import sim
from testbenches.noc.traffic import Sink, Source
from testbenches.twins import Twins

ROWS, COLUMNS = 2, 3
LAYOUT = MeshLayout.standard(ROWS, COLUMNS)
PACKET = request_packet_layout(LAYOUT)
NODES = LAYOUT.group("pe")
PATIENCE_LOG2 = 10
ALL_ROWS, ALL_COLUMNS = (1 << ROWS) - 1, (1 << COLUMNS) - 1


def group_tag(address):
    return (address >> 6 ^ address >> 12 ^ address >> 18) & 63


def groups():
    """Masks of rows and columns of every group that a PE may name."""
    yield ALL_ROWS, ALL_COLUMNS
    for row in range(ROWS):
        yield 1 << row, ALL_COLUMNS
    for column in range(COLUMNS):
        yield ALL_ROWS, 1 << column


def pes_of(rows, columns):
    return [pe for pe in range(ROWS * COLUMNS)
            if rows >> pe // COLUMNS & 1 and columns >> pe % COLUMNS & 1]


class Bench:
    """PEs that ask for lines, each in its own order and time, and what comes out."""

    def __init__(self, dut, rate):
        self.dut, self.rate = dut, rate
        self.i, self.o = Source(dut, "i", rate=rate), Sink(dut, "o", rate=rate)
        self.waiting = [{} for _ in NODES]      # by PE and tag: the address
        self.programs = [deque() for _ in NODES]    # (address, rows, columns) to ask for
        self.plain, self.out, self.saved = deque(), [], 0
        self.answers = Counter()

    def ask(self, pe):
        """The PE's next read goes to the combiner, if its tag is free."""
        address, rows, columns = self.programs[pe][0]
        tag = group_tag(address)
        if tag in self.waiting[pe]:
            return
        self.programs[pe].popleft()
        self.waiting[pe][tag] = address
        self.i.queue.append(PACKET.const({
            "target": NODES[0].const(), "source": NODES[pe].const(),
            "members": {"multicast": 1, "rows": rows, "columns": columns},
            "body": {"address": address, "tag": tag, "data": pe}}).as_value().value)

    def other(self):
        """A request of nobody else's concern."""
        value = PACKET.const({
            "target": NODES[1].const(), "source": random.choice(NODES).const(),
            "members": {"rows": random.getrandbits(ROWS),
                        "columns": random.getrandbits(COLUMNS)},
            "body": {"address": random.getrandbits(42) << 6, "tag": random.getrandbits(8),
                     "write": random.getrandbits(1), "data": random.getrandbits(512)},
        }).as_value().value
        self.plain.append(value)
        self.i.queue.append(value)

    async def step(self):
        await RisingEdge(self.dut.clk)
        self.saved += int(self.dut.combined.value)
        if (value := self.o.edge()) is not None:
            packet = PACKET.from_bits(value)
            if not packet.members.multicast:
                assert value == self.plain.popleft()
            else:
                self.out.append(packet)
                for pe in pes_of(packet.members.rows, packet.members.columns):
                    address = self.waiting[pe].pop(packet.body.tag)
                    assert address == packet.body.address
                    self.answers[pe] += 1
        self.i.edge()

    async def until_answered(self, limit=20000):
        for _ in range(limit):
            if not (any(self.programs) or any(self.waiting) or self.plain or self.i.queue):
                return
            pe = random.randrange(len(NODES))
            if self.programs[pe] and len(self.i.queue) < 3:
                self.ask(pe)
            if random.random() < 0.1 and any(self.programs):
                self.other()
            await self.step()
        raise AssertionError(f"never answered: {self.waiting} {[len(p) for p in self.programs]}")


async def start(dut, rate=1.0):
    bench = Bench(dut, rate)
    await sim.reset(dut)
    return bench


def lines(count):
    return [random.choice([0, 1]) << 40 | random.getrandbits(20) << 6 for _ in range(count)]


@cocotb.test()
@cocotb.parametrize(rate=[0.4, 1.0])
async def one_request_stands_for_all_of_a_group(dut, rate):
    """Other requests pass unchanged and in order."""
    bench = await start(dut, rate)
    for rows, columns in groups():
        members, work = pes_of(rows, columns), lines(40)
        bench.out.clear()
        bench.saved, bench.answers = 0, Counter()
        for pe in members:
            bench.programs[pe].extend((at, rows, columns) for at in work)
        await bench.until_answered()
        assert sorted(packet.body.address for packet in bench.out) == sorted(work)
        assert len(bench.out) == len(work)
        assert bench.saved == len(work) * (len(members) - 1)
        assert bench.answers == Counter(dict.fromkeys(members, len(work)))


@cocotb.test()
async def groups_side_by_side_do_not_disturb_each_other(dut):
    bench = await start(dut, 0.7)
    for column in range(COLUMNS):
        work = lines(30)
        for pe in pes_of(ALL_ROWS, 1 << column):
            bench.programs[pe].extend((at, ALL_ROWS, 1 << column) for at in work)
    await bench.until_answered()
    assert len(bench.out) == 90


@cocotb.test()
async def those_that_wait_in_vain_are_answered_each_for_itself(dut):
    """Some members never come, then one comes late; other lines stand in the place of one."""
    bench = await start(dut)
    first = lines(12)
    for pe in (0, 2, 3):
        bench.programs[pe].extend((at, ALL_ROWS, ALL_COLUMNS) for at in first)
    await bench.until_answered(12 * 4 << PATIENCE_LOG2)
    assert bench.answers == Counter({0: 12, 2: 12, 3: 12}) and len(bench.out) == 36
    bench.programs[1].extend((at, ALL_ROWS, ALL_COLUMNS) for at in first[:2])
    await bench.until_answered(4 << PATIENCE_LOG2)
    same_tag = [at << 6 for at in range(1 << 14) if group_tag(at << 6) == 5][:20]
    for pe in range(6):
        work = random.sample(same_tag, 20)
        bench.programs[pe].extend((at, ALL_ROWS, ALL_COLUMNS) for at in work)
    bench.answers.clear()
    await bench.until_answered(20 * 4 << PATIENCE_LOG2)
    assert bench.answers == Counter(dict.fromkeys(range(6), 20))
    bench.saved = 0
    work = lines(20)
    for pe in range(6):
        bench.programs[pe].extend((at, ALL_ROWS, ALL_COLUMNS) for at in work)
    await bench.until_answered()
    assert bench.saved == 100       # nothing is left of what was given up


@sim.on_simulators
def test_combine(tmp_path, simulator):
    sim.run(Twins(lambda: Combiner(LAYOUT, patience_log2=PATIENCE_LOG2)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
