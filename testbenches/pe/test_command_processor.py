"""Tests of rtl/pe/command_processor.py: the cocotb tests, then the pytest function."""
import random

import cocotb
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge

from rtl.pe.command_processor import CommandProcessor
from testbenches import sim
from testbenches.pe.memory_model import (
    ERROR_ADDRESS,
    ERROR_LINK_DOWN,
    ERROR_POISON,
    MemoryModel,
)
from testbenches.twins import Twins

LINES = 64
PROGRAM = 0x4000
NOP, CB_CONFIG, FENCE, BARRIER, END = 0x00, 0x01, 0x02, 0x03, 0x0F
#: opcode to the units that take it, as positions in the array of ports (unit number - 1)
ROUTES = {0x10: (0,), 0x11: (1,), 0x12: (0,), 0x20: (2,), 0x21: (3, 4), 0x22: (3, 7), 0x23: (3, 4),
          0x30: (5,), 0x40: (6,)}
COUNT = 8       # units
(OK, BAD_COMMAND, BAD_FIELD, CB_TOO_SMALL, BAD_ADDRESS, WATCHDOG, POISON,
 ABORTED, LINK_DOWN) = range(9)


def command(opcode, *words, tag=0):
    words = [opcode | tag << 16, *words]
    return sum(w << 32 * i for i, w in enumerate(words))


class Units:
    """Eight units: each takes commands with gaps and is idle some time after its last one."""

    def __init__(self, dut, rng, *, pace=6, rate=0.5):
        self.dut, self.rng, self.pace, self.rate = dut, rng, pace, rate
        self.taken = [[] for _ in range(COUNT)]
        self.work = [0] * COUNT         # cycles until a unit is idle
        self.closed = set()         # units that take nothing
        self.log = []               # (cycle, unit, command)
        self.configured, self.clears, self.launches = [], 0, 0
        self.now = 0

    def port(self, unit, name):
        return getattr(self.dut, f"units__{unit}__{name}")

    async def run(self):
        """Runs until cancelled."""
        dut = self.dut
        while True:
            await RisingEdge(dut.clk)
            self.now += 1
            configure = int(dut.configure.value)
            if configure & 1:
                assert not any(self.work), "configured while a unit works"
                self.configured.append((configure >> 1 & 31, configure >> 6 & 63, configure >> 12))
            self.launches += int(self.port(0, "launch").value)
            self.clears += int(self.port(0, "clear").value)
            for unit in range(COUNT):
                if self.port(unit, "command__valid").value and self.port(
                        unit, "command__ready").value:
                    value = int(self.port(unit, "command__payload").value)
                    self.taken[unit].append(value)
                    self.log.append((self.now, unit, value))
                    self.work[unit] = self.rng.randint(2, self.pace)
                if self.port(unit, "clear").value:
                    self.work[unit] = 0
                    self.port(unit, "error").value = 0
                elif self.work[unit] and unit not in self.closed:
                    self.work[unit] -= 1
                self.port(unit, "idle").value = int(not self.work[unit])
                self.port(unit, "command__ready").value = int(
                    unit not in self.closed and self.rng.random() < self.rate)


async def start(dut, seed, **kwargs):
    rng = random.Random(seed)
    names = ["command__ready", "waiting", "waiting_buffer", "waiting_tag", "error", "counters",
             "state"]
    dut.go.value = 1        # whatever waits may start
    await sim.reset(dut, dut.drop, dut.launch__valid, dut.launch__payload, dut.report__ready,
                    dut.proceed, dut.abort, dut.request__ready, dut.response__valid,
                    dut.response__payload, dut.outstanding,
                    *[getattr(dut, f"units__{u}__{n}") for u in range(COUNT) for n in names])
    memory, units = MemoryModel(dut, rng), Units(dut, rng, **kwargs)
    return rng, memory, units, [cocotb.start_soon(memory.run()), cocotb.start_soon(units.run())]


def load(memory, commands, address=PROGRAM):
    for i, value in enumerate(commands):
        memory.lines[address // 64 + i] = value


async def launch(dut, *, watchdog=5000, address=PROGRAM):
    dut.launch__valid.value, dut.launch__payload.value = 1, address | watchdog << 48
    await RisingEdge(dut.clk)
    while not dut.launch__ready.value:
        await RisingEdge(dut.clk)
    dut.launch__valid.value = 0


async def report(dut, *, patience=3000, delay=3, address=0):
    """(code, tag, unit, field) of the next report, which names ``address``."""
    for _ in range(patience):
        await RisingEdge(dut.clk)
        if dut.report__valid.value:
            break
    else:
        raise AssertionError("no report")
    first = int(dut.report__payload.value)
    await ClockCycles(dut.clk, delay)
    assert dut.report__valid.value and int(dut.report__payload.value) == first, "report moved"
    dut.report__ready.value = 1
    await RisingEdge(dut.clk)
    dut.report__ready.value = 0
    assert first >> 36 == address
    return first & 0xFF, first >> 8 & 0xFFFF, first >> 24 & 15, first >> 28 & 0xFF


def set_unit(dut, unit, **values):
    for name, value in values.items():
        getattr(dut, f"units__{unit}__{name}").value = value


def error(code, field, tag, address=0):
    return 1 | code << 1 | field << 9 | tag << 17 | address << 33


def counters(dut):
    return [int(dut.counters.value) >> 32 * i & 0xFFFFFFFF for i in range(16)]


@cocotb.test()
@cocotb.parametrize(seed=[1, 2, 3], latency=[(1, 12), (20, 60)])
async def commands_reach_their_units_in_order(dut, seed, latency):
    """A random program over random memory latency; fences and configurations see idle units."""
    rng, memory, units, tasks = await start(dut, seed, rate=0.5 if seed == 1 else 1.1)
    memory.latency = latency
    commands, expected, configured = [], [[] for _ in range(COUNT)], []
    for tag in range(80):
        opcode = rng.choice([*ROUTES, *ROUTES, NOP, FENCE, CB_CONFIG])
        if opcode == CB_CONFIG:
            base = rng.randrange(LINES)
            fields = rng.randrange(32), base, rng.randint(1, LINES - base)
            configured.append(fields)
            commands.append(command(opcode, *fields, tag=tag))
        else:
            commands.append(command(opcode, rng.getrandbits(480), tag=tag))
            for unit in ROUTES.get(opcode, ()):
                expected[unit].append(commands[-1])
    commands.append(command(END, tag=777))
    load(memory, commands)
    assert dut.idle.value
    await launch(dut)
    assert await report(dut) == (OK, 777, 0, 0)
    assert units.taken == expected and units.configured == configured
    assert units.launches == 1 and units.clears == 0
    busy, starved, blocked, count, cycles, last = counters(dut)[:6]
    assert count == len(commands) and last == OK
    assert busy + starved + blocked == cycles
    await ClockCycles(dut.clk, 100)
    assert dut.idle.value and counters(dut)[4] == cycles
    reads = [a for a, _, w in memory.requests]
    assert reads[:81] == [PROGRAM + 64 * i for i in range(81)] and len(reads) <= 89
    fences = [i for i, c in enumerate(commands) if c & 0xFF == FENCE]
    for i in fences:
        before = {c for c in commands[:i]}
        late = [n for n, _, c in units.log if c in before]
        after = [n for n, _, c in units.log if c not in before]
        assert not late or not after or max(late) < min(after)
    for task in tasks:
        task.cancel()


@cocotb.test()
async def program_streams_at_one_command_in_two_cycles(dut):
    """Memory that answers every cycle hides its latency behind eight lines fetched ahead."""
    rng, memory, units, tasks = await start(dut, 4, rate=1.1)
    memory.latency, memory.rate = (5, 5), 1.1
    load(memory, [*[command(0x30, tag=i) for i in range(64)], command(END)])
    await launch(dut)
    assert (await report(dut))[0] == OK
    first, last = units.log[0][0], units.log[-1][0]
    assert last - first <= 2 * 63 + 4
    for task in tasks:
        task.cancel()


@cocotb.test()
async def fetch_stops_at_the_end(dut):
    """Once ``END`` has come back nothing more is read, however long the program takes."""
    rng, memory, units, tasks = await start(dut, 13)
    memory.latency, memory.rate = (1, 1), 1.1
    units.closed = {5}
    load(memory, [command(0x30), command(END)])
    await launch(dut)
    await ClockCycles(dut.clk, 100)
    assert 2 <= len(memory.requests) <= 6
    units.closed = set()
    assert (await report(dut))[0] == OK
    for task in tasks:
        task.cancel()


@cocotb.test()
async def barrier_waits_for_the_units_and_for_proceed(dut):
    rng, memory, units, tasks = await start(dut, 5, pace=60)
    load(memory, [command(0x30), command(BARRIER), command(0x10), command(BARRIER), command(END)])
    await launch(dut, watchdog=100)
    for unit in (5, 0):
        arrived = 0
        for _ in range(400):
            await RisingEdge(dut.clk)
            arrived += int(dut.arrive.value)
            assert not (dut.arrive.value and any(units.work)), "arrived with a busy unit"
        assert arrived == 1, "one cycle"
        assert len(units.taken[unit]) == 1 and not dut.report__valid.value
        dut.proceed.value = 1
        await RisingEdge(dut.clk)
        dut.proceed.value = 0
    assert (await report(dut))[0] == OK
    for task in tasks:
        task.cancel()


@cocotb.test()
@cocotb.parametrize(case=[
    ("opcode", command(0x55, tag=9), (BAD_COMMAND, 9, 0, 0)),
    ("cb", command(CB_CONFIG, 32, 0, 1, tag=8), (BAD_FIELD, 8, 0, 1)),
    ("base", command(CB_CONFIG, 3, LINES, 1, tag=8), (BAD_FIELD, 8, 0, 2)),
    ("empty", command(CB_CONFIG, 3, 0, 0, tag=8), (BAD_FIELD, 8, 0, 3)),
    ("size", command(CB_CONFIG, 3, 60, 5, tag=8), (BAD_FIELD, 8, 0, 3)),
    ("huge", command(CB_CONFIG, 3, 60, 0xFFFFFFFF, tag=8), (BAD_FIELD, 8, 0, 3)),
])
async def bad_command_ends_the_program(dut, case):
    rng, memory, units, tasks = await start(dut, 6)
    load(memory, [command(0x30), command(CB_CONFIG, 31, 60, 4), case[1], command(0x20),
                  command(END)])
    await launch(dut)
    assert await report(dut) == case[2]
    assert units.configured == [(31, 60, 4)] and not units.taken[2] and units.clears
    assert counters(dut)[5] == case[2][0] | case[2][2] << 8 | case[2][3] << 16
    for task in tasks:
        task.cancel()


@cocotb.test()
@cocotb.parametrize(kind=[(ERROR_ADDRESS, BAD_ADDRESS), (ERROR_POISON, POISON),
                          (ERROR_LINK_DOWN, LINK_DOWN)])
async def fetch_error_counts_only_when_its_command_is_reached(dut, kind):
    """An error past ``END`` is nobody's business; one before it ends the program."""
    rng, memory, units, tasks = await start(dut, 7)
    load(memory, [command(0x30, tag=4), command(END, tag=5)])
    memory.errors[PROGRAM // 64 + 2] = kind[0]
    await launch(dut)
    assert await report(dut) == (OK, 5, 0, 0)
    memory.errors[PROGRAM // 64 + 1] = kind[0]
    await launch(dut)
    assert await report(dut, address=PROGRAM + 64) == (kind[1], 0, 0, 0)
    assert len(units.taken[5]) == 2
    for task in tasks:
        task.cancel()


@cocotb.test()
async def first_error_of_a_unit_clears_all_and_waits_for_transfers(dut):
    """Reported when nothing is outstanding; the next program runs."""
    rng, memory, units, tasks = await start(dut, 8)
    load(memory, [*[command(0x30, tag=i) for i in range(40)], command(END)])
    await launch(dut)
    dut.outstanding.value = 1
    await ClockCycles(dut.clk, 40)
    set_unit(dut, 6, error=error(POISON, 1, 1))
    set_unit(dut, 2, error=error(BAD_FIELD, 14, 0x1234))
    await ClockCycles(dut.clk, 300)
    assert not dut.report__valid.value and dut.forget.value and not dut.idle.value
    taken = len(units.taken[5])
    set_unit(dut, 2, error=0)
    set_unit(dut, 6, error=0)
    dut.outstanding.value = 0
    assert await report(dut) == (BAD_FIELD, 0x1234, 3, 14)
    assert taken == len(units.taken[5]) < 40
    load(memory, [command(END, tag=3)])
    await launch(dut)
    assert await report(dut) == (OK, 3, 0, 0)
    for task in tasks:
        task.cancel()


@cocotb.test()
async def transfer_that_never_ends_delays_the_report_by_the_watchdog(dut):
    """The report comes; the next program does not start before the transfer has ended.

    If that takes too long, it is reported as well, and forgotten.
    """
    rng, memory, units, tasks = await start(dut, 9)
    load(memory, [command(0x30)] * 40)
    await launch(dut, watchdog=200)
    dut.outstanding.value = 1
    await ClockCycles(dut.clk, 20)
    set_unit(dut, 0, error=error(BAD_ADDRESS, 4, 1, 0xABCDEF012340))
    assert await report(dut, patience=400, address=0xABCDEF012340) == (BAD_ADDRESS, 1, 1, 4)
    taken = len(units.taken[5])
    await launch(dut)
    await ClockCycles(dut.clk, 100)
    assert not dut.report__valid.value and not dut.idle.value
    assert await report(dut, patience=400) == (WATCHDOG, 0, 0, 255)
    await ClockCycles(dut.clk, 300)
    assert not dut.report__valid.value and taken == len(units.taken[5])
    dut.outstanding.value = 0
    load(memory, [command(END, tag=2)])
    await launch(dut)
    assert await report(dut) == (OK, 2, 0, 0)
    for task in tasks:
        task.cancel()


@cocotb.test()
async def abort_ends_a_program_anywhere(dut):
    rng, memory, units, tasks = await start(dut, 10)
    load(memory, [command(0x30, tag=6), command(BARRIER, tag=7), command(END)])
    dut.abort.value = 1
    await RisingEdge(dut.clk)
    dut.abort.value = 0
    for delay in (0, 3, 9, 15, 20, 30, 100):
        await launch(dut)
        await ClockCycles(dut.clk, delay)
        dut.abort.value = 1
        await RisingEdge(dut.clk)
        dut.abort.value = 0
        code, tag, unit, field = await report(dut)
        assert (code, unit, field) == (ABORTED, 0, 0) and tag in (0, 6, 7)
    assert tag == 7
    for task in tasks:
        task.cancel()


@cocotb.test()
async def watchdog_names_who_waits_for_what(dut):
    """For a buffer; for nothing known; for the program itself. Busy units keep it quiet."""
    rng, memory, units, tasks = await start(dut, 11)
    load(memory, [command(0x11, tag=5), command(END)])
    units.closed = {1}
    for unit_state, waiting, expected in (
            (2, 1, (WATCHDOG, 0x77, 6, 21)), (2, 0, (WATCHDOG, 0, 2, 255))):
        units.closed = set()
        await launch(dut, watchdog=150)
        while not units.work[1]:
            await RisingEdge(dut.clk)
        units.closed = {1}          # its work stands still
        set_unit(dut, 5, waiting=waiting, waiting_buffer=21, waiting_tag=0x77)
        set_unit(dut, 1, state=1)
        await ClockCycles(dut.clk, 400)
        assert not dut.report__valid.value, "a busy unit is progress"
        set_unit(dut, 1, state=unit_state)
        await ClockCycles(dut.clk, 140)
        assert not dut.report__valid.value
        assert await report(dut, patience=60) == expected
        set_unit(dut, 5, waiting=0)
    units.closed = set()
    await ClockCycles(dut.clk, 40)
    memory.frozen = True
    await launch(dut, watchdog=150)
    await ClockCycles(dut.clk, 160)
    assert await report(dut, patience=300) == (WATCHDOG, 0, 0, 255)
    memory.frozen = False
    for task in tasks:
        task.cancel()


@cocotb.test()
async def fused_command_is_given_to_both_units_once(dut):
    """DOT: the reduction engine takes it long before the dot-product engine does."""
    rng, memory, units, tasks = await start(dut, 12)
    units.closed = {3}
    load(memory, [command(0x21, tag=1), command(0x21, tag=2), command(END)])
    await launch(dut)
    await ClockCycles(dut.clk, 200)
    assert len(units.taken[4]) == 1 and not units.taken[3]
    units.closed = set()
    assert (await report(dut))[0] == OK
    assert units.taken[3] == units.taken[4] == [command(0x21, tag=1), command(0x21, tag=2)]
    await ReadOnly()
    await RisingEdge(dut.clk)
    for task in tasks:
        task.cancel()


@sim.on_simulators
def test_command_processor(tmp_path, simulator):
    sim.run(Twins(lambda: CommandProcessor(lines=LINES)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
