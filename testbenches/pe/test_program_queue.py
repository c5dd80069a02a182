"""Tests of rtl/pe/program_queue.py in the command processor: programs that follow each other."""
import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from rtl.pe.command_processor import CommandProcessor
from testbenches import sim
from testbenches.pe.test_command_processor import (
    ABORTED,
    BAD_FIELD,
    END,
    LINES,
    OK,
    PROGRAM,
    command,
    error,
    launch,
    load,
    report,
    set_unit,
    start,
)
from testbenches.twins import Twins


async def pulse(dut, pin):
    pin.value = 1
    await RisingEdge(dut.clk)
    pin.value = 0


SECOND = 0x9000     # place of another program


@cocotb.test()
@cocotb.parametrize(early=[0, 1])
async def next_program_starts_2_cycles_after_the_report(dut, early):
    """Its lines are fetched while the first one runs; nothing of it is executed before."""
    rng, memory, units, tasks = await start(dut, 14, rate=1.1)
    memory.latency, memory.rate = (5, 5), 1.1
    units.closed, dut.go.value = {5}, 0
    load(memory, [command(0x30, tag=1), command(END)])
    load(memory, [command(0x11, tag=2), *[command(0x10, tag=n) for n in range(20)], command(END)],
         SECOND)
    await launch(dut)
    await pulse(dut, dut.go)
    await ClockCycles(dut.clk, 30)
    await launch(dut, address=SECOND)
    await ClockCycles(dut.clk, 40)
    assert sum(a >= SECOND for a, _, _ in memory.requests) == 8 and not dut.launch__ready.value
    if early:
        await pulse(dut, dut.go)
        await ClockCycles(dut.clk, 40)
    assert not units.taken[1] and units.launches == 1
    units.closed = set()
    dut.report__ready.value = 1
    while not dut.report__valid.value:
        await RisingEdge(dut.clk)
    if not early:
        await pulse(dut, dut.go)
    since = units.now
    while not units.taken[1]:
        await RisingEdge(dut.clk)
    assert units.log[-1][0] - since <= 4, "idle, decoded, handed out"
    dut.report__ready.value = 0
    assert await report(dut) == (OK, 0, 0, 0)
    assert len(units.taken[0]) == 20 and units.launches == 2
    for task in tasks:
        task.cancel()


@cocotb.test()
async def program_without_go_waits_and_may_be_forgotten(dut):
    """Dropped while its lines are under way; the next one is another, and whole."""
    rng, memory, units, tasks = await start(dut, 15)
    memory.latency = (10, 60)
    dut.go.value = 0
    load(memory, [command(0x30, tag=1)] * 12)
    load(memory, [*[command(0x11, tag=n) for n in range(12)], command(END, tag=9)], SECOND)
    for number, wait in enumerate((0, 1, 2, 5, 20, 70, 200), start=1):
        await launch(dut)
        await ClockCycles(dut.clk, wait)
        assert not units.taken[5] and not dut.report__valid.value
        assert wait < 200 or dut.idle.value
        await pulse(dut, dut.drop)
        asked = len(memory.requests)
        await launch(dut, address=SECOND)
        await pulse(dut, dut.go)
        assert await report(dut) == (OK, 9, 0, 0)
        assert sum(a < SECOND for a, _, _ in memory.requests[asked:]) <= 1
        assert units.taken[1][-12:] == [command(0x11, tag=n) for n in range(12)]
        assert len(units.taken[1]) == 12 * number and not units.taken[5]
    for task in tasks:
        task.cancel()


@cocotb.test()
async def abort_ends_what_runs_or_may_start_and_not_what_waits(dut):
    rng, memory, units, tasks = await start(dut, 16)
    units.closed, dut.go.value = {5}, 0
    load(memory, [command(0x30, tag=1)] * 8)
    load(memory, [command(0x11, tag=2), command(END, tag=3)], SECOND)
    await launch(dut)
    await pulse(dut, dut.go)
    await ClockCycles(dut.clk, 60)
    await launch(dut, address=SECOND)
    await ClockCycles(dut.clk, 2)
    dut.outstanding.value = 1
    await pulse(dut, dut.abort)
    dut.outstanding.value = 0
    assert (await report(dut))[0] == ABORTED
    await ClockCycles(dut.clk, 100)
    assert not units.taken[1] and not dut.report__valid.value
    await pulse(dut, dut.go)
    assert await report(dut) == (OK, 3, 0, 0)
    await launch(dut)
    await pulse(dut, dut.go)
    await ClockCycles(dut.clk, 60)
    await launch(dut, address=SECOND)
    await ClockCycles(dut.clk, 2)
    dut.outstanding.value = 1           # the first one ends, but the second cannot start yet
    set_unit(dut, 5, error=error(BAD_FIELD, 6, 1))
    await ClockCycles(dut.clk, 5)
    memory.now += 1000
    dut.outstanding.value = 0
    while not dut.report__valid.value:
        await RisingEdge(dut.clk)
    dut.outstanding.value = 1
    assert (await report(dut))[0] == BAD_FIELD
    await pulse(dut, dut.go)
    await ClockCycles(dut.clk, 20)
    await pulse(dut, dut.abort)
    await ClockCycles(dut.clk, 20)
    assert not dut.report__valid.value
    dut.outstanding.value = 0
    while not units.port(0, "clear").value:
        await RisingEdge(dut.clk)
    dut.outstanding.value = 1
    await launch(dut, address=SECOND)   # the abort was for one program, not for the one behind it
    await pulse(dut, dut.go)
    dut.outstanding.value = 0
    assert await report(dut) == (ABORTED, 2, 0, 0)      # the command that it stood at
    assert len(units.taken[1]) == 1
    assert await report(dut) == (OK, 3, 0, 0)
    for task in tasks:
        task.cancel()


@cocotb.test()
@cocotb.parametrize(seed=[17, 18])
async def programs_follow_each_other_whole(dut, seed):
    """Programs of any length, launched while others run, let go or dropped at any time."""
    rng, memory, units, tasks = await start(dut, seed)
    dut.go.value = 0
    waiting, free, expected, tags = [], list(range(4)), [], []

    async def feed():
        for number in range(60):
            while not free:
                await RisingEdge(dut.clk)
            place = free.pop(0)
            body = [command(0x30, number, tag=n) for n in range(rng.randint(0, 20))]
            load(memory, [*body, command(END, tag=number)], PROGRAM + 0x1000 * place)
            await launch(dut, address=PROGRAM + 0x1000 * place)
            await ClockCycles(dut.clk, rng.choice([1, 1, 2, 10, 60]))
            if rng.random() < 0.25:
                await pulse(dut, dut.drop)
                free.append(place)
            else:
                waiting.append((number, place))
                expected.extend(body)
                await pulse(dut, dut.go)
        tags.append(None)

    cocotb.start_soon(feed())
    while not tags or waiting:
        await RisingEdge(dut.clk)
        if dut.report__valid.value:
            number, place = waiting.pop(0)
            assert await report(dut, delay=rng.choice([0, 1, 9])) == (OK, number, 0, 0)
            free.append(place)
    assert units.taken[5] == expected
    for task in tasks:
        task.cancel()


@sim.on_simulators
def test_program_queue(tmp_path, simulator):
    sim.run(Twins(lambda: CommandProcessor(lines=LINES)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
