"""Tests of rtl/pe/layout.py: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb
import numpy as np

from cosim.golden.moves import transpose
from rtl.pe.interfaces import ErrorCode
from rtl.pe.layout import LayoutUnit
from testbenches import sim
from testbenches.pe.unit_bench import Bench, command, operand, seed
from testbenches.twins import Twins

LINES = 128
SOURCE, TARGET = 3, 7
BUFFERS = {SOURCE: [1, 61], TARGET: [64, 60]}


def order(rows, columns, element, strides, *, tag=0, offsets=(0, 0), releases=(0, 0)):
    return command(0x40, tag, w1=element, w8=rows | columns << 16,
                   w9=strides[0] | strides[1] << 16,
                   **operand(2, SOURCE, offset=offsets[0], release=releases[0]),
                   **operand(4, TARGET, offset=offsets[1], release=releases[1]))


async def new_bench(dut, **options):
    seed()
    bench = Bench(dut, lines=LINES, buffers=BUFFERS, **options)
    await bench.start()
    return bench


def model(bench, expected, rows, columns, element, strides, offsets=(0, 0)):
    transpose(expected, bench.place(SOURCE, 0, offsets[0]), bench.place(TARGET, 1, offsets[1]),
              rows=rows, columns=columns, element_bytes=element, source_stride=strides[0],
              destination_stride=strides[1])


def some_stride(count, element):
    """A stride for rows of ``count`` elements, at least as long as they are."""
    return 16 * element * (-(-count // 16) + random.choice([0, 0, 1, 3]))


@cocotb.test()
@cocotb.parametrize(element=[1, 2, 4], ready=[0.5, 1.0])
async def matrices_of_every_shape_are_transposed(dut, element, ready):
    """Random shapes, strides and places; afterwards local memory is as modelled to the byte."""
    bench = await new_bench(dut, ready=ready)
    shapes = [(1, 1), (16, 16), (17, 33), (15, 48), (40, 1), (1, 40), (32, 16)]
    for rows, columns in shapes + [(random.randint(1, 40), random.randint(1, 40))] * 2:
        if max(rows * (columns + 64), columns * (rows + 64)) * element > 60 * 64:  # too large
            rows, columns = min(rows, 8), min(columns, 8)
        strides = some_stride(columns, element), some_stride(rows, element)
        offsets = random.randint(0, 60), random.randint(0, 59)
        expected = bench.local.copy()
        model(bench, expected, rows, columns, element, strides, offsets)
        bench.commands.append(order(rows, columns, element, strides, offsets=offsets))
        await bench.finish()
        assert np.array_equal(bench.local, expected), (rows, columns, strides, offsets)


@cocotb.test()
async def queued_jobs_end_in_order(dut):
    bench = await new_bench(dut)
    expected = bench.local.copy()
    for n, (rows, columns) in enumerate([(5, 20), (18, 3), (2, 2)]):
        # The source stands still in this model; the targets lie beside each other.
        model(bench, expected, rows, columns, 1, (32, 32), (n, 20 * n))
        bench.commands.append(order(rows, columns, 1, (32, 32), offsets=(n, 20 * n), tag=n))
    bench.commands[2] = order(2, 2, 1, (32, 32), offsets=(2, 40), releases=(2, 4))
    await bench.finish()
    assert np.array_equal(bench.local, expected)
    assert bench.releases == [(SOURCE, 0, 2), (TARGET, 1, 4)]


@cocotb.test()
@cocotb.parametrize(element=[1, 2, 4])
async def a_tile_takes_sixteen_cycles(dut, element):
    bench = await new_bench(dut, ready=1.0)
    side = {1: 48, 2: 32, 4: 16}[element]
    strides = (16 * element * -(-side // 16),) * 2
    bench.commands.append(order(side, side, element, strides))
    await bench.until(lambda: dut.source__address__valid.value)
    begin = bench.cycle
    await bench.until(lambda: dut.unit__idle.value)
    assert bench.writes == side * side // 16
    assert bench.cycle - begin <= 16 * (side // 16) ** 2 + 16 + 8


@cocotb.test()
@cocotb.parametrize(case=[
    (1, (4, 4, 3, (64, 64))), (1, (4, 4, 0, (64, 64))), (1, (4, 4, 8, (64, 64))),
    (8, (0, 4, 1, (64, 64))), (8, (4, 0, 1, (64, 64))),
    (9, (4, 4, 1, (24, 64))), (9, (4, 4, 1, (64, 8))), (9, (4, 4, 2, (16, 64))),
    (9, (4, 4, 2, (64, 48))), (9, (4, 4, 4, (32, 64))), (9, (4, 4, 4, (64, 96))),
    (9, (2, 4, 1, (61 * 64, 64))), (9, (4, 2, 1, (64, 60 * 64)))])
async def bad_field_is_refused_and_nothing_is_written(dut, case):
    field, (rows, columns, element, strides) = case
    bench = await new_bench(dut)
    good = 3, 5, 2, (32, 32)
    expected = bench.local.copy()
    model(bench, expected, *good)
    bench.commands += [order(*good, tag=1, releases=(1, 2)),
                       order(rows, columns, element, strides, tag=2), order(*good, tag=3)]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, field, 2)
    for _ in range(20):
        await bench.step()
    assert np.array_equal(bench.local, expected)
    assert bench.releases == [(SOURCE, 0, 1), (TARGET, 1, 2)]
    await bench.clear()
    await bench.step()
    expected = bench.local.copy()
    model(bench, expected, *good)
    bench.commands.append(order(*good))
    await bench.finish()
    assert np.array_equal(bench.local, expected)


@cocotb.test()
async def stride_of_a_single_row_is_not_looked_at(dut):
    bench = await new_bench(dut)
    for shape, strides in (((1, 5), (7, 16)), ((5, 1), (16, 65535))):
        expected = bench.local.copy()
        model(bench, expected, *shape, 1, strides)
        bench.commands.append(order(*shape, 1, strides))
        await bench.finish()
        assert np.array_equal(bench.local, expected)


@cocotb.test()
async def largest_strides_wrap_in_their_buffers(dut):
    bench = await new_bench(dut)
    strides = 61 * 64 - 16, 60 * 64 - 16
    expected = bench.local.copy()
    model(bench, expected, 7, 16, 1, strides, (60, 59))
    bench.commands.append(order(7, 16, 1, strides, offsets=(60, 59)))
    await bench.finish()
    assert np.array_equal(bench.local, expected)


@cocotb.test()
@cocotb.parametrize(wait=[12, 20, 30, 41])
async def clear_returns_the_unit_to_its_start(dut, wait):
    bench = await new_bench(dut)
    bench.commands.append(order(40, 17, 1, (48, 48)))
    for _ in range(wait):
        await bench.step()
    await bench.clear()
    bench.stalled.clear()
    await bench.step()
    assert dut.unit__idle.value
    expected = bench.local.copy()
    model(bench, expected, 18, 35, 1, (48, 48))
    bench.commands.append(order(18, 35, 1, (48, 48)))
    await bench.finish()
    assert np.array_equal(bench.local, expected)


@sim.on_simulators
def test_layout(tmp_path, simulator):
    sim.run(Twins(lambda: LayoutUnit(lines=LINES)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
