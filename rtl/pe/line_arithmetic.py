"""Arithmetic on whole lines of 16 FP32 values, for the reduction engine."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.common.fp32 import Adder, Multiplier
from rtl.common.place import Place
from rtl.pe.interfaces import LINE_BITS

LANES = 16      # FP32 values of a line


class LineAdder(wiring.Component):
    """Adds two lines as 16 FP32 values each, every one rounded to nearest even.

    Latency is 1 cycle (the operands are registered), throughput a line a cycle.

    Members
    -------
    line, old : In(512)
        Terms.
    o : Out(512)
        Sums of the terms of the cycle before.
    """

    line: In(LINE_BITS)
    old: In(LINE_BITS)
    o: Out(LINE_BITS)

    def elaborate(self, platform):
        m = Module()
        line, old = Signal(LINE_BITS), Signal(LINE_BITS)
        m.d.sync += [line.eq(self.line), old.eq(self.old)]
        sums = []
        for i in range(LANES):
            m.submodules[f"add{i}"] = adder = Place(Adder())
            m.d.comb += [adder.a.eq(old.word_select(i, 32)), adder.b.eq(line.word_select(i, 32))]
            sums.append(adder.o)
        m.d.comb += self.o.eq(Cat(sums))
        return m


class LineMultiplier(wiring.Component):
    """Multiplies two lines as 16 FP32 values each, every one rounded to nearest even.

    Latency is 1 cycle (the operands are registered), throughput a line a cycle.

    Members
    -------
    line, factor : In(512)
        Factors.
    o : Out(512)
        Products of the factors of the cycle before.
    """

    line: In(LINE_BITS)
    factor: In(LINE_BITS)
    o: Out(LINE_BITS)

    def elaborate(self, platform):
        m = Module()
        line, factor = Signal(LINE_BITS), Signal(LINE_BITS)
        m.d.sync += [line.eq(self.line), factor.eq(self.factor)]
        products = []
        for i in range(LANES):
            m.submodules[f"multiply{i}"] = multiplier = Place(Multiplier())
            m.d.comb += [multiplier.a.eq(line.word_select(i, 32)),
                         multiplier.b.eq(factor.word_select(i, 32))]
            products.append(multiplier.o)
        m.d.comb += self.o.eq(Cat(products))
        return m
