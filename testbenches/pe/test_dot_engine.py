"""Tests of rtl/pe/dot_engine.py: the cocotb tests, then the pytest functions that run them."""
import os
import random

import cocotb
import numpy as np
import pytest

from cosim.golden import dot
from cosim.golden.formats import Format
from rtl.pe.dot_engine import DotEngine
from rtl.pe.interfaces import ErrorCode
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
from testbenches.pe.unit_bench import error_of, seed

LINES, LANES = 512, 3
ROWS = int(os.environ.get("DOT_ROWS", "4"))
BUFFERS = {ELEMENTS: [3, 400], SCALES: [403, 100]}
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
    return padded(dot.matmul(a, b))


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


@cocotb.test()
@cocotb.parametrize(a=FORMATS, b=FORMATS)
async def columns_of_every_pair_are_exact(dut, a, b):
    """All pairs of formats, ragged columns, short and long rows, delays on every stream."""
    bench = await new_bench(dut, ready=random.choice([0.5, 0.9, 1.0]), drain=0.8)
    shapes = [(1, 4), (random.randint(2, 12), random.randint(1, 5)), (random.randint(13, 40), 1)]
    for blocks, columns in shapes:
        expected = run(bench, a, b, rows=random.randint(1, 4), columns=columns, blocks=blocks,
                       offset=random.randint(0, 399), scale_offset=random.randint(0, 99))
        await settle(bench, expected)


@cocotb.test(skip=ROWS != 16)
async def sixteen_rows_are_exact(dut):
    """The full height, one pair of formats for each kind of cell, all rows or some."""
    bench = await new_bench(dut, ready=0.9)
    for a, b in ((Format.E2M1, Format.E2M1), (Format.E4M3, Format.E2M1),
                 (Format.BF16, Format.E5M2)):
        for rows in (16, random.randint(5, 15)):
            await settle(bench, run(bench, a, b, rows=rows, columns=4, blocks=6))


@cocotb.test()
async def longest_rows_fit(dut):
    """2048 bytes of A, whatever the formats; B up to 8192 bytes a row."""
    bench = await new_bench(dut, ready=1.0)
    for a, b, blocks in ((Format.E4M3, Format.E5M2, 64), (Format.E2M1, Format.E2M1, 128),
                         (Format.E2M1, Format.E4M3, 128), (Format.E2M1, Format.BF16, 256),
                         (Format.BF16, Format.E2M1, 64), (Format.E4M3, Format.FP16, 128)):
        await settle(bench, run(bench, a, b, rows=3, columns=2, blocks=blocks))


@cocotb.test()
async def commands_of_all_kinds_follow_each_other(dut):
    """Random jobs queued together, A buffers reused or released, against one list of columns."""
    bench = await new_bench(dut, ready=0.9, drain=0.6)
    expected, offset, scale_offset = [], 0, 0
    for _ in range(8):
        a_format, b_format = random.choice(FORMATS), random.choice(FORMATS)
        if random.getrandbits(1):
            a_format = b_format = Format.E2M1
        blocks = random.randint(1, 12)
        elements = blocks * block_elements(a_format, b_format)
        a = random_operand(a_format, random.randint(1, 4), elements)
        bench.load(a, blocks)
        for last in random.choice([(1,), (0, 1), (0, 0, 1)]):
            b = random_operand(b_format, random.randint(1, 6), elements)
            stride, scale_stride = bench.store(b, offset=offset, scale_offset=scale_offset)
            bench.commands.append(dot_command(
                a_format, b_format, len(b.codes), blocks, stride, scale_stride, release=last,
                offset=offset, scale_offset=scale_offset))
            offset += len(b.codes) * stride
            scale_offset += -(-len(b.codes) * scale_stride // 64)
            expected.append(padded(dot.matmul(a, b)))
    assert offset < 400 and scale_offset < 100
    await settle(bench, np.concatenate(expected))
    assert counters(dut)[3] == len(expected)


MX4 = (Format.E2M1, Format.E2M1)


@cocotb.test()
@cocotb.parametrize(fault=[
    (dot_command(0, 5, 1, 2, 1, 2), 1), (dot_command(5, 0, 1, 2, 1, 2), 1),
    (dot_command(5, 6, 1, 2, 1, 2), 1), (dot_command(15, 5, 1, 2, 1, 2), 1),
    (dot_command(3, 5, 1, 2, 1, 2), 1), (dot_command(*MX4, 0, 2, 1, 2), 8),
    (dot_command(*MX4, 1, 0, 1, 2), 8), (dot_command(*MX4, 1, 257, 65, 320), 8),
    (dot_command(*MX4, 1, 3, 1, 4), 8), (dot_command(*MX4, 1, 1, 1, 1), 8),
    (dot_command(*MX4, 1, 2, 1, 1), 9), (dot_command(*MX4, 1, 2, 1, 3), 9),
    (dot_command(*MX4, 1, 2, 1, 96), 9), (dot_command(*MX4, 2, 2, 401, 2), 9),
    (dot_command(*MX4, 2, 2, 1, 101 * 64), 9)])
async def bad_fields_are_refused(dut, fault):
    """The command before ends; the error names the word; after a clear the unit works."""
    bench = await new_bench(dut, ready=0.9)
    bad, word = fault
    expected = run(bench, *MX4, rows=2, columns=5, blocks=2, tag=3, release=0)
    bench.commands += [bad | 9 << 16, dot_command(*MX4, 1, 2, 1, 2)]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, word, 9)
    await bench.until(lambda: len(bench.columns) == 5)
    assert same_bits(np.stack(bench.columns), expected).all()
    await bench.clear()
    bench.columns.clear()
    await settle(bench, run(bench, *MX4, rows=2, columns=4, blocks=9))
    assert not error_of(dut)[0]


@cocotb.test()
async def whole_blocks_need_whole_scales_and_room(dut):
    """A buffer loaded for half blocks is refused by a DOT that wants whole ones."""
    for whole, blocks, columns in ((0, 8, 2), (1, 129, 1)):
        bench = await new_bench(dut, ready=1.0)
        a = random_operand(Format.E2M1, 2, 16 * blocks)
        bench.load(a, blocks, whole=whole)
        bench.commands.append(dot_command(*MX4, columns, blocks, 33, 192, tag=6))
        assert await bench.fail() == (ErrorCode.BAD_FIELD.value, 8, 6)


@cocotb.test()
async def waits_are_counted_by_cause(dut):
    """Without an A buffer the engine is starved; with nobody at the drain it is blocked."""
    bench = await new_bench(dut, ready=1.0, drain=0.0)
    a = random_operand(Format.E4M3, 2, 32)
    b = random_operand(Format.E4M3, 12, 32)
    stride, scale_stride = bench.store(b)
    bench.commands.append(dot_command(a.format, b.format, 12, 1, stride, scale_stride))
    for _ in range(60):
        await bench.step()
    assert counters(dut)[0] == 0 and counters(dut)[1] > 40
    starved = counters(dut)[1]
    bench.load(a, 1)
    for _ in range(60):
        await bench.step()
    busy, now_starved, blocked, ended, beats = counters(dut)
    assert busy == beats == 9 and now_starved < starved + 8 and blocked > 30 and not ended
    bench.drain = 1.0
    await settle(bench, padded(dot.matmul(a, b)))
    dut.unit__launch.value = 1
    await bench.step()
    dut.unit__launch.value = 0
    await bench.step()
    await bench.step()
    assert counters(dut) == [0] * 5


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
        expected.append(padded(dot.matmul(a, b)))
    bench.load(a, blocks)
    await settle(bench, np.concatenate(expected))
    each = max(blocks, group * lines)
    busy, starved, blocked, ended, beats = counters(dut)
    assert (busy, ended, beats) == (2 * groups * blocks, 2, 2 * groups * blocks)
    stamps = bench.stamps
    assert stamps[-1] - stamps[0] <= each * (2 * groups - 1) + group + 3
    dut._log.info("%d cycles for %d groups of %d", stamps[-1] - stamps[0], 2 * groups, each)


@pytest.mark.parametrize("simulator", ["icarus"])
@pytest.mark.parametrize("rows", [4, 16])
def test_dot_engine(tmp_path, simulator, rows):
    sim.run(DotEngine(lines=LINES, rows=rows, lanes=LANES), test_module=__name__,
            build_dir=tmp_path, simulator=simulator, env={"DOT_ROWS": str(rows)},
            testcase=None if rows == 4 else "sixteen_rows_are_exact")
