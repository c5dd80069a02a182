"""Rounding of softmax weights to the format of P."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.common.fp32 import NAN, effective_exponent, is_nan, normalise, shift_right_sticky
from rtl.mx.formats import Format

# Of the format scaled as P is held: mantissa bits, smallest exponent field of FP32 that gives a
# normal code, bias of FP32 less that of the format, code of NaN.
SHAPES = {Format.BF16: (7, 1, 0, 0x7FC0), Format.FP16: (10, 98, 112, 0x7E00),
          Format.E4M3: (3, 113, 120, 0x7F)}
SHIFTS = {Format.BF16: 0, Format.FP16: 15, Format.E4M3: 8}     # P is held times 2^shift
WIDEST = 10     # mantissa bits


class WeightRounder(wiring.Component):
    """Rounds a weight to BF16, or 2^15 times it to FP16, or 2^8 times it to E4M3.

    Rounding is to nearest, ties to even, subnormal codes included. Latency is 0 cycles.

    Members
    -------
    p : In(32)
        FP32 pattern, from 0 to 1 or NaN.
    format : In(Format)
        BF16, FP16 or E4M3.
    code : Out(16)
        The code; an E4M3 code in both halves.
    value : Out(32)
        FP32 pattern of its value, that is, of the scaled weight.
    scaled : Out(32)
        The scaled weight without rounding; +0 for a subnormal ``p``.
    """

    p: In(32)
    format: In(Format)
    code: Out(16)
    value: Out(32)
    scaled: Out(32)

    def elaborate(self, platform):
        m = Module()
        exponent = effective_exponent(self.p)
        kept_bits = WIDEST + 1
        below = 24 - kept_bits      # bits of the significand that no format keeps
        top = Cat(self.p[:below - 1].any(), self.p[below - 1:23], self.p[23:31].any())
        over, extra = Signal(8), Signal(8)  # exponent above the smallest; bits to drop of top
        down = Signal(4)
        magnitude = Signal(16)
        shifted = shift_right_sticky(m, top, down, name="down")
        kept = Signal(kept_bits + 1)
        m.d.comb += [
            down.eq(Mux(extra > len(top), len(top), extra)),
            kept.eq(shifted[2:] + (shifted[1] & (shifted[0] | shifted[2]))),
        ]
        field, fraction = Signal(8), Signal(WIDEST)     # of the code, the fraction at the top
        offset, empty = Signal(7), Signal(16)
        with m.Switch(self.format):
            for format, (bits, least, bias, nan) in SHAPES.items():
                with m.Case(format):
                    with m.If(exponent > least):
                        m.d.comb += [over.eq(exponent - least), extra.eq(WIDEST - bits)]
                    with m.Else():
                        m.d.comb += extra.eq(WIDEST - bits + least - exponent)
                    m.d.comb += [magnitude.eq((over << bits) + kept), offset.eq(bias),
                                 empty.eq(nan), field.eq(magnitude[bits:]),
                                 fraction.eq(magnitude[:bits] << (WIDEST - bits))]
        code = Signal(16)
        m.d.comb += [code.eq(Mux(is_nan(self.p), empty, magnitude)),
                     self.code.eq(Mux(self.format == Format.E4M3, Cat(code[:8], code[:8]), code))]

        with m.If(is_nan(self.p)):
            m.d.comb += self.scaled.eq(NAN)
        with m.Elif(self.p[23:31].any()):
            raise_log2 = Signal(4)
            with m.Switch(self.format):
                for format, shift in SHIFTS.items():
                    with m.Case(format):
                        m.d.comb += raise_log2.eq(shift)
            m.d.comb += self.scaled.eq(Cat(self.p[:23], (self.p[23:31] + raise_log2)[:8]))

        normal, raised = field.any(), Signal(signed(9))
        m.d.comb += raised.eq(field + offset + ~normal)
        value, biased = normalise(m, Cat(fraction, normal), raised, name="value")
        with m.If(is_nan(self.p)):
            m.d.comb += self.value.eq(NAN)
        with m.Elif(self.format == Format.BF16):
            m.d.comb += self.value.eq(Cat(C(0, 16), magnitude))
        with m.Elif(magnitude != 0):
            m.d.comb += self.value.eq(Cat(C(0, 23 - WIDEST), value[:WIDEST], biased[:8]))
        return m
