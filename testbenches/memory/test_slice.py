"""Tests of rtl/memory/slice/: scratch memory, and cache under random traffic."""
import random

import cocotb
from cocotb.triggers import ClockCycles

from cosim.golden.cache import WHOLE, Cache, Hint
from testbenches import sim
from testbenches.memory.slice_bench import (
    BANKS,
    LINES,
    SETS,
    Bench,
    cached_lines,
    make,
    random_mask,
    random_requests,
)
from testbenches.twins import Twins


@cocotb.test()
async def memory_that_was_never_written_reads_as_zeros(dut):
    """The first test of the file: nobody has written yet."""
    bench = Bench(dut)
    await bench.start(fresh=True)
    for line in range(LINES):
        bench.ask(line, cached=0)
    await bench.until(bench.idle)
    assert len(bench.answers) == LINES and not any(got["data"] for _, got, _ in bench.answers)
    assert bench.count("CORRECTED") == bench.count("UNCORRECTABLE") == 0


@cocotb.test()
@cocotb.parametrize(send=[0.1, 0.5, 1.0], take=[0.4, 1.0])
async def scratch_answers_are_those_of_a_plain_memory(dut, send, take):
    bench = Bench(dut, send=send, take=take)
    await bench.start()
    random_requests(bench, 300, lines=[], scratch=1.0)
    await bench.until(bench.idle)
    assert send == 1.0 or bench.rested > 10
    assert not bench.memory.events
    assert bench.count("ACCESSES") == 300
    assert bench.count("SCRATCH_READS") + bench.count("SCRATCH_WRITES") == 300
    await bench.settle()
    assert not dut.awake.value


@cocotb.test()
@cocotb.parametrize(parts=[False, True])
async def a_scratch_access_takes_a_cycle_and_one_cycle_more_if_it_merges(dut, parts):
    """Reads and writes of whole words one a cycle; parts of words keep their bank for two."""
    bench = Bench(dut)
    await bench.start()
    for n in range(60):
        mask = random.choice([0xFF, WHOLE, 0]) if not parts else 1
        bench.ask(n % LINES, cached=0, write=n % 3 == 0, mask=mask)
    await bench.until(lambda: not bench.fields)
    began = bench.cycles
    await bench.until(bench.idle)
    assert bench.cycles - began <= 4
    assert all(cycles == 1 for _, _, cycles in bench.answers)
    merges = bench.count("MERGES")
    assert merges == (20 if parts else 0)
    # a merge delays only a request for its own bank, or another write
    bench.answers.clear()
    before = bench.count("CONFLICTS"), bench.cycles
    for n in range(20):
        bench.ask(n * BANKS % LINES, cached=0, write=1, mask=1)
    await bench.until(bench.idle)
    assert bench.count("CONFLICTS") - before[0] == 19
    assert 39 <= bench.cycles - before[1] <= 46


@cocotb.test()
async def a_write_and_a_read_of_one_line_keep_their_order(dut):
    bench = Bench(dut)
    await bench.start()
    for n in range(40):
        bench.ask(5, cached=0, write=n % 2 == 0, mask=random_mask())
    await bench.until(bench.idle)


@cocotb.test()
@cocotb.parametrize(send=[0.2, 1.0], slow=[0, 40], ways=[1, 2, 4])
async def cached_lines_read_what_was_written(dut, send, slow, ways):
    """Every hint, every mask, scratch beside; memory in any order; few sets, many conflicts."""
    bench = Bench(dut, send=send, take=random.choice([0.5, 1.0]), latency=(0, slow))
    await bench.start(ways=ways)
    random_requests(bench, 400, lines=cached_lines(sets=3), scratch=0.2)
    await bench.until(bench.idle)
    assert bench.count("HITS") and bench.count("WRITE_BACKS")
    await bench.flush()
    bench.check_memory()
    assert bench.memory.most > 1 or not slow


@cocotb.test()
async def without_cache_ways_everything_passes(dut):
    bench = Bench(dut, latency=(0, 10))
    await bench.start(ways=0)
    random_requests(bench, 150, lines=cached_lines(sets=2, each=4))
    await bench.settle()
    assert bench.count("HITS") == 0
    bench.check_memory()


@cocotb.test()
@cocotb.parametrize(hints=[(Hint.NONE,), tuple(Hint)], ways=[1, 2, 4])
async def hits_misses_and_write_backs_are_those_of_the_model(dut, hints, ways):
    """One request at a time: memory sees exactly the model's accesses, in its order."""
    bench = Bench(dut)
    await bench.start(ways=ways)
    model = Cache(sets=SETS, ways=ways)
    lines = cached_lines(sets=SETS, each=2) + cached_lines(sets=2, each=9)
    totals = dict.fromkeys(("HITS", "MISSES", "WRITE_BACKS", "DROPPED", "USELESS"), 0)
    for n in range(220):
        line, write, hint = random.choice(lines), int(random.random() < 0.3), random.choice(hints)
        mask = random.choice([WHOLE, 0xFF, 1])
        bench.memory.events.clear()
        bench.ask(line, cached=1, write=write, mask=mask, hint=hint)
        await bench.settle()
        effect = model.access(line, write=bool(write), mask=mask, hint=hint)
        assert bench.memory.events == effect.memory, f"{n}: {line:x} {write} {mask:x} {hint}"
        totals["HITS"] += effect.hit
        totals["MISSES"] += not effect.hit
        passed = write and ("write", line) in effect.memory
        totals["WRITE_BACKS"] += sum(kind == "write" for kind, _ in effect.memory) - passed
        totals["DROPPED"] += effect.dropped
        totals["USELESS"] += effect.useless
    assert {name: bench.count(name) for name in totals} == totals
    bench.memory.events.clear()
    await bench.flush()
    assert bench.memory.events == [("write", line) for line in model.flush()]
    bench.check_memory()
    await ClockCycles(dut.clk, 2)


@sim.on_simulators
def test_slice(tmp_path, simulator):
    sim.run(Twins(make), test_module=__name__, build_dir=tmp_path, simulator=simulator)
