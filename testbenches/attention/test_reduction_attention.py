"""Tests of rtl/pe/reduction.py with attention: the cocotb tests, then what runs them."""
import itertools
import os
import random

import cocotb
import numpy as np

from rtl.pe.interfaces import ErrorCode
from rtl.pe.reduction import ReductionEngine
from testbenches import sim
from testbenches.attention.reduction_bench import Kind, WeighModel, factors_line, new_bench, weigh
from testbenches.pe import test_reduction
from testbenches.pe.reduction_bench import LINES, OUT, plain_memory
from testbenches.pe.unit_bench import error_of

SHORT = "SHORT" in os.environ       # for the slower simulator
KINDS = [Kind(*fields) for fields in itertools.product((0, 1), repeat=4)
         if (fields[0] or not (fields[2] or fields[3])) and (fields[1] or not fields[2])]


def random_kind():
    return Kind(1, *(random.getrandbits(1) for _ in range(3)))


def tile(model, blocks, columns, stride, *, pair, offset):
    """Blocks of keys over the same lines of O, at times with another command between."""
    for n in range(blocks):
        kind = Kind(1, int(n > 0), random.getrandbits(1), int(n == blocks - 1))
        model.weigh(columns, stride, kind, pair=pair, offset=offset, release=0)
        if not random.randrange(4):
            model.dot(random.randint(1, 3), 1, accumulate=random.getrandbits(1), release=0,
                      offset=random.randint(0, 40))


@cocotb.test()
@cocotb.parametrize(ready=[0.3, 0.8, 1.0], offer=[0.4, 1.0])
async def lines_are_weighed(dut, ready, offer):
    """Jobs of all kinds back to back and over each other, long and short, amid DOT jobs."""
    bench = await new_bench(dut, ready=ready, offer=offer)
    plain_memory(bench)
    model = WeighModel(bench)
    for _ in range(4 if SHORT else 20):
        where = {"offset": random.randint(0, 40), "release": random.randint(0, 9)}
        columns = random.choice([1, 2, 3, random.randint(4, 12)])
        stride = random.choice([0, 1, 1, 1, 2, 3, 41])
        if random.getrandbits(2):
            model.weigh(columns, stride, random_kind(), pair=random.getrandbits(1),
                        state=int(random.random() < 0.3), **where)
        elif random.getrandbits(1):
            model.reduce(columns, stride, receive=1, local=random.getrandbits(1),
                         send=random.getrandbits(1), **where)
        else:
            model.dot(columns, stride, accumulate=random.getrandbits(1), **where)
    for _ in range(2 if SHORT else 8):
        tile(model, random.randint(1, 4), random.randint(1, 9), random.choice([1, 1, 2]),
             pair=random.getrandbits(1), offset=random.randint(0, 40))
    await bench.finish(20000)
    model.check()
    assert not bench.columns and not bench.entries


@cocotb.test()
async def lines_that_wake_the_clock_are_finished(dut):
    """Long pauses before each line, which is the first and the last of its block."""
    bench = await new_bench(dut, ready=1.0, offer=0.04)
    model = WeighModel(bench)
    for pair in (0, 1):
        model.weigh(12, 1, Kind(last=1), pair=pair, release=0, offset=13 * pair)
    await bench.finish(20000)
    model.check()


@cocotb.test()
async def short_jobs_wait_for_each_other(dut):
    """One to three lines a job, over the same places: each needs the sum of the one before."""
    bench = await new_bench(dut, ready=1.0, offer=1.0)
    plain_memory(bench)
    model = WeighModel(bench)
    for _ in range(20 if SHORT else 120):
        if random.randrange(5):
            model.weigh(random.randint(1, 3), random.choice([0, 1, 1]), random_kind(),
                        offset=random.choice([0, 0, 0, 1]), release=0,
                        state=int(random.random() < 0.2))
        else:
            model.dot(random.randint(1, 3), 1, accumulate=random.getrandbits(1), release=0)
    await bench.finish(20000)
    model.check()


@cocotb.test()
async def every_cycle_is_as_documented(dut):
    """Jobs of all kinds after jobs of all kinds: a line a cycle in them, no cycle more between."""
    bench = await new_bench(dut, ready=1.0, offer=1.0)
    model = WeighModel(bench)
    pairs = list(itertools.product(KINDS, repeat=2))
    kinds = [kind for pair in random.sample(pairs, 6 if SHORT else len(pairs)) for kind in pair]
    size = 7
    for kind in kinds:
        if kind.weigh:
            model.weigh(size, 1, kind, release=size)
        else:
            model.dot(size, 1, accumulate=kind.accumulate, release=size)
    await bench.finish()
    model.check()
    takes, writes = [np.reshape(cycles, (-1, size)).tolist()
                     for cycles in (bench.take_cycles, bench.write_cycles)]
    first, ends = takes[0][0], []
    for n, kind in enumerate(kinds):
        if n:
            first = kind.first(kinds[n - 1], takes[n - 1][-1])
        assert takes[n] == list(range(first, first + size)), (n, kinds[n - 1:n + 1])
        assert writes[n] == [cycle + kind.latency for cycle in takes[n]], (n, kind)
        ends += [takes[n][-1] + kind.kept] * kind.weigh
    assert bench.entry_cycles == ends


@cocotb.test()
async def lines_of_two_jobs_keep_their_order(dut):
    """One line of each kind, then one of each kind as early as can be, with nothing around them."""
    bench = await new_bench(dut, ready=1.0, offer=1.0)
    plain_memory(bench)
    pairs = list(itertools.product(KINDS, repeat=2))
    for pair in random.sample(pairs, 6 if SHORT else len(pairs)):
        model = WeighModel(bench)
        model.moved = bench.pointers[OUT, 1]
        for kind in pair:
            if kind.weigh:
                model.weigh(1, 1, kind)
            else:
                model.dot(1, 1, accumulate=kind.accumulate)
        lines, bench.columns = bench.columns, []
        for _ in range(16):             # both jobs are there, and wait
            await bench.step()
        bench.columns += lines
        await bench.finish()
        model.check()
        takes, writes = bench.take_cycles[-2:], bench.write_cycles[-2:]
        assert takes[1] == pair[1].first(pair[0], takes[0]), pair
        assert writes == [cycle + kind.latency
                          for cycle, kind in zip(takes, pair, strict=True)], pair


@cocotb.test()
async def a_slow_memory_loses_no_line(dut):
    """Writes stand still until no line comes any more: those under way have their place."""
    bench = await new_bench(dut, ready=1.0, offer=1.0)
    plain_memory(bench)
    model = WeighModel(bench)
    for kind in random.sample(KINDS, len(KINDS)) * 2:
        if kind.weigh:
            model.weigh(9, 1, kind, release=9)
    while not dut.unit__idle.value or bench.commands or bench.columns:
        bench.ready = random.choice([0.02, 1.0])
        for _ in range(random.randint(1, 30)):
            await bench.step()
        assert bench.cycle < 20000
    model.check()


@cocotb.test()
@cocotb.parametrize(kind=[Kind(), Kind(accumulate=1), Kind(accumulate=1, moved=1, last=1)])
async def no_line_is_taken_before_its_factors(dut, kind):
    """It waits, starved, and so does the next job though its lines are there."""
    bench = await new_bench(dut, ready=1.0, offer=1.0)
    plain_memory(bench)
    model = WeighModel(bench)
    bench.withheld = True
    model.weigh(5, 1, kind, release=0)
    model.weigh(5, 1, kind, release=0)
    for n in range(2):
        before = int(dut.unit__counters.value) >> 32 & 0xFFFFFFFF
        for _ in range(100):
            await bench.step()
        assert len(bench.take_cycles) == len(bench.write_cycles) == 5 * n
        assert 80 < (int(dut.unit__counters.value) >> 32 & 0xFFFFFFFF) - before <= 100
        bench.withheld = False
        await bench.step()
        bench.withheld = True
    await bench.finish()
    model.check()


@cocotb.test()
async def commands_of_dot_take_no_factors(dut):
    """Not even with the bits that mean something in WEIGH."""
    bench = await new_bench(dut, ready=0.8)
    plain_memory(bench)
    model = WeighModel(bench)
    for accumulate in (0, 1, 0, 1):
        model.dot(6, 1, accumulate=accumulate, release=0)
        bench.commands[-1] |= 1 << 32 + 10 | 1 << 32 + 12
    bench.entries.append((factors_line(), factors_line(), 1, 0))
    await bench.finish()
    model.check()
    assert len(bench.entries) == 1


@cocotb.test()
@cocotb.parametrize(fault=[
    (weigh(0, 1, Kind()), 8), (weigh(0, 1, Kind(), pair=1), 8), (weigh(2, 42, Kind()), 10),
    (weigh(3, 42, Kind(last=1), pair=1), 10)])
async def bad_fields_are_refused(dut, fault):
    """The job before ends; the error names the word; after a clear the unit works."""
    bench = await new_bench(dut, ready=0.7)
    bad, word = fault
    model = WeighModel(bench)
    model.weigh(6, 1, Kind(last=1), release=0)
    bench.commands += [bad | 9 << 16, weigh(1, 1, Kind())]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, word, 9)
    model.check()
    assert bench.writes == 6 and not bench.entries
    await bench.clear()
    model.moved = bench.pointers[OUT, 1]
    model.weigh(5, 1, Kind(accumulate=1, moved=1))
    await bench.finish()
    model.check()
    assert not error_of(dut)[0]


@cocotb.test()
async def a_stride_that_no_line_uses_is_not_refused(dut):
    """One line alone: of one column, or of two."""
    bench = await new_bench(dut, ready=0.7)
    model = WeighModel(bench)
    for columns, pair in ((1, 0), (1, 1), (2, 1)):
        model.weigh(columns, 42, Kind(last=1), pair=pair)
    await bench.finish()
    model.check()
    assert bench.writes == 3


@cocotb.test()
async def nothing_is_left_after_a_clear(dut):
    """At any moment of a job of any kind; the jobs after it are whole."""
    bench = await new_bench(dut, ready=0.8, offer=0.9)
    for _ in range(6 if SHORT else 30):
        plain_memory(bench)
        model = WeighModel(bench)
        for _ in range(2):
            model.weigh(random.randint(1, 6), 1, random_kind(), release=0)
        for _ in range(random.randint(4, 24)):
            await bench.step()
        await bench.clear()
        model = WeighModel(bench)
        model.moved = bench.pointers[OUT, 1]
        for _ in range(2):
            model.weigh(random.randint(1, 6), 1, random_kind(), release=0)
        await bench.finish()
        model.check()
        assert not bench.entries


@sim.on_simulators
def test_reduction_attention(tmp_path, simulator):
    """With the tests of DOT too: all holds as without attention."""
    short = simulator == "icarus"
    modules = [__name__] if short else [__name__, test_reduction.__name__]
    sim.run(ReductionEngine(lines=LINES, attention=True), test_module=modules, build_dir=tmp_path,
            simulator=simulator, env={"SHORT": "1"} if short else None)
