"""Encoding of a PE's commands and of submission entries, see docs/programming-model.md."""
import enum
from dataclasses import dataclass

import numpy as np

LINE = 64           # bytes of a line, of a command and of a submission entry
ROWS = 16           # rows of operand A in a dot-product engine
MAX_A_BYTES = 2048  # bytes of a row of operand A that one buffer holds


class Op(enum.IntEnum):
    NOP = 0x00
    CB_CONFIG = 0x01
    FENCE = 0x02
    BARRIER = 0x03
    END = 0x0F
    DMA_IN = 0x10
    DMA_OUT = 0x11
    GATHER = 0x12
    LOAD_A = 0x20
    DOT = 0x21
    SCORE = 0x22
    WEIGH = 0x23
    REDUCE = 0x24
    SIMD = 0x30
    TRANSPOSE = 0x40


class Submission(enum.IntEnum):
    COPY_IN = 1
    COPY_OUT = 2
    LAUNCH = 3
    NOP = 4
    EVENT_RECORD = 5
    EVENT_WAIT = 6


class Code(enum.IntEnum):
    OK = 0
    BAD_COMMAND = 1
    BAD_FIELD = 2
    CB_TOO_SMALL = 3
    BAD_ADDRESS = 4
    WATCHDOG = 5
    POISON = 6
    ABORTED = 7
    LINK_DOWN = 8
    NETWORK = 9


class Group(enum.IntEnum):
    """Who reads the same lines in the same order as a PE: one fetch for all."""

    ALONE = 0
    ROW = 1
    COLUMN = 2
    ALL = 3


class Hint(enum.IntEnum):
    """What a DMA command says of its lines to the cache in front of HBM."""

    NONE = 0
    NO_ALLOCATE = 1
    NO_WRITE_BACK = 2
    PREFETCH = 3


class Unit(enum.IntEnum):
    COMMAND_PROCESSOR = 0
    DMA_IN = 1
    DMA_OUT = 2
    A_LOADER = 3
    DOT = 4
    REDUCTION = 5
    SIMD = 6
    LAYOUT = 7
    SOFTMAX = 8


MESSAGE_ENGINE = 9      # unit of a report that is no PE's


class Format(enum.IntEnum):
    FP32 = 0
    BF16 = 1
    FP16 = 2
    E4M3 = 3
    E5M2 = 4
    E2M1 = 5

    @property
    def is_mx(self):
        return self >= Format.E4M3

    @property
    def bits(self):
        return {0: 32, 1: 16, 2: 16, 3: 8, 4: 8, 5: 4}[self]

    def row_bytes(self, columns):
        """Bytes of a row; MX rows are padded to whole blocks of 32."""
        return (ceil(columns, 32) if self.is_mx else columns) * self.bits // 8


class Binary(enum.IntEnum):
    NONE = 0
    ADD = 1
    SUB = 2
    MUL = 3
    MAX = 4
    MIN = 5
    ROTATE = 6  # pairs of columns by pairs of (cosine, sine)


class Function(enum.IntEnum):
    NONE = 0
    EXP2 = 1
    RECIP = 2
    RSQRT = 3
    GELU = 4
    SILU = 5


class Reduce(enum.IntEnum):
    NONE = 0
    SUM = 1
    MAX = 2


class Norm(enum.IntEnum):
    NONE = 0
    RMS = 1
    LAYER = 2


class Source1(enum.IntEnum):
    FULL = 0    # an array of the same shape
    ROW = 1     # one row for all rows
    SCALAR = 2  # one FP32 scalar a row


class Rule(enum.IntEnum):
    FLOOR = 0
    RCEIL = 1
    EVEN = 2
    CEIL = 3


class Region(enum.IntEnum):
    SRAM = 0
    HBM = 1
    REGISTERS = 2
    CONTROL = 3
    CHANNEL = 4     # counters of the HBM pseudo-channels
    NETWORK = 5     # windows of the NICs at a die
    ENGINE = 6      # its message engine


def address(die, region, offset=0):
    """Device address of a byte."""
    return die << 44 | region << 40 | offset


def offset_of(at):
    """Offset in its region of a device address."""
    return at & (1 << 40) - 1


def ceil(value, unit):
    """The smallest multiple of ``unit`` that is at least ``value``."""
    return -(-value // unit) * unit


def lines(count_bytes):
    """Lines that hold ``count_bytes``."""
    return -(-count_bytes // LINE)


def blocks(columns, a, b):
    """Blocks of a row of ``columns`` elements in a product of formats ``a`` and ``b``."""
    return -(-columns // (32 if a.is_mx and b.is_mx else 16))


def scale_stride(columns):
    """Bytes between the scale rows of an MX operand of ``columns`` columns."""
    count = -(-columns // 32)
    return 1 << (count - 1).bit_length() if count <= 64 else ceil(count, 64)


@dataclass(frozen=True)
class Operand:
    """A CB operand: which buffer, how far into it, what it waits for and gives on [lines]."""

    cb: int
    offset: int = 0
    wait: int = 0
    release: int = 0

    def words(self):
        return self.cb | self.offset << 8, self.wait | self.release << 16


def command(op, tag=0, **fields):
    """One 64-byte command as 16 words; ``w5=...`` sets word 5, an Operand sets two words."""
    words = np.zeros(16, np.uint32)
    words[0] = op | tag << 16
    for name, value in fields.items():
        at = int(name[1:])
        if value is None:
            continue
        if isinstance(value, Operand):
            words[at:at + 2] = value.words()
        else:
            words[at] = int(value) & 0xffffffff
    return words


def float_word(value):
    return int(np.float32(value).view(np.uint32))
