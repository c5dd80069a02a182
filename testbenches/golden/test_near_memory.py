"""Tests of cosim/golden/near_memory.py against ml_dtypes and float64."""
import ml_dtypes
import numpy as np
import pytest

from cosim.golden import near_memory as golden
from cosim.golden.formats import Format
from cosim.golden.quantise import Rule

MX = {Format.E4M3: ml_dtypes.float8_e4m3fn, Format.E5M2: ml_dtypes.float8_e5m2}
WIDE = {Format.FP32: np.float32, Format.BF16: ml_dtypes.bfloat16, Format.FP16: np.float16}


@pytest.mark.parametrize("format", MX)
def test_every_code_at_every_scale_is_as_in_ml_dtypes(format):
    codes = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 8, 1)
    values = codes.view(MX[format]).astype(np.float64) * np.repeat(
        scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float64), 32, 1)
    with np.errstate(over="ignore"):
        want = values.astype(np.float32)
    found = golden.dequantise(codes, scales, format)
    assert np.array_equal(found.view(np.float32), want, equal_nan=True)
    assert np.array_equal(np.signbit(found.view(np.float32))[~np.isnan(want)],
                          np.signbit(want)[~np.isnan(want)])
    assert set(found[np.isnan(want)]) == {golden.NAN}
    # Nothing is lost but what is too large.
    exact = np.isfinite(want)
    assert np.array_equal(want[exact].astype(np.float64), values[exact])


@pytest.mark.parametrize("format", WIDE)
def test_sums_are_rounded_to_fp32_and_then_to_the_format(format):
    rng = np.random.default_rng(1)
    kind, bits = WIDE[format], np.dtype(f"u{np.dtype(WIDE[format]).itemsize}")
    a, b = (rng.integers(0, 1 << 8 * bits.itemsize, 100_000, dtype=np.uint64).astype(bits)
            for _ in "ab")
    b[::2] = a[::2] ^ rng.integers(0, 64, 50_000).astype(bits)      # near each other
    with np.errstate(all="ignore"):
        want = (a.view(kind).astype(np.float64) + b.view(kind).astype(np.float64)).astype(
            np.float32).astype(kind)
    found = golden.add(a, b, format).view(kind)
    nan = np.isnan(want)
    assert np.array_equal(found[~nan].view(bits), want[~nan].view(bits))
    assert len(set(found[nan].view(bits))) == 1


@pytest.mark.parametrize("format", MX)
@pytest.mark.parametrize("rule", Rule)
def test_sums_of_mx_blocks_are_within_half_a_step(format, rule):
    """Of the largest element's last bit; with FLOOR the largest may be clamped."""
    rng = np.random.default_rng(2)
    (a, sa), (b, sb) = (golden.quantise(rng.normal(size=(200, 64)).astype(np.float32), format)
                        for _ in "ab")
    exact = sum(golden.dequantise(c, s, format).view(np.float32).astype(np.float64)
                for c, s in ((a, sa), (b, sb)))
    codes, scales = golden.add_mx(a, sa, b, sb, format, rule)
    error = np.abs(golden.dequantise(codes, scales, format).view(np.float32) - exact)
    bits = {Format.E4M3: 3, Format.E5M2: 2}[format]
    peak = np.repeat(np.abs(exact).reshape(200, 2, 32).max(2), 32, 1)
    steps = error / 2.0 ** (np.floor(np.log2(peak)) - bits)
    assert steps.max() <= (1 if rule == Rule.RCEIL or rule == Rule.CEIL else 1.75)


def test_a_nan_or_an_infinity_ends_its_block_alone():
    a = np.zeros(96, np.uint8)
    a[[5, 70]] = 0x7F, 0x7C
    for format, dead in ((Format.E4M3, [True, False, False]), (Format.E5M2, [True, False, True])):
        codes, scales = golden.add_mx(a, np.full(3, 127, np.uint8), np.full(96, 0x11, np.uint8),
                                      np.full(3, 127, np.uint8), format)
        assert (scales == 255).tolist() == dead
        assert not codes.reshape(3, 32)[dead].any()
    with pytest.raises(ValueError, match="must be an MX format"):
        golden.add_mx(a, scales, a, scales, Format.BF16)
