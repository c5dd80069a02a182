"""Quantiser: FP32 elements to MX codes, and the scale byte of their block."""
from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.fp32 import effective_exponent, normalise, shift_right_sticky, significand
from rtl.mx.formats import Format

SCALE_NAN = 0xFF
INFINITY = 0x7F800000
RANDOM_BITS = 23
ROW_STEP = 0x85EBCA6B       # place of an element: row x ROW_STEP + column x COLUMN_STEP + key
COLUMN_STEP = 0x9E3779B1

# mantissa bits, bias, code of the largest element (OCP Microscaling v1.0, 5.3)
SHAPES = {Format.E4M3: (3, 7, 0x7E), Format.E5M2: (2, 15, 0x7B), Format.E2M1: (1, 1, 0x7)}


class Rule(enum.Enum, shape=3):
    """How the scale follows from the largest magnitude, see docs/programming-model.md."""

    FLOOR = 0   # floor of log2
    RCEIL = 1   # smallest power of two that keeps it within the largest element
    EVEN = 2    # rounded to the element's mantissa bits, then floor
    CEIL = 3    # ceiling of log2


def round_up_from(format, rule):
    """Smallest 23-bit mantissa of the largest magnitude that raises the scale; FLOOR: none."""
    bits, _, largest = SHAPES[format]
    return {Rule.RCEIL: ((largest % (1 << bits)) << (23 - bits)) + 1,
            Rule.EVEN: (1 << 23) - (1 << (22 - bits)), Rule.CEIL: 1}.get(rule, 1 << 23)


def largest_magnitude(m, values):
    """Largest of 2^n FP32 patterns without their signs."""
    level = [value[:31] for value in values]
    while len(level) > 1:
        pairs = []
        for i in range(0, len(level), 2):
            larger = Signal(31, name=f"larger{len(level)}_{i}")
            m.d.comb += larger.eq(Mux(level[i] > level[i + 1], level[i], level[i + 1]))
            pairs.append(larger)
        level = pairs
    return level[0]


class BlockScale(wiring.Component):
    """Scale byte of a block from its largest magnitude. Latency is 0 cycles.

    Members
    -------
    magnitude : In(31)
        Largest FP32 pattern of the block without its sign; a NaN counts as large.
    format : In(Format)
        Element format, an MX format.
    rule : In(Rule)
        Scale rule.
    o : Out(8)
        E8M0 scale; 0xFF for a magnitude that is infinite or NaN, at least 0.
    """

    magnitude: In(31)
    format: In(Format)
    rule: In(Rule)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        threshold, top = Signal(24), Signal(4)
        with m.Switch(self.format):
            for format, (bits, bias, largest) in SHAPES.items():
                with m.Case(format):
                    m.d.comb += top.eq((largest >> bits) - bias)
                    with m.Switch(self.rule):
                        for rule in Rule:
                            with m.Case(rule):
                                m.d.comb += threshold.eq(round_up_from(format, rule))
        raised = Signal(9)
        m.d.comb += raised.eq(self.magnitude[23:] + (self.magnitude[:23] >= threshold))
        with m.If(self.magnitude >= INFINITY):
            m.d.comb += self.o.eq(SCALE_NAN)
        with m.Elif(raised > top):
            m.d.comb += self.o.eq(raised - top)
        return m


class ElementQuantiser(wiring.Component):
    """One element as MX code, given its block's scale. Latency is 0 cycles.

    Exact division by the scale, rounding, then clamping to the largest element; the sign stays.
    Rounding is to nearest even, or stochastic: ``random`` is added to the first 23 bits of the
    fraction, and what carries out counts.

    Members
    -------
    x : In(32)
        FP32 pattern, finite unless the scale is 0xFF.
    scale : In(8)
        E8M0 scale; at 0xFF the code is 0.
    format : In(Format)
        Element format, an MX format.
    stochastic : In(1)
        Round stochastically.
    random : In(23)
        Random bits of this element.
    o : Out(8)
        The code; E2M1 in the low half.
    """

    x: In(32)
    scale: In(8)
    format: In(Format)
    stochastic: In(1)
    random: In(RANDOM_BITS)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        field = Signal(signed(10))      # biased high, so that subnormal numbers normalise in full
        m.d.comb += field.eq(effective_exponent(self.x) + 64)
        significant, exponent = normalise(m, significand(self.x), field, name="subnormal")
        relative = Signal(signed(11))
        m.d.comb += relative.eq(exponent - 64 - self.scale)

        placed, wide = Signal(signed(11)), Signal(28)   # exponent field; fixed point, sticky last
        for format, (bits, bias, _) in SHAPES.items():
            with m.If(self.format == format):
                m.d.comb += [placed.eq(relative + bias), wide.eq(significant << (bits + 1))]
        down = Signal(5)
        with m.If(placed < -30):
            m.d.comb += down.eq(31)
        with m.Elif(placed < 1):
            m.d.comb += down.eq(1 - placed)
        shifted = shift_right_sticky(m, wide, down, name="down")
        sticky, fraction, whole = shifted[0], shifted[1:24], shifted[24:]
        rounded = Signal(5)
        with m.If(self.stochastic):
            m.d.comb += rounded.eq((shifted[1:] + self.random) >> RANDOM_BITS)
        with m.Else():
            up = fraction[-1] & (fraction[:-1].any() | sticky | whole[0])
            m.d.comb += rounded.eq(whole + up)

        base = Signal(6)    # exponent field less the hidden bit, saturated
        with m.If(placed > 32):
            m.d.comb += base.eq(32)
        with m.Elif(placed > 1):
            m.d.comb += base.eq(placed - 1)
        code, sign = Signal(10), self.x[31]
        for format, (bits, _, largest) in SHAPES.items():
            with m.If(self.format == format):
                m.d.comb += code.eq((base << bits) + rounded)
                limited = Mux(code > largest, largest, code)
                with m.If(self.scale != SCALE_NAN):
                    if format == Format.E2M1:
                        m.d.comb += self.o.eq(Cat(limited[:3], sign))
                    else:
                        m.d.comb += self.o.eq(Cat(limited[:7], sign))
        return m


class Mixer(wiring.Component):
    """32-bit hash (Jenkins), of which the random bits are the top. Latency is 0 cycles.

    Members
    -------
    i : In(32)
        Seed, or place of an element.
    o : Out(32)
        Its hash, a bijection.
    """

    i: In(32)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        value = self.i
        steps = [
            lambda a: (a + 0x7ED55D16) + (a << 12),
            lambda a: (a ^ 0xC761C23C) ^ (a >> 19),
            lambda a: (a + 0x165667B1) + (a << 5),
            lambda a: (a + 0xD3A2646C)[:32] ^ (a << 9),
            lambda a: (a + 0xFD7046C5) + (a << 3),
            lambda a: (a ^ 0xB55A4F09) ^ (a >> 16),
        ]
        for index, step in enumerate(steps):
            mixed = Signal(32, name=f"mixed{index}")
            m.d.comb += mixed.eq(step(value))
            value = mixed
        m.d.comb += self.o.eq(value)
        return m
