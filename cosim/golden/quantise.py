"""Quantiser: FP32 to the MX formats, 32 elements and one E8M0 scale at a time.

Scale rules, all exact, from the exponent field E and the 23-bit mantissa M of the largest
magnitude of the block (``emax`` is the exponent of the largest element, 1.L its significand):
scale byte = max(0, E - emax + up), where up is

- FLOOR: 0, so 2^(floor(log2 amax) - emax) (OCP Microscaling v1.0, 6.3);
- RCEIL: M > L, the smallest power of two at or above amax / largest element (NVIDIA cuBLAS,
  "1D block scaling", computed without an intermediate rounding);
- EVEN: amax is rounded to the element's mantissa bits before FLOOR: M >= all ones of the
  element's mantissa and a half (Rouhani et al., "Microscaling Data Formats for Deep Learning";
  the same in torchao);
- CEIL: M > 0, so 2^(ceil(log2 amax) - emax).

A block of zeros has scale byte 0; one with a NaN or an infinity has scale byte 0xFF and elements
0. Elements are x / scale, exact, then rounded to nearest even or stochastically, then clamped to
the largest element. They keep their sign, zeros too.
"""
from enum import IntEnum

import numpy as np

from cosim.golden.formats import BLOCK, SCALE_NAN, SPECS, Format

FRACTION_BITS = 23  # of an element under rounding; what is below only tells "more than"
ROW_STEP = np.uint32(0x85EBCA6B)     # odd constants with dense bits, so that neighbours differ
COLUMN_STEP = np.uint32(0x9E3779B1)  # in many bits before they are mixed


class Rule(IntEnum):
    """Scale rules, as coded in the SIMD command."""

    FLOOR = 0
    RCEIL = 1
    EVEN = 2
    CEIL = 3


LARGEST = {Format.E4M3: 0x7E, Format.E5M2: 0x7B, Format.E2M1: 0x7}  # codes of the largest element


def largest_exponent(format):
    """Unbiased exponent of the largest element ("emax" in the specification)."""
    spec = SPECS[format]
    return (LARGEST[format] >> spec.mantissa_bits) - spec.bias


def round_up_from(format, rule):
    """Smallest mantissa of the block's largest magnitude that raises the scale; 2^23: none."""
    bits = SPECS[format].mantissa_bits
    match Rule(rule):
        case Rule.FLOOR:
            return 1 << 23
        case Rule.RCEIL:
            return ((LARGEST[format] & ((1 << bits) - 1)) << (23 - bits)) + 1
        case Rule.EVEN:
            return (1 << 23) - (1 << (22 - bits))
    return 1


def scale_bytes(bits, format, rule):
    """Scale byte of each block of FP32 patterns ``bits[..., 32]``."""
    magnitude = (np.asarray(bits, np.uint32) & 0x7FFFFFFF).max(axis=-1).astype(np.int64)
    up = (magnitude & 0x7FFFFF) >= round_up_from(format, rule)
    scale = np.maximum((magnitude >> 23) - largest_exponent(format) + up, 0)
    return np.where(magnitude >= 0x7F800000, SCALE_NAN, scale).astype(np.uint8)


def mix(words):
    """32-bit integer hash (Jenkins), a bijection made of shifts, additions and XORs."""
    a = np.asarray(words, np.uint32).copy()
    a = (a + np.uint32(0x7ED55D16)) + (a << np.uint32(12))
    a = (a ^ np.uint32(0xC761C23C)) ^ (a >> np.uint32(19))
    a = (a + np.uint32(0x165667B1)) + (a << np.uint32(5))
    a = (a + np.uint32(0xD3A2646C)) ^ (a << np.uint32(9))
    a = (a + np.uint32(0xFD7046C5)) + (a << np.uint32(3))
    return (a ^ np.uint32(0xB55A4F09)) ^ (a >> np.uint32(16))


def random_bits(seed, rows, columns):
    """23 random bits for each element: the top of mix(row x A + column x B + mix(seed)).

    The sum is taken modulo 2^32, A and B are :data:`ROW_STEP` and :data:`COLUMN_STEP`. ``rows``
    and ``columns`` are broadcast.
    """
    place = np.asarray(rows, np.uint32) * ROW_STEP + np.asarray(columns, np.uint32) * COLUMN_STEP
    return (mix(place + mix([seed])) >> np.uint32(9)).astype(np.int64)


def round_elements(bits, scales, format, random=None):
    """Codes of FP32 patterns given the scale byte of each; ``random`` makes it stochastic.

    Nearest even adds half and looks at what is below; stochastic rounding adds ``random`` (23
    bits) to the first 23 bits of the fraction.
    """
    spec = SPECS[format]
    bits = np.asarray(bits, np.uint32).astype(np.int64)
    sign, field, mantissa = bits >> 31, (bits >> 23) & 0xFF, bits & 0x7FFFFF
    significand = mantissa | (field != 0).astype(np.int64) << 23
    exponent = np.maximum(field, 1)
    for step in (16, 8, 4, 2, 1):  # subnormal numbers: leading one to bit 23
        low = significand < 1 << (24 - step)
        significand = np.where(low, significand << step, significand)
        exponent = np.where(low, exponent - step, exponent)
    exponent = exponent - np.asarray(scales, np.int64)
    down = np.minimum(np.maximum(1 - spec.bias - exponent, 0), 31)
    wide = significand << spec.mantissa_bits  # lowest kept bit at bit 23, before the shift
    kept = wide >> down
    if random is None:
        sticky = (kept << down) != wide
        half = (kept & 0x7FFFFF) + ((kept >> 23) & 1 | sticky)
        whole = (kept >> 23) + (half > 0x400000)
    else:
        whole = (kept + random) >> 23
    code = (np.maximum(exponent + spec.bias, 1) - 1 << spec.mantissa_bits) + whole
    code = np.minimum(code, LARGEST[format])
    return (sign << (spec.bits - 1) | code).astype(np.uint8)


def quantise(values, format, rule=Rule.FLOOR, *, stochastic=False, seed=0):
    """Codes and scale bytes of FP32 ``values`` [..., 32 k]: blocks along the last axis.

    For stochastic rounding the last axis is the column and the others, flattened, are the row.
    """
    values = np.ascontiguousarray(values, np.float32)
    bits = values.view(np.uint32)
    blocks = bits.reshape(*bits.shape[:-1], -1, BLOCK)
    scales = scale_bytes(blocks, format, rule)
    random = None
    if stochastic:
        columns = bits.shape[-1]
        rows = np.arange(max(bits.size // max(columns, 1), 1))[:, None]
        random = random_bits(seed, rows, np.arange(columns)).reshape(blocks.shape)
    codes = round_elements(blocks, scales[..., None], format, random)
    codes = np.where(scales[..., None] == SCALE_NAN, 0, codes).astype(np.uint8)
    return codes.reshape(bits.shape), scales
