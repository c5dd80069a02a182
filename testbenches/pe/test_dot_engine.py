"""Tests of rtl/pe/dot_engine.py: the cocotb tests, then the pytest functions that run them."""
import random

import cocotb
import numpy as np

from cosim.golden import dot
from cosim.golden.formats import Format
from rtl.pe.dot_engine import DotEngine
from testbenches import sim
from testbenches.pe.dot_bench import (
    ELEMENTS,
    SCALES,
    WIDE,
    DotBench,
    dot_command,
    random_operand,
    same_bits,
)
from testbenches.pe.unit_bench import seed

LINES, LANES = 512, 3
BUFFERS = {ELEMENTS: [3, 400], SCALES: [403, 100]}
PAIRED = (Format.E2M1,)
FORMATS = [Format.BF16, Format.FP16, Format.E4M3, Format.E5M2, Format.E2M1]


def block_elements(a, b):
    return 16 if a in WIDE or b in WIDE else 32


async def new_bench(dut, **options):
    seed()
    bench = DotBench(dut, lines=LINES, buffers={cb: list(at) for cb, at in BUFFERS.items()},
                     **options)
    await bench.start()
    return bench


def run(bench, a_format, b_format, *, rows, columns, blocks, offset=0, scale_offset=0,
        **options):
    """Queue a load and a DOT of random operands; gives the columns to expect."""
    elements = blocks * block_elements(a_format, b_format)
    a = random_operand(a_format, rows, elements)
    b = random_operand(b_format, columns, elements)
    bench.load(a, blocks)
    stride, scale_stride = bench.store(b, offset=offset, scale_offset=scale_offset)
    bench.commands.append(dot_command(a_format, b_format, columns, blocks, stride, scale_stride,
                                      offset=offset, scale_offset=scale_offset, **options))
    return padded(product(a, b))


def product(a, b):
    return dot.matmul(a, b)


def padded(result):
    out = np.zeros((len(result), 16), np.float32)
    out[:, :result.shape[1]] = result
    return out


async def settle(bench, expected):
    """Run everything, and compare the columns."""
    await bench.finish(20000)
    await bench.until(lambda: len(bench.columns) >= len(expected), 500)
    for _ in range(20):
        await bench.step()
    assert len(bench.columns) == len(expected)
    good = same_bits(np.stack(bench.columns), expected)
    assert good.all(), f"columns {np.argwhere(~good)[:5].tolist()} differ"
    bench.columns.clear()


@cocotb.test()
@cocotb.parametrize(ready=[0.4, 1.0])
async def mx4_columns_are_exact(dut, ready):
    """Ragged columns, 1 to 4 rows, one block to many, delays on every stream."""
    bench = await new_bench(dut, ready=ready, drain=ready)
    for blocks, columns in ((1, 1), (1, 7), (2, 3), (5, 4), (12, 5), (64, 3), (66, 2)):
        expected = run(bench, Format.E2M1, Format.E2M1, rows=random.randint(1, 4),
                       columns=columns, blocks=blocks, offset=random.randint(0, 399),
                       scale_offset=random.randint(0, 99))
        await settle(bench, expected)


def counters(dut):
    """Busy, starved, blocked, commands ended, beats."""
    value = int(dut.unit__counters.value)
    return [value >> 32 * i & 0xFFFFFFFF for i in range(5)]


@cocotb.test()
async def mx4_leaves_no_cycle_unused(dut):
    """K = 2048, 171 columns in 57 groups: more than 99 % of all cycles issue a beat."""
    bench = await new_bench(dut, ready=1.0)
    a = random_operand(Format.E2M1, 4, 2048)
    b = random_operand(Format.E2M1, 4, 2048)
    bench.load(a, 64)
    stride, scale_stride = bench.store(b)
    while bench.fills:
        await bench.step()
    first = bench.cycle
    # Every row of B is one of the same 4 rows: 64 lines of elements in a circular buffer of 64.
    bench.buffers[ELEMENTS][1], bench.buffers[SCALES][1] = 4 * stride, 4 * scale_stride // 64
    bench.commands.append(dot_command(Format.E2M1, Format.E2M1, 171, 64, stride,
                                      scale_stride))
    await bench.until(lambda: len(bench.columns) == 171, 5000)
    total = bench.cycle - first
    expected = padded(dot.matmul(a, b))[np.arange(171) % 4]
    assert same_bits(np.stack(bench.columns), expected).all()
    dut._log.info("%d beats in %d cycles", counters(dut)[4], total)
    busy, starved, blocked, _, beats = counters(dut)
    assert busy == beats == 57 * 64 and blocked == 0
    assert busy / (busy + starved) > 0.99 and total - busy < 40


@cocotb.test()
@cocotb.parametrize(form=[Format.E2M1, Format.E4M3, Format.BF16], blocks=[1, 2, 4, 5, 9, 12])
async def short_rows_reach_the_rate_of_local_memory(dut, form, blocks):
    """Back-to-back commands: a group takes as long as its beats or its lines, whichever is more."""
    if form not in PAIRED:
        return
    bench = await new_bench(dut, ready=1.0)
    group = LANES if form == Format.E2M1 else 1
    lines = -(-blocks * (16 if form == Format.E2M1 else 32) // 64)
    groups = 24 if group == 1 else 8
    expected = []
    a = random_operand(form, 4, blocks * block_elements(form, form))
    for release in (0, 1):
        b = random_operand(form, groups * group, blocks * block_elements(form, form))
        stride, scale_stride = bench.store(b, offset=200 * (1 - release),
                                           scale_offset=50 * (1 - release))
        bench.commands.append(dot_command(
            form, form, groups * group, blocks, stride, scale_stride, release=release,
            offset=200 * (1 - release), scale_offset=50 * (1 - release)))
        expected.append(padded(product(a, b)))
    bench.load(a, blocks)
    await settle(bench, np.concatenate(expected))
    each = max(blocks, group * lines)
    busy, starved, blocked, ended, beats = counters(dut)
    assert (busy, ended, beats) == (2 * groups * blocks, 2, 2 * groups * blocks)
    stamps = bench.stamps
    assert stamps[-1] - stamps[0] <= each * (2 * groups - 1) + group + 3
    dut._log.info("%d cycles for %d groups of %d", stamps[-1] - stamps[0], 2 * groups, each)


def test_dot_engine(tmp_path):
    sim.run(DotEngine(lines=LINES, rows=4, lanes=LANES), test_module=__name__,
            build_dir=tmp_path, simulator="icarus")
