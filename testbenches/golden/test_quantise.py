"""Tests of cosim/golden/quantise.py against ml_dtypes, gfloat and exact fractions."""
import random
from fractions import Fraction

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest

from cosim.golden.formats import SPECS, Format, decode, scale_value
from cosim.golden.quantise import (
    LARGEST,
    Rule,
    largest_exponent,
    quantise,
    random_bits,
    round_elements,
    scale_bytes,
)

MX = [Format.E4M3, Format.E5M2, Format.E2M1]
DTYPE = {Format.E4M3: ml_dtypes.float8_e4m3fn, Format.E5M2: ml_dtypes.float8_e5m2,
         Format.E2M1: ml_dtypes.float4_e2m1fn}
GFLOAT = {Format.E4M3: gfloat.formats.format_info_ocp_e4m3,
          Format.E5M2: gfloat.formats.format_info_ocp_e5m2,
          Format.E2M1: gfloat.formats.format_info_ocp_e2m1}
BF16 = np.arange(65536, dtype=np.uint32) << 16
FINITE_BF16 = BF16[(BF16 & 0x7F800000) != 0x7F800000]


def largest(format):
    return Fraction(float(decode(format, np.array([LARGEST[format]]))[0]))


def power_at_or_below(value):
    """floor(log2) of a positive fraction, by integer arithmetic."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent - (Fraction(2) ** exponent > value)


def exact_scale(amax, format, rule):
    """Exponent of the block scale by the rule's definition, from an exact amax > 0."""
    low = power_at_or_below(amax)
    match rule:
        case Rule.FLOOR:
            exponent = low - largest_exponent(format)
        case Rule.CEIL:
            exponent = low + (Fraction(2) ** low < amax) - largest_exponent(format)
        case Rule.RCEIL:
            ratio = amax / largest(format)
            exponent = power_at_or_below(ratio)
            exponent += Fraction(2) ** exponent < ratio
        case Rule.EVEN:
            quantum = Fraction(2) ** (low - SPECS[format].mantissa_bits)
            exponent = power_at_or_below(round(amax / quantum) * quantum)  # ties to even
            exponent -= largest_exponent(format)
    return max(exponent, -127)


@pytest.mark.parametrize("format", MX, ids=lambda f: f.name)
@pytest.mark.parametrize("scale", [127, 0, 1, 120, 134, 254])
def test_every_bf16_value_rounds_as_ml_dtypes_and_gfloat(format, scale):
    values = FINITE_BF16.view(np.float32).astype(np.float64) / scale_value(np.array([scale]))[0]
    limit = float(largest(format))
    clamped = np.clip(values, -limit, limit)  # clamping first and last is the same for these
    # float32 holds the scaled value exactly or is far below the smallest subnormal
    oracle = clamped.astype(np.float32).astype(DTYPE[format]).view(np.uint8)
    got = round_elements(FINITE_BF16, np.full(FINITE_BF16.shape, scale), format)
    assert np.array_equal(got & (0xF if format == Format.E2M1 else 0xFF), oracle & (
        0xF if format == Format.E2M1 else 0xFF))
    info = GFLOAT[format]
    rounded = gfloat.round_ndarray(info, values, gfloat.RoundMode.TiesToEven, sat=True)
    assert np.array_equal(decode(format, got), rounded)
    assert np.array_equal(np.signbit(decode(format, got)), np.signbit(values))


@pytest.mark.parametrize("format", MX, ids=lambda f: f.name)
def test_random_fp32_values_and_subnormals_round_as_gfloat(format):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, 60000, dtype=np.uint64).astype(np.uint32)
    bits[::2] = (bits[::2] & 0x807FFFFF) | rng.integers(0, 3, bits[::2].shape).astype(
        np.uint32) << 23
    bits = bits[(bits & 0x7F800000) != 0x7F800000]
    field = (bits >> 23 & 0xFF).astype(np.int64)
    scales = np.clip(field - rng.integers(-20, 20, bits.shape), 0, 254)
    values = bits.view(np.float32).astype(np.float64) / scale_value(scales)
    rounded = gfloat.round_ndarray(GFLOAT[format], values, gfloat.RoundMode.TiesToEven, sat=True)
    assert np.array_equal(decode(format, round_elements(bits, scales, format)), rounded)


def test_ties_go_to_even_and_a_hair_more_goes_up():
    values = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 0.25000006, -0.25, -5.0, 7.0, -100],
                      np.float32)
    got = round_elements(values.view(np.uint32), np.full(values.shape, 127), Format.E2M1)
    want = np.array([0, 1, 1, 2, 2, 4, 4, 0.5, -0.0, -4, 6, -6])
    assert np.array_equal(decode(Format.E2M1, got), want)
    assert np.signbit(decode(Format.E2M1, got[8:9]))[0]


@pytest.mark.parametrize("format", MX, ids=lambda f: f.name)
@pytest.mark.parametrize("rule", list(Rule), ids=lambda r: r.name)
def test_scale_rules_are_their_definitions(format, rule):
    rng = random.Random(2)
    patterns = [1, 2, 0x7FFFFF, 0x800000, 0x800001, 0x7F7FFFFF]
    for _ in range(3000):
        mantissa = rng.choice([0, 1, 0x7FFFFF, 0x3FFFFF, 0x400000, 0x400001, 0x5FFFFF, 0x600000,
                               0x600001, 0x6FFFFF, 0x700000, 0x77FFFF, 0x780000, 0x780001,
                               rng.getrandbits(23)])
        patterns.append(rng.randrange(255) << 23 | mantissa)
    patterns = [p for p in patterns if p]
    bits = np.zeros((len(patterns), 32), np.uint32)
    bits[:, 5] = np.array(patterns, np.uint32) | np.uint32(1 << 31)
    got = scale_bytes(bits, format, rule)
    for pattern, scale in zip(patterns, got.tolist(), strict=True):
        amax = Fraction(float(np.uint32(pattern).view(np.float32)))
        assert scale == exact_scale(amax, format, rule) + 127, f"{pattern:08x}"


@pytest.mark.parametrize("format", MX, ids=lambda f: f.name)
@pytest.mark.parametrize("rule", [Rule.RCEIL, Rule.CEIL], ids=lambda r: r.name)
def test_rules_that_round_up_never_saturate(format, rule):
    values = np.random.default_rng(3).standard_normal((500, 32)).astype(np.float32)
    _, scales = quantise(values, format, rule)
    scaled = np.abs(values).max(-1) / scale_value(scales[:, 0])
    assert (scaled <= float(largest(format))).all()


@pytest.mark.parametrize("format", MX, ids=lambda f: f.name)
def test_special_blocks(format):
    values = np.ones((5, 32), np.float32)
    values[0] = 0
    values[1, 3], values[2, 31], values[3, 0] = np.nan, np.inf, -np.inf
    values[4] = -0.0
    codes, scales = quantise(values, format)
    assert scales.ravel().tolist() == [0, 0xFF, 0xFF, 0xFF, 0]
    assert not codes[:4].any()
    assert (codes[4] == 1 << SPECS[format].bits - 1).all()  # zeros keep their sign


@pytest.mark.parametrize("format", MX, ids=lambda f: f.name)
def test_decode_then_quantise_returns_every_code(format):
    count = 1 << SPECS[format].bits
    values = decode(format, np.arange(count))
    codes = np.arange(count)[np.isfinite(values)]
    top = LARGEST[format]
    for code in codes:
        block = np.full(32, decode(format, np.array([code]))[0], np.float32)
        block[0] = decode(format, np.array([top]))[0]
        got, scales = quantise(block, format)
        assert scales[0] == 127 and (got[1:] == code).all()


def test_stochastic_rounding_is_unbiased_and_brackets_the_value():
    for value, low, high in [(2.3, 2.0, 3.0), (0.1, 0.0, 0.5), (-4.5, -6.0, -4.0), (1.0, 1.0, 1.0)]:
        values = np.full((3000, 32), value, np.float32)
        values[:, 0] = 6.0
        codes, scales = quantise(values, Format.E2M1, stochastic=True, seed=77)
        assert (scales == 127).all()
        decoded = decode(Format.E2M1, codes[:, 1:])
        assert set(np.unique(decoded)) <= {low, high}
        deviation = (high - low) / 2 / np.sqrt(decoded.size)
        assert abs(decoded.mean() - value) <= 4 * deviation + 1e-6


def test_stochastic_rounding_saturates():
    values = np.full((10, 32), 7.9, np.float32)
    codes, _ = quantise(values, Format.E2M1, stochastic=True, seed=1)
    assert (decode(Format.E2M1, codes) == 6).all()


def test_random_bits_look_random():
    bits = random_bits(5, np.arange(256)[:, None], np.arange(256)[None, :])
    other = random_bits(6, np.arange(256)[:, None], np.arange(256)[None, :])
    for sample in (bits, other, bits ^ other, bits[:, 1:] ^ bits[:, :-1], bits[1:] ^ bits[:-1]):
        for bit in range(23):
            ones = ((sample >> bit) & 1).mean()
            assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(sample.size), bit
        counts = np.bincount((sample >> 15).ravel(), minlength=256)
        expected = sample.size / 256
        chi = ((counts - expected) ** 2 / expected).sum()
        assert 255 - 5 * np.sqrt(510) < chi < 255 + 5 * np.sqrt(510)
