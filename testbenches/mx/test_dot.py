"""Tests of rtl/mx/dot.py and rtl/mx/decode.py: the exact integers of every pair of codes."""
import os
from itertools import product

import cocotb
import numpy as np
import pytest
from cocotb.triggers import Timer

from cosim.golden import formats
from cosim.golden.dot import Operand, wide
from cosim.golden.formats import MX_FORMATS, SPECS, WIDE_FORMATS, Format
from testbenches import sim
from testbenches.mx.bench import Bench

KIND = os.environ.get("MX_KIND", "mx8")
PAIRS = {"mx4": [(Format.E2M1, Format.E2M1)], "mx8": list(product(MX_FORMATS, MX_FORMATS)),
         "wide16": [(a, b) for a, b in product(Format, Format)
                    if Format.FP32 not in (a, b) and (a in WIDE_FORMATS or b in WIDE_FORMATS)]}
SIZE = 16 if KIND == "wide16" else 32
LSB = {Format.E5M2: 0, Format.E4M3: 7, Format.E2M1: 7}  # units above those of E5M2
MORE = 8 if KIND == "mx8" else 0  # bits by which an E2M1 element is worth more, as an E4M3 one


def integer(format, codes):
    """Values in units of the smallest subnormal, as Python integers."""
    sign, significand, exponent = formats.split(format, codes)
    special = formats.is_nan(format, codes) | formats.is_inf(format, codes)
    shift = exponent - SPECS[format].lsb_exponent + (MORE if format == Format.E2M1 else 0)
    return np.array([0 if bad else (-1 if s else 1) * (int(n) << int(e)) for s, n, e, bad
                     in zip(sign, significand, shift, special, strict=True)], dtype=object)


def special(format, codes):
    return formats.is_nan(format, codes) | formats.is_inf(format, codes)


def packed(format, codes):
    return int.from_bytes(formats.pack(format, codes).tobytes(), "little")


async def apply(dut, fa, fb, a, b, scales=(127, 127)):
    dut.format_a.value, dut.format_b.value = int(fa), int(fb)
    dut.scale_a.value, dut.scale_b.value = int(scales[0]), int(scales[1])
    dut.a.value, dut.b.value = packed(fa, a), packed(fb, b)
    await Timer(1, unit="ns")


def flags_of(fa, fb, a, b):
    """NaN, plus infinity and minus infinity among the products, from float64 products."""
    with np.errstate(invalid="ignore"):
        p = formats.decode(fa, a) * formats.decode(fb, b)
    if np.isnan(p).any():
        return 1
    return int((p == np.inf).any()) << 1 | int((p == -np.inf).any()) << 2


def flags(dut):
    """Flags of the dot product; what a NaN leaves of the others does not matter."""
    number = int(dut.flags.value)
    return 1 if number & 1 else number


def code_pairs(rng, fa, fb, keep):
    """Every pair of codes for which ``keep``, in random order, filled up to whole blocks."""
    a, b = (x.ravel() for x in np.meshgrid(np.arange(1 << SPECS[fa].bits),
                                           np.arange(1 << SPECS[fb].bits)))
    kept = keep(special(fa, a) | special(fb, b))
    order = rng.permutation(np.nonzero(kept)[0])
    order = np.concatenate([order, order[:-len(order) % SIZE]])
    return a[order].reshape(-1, SIZE), b[order].reshape(-1, SIZE)


@cocotb.test(skip=KIND == "wide16")
@cocotb.parametrize(pair=PAIRS[KIND])
async def every_pair_of_codes_adds_its_exact_product(dut, pair):
    fa, fb = pair
    rng = np.random.default_rng(int(fa) * 8 + int(fb))
    for a, b in zip(*code_pairs(rng, fa, fb, lambda bad: ~bad), strict=True):
        await apply(dut, fa, fb, a, b)
        assert dut.o.value.to_signed() == int(np.dot(integer(fa, a), integer(fb, b)))
        assert flags(dut) == 0


@cocotb.test(skip=KIND == "wide16")
@cocotb.parametrize(pair=PAIRS[KIND])
async def extreme_blocks_do_not_overflow(dut, pair):
    fa, fb = pair
    codes = [np.arange(1 << SPECS[f].bits) for f in pair]
    top = [c[~special(f, c)][np.argmax(formats.decode(f, c[~special(f, c)]))]
           for f, c in zip(pair, codes, strict=True)]
    for sa, sb in product([0, 1 << SPECS[fa].bits - 1], [0, 1 << SPECS[fb].bits - 1]):
        a, b = np.full(32, top[0] | sa), np.full(32, top[1] | sb)
        await apply(dut, fa, fb, a, b)
        assert dut.o.value.to_signed() == int(np.dot(integer(fa, a), integer(fb, b)))


@cocotb.test(skip=KIND != "mx8")
@cocotb.parametrize(pair=PAIRS["mx8"])
async def every_special_pair_raises_its_flags(dut, pair):
    fa, fb = pair
    rng = np.random.default_rng(int(fa) * 8 + int(fb))
    a_special, b_special = code_pairs(rng, fa, fb, lambda bad: bad)
    for x, y in zip(a_special.ravel(), b_special.ravel(), strict=True):
        a, b = rng.integers(0, 1 << SPECS[fa].bits, 32), rng.integers(0, 1 << SPECS[fb].bits, 32)
        a[special(fa, a)], b[special(fb, b)] = 0, 0
        where = rng.integers(0, 32)
        a[where], b[where] = x, y
        await apply(dut, fa, fb, a, b)
        assert flags(dut) == flags_of(fa, fb, a, b)


@cocotb.test(skip=KIND != "mx8")
@cocotb.parametrize(pair=PAIRS["mx8"])
async def scales_add_up_and_a_nan_scale_is_nan(dut, pair):
    fa, fb = pair
    rng = np.random.default_rng(0)
    zero = np.zeros(32, int)
    for sa, sb in [*rng.integers(0, 256, (60, 2)), (0, 0), (254, 254), (255, 0), (0, 255)]:
        await apply(dut, fa, fb, zero, zero, (sa, sb))
        assert int(dut.exponent.value) == sa + sb + LSB[fa] + LSB[fb]
        assert flags(dut) == int(255 in (sa, sb))


def window_sum(a, b):
    """Aligned and truncated sum of 16 products, and the largest exponent, biased as the port."""
    (sign_a, sig_a, exp_a), (sign_b, sig_b, exp_b) = wide(a), wide(b)
    places = exp_a + exp_b
    total = 0
    for s, x, y, place in zip((sign_a ^ sign_b)[0], sig_a[0], sig_b[0], places[0], strict=True):
        size = (int(x) * int(y) << 26) >> int(places.max() - place)
        total += -size if s else size
    return total, int(places.max()) + 1024


def half_block(format, codes, scale):
    """A block of which ``codes`` are the first half and the rest is zero."""
    scales = np.array([[scale]], np.uint8) if SPECS[format].block else None
    return Operand(format, np.concatenate([codes, codes * 0])[None], scales)


@cocotb.test(skip=KIND != "wide16")
@cocotb.parametrize(pair=PAIRS["wide16"])
async def groups_align_to_the_largest_product(dut, pair):
    fa, fb = pair
    rng = np.random.default_rng(int(fa) * 8 + int(fb))
    for step in range(1000):
        codes = []
        for f in pair:
            c = rng.integers(0, 1 << SPECS[f].bits, 16)
            if step % 2:  # close exponents, so that most bits count
                field = SPECS[f].exponent_bits
                mask = ((1 << max(field - 2, 0)) - 1) << (SPECS[f].mantissa_bits + min(2, field))
                c = (c & ~mask) | (c[0] & mask)
            c[rng.random(16) < 0.1] = 0
            if step % 8:
                c[special(f, c)] = 1
            codes.append(c.astype(SPECS[f].code_dtype))
        a, b = codes
        sa, sb = rng.integers(0, 255, 2)
        await apply(dut, fa, fb, a, b, (sa, sb))
        assert flags(dut) == flags_of(fa, fb, a, b)
        total, place = window_sum(half_block(fa, a, sa), half_block(fb, b, sb))
        assert dut.o.value.to_signed() == total
        assert int(dut.exponent.value) == place


@cocotb.test(skip=KIND != "wide16")
@cocotb.parametrize(format=[f for f in Format if f != Format.FP32])
async def every_code_is_decoded(dut, format):
    """Each code against one of BF16 alone in its group: value, exponent and flags are visible."""
    one = np.zeros(16, np.uint16)
    count = 1 << SPECS[format].bits
    for code in range(0, count, 1 if count <= 256 else 13):
        where, scale = code % 16, (code * 7) % 255
        a, b = np.zeros(16, SPECS[format].code_dtype), one.copy()
        a[where], b[where] = code, 0x3F80
        await apply(dut, format, Format.BF16, a, b, (scale, 0))
        assert flags(dut) == flags_of(format, Format.BF16, a, b)
        sign, significand, exponent = (x[0, where] for x in wide(half_block(format, a, scale)))
        assert dut.o.value.to_signed() == (-1 if sign else 1) * int(significand) << 36
        if significand:
            assert int(dut.exponent.value) == int(exponent) + 512 + 512 - 10
    for scale in (0, 254, 255):
        await apply(dut, format, Format.BF16, one * 0, one, (scale, 255))
        assert flags(dut) == int(scale == 255 and SPECS[format].block > 0)


@pytest.mark.parametrize("kind", ["mx4", "mx8", "wide16"])
@sim.on_simulators
def test_dot(tmp_path, simulator, kind):
    sim.run(Bench(kind), test_module=__name__, build_dir=tmp_path, simulator=simulator,
            env={"MX_KIND": kind})
