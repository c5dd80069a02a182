"""Tests of rtl/pe/reduction.py: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb

from rtl.pe.interfaces import ErrorCode
from rtl.pe.reduction import ReductionEngine
from testbenches import sim
from testbenches.pe.reduction_bench import (
    LINES,
    OUT,
    Model,
    dot,
    new_bench,
    plain_memory,
    reduce,
)
from testbenches.pe.unit_bench import error_of


@cocotb.test()
@cocotb.parametrize(ready=[0.3, 0.8, 1.0], offer=[0.4, 1.0])
async def columns_are_written_or_added(dut, ready, offer):
    """Random jobs back to back, over each other, with and without sums before them."""
    bench = await new_bench(dut, ready=ready, offer=offer)
    plain_memory(bench)
    model = Model(bench)
    for _ in range(14):
        model.dot(random.randint(1, 20), random.choice([0, 1, 1, 1, 2, 3, 41]),
                  accumulate=random.getrandbits(1), offset=random.randint(0, 40),
                  release=random.randint(0, 9))
    await bench.finish(20000)
    model.check()
    assert not bench.columns


@cocotb.test()
@cocotb.parametrize(accumulate=[0, 1])
async def one_line_is_written_each_cycle(dut, accumulate):
    bench = await new_bench(dut, ready=1.0, offer=1.0)
    model = Model(bench)
    model.dot(40, 1, accumulate=accumulate)
    model.dot(40, 1, accumulate=accumulate, offset=40)
    await bench.finish()
    model.check()
    cycles = bench.write_cycles
    assert cycles[39] - cycles[0] == 39 and cycles[79] - cycles[0] <= 79 + 2
    counters = int(dut.unit__counters.value)
    assert counters >> 128 & 0xFFFFFFFF == 80 and counters >> 96 & 0xFFFFFFFF == 2


@cocotb.test()
async def sums_in_one_place_wait_for_each_other(dut):
    """Stride 0 adds every column to the same line, in order."""
    bench = await new_bench(dut, ready=0.9, offer=1.0)
    plain_memory(bench)
    model = Model(bench)
    model.dot(12, 0, accumulate=1)
    model.dot(12, 0, accumulate=1, release=0)
    await bench.finish()
    model.check()


WAYS = [{"receive": receive, "local": local, "send": send}
        for receive, local in ((0, 1), (1, 0), (1, 1)) for send in (0, 1)]


@cocotb.test()
@cocotb.parametrize(ready=[0.3, 0.8, 1.0], offer=[0.4, 1.0])
async def lines_go_round_the_ring(dut, ready, offer):
    """From the ring, from local memory, both; to local memory, on; amid columns of products."""
    bench = await new_bench(dut, ready=ready, offer=offer)
    plain_memory(bench)
    model = Model(bench)
    for _ in range(24):
        where = {"offset": random.randint(0, 40), "release": random.randint(0, 9)}
        size, stride = random.choice([1, 2, random.randint(3, 20)]), random.choice([0, 1, 1, 2, 41])
        if random.randrange(3):
            model.reduce(size, stride, **random.choice(WAYS), **where,
                         source_offset=random.randint(0, 13), source_release=random.randint(0, 5),
                         source_stride=random.choice([0, 1, 1, 3, 14]))
        else:
            model.dot(size, stride, accumulate=random.getrandbits(1), **where)
    await bench.finish(20000)
    model.check()
    assert not bench.columns and not bench.before


@cocotb.test()
@cocotb.parametrize(way=WAYS)
async def one_line_a_cycle_goes_round(dut, way):
    """40 lines take 40 cycles and a few; none is taken from the ring that no command wants."""
    bench = await new_bench(dut, ready=1.0, offer=1.0)
    plain_memory(bench)
    model = Model(bench)
    model.reduce(40, 1, **way)
    bench.before += [bench.local.view("<u4")[:16]] * 3      # of a later command, that never comes
    await bench.finish()
    assert bench.cycle <= 40 + 20
    assert len(bench.before) == 3 and (dut.ring_in__valid.value and not dut.ring_in__ready.value
                                       or not way["receive"])
    model.check()


@cocotb.test()
async def a_cleared_unit_keeps_nothing_of_the_ring(dut):
    """Lines taken for a command that was ended are gone, and lines offered are withdrawn."""
    bench = await new_bench(dut, ready=1.0, offer=1.0)
    plain_memory(bench)
    model = Model(bench)
    for way in WAYS * 2:
        bench.ready = random.choice([0.2, 1.0])
        model.reduce(20, 1, **way, release=0)
        for _ in range(random.randint(5, 30)):
            await bench.step()
        await bench.clear()
        bench.before.clear()
        bench.after.clear()
        bench.stalled.clear()
        dut.ring_in__valid.value = 0
        bench.pointers = dict.fromkeys(bench.pointers, 0)
        await bench.step()
        assert not dut.ring_out__valid.value
        bench.ready, model = 1.0, Model(bench)
        bench.after.clear()
        model.reduce(3, 1, **way)
        await bench.finish()
        model.check()
        bench.after.clear()
        bench.pointers, model = dict.fromkeys(bench.pointers, 0), Model(bench)


RING = {"receive": 1, "local": 1, "send": 0}


@cocotb.test()
@cocotb.parametrize(fault=[
    (dot(0, 1), 8), (dot(2, 42), 10), (reduce(3, 1, receive=0, local=0, send=1), 1),
    (reduce(3, 1, **RING) | 8 << 32, 1), (reduce(0, 1, **RING), 8),
    (reduce(3, 1, **RING) | 1 << 272, 8), (reduce(2, 1, **RING, source_stride=15), 9),
    (reduce(2, 42, **RING), 10), (reduce(1, 1, receive=1, local=0, send=0) | 2 << 32, 11)])
async def bad_fields_are_refused(dut, fault):
    """The job before ends; the error names the word; after a clear the unit works."""
    bench = await new_bench(dut, ready=0.7)
    bad, word = fault
    model = Model(bench)
    model.dot(6, 1, release=0)
    bench.commands += [bad | 9 << 16, dot(1, 1)]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, word, 9)
    model.check()
    assert bench.writes == 6
    await bench.clear()
    model.moved = bench.pointers[OUT, 1]
    model.dot(5, 1)
    await bench.finish()
    model.check()
    assert not error_of(dut)[0]


@sim.on_simulators
def test_reduction(tmp_path, simulator):
    sim.run(ReductionEngine(lines=LINES), test_module=__name__, build_dir=tmp_path,
            simulator=simulator)
