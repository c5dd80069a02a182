"""Units of one lane of the SIMD engine, up to the non-linear function, and on the way out."""
from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.fp32 import Adder, Converter, Multiplier, maximum, to_bf16, to_fp16
from rtl.mx.formats import Format
from rtl.pe.simd_command import Operation, Reduce


class Path(enum.Enum, shape=3):
    """What the multiplier of :class:`BinaryLane` does, and when."""

    PLAIN = 0       # multiplies ``a`` by ``b`` after 2 cycles
    ROTATE = 1      # after 3 cycles ``a`` by the cosine
    PASS = 2        # nothing: the number of 3 cycles ago passes
    SQUARE = 3      # after 3 cycles it by itself
    SCALE = 4       # after 3 cycles it by ``scale``


class BinaryLane(wiring.Component):
    """Converts two elements to FP32 and joins them.

    Latency is 2 cycles, or 3 on every path but PLAIN; throughput 1 pair a cycle. Codes may change
    only while no pair is under way, ``path`` and ``centre`` with the number that they are for. No
    reset; the domain ``sync`` may be gated.

    Members
    -------
    a, b : In(32)
        Elements of source 0 and source 1, in the low 16 bits unless FP32.
    format0, format1 : In(4)
        Their formats, as :class:`Format`.
    operation : In(4)
        What to do on the path PLAIN, as :class:`Operation`; NONE passes ``a``.
    path : In(Path)
        What to do with the number of 3 cycles ago, or with all of a command.
    centre : In(1)
        On other paths: ``mean`` is subtracted from the ``a`` of 2 cycles ago.
    mean, scale, cosine : In(32)
        FP32; the cosine for the ``a`` of 2 cycles ago.
    o : Out(32)
        FP32.
    x, y : Out(32)
        ``a`` and ``b`` of 2 cycles ago as FP32.
    side : Out(32)
        ``y`` of the cycle before, on other paths than PLAIN and ROTATE.
    """

    a: In(32)
    b: In(32)
    format0: In(4)
    format1: In(4)
    operation: In(4)
    path: In(Path)
    centre: In(1)
    mean: In(32)
    scale: In(32)
    cosine: In(32)
    o: Out(32)
    x: Out(32)
    y: Out(32)
    side: Out(32)

    def elaborate(self, platform):
        m = Module()
        wide = []
        for name, value, format in (("a", self.a, self.format0), ("b", self.b, self.format1)):
            m.submodules[f"convert_{name}"] = converter = Converter()
            code, number = (Signal(32, name=f"{kind}_{name}", reset_less=True)
                            for kind in ("code", "number"))
            m.d.comb += [converter.i.eq(code), converter.bf16.eq(format == Format.BF16),
                         converter.fp16.eq(format == Format.FP16)]
            m.d.sync += [code.eq(value), number.eq(converter.o)]
            wide.append(number)
        a, b = wide
        m.submodules.adder = adder = Adder()
        m.submodules.multiplier = multiplier = Multiplier()
        held, side = Signal(32, reset_less=True), Signal(32, reset_less=True)
        m.d.comb += [self.x.eq(a), self.y.eq(b), self.side.eq(side), adder.a.eq(a),
                     adder.b.eq(Mux(self.centre, self.mean, b)),
                     adder.subtract.eq(self.centre | (self.operation == Operation.SUBTRACT)),
                     multiplier.a.eq(held)]
        with m.If(self.path != Path.PLAIN):
            m.d.sync += [held.eq(Mux(self.centre, adder.o, a)),
                         side.eq(Mux(self.path == Path.ROTATE, self.cosine, b))]
        with m.Switch(self.path):
            with m.Case(Path.ROTATE):
                m.d.comb += multiplier.b.eq(side)
            with m.Case(Path.SQUARE):
                m.d.comb += multiplier.b.eq(held)
            with m.Case(Path.SCALE):
                m.d.comb += multiplier.b.eq(self.scale)
            with m.Default():
                m.d.comb += [multiplier.a.eq(a), multiplier.b.eq(b)]
        with m.If(self.path == Path.PASS):
            m.d.comb += self.o.eq(held)
        with m.Elif(self.path != Path.PLAIN):
            m.d.comb += self.o.eq(multiplier.o)
        with m.Else():
            with m.Switch(self.operation):
                with m.Case(Operation.ADD, Operation.SUBTRACT):
                    m.d.comb += self.o.eq(adder.o)
                with m.Case(Operation.MULTIPLY):
                    m.d.comb += self.o.eq(multiplier.o)
                with m.Case(Operation.MAX, Operation.MIN):
                    m.d.comb += self.o.eq(maximum(a, b, minimum=self.operation == Operation.MIN))
                with m.Default():
                    m.d.comb += self.o.eq(a)
        return m


class AffineLane(wiring.Component):
    """``x * multiplier + addend``, rounded after each step; either may come with the numbers.

    Latency is 2 cycles, throughput 1 number a cycle. ``multiplier`` and ``own`` are for the ``x``
    of 1 cycle ago, the other controls for that of 2 cycles ago. No reset; the domain ``sync`` may
    be gated.

    Members
    -------
    x, multiplier, addend : In(32)
        FP32 patterns.
    own : In(1)
        The multiplier is the ``side`` that came with ``x``.
    side : In(32)
        FP32 pattern.
    keep : In(1)
        The ``side`` of the cycle before is kept, as an addend of what comes after it.
    crossed : In(1)
        ``along`` is kept, in every cycle.
    along : In(32)
        FP32 pattern.
    kept : In(1)
        The addend is what was kept last.
    subtract : In(1)
        The product is subtracted from the addend.
    o : Out(32)
        FP32.
    """

    x: In(32)
    multiplier: In(32)
    addend: In(32)
    own: In(1)
    side: In(32)
    keep: In(1)
    crossed: In(1)
    along: In(32)
    kept: In(1)
    subtract: In(1)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.product = product = Multiplier()
        m.submodules.total = total = Adder()
        x, scaled, side, term = (Signal(32, name=name, reset_less=True)
                                 for name in ("x", "scaled", "side", "term"))
        m.d.sync += [x.eq(self.x), scaled.eq(product.o)]
        with m.If(self.own):
            m.d.sync += side.eq(self.side)
        with m.If(self.crossed):
            m.d.sync += term.eq(self.along)
        with m.Elif(self.keep):
            m.d.sync += term.eq(side)
        m.d.comb += [product.a.eq(x), product.b.eq(Mux(self.own, side, self.multiplier)),
                     total.a.eq(Mux(self.kept, term, self.addend)), total.b.eq(scaled),
                     total.subtract.eq(self.subtract), self.o.eq(total.o)]
        return m


class NarrowLane(wiring.Component):
    """An FP32 number as FP32, BF16 or FP16, or as zero.

    Latency is 1 cycle, throughput 1 number a cycle; the format may change only while no number is
    under way. No reset; the domain ``sync`` may be gated.

    Members
    -------
    x : In(32)
        FP32 pattern.
    keep : In(1)
        Low: zero comes out.
    format : In(4)
        Format of the result, as :class:`Format`.
    o : Out(32)
        The code, in the low 16 bits unless FP32.
    """

    x: In(32)
    keep: In(1)
    format: In(4)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        x = Signal(32, reset_less=True)
        m.d.sync += x.eq(Mux(self.keep, self.x, 0))
        half = to_fp16(m, x)
        with m.Switch(self.format):
            with m.Case(Format.BF16):
                m.d.comb += self.o.eq(to_bf16(x))
            with m.Case(Format.FP16):
                m.d.comb += self.o.eq(half)
            with m.Default():
                m.d.comb += self.o.eq(x)
        return m


class ReduceNode(wiring.Component):
    """Sum or larger of two FP32 numbers. Latency is 0 cycles.

    Members
    -------
    a, b : In(32)
        FP32 patterns.
    reduce : In(2)
        What to do, as :class:`Reduce`.
    alone : In(1)
        There is no ``b``: ``a`` passes.
    o : Out(32)
        FP32.
    """

    a: In(32)
    b: In(32)
    reduce: In(2)
    alone: In(1)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.adder = adder = Adder()
        m.d.comb += [adder.a.eq(self.a), adder.b.eq(self.b)]
        with m.If(self.alone):
            m.d.comb += self.o.eq(self.a)
        with m.Elif(self.reduce == Reduce.MAX):
            m.d.comb += self.o.eq(maximum(self.a, self.b))
        with m.Else():
            m.d.comb += self.o.eq(adder.o)
        return m
