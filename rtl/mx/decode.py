"""Operand decoders: packed codes to the form that the dot products want; one per row or column."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.mx.formats import Format
from rtl.mx.operands import Mx4A, Mx4B, Mx8Operand, Wide16Operand

ONES = 0x0101010101010101  # bit 0 of each 8-bit field


def field_sum(word):
    """Sum of the eight 8-bit fields of ``word``, 16 bits."""
    low = 0x00FF00FF00FF00FF
    pairs = (word & low) + ((word >> 8) & low)
    quads = (pairs + (pairs >> 16))[:64]
    return (quads + (quads >> 32))[:16]


class Mx4Decoder(wiring.Component):
    """Decodes 32 packed E2M1 codes for one side of :class:`rtl.mx.dot.Mx4Dot`.

    Latency 0 cycles. The code of the lower index is in the lower half of a byte. Both sides map
    elements to fields in the same way: words 0 and 2 hold the even elements of the lower and
    upper 8 bytes, words 1 and 3 the odd ones.
    Source: OCP Microscaling Formats v1.0, clause 5.3.3.

    Parameters
    ----------
    side : str
        "a" or "b". :exc:`ValueError` if another.

    Members
    -------
    codes : In(128)
        Packed codes.
    o : Out(Mx4A()) or Out(Mx4B())
        Decoded block.
    """

    def __init__(self, *, side):
        if side not in ("a", "b"):
            raise ValueError(f"Side must be 'a' or 'b', not {side!r}")
        self.side = side
        super().__init__({"codes": In(128), "o": Out(Mx4A() if side == "a" else Mx4B())})

    def elaborate(self, platform):
        m = Module()

        def wire(name, value):
            signal = Signal(64, name=name)
            m.d.comb += signal.eq(value)
            return signal

        magnitudes, negatives = Const(0, 64), Const(0, 64)
        for word in range(4):
            code = wire(f"code{word}", self.codes[64 * (word // 2):][4 * (word % 2):64])
            bit = [wire(f"bit{word}{i}", (code >> i) & ONES) for i in range(4)]
            fraction, low, high, sign = bit
            plane = [fraction & ~high, (low & ~high) | (fraction & high & ~low),
                     high & (~low | fraction), high & low]
            magnitude = wire(f"magnitude{word}",
                             plane[0] | (plane[1] << 1) | (plane[2] << 2) | (plane[3] << 3))
            mask = wire(f"mask{word}", (sign << 5) - sign)
            negative = wire(f"negative{word}", magnitude & mask)
            if self.side == "a":
                m.d.comb += self.o.x[word].eq(15 * ONES + magnitude - (negative << 1))
            else:
                m.d.comb += self.o.negative[word].eq(mask)
                for i in range(4):
                    one = wire(f"plane{i}{word}", plane[i])
                    m.d.comb += getattr(self.o, f"plane{i}")[word].eq((one << 5) - one)
                magnitudes, negatives = magnitudes + magnitude, negatives + negative
        if self.side == "b":
            total, below = wire("total", magnitudes), wire("below", negatives)
            m.d.comb += self.o.offset.eq(15 * field_sum(total) + field_sum(below))
        return m


class Element:
    """Fields of one element of a given format: ``negative``, ``shift``, ``significand``, flags.

    ``shift`` is the exponent field, less 1 unless it is 0, so the element is ``significand <<
    shift`` in units of the smallest subnormal.
    """

    def __init__(self, code, *, exponent_bits, nan_only=False, specials=True):
        mantissa_bits = len(code) - 1 - exponent_bits
        field, fraction = code[mantissa_bits:-1], code[:mantissa_bits]
        full = field.all() if specials else Const(0)
        self.mantissa_bits = mantissa_bits
        self.negative = code[-1]
        self.nan = full & (fraction.all() if nan_only else fraction.any())
        self.inf = Const(0) if nan_only else full & ~fraction.any()
        self.significand = Mux(self.nan | self.inf, 0, Cat(fraction, field.any()))
        self.shift = (field - field.any())[:exponent_bits]


def elements(data, index):
    """The element at ``index`` as each format that the packed ``data`` may hold."""
    code4, code8 = data.word_select(index, 4), data.word_select(index, 8)
    return {Format.E2M1: Element(code4, exponent_bits=2, specials=False),
            Format.E4M3: Element(code8, exponent_bits=4, nan_only=True),
            Format.E5M2: Element(code8, exponent_bits=5)}


class Mx8Decoder(wiring.Component):
    """Decodes 32 packed MX codes for either side of :class:`rtl.mx.dot.Mx8Dot`.

    Latency 0 cycles. Source: OCP Microscaling Formats v1.0, clauses 5.3.1, 5.3.3, 6.3.

    Members
    -------
    codes : In(256)
        E4M3 or E5M2 codes, or E2M1 codes in the lower half, two a byte, lower index in the lower
        half of the byte.
    format : In(Format)
        Format of the codes; one of these three.
    scale : In(8)
        E8M0 scale of the block; 0x7F makes the codes plain FP8.
    o : Out(Mx8Operand())
        Decoded block.
    """

    codes: In(256)
    format: In(Format)
    scale: In(8)
    o: Out(Mx8Operand())

    def elaborate(self, platform):
        m = Module()
        lsb = {Format.E4M3: 7, Format.E5M2: 0, Format.E2M1: 15}  # above the lsb of E5M2
        nan = Signal(32)
        m.d.comb += self.o.nan.eq(nan.any() | (self.scale == 0xFF))
        with m.Switch(self.format):
            for format in lsb:
                with m.Case(format):
                    m.d.comb += self.o.exponent.eq(self.scale + lsb[format])
                    for i in range(32):
                        e = elements(self.codes, i)[format]
                        m.d.comb += [
                            self.o.magnitude[i].eq(e.significand << e.shift[:3]),
                            self.o.place[i].eq(e.shift[3:]),
                            self.o.negative[i].eq(e.negative),
                            self.o.zero[i].eq((e.significand == 0) & ~e.inf),
                            self.o.inf[i].eq(e.inf),
                            nan[i].eq(e.nan),
                        ]
        return m


class Wide16Decoder(wiring.Component):
    """Decodes 16 packed codes for either side of :class:`rtl.mx.dot.Wide16Dot`.

    Latency 0 cycles. Significands are left-justified in 11 bits, subnormals stay as they are; the
    scale of an MX format is added to the exponent.

    Members
    -------
    codes : In(256)
        BF16 or FP16 codes, or E4M3 or E5M2 codes in the low 128 bits, or E2M1 codes in the low
        64, lower index in lower bits.
    format : In(Format)
        Format of the codes; any but FP32.
    scale : In(8)
        E8M0 scale of the block that holds the group; not used by BF16 and FP16.
    o : Out(Wide16Operand())
        Decoded group.
    """

    codes: In(256)
    format: In(Format)
    scale: In(8)
    o: Out(Wide16Operand())

    def elaborate(self, platform):
        m = Module()
        nan = Signal(16)
        bias = {Format.BF16: 127, Format.FP16: 15, Format.E4M3: 7, Format.E5M2: 15, Format.E2M1: 1}
        m.d.comb += self.o.nan.eq(nan.any())
        with m.Switch(self.format):
            for format in bias:
                scaled = format not in (Format.BF16, Format.FP16)
                with m.Case(format):
                    if scaled:
                        with m.If(self.scale == 0xFF):
                            m.d.comb += self.o.nan.eq(1)
                    for i in range(16):
                        code16 = self.codes.word_select(i, 16)
                        e = (elements(self.codes, i) | {
                            Format.BF16: Element(code16, exponent_bits=8),
                            Format.FP16: Element(code16, exponent_bits=5)})[format]
                        zero = e.significand == 0
                        offset = 512 + 1 - bias[format] - 10 - (127 if scaled else 0)
                        exponent = e.shift + offset + (self.scale if scaled else 0)
                        m.d.comb += [
                            self.o.significand[i].eq(e.significand << (10 - e.mantissa_bits)),
                            self.o.exponent[i].eq(Mux(zero, 0, exponent)),
                            self.o.negative[i].eq(e.negative),
                            self.o.zero[i].eq(zero & ~e.inf & ~e.nan),
                            self.o.inf[i].eq(e.inf),
                            nan[i].eq(e.nan),
                        ]
        return m
