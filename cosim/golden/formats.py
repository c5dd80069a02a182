"""Number formats: one table entry each, decoding of codes, and the layout of codes in bytes."""
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np

BLOCK = 32  # elements that share one E8M0 scale
SCALE_BIAS = 127
SCALE_ONE = 0x7F  # scale byte of 2^0: makes an MX element plain FP8
SCALE_NAN = 0xFF


class Format(IntEnum):
    """Format codes, as the hardware uses them."""

    FP32 = 0
    BF16 = 1
    FP16 = 2
    E4M3 = 3
    E5M2 = 4
    E2M1 = 5


@dataclass(frozen=True)
class FormatSpec:
    """Layout of one format: sign, ``exponent_bits``, ``mantissa_bits``, from the top bit down.

    ``specials`` tells what the largest exponent holds: "ieee" (infinities and NaN), "nan" (only
    the all-ones code is NaN; the others are numbers) or "none" (numbers only). ``block`` is the
    number of elements sharing a scale byte, 0 for formats without one.
    Sources: OCP Microscaling v1.0 clause 5.3; OCP FP8 v1.0; IEEE 754-2019 clause 3.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: str
    block: int

    @property
    def bits(self):
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def lsb_exponent(self):
        """Exponent of the least significant bit of a subnormal [log2]."""
        return 1 - self.bias - self.mantissa_bits

    @property
    def code_dtype(self):
        return {32: np.uint32, 16: np.uint16}.get(self.bits, np.uint8)


SPECS = {
    Format.FP32: FormatSpec("fp32", 8, 23, 127, "ieee", 0),
    Format.BF16: FormatSpec("bf16", 8, 7, 127, "ieee", 0),
    Format.FP16: FormatSpec("fp16", 5, 10, 15, "ieee", 0),
    Format.E4M3: FormatSpec("e4m3", 4, 3, 7, "nan", BLOCK),
    Format.E5M2: FormatSpec("e5m2", 5, 2, 15, "ieee", BLOCK),
    Format.E2M1: FormatSpec("e2m1", 2, 1, 1, "none", BLOCK),
}
MX_FORMATS = tuple(f for f, spec in SPECS.items() if spec.block)
WIDE_FORMATS = (Format.BF16, Format.FP16)


def fields(format, codes):
    """Sign, exponent and mantissa fields of ``codes`` as int64 arrays."""
    spec = SPECS[format]
    codes = np.asarray(codes).astype(np.int64)
    mantissa = codes & ((1 << spec.mantissa_bits) - 1)
    exponent = (codes >> spec.mantissa_bits) & ((1 << spec.exponent_bits) - 1)
    return (codes >> (spec.bits - 1)) & 1, exponent, mantissa


def is_nan(format, codes):
    spec = SPECS[format]
    _, exponent, mantissa = fields(format, codes)
    full = exponent == (1 << spec.exponent_bits) - 1
    match spec.specials:
        case "ieee":
            return full & (mantissa != 0)
        case "nan":
            return full & (mantissa == (1 << spec.mantissa_bits) - 1)
    return np.zeros(full.shape, bool)


def is_inf(format, codes):
    spec = SPECS[format]
    _, exponent, mantissa = fields(format, codes)
    full = exponent == (1 << spec.exponent_bits) - 1
    return full & (mantissa == 0) if spec.specials == "ieee" else np.zeros(full.shape, bool)


def split(format, codes):
    """Negative flag, significand and exponent of its lsb; NaN and Inf are treated as numbers."""
    spec = SPECS[format]
    sign, exponent, mantissa = fields(format, codes)
    significand = mantissa + ((exponent != 0).astype(np.int64) << spec.mantissa_bits)
    return sign, significand, np.maximum(exponent, 1) - spec.bias - spec.mantissa_bits


def decode(format, codes):
    """Values of ``codes`` as float64; exact."""
    if SPECS[format].bits <= 16:
        return _table(format)[np.asarray(codes)]
    return _decode(format, codes)


@cache
def _table(format):
    return _decode(format, np.arange(1 << SPECS[format].bits))


def _decode(format, codes):
    sign, significand, exponent = split(format, codes)
    value = np.ldexp(significand.astype(np.float64), exponent.astype(np.int32))
    value = np.where(is_inf(format, codes), np.inf, value)
    value = np.where(is_nan(format, codes), np.nan, value)
    return np.where(sign, -value, value)


def scale_value(scales):
    """Values of E8M0 scale bytes as float64; 0xFF is NaN."""
    scales = np.asarray(scales).astype(np.int32)
    return np.where(scales == SCALE_NAN, np.nan, np.ldexp(1.0, scales - SCALE_BIAS))


def row_bytes(format, elements):
    """Bytes of a row of ``elements`` codes."""
    return elements * SPECS[format].bits // 8


def pack(format, codes):
    """Codes [..., n] to bytes: little endian; two E2M1 a byte, the lower index in the low half."""
    spec = SPECS[format]
    codes = np.ascontiguousarray(codes, dtype=spec.code_dtype)
    if spec.bits == 4:
        return (codes[..., 0::2] & 15) | (codes[..., 1::2] << 4)
    return codes.astype(np.dtype(spec.code_dtype).newbyteorder("<")).view(np.uint8)


def unpack(format, data):
    """Bytes to codes; the inverse of :func:`pack`."""
    spec = SPECS[format]
    data = np.ascontiguousarray(data, dtype=np.uint8)
    if spec.bits == 4:
        return np.stack([data & 15, data >> 4], -1).reshape(*data.shape[:-1], -1)
    return data.view(np.dtype(spec.code_dtype).newbyteorder("<")).astype(spec.code_dtype)
