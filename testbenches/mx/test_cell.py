"""Tests of rtl/mx/cell.py behind its decoders: FP32 sums bit for bit as the golden model's."""
import os
import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from cosim.golden import formats
from cosim.golden.dot import Operand, matmul
from cosim.golden.formats import SPECS, Format
from testbenches import sim
from testbenches.mx.bench import Bench
from testbenches.mx.test_dot import PAIRS, packed

KIND = os.environ.get("MX_KIND", "mx8")
SIZE = 16 if KIND == "wide16" else 32  # elements a beat


def random_operand(rng, format, blocks, span, quiet):
    """One row; ``quiet`` leaves out NaN, infinities and NaN scales."""
    spec = SPECS[format]
    codes = rng.integers(0, 1 << spec.bits, (1, 32 * blocks)).astype(spec.code_dtype)
    codes[rng.random(codes.shape) < rng.choice([0, 0.2, 0.9])] = 0
    bad = formats.is_nan(format, codes) | formats.is_inf(format, codes)
    codes[bad & (quiet | (rng.random(codes.shape) < 0.97))] = 1
    if format == Format.BF16 and span[1] - span[0] < 200:  # exponents of the same span as scales
        field = rng.integers(span[0], span[1], codes.shape).astype(codes.dtype) << 7
        codes = np.where((codes & 0x7F80 == 0x7F80) | (codes == 0), codes, codes & 0x807F | field)
    scales = rng.integers(span[0], span[1], (1, blocks)).astype(np.uint8)
    if not quiet and rng.random() < 0.1:
        scales[0, rng.integers(blocks)] = 0xFF
    return Operand(format, codes, scales if spec.block else None)


def negated(operand):
    top = operand.codes.dtype.type(1 << SPECS[operand.format].bits - 1)
    return Operand(operand.format, operand.codes ^ top, operand.scales)


def joined(*parts):
    scales = None if parts[0].scales is None else np.hstack([p.scales for p in parts])
    return Operand(parts[0].format, np.hstack([p.codes for p in parts]), scales)


def beats(a, b):
    """Inputs of the bench for one sum, a dict a beat."""
    count = a.codes.shape[1] // SIZE
    for n in range(count):
        ks = slice(n * SIZE, n * SIZE + SIZE)
        beat = {"first": n == 0, "last": n == count - 1, "valid": 1}
        for side, operand in (("a", a), ("b", b)):
            beat[side] = packed(operand.format, operand.codes[0, ks])
            beat[f"format_{side}"] = int(operand.format)
            beat[f"scale_{side}"] = int(operand.scale_bytes()[0, n * SIZE // 32])
        yield beat


def drive(dut, beat):
    for name, number in beat.items():
        getattr(dut, name).value = int(number)


async def run(dut, sums, gap):
    """Drive the sums with random gaps; every ``done`` must show the golden sum, in order."""
    await sim.reset(dut, dut.valid, dut.first, dut.last)
    wanted = [int(matmul(a, b).view(np.uint32)[0, 0]) for a, b in sums]
    pending = [beat for a, b in sums for beat in beats(a, b)]
    noise = {name: pending[0][name] for name in pending[0]} | {"valid": 0}
    got, history, held = [], [], None
    for beat in [*pending, *[noise] * 8]:
        while random.random() < gap:  # a gap shows operands, first and last that must not count
            drive(dut, random.choice(pending) | {"valid": 0})
            held = await edge(dut, got, history, 0, held)
        drive(dut, beat)
        held = await edge(dut, got, history, beat["valid"], held)
    assert got == wanted
    return wanted


async def edge(dut, got, history, valid, held):
    """One cycle: collect what is done; the accumulator moves 3 cycles after a beat, only then."""
    await RisingEdge(dut.clk)
    acc = int(dut.acc.value) if dut.acc.value.is_resolvable else None
    if dut.done.value:
        got.append(acc)
    history.append(valid)
    if len(history) > 4 and not history[-4]:
        assert acc == held
        assert not dut.done.value
    return acc


@cocotb.test()
@cocotb.parametrize(pair=PAIRS[KIND], gap=[0, 0.4])
async def sums_equal_the_golden_model(dut, pair, gap):
    rng = np.random.default_rng(int(pair[0]) * 8 + int(pair[1]))
    sums = []
    for step in range(60):
        span = [(0, 255), (120, 135), (30, 75), (170, 200)][step % 4]
        blocks, quiet = int(rng.integers(1, 9)), step % 3 != 0
        sums.append([random_operand(rng, f, blocks, span, quiet) for f in pair])
    wanted = await run(dut, sums, gap)
    assert len(set(wanted)) > 25


@cocotb.test()
@cocotb.parametrize(pair=PAIRS[KIND])
async def what_is_added_and_taken_away_again_is_gone(dut, pair):
    """Adding, then taking away, leaves what rounding left: +0 if nothing was rounded."""
    rng = np.random.default_rng(int(pair[0]) * 8 + int(pair[1]))
    sums = []
    for _ in range(20):
        x = [random_operand(rng, f, 1, (100, 150), True) for f in pair]
        y = [random_operand(rng, f, 1, (90, 130), True) for f in pair]
        sums.append((joined(x[0], negated(x[0])), joined(x[1], x[1])))
        sums.append((joined(x[0], y[0], negated(x[0])), joined(x[1], y[1], x[1])))
    wanted = await run(dut, sums, 0)
    if KIND == "mx4":  # its sums of one block are exact in FP32
        assert wanted[0::2] == [0] * 20


@cocotb.test(skip=KIND == "wide16")
@cocotb.parametrize(pair=PAIRS[KIND], side=["a", "b"])
async def a_nan_scale_on_either_side_makes_the_sum_nan(dut, pair, side):
    rng = np.random.default_rng(7)
    sums = []
    for at in range(3):
        a, b = (random_operand(rng, f, 3, (120, 130), True) for f in pair)
        (a if side == "a" else b).scales[0, at] = 0xFF
        sums.append((a, b))
    assert await run(dut, sums, 0) == [0x7FC00000] * 3


@cocotb.test()
async def long_sums_equal_the_golden_model(dut):
    pair = PAIRS[KIND][-1]
    rng = np.random.default_rng(9)
    sums = [[random_operand(rng, f, 600, span, True) for f in pair]
            for span in ((126, 129), (60, 70), (0, 255))]
    await run(dut, sums, 0.1)


@cocotb.test()
async def overflow_and_underflow_are_reached(dut):
    """Sums of only positive numbers reach infinity, and subnormals, and stay there."""
    if KIND == "wide16":
        pair, codes = (Format.BF16, Format.E5M2), (0x3F80, 0x3C)
    else:
        pair = PAIRS[KIND][0]
        codes = {Format.E2M1: (2, 2), Format.E4M3: (0x38, 0x38)}[pair[0]]
    ones = [np.full((1, 32 * 40), c, SPECS[f].code_dtype) for f, c in zip(pair, codes, strict=True)]
    sums = []
    for scale in (254, 250, 0, 1):
        other = 127 if KIND == "wide16" else {254: 124, 250: 124, 0: 110, 1: 105}[scale]
        if KIND == "wide16":
            ones[0] = np.full_like(ones[0], 0x3F80 if scale >= 250 else 0x3800)
        scales = [np.full((1, 40), s, np.uint8) for s in (other, scale)]
        sums.append([Operand(f, c, s if SPECS[f].block else None)
                     for f, c, s in zip(pair, ones, scales, strict=True)])
    wanted = await run(dut, sums, 0)
    assert wanted[0] == 0x7F800000 and 0 < wanted[2] < 0x1000000


@pytest.mark.parametrize("kind", ["mx4", "mx8", "wide16"])
@sim.on_simulators
def test_cell(tmp_path, simulator, kind):
    sim.run(Bench(kind), test_module=__name__, build_dir=tmp_path, simulator=simulator,
            env={"MX_KIND": kind})
