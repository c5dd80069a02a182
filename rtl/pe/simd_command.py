"""The SIMD command: its fields, and what is refused."""
from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.mx.formats import Format
from rtl.mx.quantise import Rule
from rtl.pe.frontend import OperandField
from rtl.pe.functions import Function
from rtl.pe.interfaces import grant_layout

LANES = 16
SOURCE_FORMATS = (Format.FP32, Format.BF16, Format.FP16)
MX_FORMATS = (Format.E4M3, Format.E5M2, Format.E2M1)
SOURCE0, SOURCE1, DESTINATION, SCALES = range(4)    # index into the grants of a job
OPERANDS = (OperandField(2), OperandField(4, optional=True), OperandField(6, producer=True),
            OperandField(13, producer=True, optional=True))


class Operation(enum.Enum, shape=4):
    """Binary operation with source 1."""

    NONE = 0
    ADD = 1
    SUBTRACT = 2
    MULTIPLY = 3
    MAX = 4
    MIN = 5
    ROTATE = 6      # pairs of columns by pairs of (cosine, sine)


class Reduce(enum.Enum, shape=2):
    """Reduction of a row to one number."""

    NONE = 0
    SUM = 1
    MAX = 2


class Norm(enum.Enum, shape=2):
    """What a row is divided by."""

    NONE = 0
    RMS = 1         # the root of the mean of its squares
    LAYER = 2       # its standard deviation, its mean subtracted before


class Source1(enum.Enum, shape=2):
    """What source 1 is."""

    FULL = 0        # an array like source 0
    ROW = 1         # one row for all rows
    SCALAR = 2      # one FP32 number a row


def command_layout():
    """Bits of a SIMD command; codes are plain numbers, since they may be wrong."""
    return data.StructLayout({
        "opcode": 8, "reserved0": 8, "tag": 16,
        "format0": 4, "format1": 4, "destination": 4, "operation": 4, "function": 4,
        "reduce": 2, "mode": 2, "rule": 3, "stochastic": 1, "affine": 1, "norm": 2, "reserved1": 1,
        "operands": 192,
        "rows": 16, "columns": 16, "stride0": 16, "stride1": 16,
        "stride": 16, "scale_stride": 16, "multiplier": 32, "addend": 32,
        "scales": 64, "seed": 32})


def settings_layout(*, lines):
    """A command with the grants of its operands: source 0, source 1, destination, scales."""
    return data.StructLayout({"command": command_layout(),
                              "grants": data.ArrayLayout(grant_layout(lines=lines), 4)})


def is_one_of(value, members):
    return Cat(value == member for member in members).any()


def is_mx(command):
    """Whether the command quantises."""
    return is_one_of(command.destination, MX_FORMATS) & (command.reduce == Reduce.NONE)


def row_lines(format, columns):
    """Lines of a row of FP32, BF16 or FP16."""
    return Mux(format == Format.FP32, (columns + 15) >> 4, (columns + 31) >> 5)


class SimdChecker(wiring.Component):
    """Says whether the SIMD engine takes a command. Latency is 0 cycles.

    Refused, with the number of the word: a code that does not exist or reserved bits (1),
    stochastic rounding of a result without scales (1), a norm with any other operation or with a
    source 1 that is not rows (1), a rotation with affine or by scalars (1), an operand that is
    needed and absent (4, 13), no rows or columns (8), a rotation of an odd number of columns (8),
    a source row stride longer than the CB (9), a destination row
    stride longer than the CB or shorter than a row, a scale row stride that is not allowed, too
    short for a row or longer than the CB (10). Strides matter with more than one row only; that
    of source 1 in a LayerNorm always.

    Parameters
    ----------
    lines : int
        Size of local memory [line].

    Members
    -------
    settings : In(settings_layout(lines=lines))
        The command and its grants.
    refused : Out(1)
        It is refused.
    field : Out(4)
        Number of the word, the lowest if several are wrong.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({"settings": In(settings_layout(lines=lines)), "refused": Out(1),
                          "field": Out(4)})

    def elaborate(self, platform):
        m = Module()
        command, grants = self.settings.command, self.settings.grants
        mx, reduces = is_mx(command), command.reduce != Reduce.NONE
        binary = command.operation != Operation.NONE
        rotates = command.operation == Operation.ROTATE
        norm, layer = command.norm != Norm.NONE, command.norm == Norm.LAYER
        scalar = command.mode == Source1.SCALAR
        many = command.rows > 1

        def size(grant):
            return grant.limit - grant.base

        codes = (
            ~is_one_of(command.format0, SOURCE_FORMATS)
            | (binary & (command.mode > Source1.SCALAR.value))
            | ((norm | (binary & ~scalar)) & ~is_one_of(command.format1, SOURCE_FORMATS))
            | (rotates & (command.affine | scalar)) | (command.norm > Norm.LAYER.value)
            | (norm & (binary | command.affine | reduces | (command.mode != Source1.ROW)
                       | (command.function != Function.NONE)))
            | (command.operation > Operation.ROTATE.value)
            | (command.function > Function.SILU.value)
            | (command.reduce > Reduce.MAX.value) | (command.rule > Rule.CEIL.value)
            | (~reduces & (command.destination > Format.E2M1.value))
            | (command.stochastic & ~mx) | command.reserved1.any())
        sources = (many & (command.stride0 > size(grants[SOURCE0]))) | (
            (command.stride1 > size(grants[SOURCE1]))
            & (layer | (many & binary & (command.mode == Source1.FULL))))

        blocks = Signal(12)
        length, scale_size = Signal(13), Signal(22)
        m.d.comb += [blocks.eq((command.columns + 31) >> 5),
                     scale_size.eq(size(grants[SCALES]) << 6)]
        with m.Switch(command.destination):
            with m.Case(Format.E4M3, Format.E5M2):
                m.d.comb += length.eq((blocks + 1) >> 1)
            with m.Case(Format.E2M1):
                m.d.comb += length.eq((blocks + 3) >> 2)
            with m.Default():
                m.d.comb += length.eq(row_lines(command.destination, command.columns))
        stride = command.scale_stride
        aligned = (stride[:6] == 0) | is_one_of(stride, (1, 2, 4, 8, 16, 32))
        target = (many & ~reduces & ((command.stride < length)
                                     | (command.stride > size(grants[DESTINATION]))))
        target_scales = mx & (
            ~aligned | ((stride < blocks) & (many | (stride != 0)))
            | ((stride > scale_size) & (grants[SCALES].limit != 0)))

        for field, wrong in reversed((
                (1, codes), (4, (binary | norm) & (grants[SOURCE1].limit == 0)),
                (8, (command.rows == 0) | (command.columns == 0)
                 | (rotates & command.columns[0])), (9, sources),
                (10, target | target_scales), (13, mx & (grants[SCALES].limit == 0)))):
            with m.If(wrong):
                m.d.comb += [self.refused.eq(1), self.field.eq(field)]
        return m
