"""Tests of rtl/memory/slice/: change of ways, flush, hints, throughput, misses under way."""
import random

import cocotb

from cosim.golden.cache import WHOLE, Hint
from testbenches import sim
from testbenches.memory.slice_bench import (
    LINES,
    MSHRS,
    SETS,
    WAYS,
    Bench,
    cached_lines,
    make,
    random_requests,
)
from testbenches.twins import Twins


@cocotb.test()
@cocotb.parametrize(slow=[0, 30])
async def ways_change_under_traffic(dut, slow):
    """Requests wait meanwhile; not a byte of HBM is lost, nor of scratch that stays."""
    bench = Bench(dut, send=0.8, take=0.8, latency=(0, slow))
    await bench.start(ways=1)
    for _ in range(12):
        random_requests(bench, 40, lines=cached_lines(sets=4), scratch=0.3,
                        hints=(Hint.NONE, Hint.NO_ALLOCATE, Hint.PREFETCH))
        for _ in range(random.randrange(30)):
            await bench.cycle()
        ways = random.randrange(WAYS + 1)
        accesses, changed = bench.count("ACCESSES"), ways != bench.ways
        taken = len(bench.answers) + len(bench.pending)
        bench.change(ways)
        dut.cache_ways.value = ways
        await bench.cycle()
        assert bool(dut.busy.value) >= changed
        while dut.busy.value:
            await bench.cycle()
        assert not changed or len(bench.answers) + len(bench.pending) <= taken + 1
        assert bench.count("ACCESSES") >= accesses
    await bench.until(bench.idle)
    await bench.configure(0)
    bench.check_memory()
    assert bench.count("WRITE_BACKS")


@cocotb.test()
async def scratch_is_what_the_ways_leave(dut):
    """Lines past the scratch ways are refused; those within keep their contents."""
    bench = Bench(dut)
    await bench.start(ways=0)
    for line in range(LINES):
        bench.ask(line, cached=0, write=1)
    await bench.until(bench.idle)
    for ways in (1, 3, 4, 7, 2, 0):     # more ways than there are count as all
        await bench.configure(min(ways, WAYS))
        dut.cache_ways.value = ways
        for line in range(LINES + 1):
            bench.ask(line, cached=0)
            if line >= (WAYS - min(ways, WAYS)) * SETS:
                bench.ask(line, cached=0, write=1, mask=random.choice([WHOLE, 1]))
        for n in range(8 * bool(ways)):
            bench.ask(n, cached=1, write=1)
        await bench.until(bench.idle)
        assert not dut.busy.value


@cocotb.test()
async def a_flush_writes_everything_back_and_keeps_it(dut):
    bench = Bench(dut, take=0.3, latency=(0, 40))
    await bench.start(ways=WAYS)
    for line in range(LINES):
        bench.ask(line, cached=1, write=line % 3 > 0)
    await bench.until(bench.idle)
    bench.memory.events.clear()
    await bench.flush()
    assert not bench.memory.busy(), "it ends when memory has answered"
    assert sorted(bench.memory.events) == [("write", line) for line in range(LINES) if line % 3]
    bench.check_memory()
    await bench.flush()
    hits = bench.count("HITS")
    for line in range(LINES):
        bench.ask(line, cached=1)
    await bench.until(bench.idle)
    assert bench.count("HITS") == hits + LINES and bench.count("WRITE_BACKS") == LINES - 11


@cocotb.test()
async def ways_that_become_cache_are_empty(dut):
    """Whatever their tags held before, also through a reset."""
    bench = Bench(dut)
    for _ in range(2):
        await bench.start(ways=WAYS)
        for line in range(LINES):
            bench.ask(line, cached=1, write=1)
        await bench.until(bench.idle)
        assert bench.count("HITS") == 0
    await bench.configure(0)
    bench.check_memory()
    await bench.configure(WAYS)
    for line in range(LINES):
        bench.ask(line, cached=1)
    await bench.settle()
    assert bench.count("HITS") == 0 and bench.count("MISSES") == 2 * LINES


async def measured(bench, requests):
    """Cycles from the first request taken to the last answer, of ``(line, fields)``."""
    for line, fields in requests:
        bench.ask(line, **fields)
    await bench.cycle()
    began = bench.cycles
    await bench.until(bench.idle)
    return bench.cycles - began


@cocotb.test()
async def hits_take_a_cycle_each_and_two_to_their_answer(dut):
    bench = Bench(dut)
    await bench.start(ways=WAYS)
    await measured(bench, [(n, {"cached": 1}) for n in range(LINES)])
    bench.answers.clear()
    for mask in (WHOLE, 0xFF):
        cycles = await measured(bench, [(n % LINES, {"cached": 1, "write": n % 3 == 0,
                                                     "mask": mask}) for n in range(96)])
        assert cycles <= 96 + 4
    assert all(cycles == 2 for _, _, cycles in bench.answers)
    assert bench.count("HITS") == 192


@cocotb.test()
@cocotb.parametrize(write=[0, 1], slow=[0, 10])
async def a_stream_of_misses_runs_at_the_documented_rate(dut, write, slow):
    """A line a cycle, or as many as entries allow; lines written and written back the same."""
    bench = Bench(dut, latency=(slow, slow))
    await bench.start(ways=2)
    cycles = await measured(bench, [(n, {"cached": 1, "write": write}) for n in range(200)])
    print(f"{200 / cycles:.2f} lines a cycle")
    latency = slow + 2      # of the bench's memory
    assert cycles <= 200 * (1 if write else max(1, (latency + 3) / MSHRS)) + 20
    await bench.settle()
    assert bench.count("MISSES") == 200
    assert not write or bench.count("WRITE_BACKS") == 200 - 2 * SETS


@cocotb.test()
async def a_read_that_misses_takes_three_cycles_more_than_memory(dut):
    bench = Bench(dut, latency=(7, 7))
    await bench.start(ways=2)
    await measured(bench, [(1, {"cached": 1})])
    assert bench.answers[-1][2] == 12       # of the bench's memory: 7 and 2
    assert bench.count("ACCESSES") == 1


@cocotb.test()
async def hits_go_on_under_misses_and_requests_for_one_line_wait_together(dut):
    bench = Bench(dut, latency=(100, 100))
    await bench.start(ways=WAYS)
    await measured(bench, [(n, {"cached": 1}) for n in range(4)])
    bench.answers.clear()
    reads = bench.memory.events.count(("read", 9))
    order = [(9, {}), (0, {}), (9, {"write": 1, "mask": 0x0F}), (9, {}), (10, {}),
             (9, {"write": 1}), (1, {}), (9, {}), (2, {"write": 1}), (2, {})]
    await measured(bench, [(line, {"cached": 1} | more) for line, more in order])
    quick = [request["line"] for request, _, _ in bench.answers][:4]
    assert sorted(quick) == [0, 1, 2, 2]
    assert bench.memory.events.count(("read", 9)) == reads + 1
    assert all(cycles == 2 for request, _, cycles in bench.answers if request["line"] < 3)


@cocotb.test()
async def a_miss_waits_while_all_entries_are_taken(dut):
    bench = Bench(dut, latency=(50, 50))
    await bench.start(ways=WAYS)
    await measured(bench, [(n, {"cached": 1}) for n in range(MSHRS + 1)])
    assert 40 < bench.count("FULL") < 70 and bench.memory.most == MSHRS
    await measured(bench, [(20, {"cached": 1}) for n in range(2 * MSHRS + 1)])
    assert bench.count("FULL") > 80, "so many can wait, and no more"


@cocotb.test()
async def a_set_whose_lines_are_all_under_way_makes_misses_wait(dut):
    bench = Bench(dut, latency=(30, 30))
    await bench.start(ways=2)
    await measured(bench, [(n * SETS, {"cached": 1}) for n in range(9)])
    assert bench.count("MISSES") == 9


@cocotb.test()
@cocotb.parametrize(under_way=[False, True])
async def no_allocate_passes_by(dut, under_way):
    """A miss leaves nothing behind; a hit stays; writes of parts of a line are kept."""
    bench = Bench(dut, latency=(20, 20))
    await bench.start(ways=2)
    by = {"cached": 1, "hint": Hint.NO_ALLOCATE}

    async def run(*requests):
        before = len(bench.memory.events)
        for line, fields in requests:
            bench.ask(line, **fields)
            if not under_way:
                await bench.settle()
        await bench.settle()
        return bench.memory.events[before:]
    read, write = ("read", 5), ("write", 5)
    assert await run((5, by)) == [read]
    assert await run((5, by), (5, by)) == ([read] if under_way else [read, read])
    assert await run((5, by | {"write": 1})) == [write]
    assert await run((5, by), (5, by | {"write": 1}), (5, by)) == [read, write, read]
    assert await run((5, by), (5, {"cached": 1, "write": 1, "mask": 1}), (5, by)) == [read, read]
    assert await run((5, by), (5, by | {"write": 1})) == []
    assert await run((6, by | {"write": 1, "mask": 2}), (6, by)) == [("read", 6)]
    await bench.flush()
    bench.check_memory()


@cocotb.test()
async def a_line_read_for_the_last_time_is_not_written_back(dut):
    bench = Bench(dut)
    await bench.start(ways=2)
    last = {"cached": 1, "hint": Hint.NO_WRITE_BACK}
    await measured(bench, [(5, {"cached": 1, "write": 1}), (5, last)])
    assert not bench.memory.events and bench.count("DROPPED") == 1
    await bench.flush()
    assert not bench.memory.events
    await measured(bench, [(5, {"cached": 1, "write": 1}), (5, last | {"write": 1}),
                           (6, last), (5, {"cached": 1})])
    await bench.flush()
    assert bench.memory.events == [("read", 6), ("write", 5)] and bench.count("DROPPED") == 1
    bench.check_memory()


@cocotb.test()
async def prefetch_is_answered_at_once_and_brings_the_line(dut):
    bench = Bench(dut, latency=(60, 60))
    await bench.start(ways=2)
    fetch = {"cached": 1, "hint": Hint.PREFETCH}
    assert await measured(bench, [(n, fetch) for n in range(MSHRS)]) < MSHRS + 4
    await bench.settle()
    assert bench.memory.events == [("read", n) for n in range(MSHRS)]
    assert await measured(bench, [(n, {"cached": 1}) for n in range(MSHRS)]) < MSHRS + 4
    assert bench.count("PREFETCHES") == MSHRS == bench.count("HITS")
    await measured(bench, [(8 * n, fetch) for n in range(1, 3)])        # replaces line 0
    await measured(bench, [(8 * n, {"cached": 1, "write": 1}) for n in range(3, 6)])
    assert bench.count("USELESS") == 2 and bench.count("PREFETCHES") == MSHRS + 2
    await measured(bench, [(n, fetch | {"cached": 0}) for n in range(4)])
    assert bench.count("PREFETCHES") == MSHRS + 2


@cocotb.test()
async def a_slow_requester_holds_memory_up_and_loses_nothing(dut):
    bench = Bench(dut, take=0.1, latency=(0, 3))
    await bench.start(ways=2)
    random_requests(bench, 200, lines=cached_lines(sets=3), scratch=0.3)
    await bench.until(bench.idle)
    await bench.flush()
    bench.check_memory()


@sim.on_simulators
def test_slice_modes(tmp_path, simulator):
    sim.run(Twins(make), test_module=__name__, build_dir=tmp_path, simulator=simulator)
