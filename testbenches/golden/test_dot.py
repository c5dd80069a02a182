"""Tests of cosim/golden/dot.py against exact fractions of values decoded by other libraries."""
import time
from fractions import Fraction
from itertools import product
from math import inf, isinf, isnan, nan

import ml_dtypes
import numpy as np
import pytest

from cosim.golden import formats
from cosim.golden.dot import Operand, matmul, wide, worst_error
from cosim.golden.formats import MX_FORMATS, SPECS, WIDE_FORMATS, Format
from testbenches.golden.oracle import add, bits

ML = {Format.BF16: ml_dtypes.bfloat16, Format.FP16: np.float16,
      Format.E4M3: ml_dtypes.float8_e4m3fn, Format.E5M2: ml_dtypes.float8_e5m2,
      Format.E2M1: ml_dtypes.float4_e2m1fn}
MX_PAIRS = list(product(MX_FORMATS, MX_FORMATS))
WIDE_PAIRS = [(a, b) for a, b in product(ML, ML) if a in WIDE_FORMATS or b in WIDE_FORMATS]


def random_operand(rng, format, rows, k, *, scales=(0, 255), specials=True):
    spec = SPECS[format]
    codes = rng.integers(0, 1 << spec.bits, (rows, k)).astype(spec.code_dtype)
    if not specials:
        bad = formats.is_nan(format, codes) | formats.is_inf(format, codes)
        codes[bad] = 1
    codes[rng.random((rows, k)) < 0.2] &= 1 << (spec.bits - 1)
    bytes_ = rng.integers(scales[0], scales[1], (rows, k // 32)).astype(np.uint8)
    return Operand(format, codes, bytes_ if spec.block else None)


def oracle_values(operand):
    """Values as Python numbers: Fraction, or a float NaN or infinity."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = operand.codes.view(ML[operand.format]).astype(np.float64)
    out = []
    for r, row in enumerate(values):
        out.append([])
        for k, v in enumerate(row):
            scale = 0x7F if operand.scales is None else int(operand.scales[r, k // 32])
            special = isnan(v) or isinf(v)
            v = float(v) if special else Fraction(float(v)) * Fraction(2) ** (scale - 127)
            out[-1].append(nan if scale == 255 and SPECS[operand.format].block else v)
    return out


def oracle_product(x, y):
    """Product of two such values, by IEEE rules."""
    if isinstance(x, float) or isinstance(y, float):
        sign = [1 if v > 0 else -1 if v < 0 else 0 for v in (x, y)]
        return nan if isnan(x) or isnan(y) else sign[0] * sign[1] * inf if all(sign) else nan
    return x * y


def oracle_sum(terms):
    special = [t for t in terms if isinstance(t, float)]
    return sum(special) if special else sum(terms, Fraction(0))


@pytest.mark.parametrize(("fa", "fb"), MX_PAIRS)
@pytest.mark.parametrize("scales", [(0, 256), (120, 134), (40, 70), (180, 190)])
def test_block_sums_are_rounded_once(fa, fb, scales):
    rng = np.random.default_rng(int(fa) * 16 + int(fb) + scales[0])
    for specials in (False, True):
        span = (scales[0], min(scales[1], 256 if specials else 255))
        a = random_operand(rng, fa, 6, 192, scales=span, specials=specials)
        b = random_operand(rng, fb, 5, 192, scales=span, specials=specials)
        got = matmul(a, b).view(np.uint32)
        va, vb = oracle_values(a), oracle_values(b)
        for j, i in product(range(5), range(6)):
            acc = 0.0
            for k in range(0, 192, 32):
                terms = [oracle_product(va[i][n], vb[j][n]) for n in range(k, k + 32)]
                acc = add(acc, oracle_sum(terms))
            assert got[j, i] == bits(acc)


def oracle_group(va, vb, ea, eb):
    """Sum of 16 products, each cut off toward zero 26 bits below the largest exponent's last."""
    terms = [oracle_product(x, y) for x, y in zip(va, vb, strict=True)]
    if any(isinstance(t, float) for t in terms):
        return oracle_sum(terms)
    lsb = Fraction(2) ** (max(x + y for x, y in zip(ea, eb, strict=True)) - 26)
    return sum((int(t / lsb) * lsb for t in terms), Fraction(0))  # int() cuts toward zero


@pytest.mark.parametrize(("fa", "fb"), WIDE_PAIRS)
@pytest.mark.parametrize("scales", [(0, 256), (120, 134)])
def test_group_sums_are_cut_off_as_documented(fa, fb, scales):
    rng = np.random.default_rng(int(fa) * 16 + int(fb) + scales[0])
    for specials in (False, True):
        span = (scales[0], min(scales[1], 256 if specials else 255))
        a = random_operand(rng, fa, 6, 64, scales=span, specials=specials)
        b = random_operand(rng, fb, 5, 64, scales=span, specials=specials)
        got = matmul(a, b).view(np.uint32)
        va, vb = oracle_values(a), oracle_values(b)
        ea, eb = oracle_exponents(a, va), oracle_exponents(b, vb)
        for j, i in product(range(5), range(6)):
            acc = 0.0
            for k in range(0, 64, 16):
                ks = slice(k, k + 16)
                acc = add(acc, oracle_group(va[i][ks], vb[j][ks], ea[i][ks], eb[j][ks]))
            assert got[j, i] == bits(acc)


LEAST = {Format.BF16: -126, Format.FP16: -14, Format.E4M3: -14, Format.E5M2: -14,
         Format.E2M1: -14}  # of a normal number of the format in which it is multiplied


def oracle_exponents(operand, values):
    """Exponent of bit 10 down from the leading one of a normal number, from the values alone."""
    out = []
    for r, row in enumerate(values):
        out.append([])
        for k, v in enumerate(row):
            scale = 0 if operand.scales is None else int(operand.scales[r, k // 32]) - 127
            if isinstance(v, float) or v == 0:
                out[-1].append(-512)
                continue
            size = abs(v) / Fraction(2) ** scale
            exponent = size.numerator.bit_length() - size.denominator.bit_length()
            exponent -= size < Fraction(2) ** exponent
            out[-1].append(max(exponent, LEAST[operand.format]) - 10 + scale)
    return out


def test_zero_sums_are_positive_and_nan_is_canonical():
    ones = np.full((1, 32), 2, np.uint8)
    minus = ones | np.where(np.arange(32) % 2, 8, 0).astype(np.uint8)
    assert matmul(Operand(Format.E2M1, ones), Operand(Format.E2M1, minus)).view("u4") == 0
    zero = Operand(Format.E2M1, ones * 0 + 8)  # -0 times 1
    assert matmul(zero, Operand(Format.E2M1, ones)).view("u4") == 0
    scale = np.array([[255]], np.uint8)
    assert matmul(Operand(Format.E2M1, ones, scale),
                  Operand(Format.E2M1, ones)).view("u4") == 0x7FC00000


@pytest.mark.parametrize("format", WIDE_FORMATS)
def test_wide_exponent_of_zero_is_below_every_sum(format):
    rng = np.random.default_rng(3)
    exponents = wide(random_operand(rng, format, 8, 1024, specials=False))[2]
    mx = wide(random_operand(rng, Format.E5M2, 8, 1024, scales=(0, 255), specials=False))[2]
    assert -512 + mx.max() < exponents[exponents > -512].min() + mx[mx > -512].min()


@pytest.mark.parametrize("format", WIDE_FORMATS)
def test_worst_error_of_the_16_bit_path(format):
    rng = np.random.default_rng(4)
    x = [rng.normal(size=(64, 512)).astype(ML[format]).view(np.uint16) for _ in range(2)]
    error = worst_error(Operand(format, x[0]), Operand(format, x[1]))
    assert 0 < error < 2 ** -23  # sums of random signs: roundings of the accumulator dominate


def test_hundred_million_macs_take_seconds():
    rng = np.random.default_rng(5)
    for format in (Format.E2M1, Format.BF16):
        normal = rng.normal(size=(512, 384)).astype(ml_dtypes.bfloat16).view(np.uint16)
        codes = normal if format is Format.BF16 else rng.integers(0, 16, (512, 384), np.uint8)
        begin = time.perf_counter()
        matmul(Operand(format, codes), Operand(format, codes))
        assert time.perf_counter() - begin < 60  # 1 s on an idle core
