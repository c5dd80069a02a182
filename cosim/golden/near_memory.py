"""Near-memory reduction: S = A + B, element by element, with the hardware's bits.

Operands and result have one format. Elements become FP32 (exactly, but for MX elements that
overflow, which become infinite), are added in FP32 and rounded to nearest even, and the sum is
rounded to nearest even into the format; MX sums are quantised again, block by block. A NaN becomes
the canonical one of the format, an MX block with a NaN or an infinity one with the scale of NaN.
"""
import numpy as np

from cosim.golden.formats import BLOCK, MX_FORMATS, Format, decode, scale_value
from cosim.golden.quantise import Rule, quantise
from cosim.golden.simd import NAN, Operation, binary, narrow, widen

FORMATS = (Format.FP32, Format.BF16, Format.FP16, Format.E4M3, Format.E5M2)


def dequantise(codes, scales, format):
    """FP32 patterns of MX codes [..., 32 k] with the scale bytes [..., k] of their blocks."""
    values = decode(format, codes)
    blocks = values.reshape(*values.shape[:-1], -1, BLOCK) * scale_value(scales)[..., None]
    with np.errstate(over="ignore"):
        bits = blocks.reshape(values.shape).astype(np.float32).view(np.uint32)
    return np.where(np.isnan(blocks.reshape(values.shape)), NAN, bits)


def add(a, b, format):
    """Codes of the sums of FP32, BF16 or FP16 codes."""
    return narrow(binary(Operation.ADD, widen(a, format), widen(b, format)), format)


def add_mx(a, scales_a, b, scales_b, format, rule=Rule.FLOOR):
    """Codes and scale bytes of the sums of MX blocks; arguments as of :func:`dequantise`."""
    if format not in MX_FORMATS:
        raise ValueError(f"Format must be an MX format, not {format!r}")
    total = binary(Operation.ADD, dequantise(a, scales_a, format),
                   dequantise(b, scales_b, format))
    return quantise(total.view(np.float32), format, rule)
