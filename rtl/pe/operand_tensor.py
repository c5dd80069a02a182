"""Sizes and checks of operand tensors, from the fields of LOAD_A and DOT."""
from amaranth import *

from rtl.mx.formats import Format

BUFFER_LINES = 32       # lines of a row in an A buffer: 2048 bytes (this project's choice)
BUFFER_SCALES = 128     # scales of a row in an A buffer


def is_wide(format):
    """BF16 or FP16: 16 elements a block, no scale."""
    return (format == Format.BF16) | (format == Format.FP16)


def is_mx(format):
    return (format == Format.E4M3) | (format == Format.E5M2) | (format == Format.E2M1)


def block_log2(format, half):
    """Bytes of a block as 8 << result; with ``half``, MX blocks have 16 elements."""
    return Mux(is_wide(format), 2, Mux(format == Format.E2M1, 1, 2) - half)[:2]


def row_lines(blocks, log2):
    """Lines of a row of ``blocks`` blocks of 8 << ``log2`` bytes."""
    return ((blocks << log2) + 7) >> 3


def row_scales(blocks, half):
    """Scales of a row of MX blocks."""
    return Mux(half, (blocks + 1) >> 1, blocks)


def scales_fit(stride, count):
    """Whether rows of ``count`` scales, ``stride`` bytes apart, keep to the rule for strides."""
    small = Const(0)
    for log2 in range(6):
        small |= (stride == 1 << log2) & (count <= 1 << log2)
    return (stride[:6] == 0) | small


def stride_fits(stride, grant, rows):
    """Whether rows ``stride`` lines apart can be told apart in their circular buffer."""
    return (rows <= 1) | (stride <= grant.limit - grant.base)
