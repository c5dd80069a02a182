"""Number formats as the hardware codes them; the same codes as ``cosim.golden.formats``."""
from amaranth.lib import enum


class Format(enum.Enum, shape=4):
    """Element format of an operand or a result."""

    FP32 = 0  # IEEE binary32
    BF16 = 1  # bfloat16
    FP16 = 2  # IEEE binary16
    E4M3 = 3  # MXFP8 E4M3, block of 32 with one E8M0 scale
    E5M2 = 4  # MXFP8 E5M2, the same
    E2M1 = 5  # MXFP4, the same
