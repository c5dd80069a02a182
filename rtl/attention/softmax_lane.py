"""One lane of the softmax unit: a row, or with pair every second key of a row."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.attention.softmax_round import WeightRounder
from rtl.common.fp32 import Adder, Multiplier, effective_exponent, maximum
from rtl.common.place import Place
from rtl.mx.formats import Format
from rtl.pe.functions import LATENCY, Function, FunctionUnit

MINUS_INFINITY = 0xFF800000
LOWEST = 0xFE800000         # -2^126
SMALLEST = 0x00800000       # 2^-126
ONE = 0x3F800000
FUNCTIONS = Function.EXP2, Function.RECIPROCAL
BIAS = 127
WHOLE = BIAS + 23       # exponent field from which on every number is whole


def ceiling(m, x, *, name="ceiling"):
    """Smallest whole number at or above an FP32 pattern, never -0; a canonical NaN stays one."""
    result = Signal(32, name=name)
    exponent = effective_exponent(x)
    fraction = Signal(23, name=f"{name}_fraction")      # ones where the bits are below the point
    m.d.comb += fraction.eq(C((1 << 23) - 1, 23) >> (exponent - BIAS)[:5])
    up = ~x[31] & (x[:23] & fraction).any()
    with m.If(exponent >= WHOLE):
        m.d.comb += result.eq(x)
    with m.Elif(exponent < BIAS):
        m.d.comb += result.eq(Mux(x[31] | ~x[:31].any(), 0, ONE))
    with m.Else():
        raised = Cat(x[:23] | fraction, x[23:31]) + 1   # carries into the exponent
        m.d.comb += result.eq(Cat(Mux(up, raised[:31], Cat(x[:23] & ~fraction, x[23:31])), x[31]))
    return result


class MaximumLane(wiring.Component):
    """Scales and masks the scores of a lane, and keeps their whole maximum.

    ``x`` follows ``score`` after 2 cycles; ``compare`` comes with ``x``, and ``peak`` counts it 1
    cycle later. Throughput is 1 score a cycle. No reset; the domain ``sync`` may be gated.

    Members
    -------
    load, score : In(1), In(32)
        Take an FP32 pattern.
    scale : In(32)
        What the score of the cycle before is multiplied by.
    seen : In(1)
        That score's key is visible.
    x : Out(32)
        The scaled score, -infinity if it is not seen.
    compare, fresh : In(1)
        ``x`` counts for the maximum; it is the first one that does.
    merge, other : In(1), In(32)
        Another lane's maximum counts for this one.
    peak : Out(32)
        The maximum.
    """

    load: In(1)
    score: In(32)
    scale: In(32)
    seen: In(1)
    x: Out(32)
    compare: In(1)
    fresh: In(1)
    merge: In(1)
    other: In(32)
    peak: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.product = product = Multiplier()
        score, x, peak = (Signal(32, name=name, reset_less=True) for name in ("s", "x", "peak"))
        with m.If(self.load):
            m.d.sync += score.eq(self.score)
        m.d.sync += [x.eq(Mux(self.seen, product.o, MINUS_INFINITY))]
        m.d.comb += [product.a.eq(score), product.b.eq(self.scale), self.x.eq(x),
                     self.peak.eq(peak)]
        whole, term = ceiling(m, x), Signal(32)
        m.d.comb += term.eq(Mux(self.merge, self.other, whole))
        with m.If(self.compare | self.merge):
            m.d.sync += peak.eq(Mux(self.fresh & ~self.merge, whole, maximum(peak, term)))
        return m


class ExponentialLane(wiring.Component):
    """Weights of a lane, their sum, and by how much earlier sums are rescaled.

    The code of a weight comes 7 cycles after its ``x``, the factor 6 after ``head``, the inverse 5
    cycles after ``invert`` rose. Throughput is 1 weight a cycle. No reset; the domain ``sync`` may
    be gated.

    Members
    -------
    head : In(1)
        There is no ``x``; ``peak`` becomes the maximum, and its distance to the one before goes
        through the function.
    peak : In(32)
        Whole maximum.
    restart : In(1)
        The block has none before it.
    x : In(32)
        Scaled score.
    format : In(Format)
        Of the weights.
    sink : In(1)
        The weight is a sink's and not rounded, 6 cycles after its ``x``.
    take_factor, rescale, clear : In(1)
        5 to 7 cycles after ``head``: take the factor; multiply the sum by it; start a sum.
    add : In(1)
        The weight counts, 7 cycles after its ``x``.
    merge, other : In(1), In(32)
        Another lane's sum counts for this one.
    finish : In(1)
        The rescaled earlier sum counts.
    invert : In(1)
        The reciprocal of the sum is wanted; high until it is there.
    code : Out(16)
        The weight, see :class:`WeightRounder`.
    sum : Out(32)
        FP32.
    moved : Out(1)
        The factor is not one.
    factor : Out(32)
        2 to the power of the maximum before less the maximum now; 1 if they are the same.
    inverse : Out(32)
        Reciprocal of the sum, +0 if it is 0.
    export : In(1)
        ``factor`` and ``inverse`` are the maximum and the sum, of a lane without any weight
        -2^126 and 2^-126.
    """

    head: In(1)
    peak: In(32)
    restart: In(1)
    x: In(32)
    format: In(Format)
    sink: In(1)
    take_factor: In(1)
    rescale: In(1)
    clear: In(1)
    add: In(1)
    merge: In(1)
    other: In(32)
    finish: In(1)
    invert: In(1)
    code: Out(16)
    sum: Out(32)
    moved: Out(1)
    factor: Out(32)
    inverse: Out(32)
    export: In(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.difference = difference = Adder()
        m.submodules.function = function = Place(FunctionUnit(FUNCTIONS))
        m.submodules.rounder = rounder = WeightRounder()
        m.submodules.product = product = Multiplier()
        m.submodules.total = adder = Adder()
        maximum, total, rescaled, p, value = (
            Signal(32, name=name, reset_less=True)
            for name in ("maximum", "total", "rescaled", "p", "value"))
        factor, moved = Signal(32, reset_less=True), Signal(reset_less=True)
        hidden = Signal(LATENCY, reset_less=True)   # weights that are zero whatever the maximum
        m.d.comb += [
            difference.a.eq(Mux(self.head, maximum, self.x)),
            difference.b.eq(Mux(self.head, self.peak, maximum)), difference.subtract.eq(1),
            function.x.eq(Mux(self.invert, total, difference.o)),
            function.function.eq(Mux(self.invert, Function.RECIPROCAL, Function.EXP2)),
            rounder.p.eq(p), rounder.format.eq(self.format),
            product.a.eq(total), product.b.eq(factor),
            adder.a.eq(total),
            adder.b.eq(Mux(self.finish, rescaled, Mux(self.merge, self.other, value))),
            self.sum.eq(total), self.moved.eq(moved),
            self.factor.eq(Mux(self.export, Mux(maximum == MINUS_INFINITY, LOWEST, maximum),
                               factor)),
            self.inverse.eq(Mux(self.export, Mux(total == 0, SMALLEST, total),
                                Mux(total == 0, 0, function.o))),
        ]
        code = Signal(16, reset_less=True)
        m.d.comb += self.code.eq(code)
        m.d.sync += [hidden.eq(Cat(self.x == MINUS_INFINITY, hidden[:-1])),
                     p.eq(Mux(hidden[-1], 0, function.o)),
                     code.eq(rounder.code),
                     value.eq(Mux(self.sink, rounder.scaled, rounder.value))]
        with m.If(self.head):
            m.d.sync += [maximum.eq(self.peak),
                         moved.eq((maximum != self.peak) & ~self.restart)]
        with m.If(self.take_factor):
            m.d.sync += factor.eq(Mux(moved, function.o, ONE))
        with m.If(self.rescale):
            m.d.sync += rescaled.eq(Mux(self.restart, 0, product.o))
        with m.If(self.clear):
            m.d.sync += total.eq(0)
        with m.Elif(self.add | self.merge | self.finish):
            m.d.sync += total.eq(adder.o)
        return m
