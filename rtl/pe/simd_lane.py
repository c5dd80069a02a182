"""Units of one lane of the SIMD engine, up to the non-linear function, and on the way out."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.common.fp32 import Adder, Converter, Multiplier, maximum, to_bf16, to_fp16
from rtl.mx.formats import Format
from rtl.pe.simd_command import Operation, Reduce


class BinaryLane(wiring.Component):
    """Converts two elements to FP32 and joins them.

    Latency is 2 cycles, throughput 1 pair a cycle; the codes may change only while no pair is
    under way. No reset; the domain ``sync`` may be gated.

    Members
    -------
    a, b : In(32)
        Elements of source 0 and source 1, in the low 16 bits unless FP32.
    format0, format1 : In(4)
        Their formats, as :class:`Format`.
    operation : In(4)
        What to do, as :class:`Operation`; NONE passes ``a``.
    o : Out(32)
        FP32.
    """

    a: In(32)
    b: In(32)
    format0: In(4)
    format1: In(4)
    operation: In(4)
    o: Out(32)

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
        m.d.comb += [adder.a.eq(a), adder.b.eq(b), multiplier.a.eq(a), multiplier.b.eq(b),
                     adder.subtract.eq(self.operation == Operation.SUBTRACT)]
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
    """``x * multiplier + addend``, rounded after each step.

    Latency is 2 cycles, throughput 1 number a cycle; the factors may change only while no number
    is under way. No reset; the domain ``sync`` may be gated.

    Members
    -------
    x, multiplier, addend : In(32)
        FP32 patterns.
    o : Out(32)
        FP32.
    """

    x: In(32)
    multiplier: In(32)
    addend: In(32)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.product = product = Multiplier()
        m.submodules.total = total = Adder()
        x, scaled = Signal(32, reset_less=True), Signal(32, reset_less=True)
        m.d.sync += [x.eq(self.x), scaled.eq(product.o)]
        m.d.comb += [product.a.eq(x), product.b.eq(self.multiplier), total.a.eq(scaled),
                     total.b.eq(self.addend), self.o.eq(total.o)]
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
