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


def e4m3_of_e2m1(code):
    """E4M3 code of the same value."""
    half = ~code[1] & ~code[2] & code[0]  # the subnormal, 0.5
    field = Mux(code[1:3] != 0, code[1:3] + 6, Mux(half, 6, 0))
    return Cat(Const(0, 2), code[0] & ~half, field[:4], code[3])


def fp16_of_e2m1(code):
    """FP16 code of the same value."""
    half = ~code[1] & ~code[2] & code[0]
    field = Mux(code[1:3] != 0, code[1:3] + 14, Mux(half, 14, 0))
    return Cat(Const(0, 9), code[0] & ~half, field[:5], code[3])


def fp16_of_e4m3(code):
    """FP16 code of the same value; subnormals become normal, NaN becomes a NaN."""
    fraction, field = code[:3], code[3:7]
    small = Mux(fraction[2], Cat(Const(0, 8), fraction[:2], Const(8, 5)),
                Mux(fraction[1], Cat(Const(0, 9), fraction[0], Const(7, 5)),
                    Mux(fraction[0], Const(6 << 10, 15), 0)))
    normal = Cat(Const(0, 7), fraction, (field + 8)[:5])
    return Cat(Mux(code[:7] == 0x7F, 0x7E00, Mux(field == 0, small, normal))[:15], code[7])


class Mx8Decoder(wiring.Component):
    """Decodes 32 packed MX codes for either side of :class:`rtl.mx.dot.Mx8Dot`.

    Latency 0 cycles. An E2M1 code is turned into the E4M3 code of the same value first.
    Source: OCP Microscaling Formats v1.0, clauses 5.3.1, 5.3.3, 6.3.

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
        narrow, e5m2 = Signal(), Signal()
        nan = Signal(32)
        m.d.comb += [narrow.eq(self.format == Format.E2M1), e5m2.eq(self.format == Format.E5M2),
                     self.o.nan.eq(nan.any() | (self.scale == 0xFF)),
                     self.o.exponent.eq(self.scale + Mux(e5m2, 0, 7))]
        for i in range(32):
            code, field = Signal(8, name=f"code{i}"), Signal(5, name=f"field{i}")
            significand, shift = Signal(4, name=f"significand{i}"), Signal(5, name=f"shift{i}")
            normal, special = field != 0, Signal(name=f"special{i}")
            m.d.comb += [
                code.eq(Mux(narrow, e4m3_of_e2m1(self.codes.word_select(i, 4)),
                            self.codes.word_select(i, 8))),
                field.eq(Mux(e5m2, code[2:7], code[3:7])),
                special.eq(Mux(e5m2, field == 31, code[:7] == 0x7F)),
                significand.eq(Mux(special, 0, Mux(e5m2, Cat(code[:2], normal),
                                                   Cat(code[:3], normal)))),
                shift.eq(field - normal),
                self.o.magnitude[i].eq(significand << shift[:3]),
                self.o.place[i].eq(shift[3:]),
                self.o.negative[i].eq(code[7]),
                self.o.zero[i].eq((significand == 0) & ~special),
                self.o.inf[i].eq(special & (code[:2] == 0)),
                nan[i].eq(special & (code[:2] != 0)),
            ]
        return m


class Wide16Decoder(wiring.Component):
    """Decodes 16 packed codes for either side of :class:`rtl.mx.dot.Wide16Dot`.

    Latency 0 cycles. An MX element is turned into the FP16 code of the same value first, and its
    scale is added to the exponent. BF16 significands are left-justified in 11 bits; subnormals
    stay as they are.

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
        bf16, scaled, nan = Signal(), Signal(), Signal(16)
        offset = Signal(10)  # of the exponents: 512 above the true ones
        m.d.comb += [
            bf16.eq(self.format == Format.BF16),
            scaled.eq(~bf16 & (self.format != Format.FP16)),
            offset.eq(Mux(bf16, 512 - 127 - 10,
                          512 - 15 - 10 + Mux(scaled, self.scale - 127, 0))),
            self.o.nan.eq(nan.any() | (scaled & (self.scale == 0xFF))),
        ]
        for i in range(16):
            code4, code8 = self.codes.word_select(i, 4), self.codes.word_select(i, 8)
            code, field = Signal(16, name=f"code{i}"), Signal(8, name=f"field{i}")
            significand, special = Signal(11, name=f"significand{i}"), Signal(name=f"special{i}")
            with m.Switch(self.format):
                with m.Case(Format.E2M1):
                    m.d.comb += code.eq(fp16_of_e2m1(code4))
                with m.Case(Format.E4M3):
                    m.d.comb += code.eq(fp16_of_e4m3(code8))
                with m.Case(Format.E5M2):
                    m.d.comb += code.eq(Cat(Const(0, 8), code8))
                with m.Default():
                    m.d.comb += code.eq(self.codes.word_select(i, 16))
            normal, fraction = field != 0, Mux(bf16, code[:7] << 3, code[:10])
            zero = significand == 0
            m.d.comb += [
                field.eq(Mux(bf16, code[7:15], code[10:15])),
                special.eq(field == Mux(bf16, 255, 31)),
                significand.eq(Mux(special, 0, Cat(fraction[:10], normal))),
                self.o.significand[i].eq(significand),
                self.o.exponent[i].eq(Mux(zero, 0, field + ~normal + offset)),
                self.o.negative[i].eq(code[15]),
                self.o.zero[i].eq(zero & ~special),
                self.o.inf[i].eq(special & (fraction == 0)),
                nan[i].eq(special & (fraction != 0)),
            ]
        return m
