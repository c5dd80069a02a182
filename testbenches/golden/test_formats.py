"""Tests of cosim/golden/formats.py against two number-format libraries nobody here wrote."""
import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest

from cosim.golden import formats
from cosim.golden.formats import Format

ML = {Format.FP32: np.float32, Format.BF16: ml_dtypes.bfloat16, Format.FP16: np.float16,
      Format.E4M3: ml_dtypes.float8_e4m3fn, Format.E5M2: ml_dtypes.float8_e5m2,
      Format.E2M1: ml_dtypes.float4_e2m1fn}
GF = {Format.BF16: gfloat.formats.format_info_bfloat16,
      Format.FP16: gfloat.formats.format_info_binary16,
      Format.E4M3: gfloat.formats.format_info_ocp_e4m3,
      Format.E5M2: gfloat.formats.format_info_ocp_e5m2,
      Format.E2M1: gfloat.formats.format_info_ocp_e2m1}


def same(a, b):
    """Equal values, equal zero signs, NaN where the other has NaN."""
    numbers = (a == b) & (np.signbit(a) == np.signbit(b))
    return bool(np.all(numbers | (np.isnan(a) & np.isnan(b))))


def all_codes(format):
    if format is Format.FP32:
        return np.random.default_rng(1).integers(0, 1 << 32, 100_000, dtype=np.uint32)
    return np.arange(1 << formats.SPECS[format].bits).astype(formats.SPECS[format].code_dtype)


@pytest.mark.parametrize("format", Format)
def test_every_code_decodes_as_in_ml_dtypes(format):
    codes = all_codes(format)
    with np.errstate(invalid="ignore"):  # a signalling NaN of FP32 is quietened by the cast
        expected = codes.view(ML[format]).astype(np.float64)
    assert same(formats.decode(format, codes), expected)
    assert same(formats._decode(format, codes), expected)
    finite = np.isfinite(expected)
    assert np.array_equal(formats.is_nan(format, codes), np.isnan(expected))
    assert np.array_equal(formats.is_inf(format, codes), np.isinf(expected))
    sign, significand, exponent = formats.split(format, codes)
    value = np.ldexp(significand.astype(float), exponent.astype(np.int32)) * (1 - 2 * sign)
    assert same(value[finite], expected[finite])


@pytest.mark.parametrize("format", GF)
def test_every_code_decodes_as_in_gfloat(format):
    codes = all_codes(format)
    expected = np.array([gfloat.decode_float(GF[format], int(c)).fval for c in codes])
    assert same(formats.decode(format, codes), expected)


def test_every_scale_decodes_as_in_both():
    codes = np.arange(256, dtype=np.uint8)
    e8m0 = gfloat.formats.format_info_ocp_e8m0
    assert same(formats.scale_value(codes),
                codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float64))
    assert same(formats.scale_value(codes),
                np.array([gfloat.decode_float(e8m0, int(c)).fval for c in codes]))


@pytest.mark.parametrize("format", Format)
def test_packed_codes_unpack(format):
    codes = np.random.default_rng(2).integers(0, 1 << formats.SPECS[format].bits, (5, 64))
    data = formats.pack(format, codes)
    assert data.dtype == np.uint8 and data.shape == (5, formats.row_bytes(format, 64))
    assert np.array_equal(formats.unpack(format, data), codes)


def test_bytes_are_little_endian_and_low_nibble_first():
    assert formats.pack(Format.E2M1, [1, 2]).tolist() == [0x21]
    assert formats.pack(Format.BF16, [0x1234]).tolist() == [0x34, 0x12]
