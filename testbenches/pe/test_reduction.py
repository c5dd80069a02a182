"""Tests of rtl/pe/reduction.py: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb

from rtl.pe.interfaces import ErrorCode
from rtl.pe.reduction import ReductionEngine
from testbenches import sim
from testbenches.pe.reduction_bench import LINES, OUT, Model, dot, new_bench, plain_memory
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


@cocotb.test()
@cocotb.parametrize(fault=[(dot(0, 1), 8), (dot(2, 42), 10)])
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
