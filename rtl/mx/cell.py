"""Multiply-accumulate cells: dot product, then FP32 accumulation, one block a cycle."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.mx.accumulate import Fp32Accumulate, Fp32AccumulateShort
from rtl.mx.dot import Mx4Dot, Mx8Dot, Wide16Dot
from rtl.mx.operands import Mx4A, Mx4B, Mx8Operand, Wide16Operand


class Mx4Cell(wiring.Component):
    """Accumulates dot products of 32-element MXFP4 blocks in FP32.

    Latency 2 cycles from a beat to the accumulator that includes it; throughput 1 block a cycle.
    Operands are not registered. After reset ``done`` is low; the accumulator starts with ``first``.

    Members
    -------
    a : In(Mx4A())
        Decoded block.
    b : In(Mx4B())
        Decoded block.
    scale_a : In(8)
        E8M0 scale of ``a``.
    scale_b : In(8)
        E8M0 scale of ``b``.
    valid : In(1)
        The inputs are a beat; without it the accumulator is held.
    first : In(1)
        The beat starts a new sum from +0.
    last : In(1)
        The beat ends a sum.
    acc : Out(32)
        Accumulator, FP32.
    done : Out(1)
        High for the one cycle in which ``acc`` first holds the sum that a ``last`` beat ended.
    """

    a: In(Mx4A())
    b: In(Mx4B())
    scale_a: In(8)
    scale_b: In(8)
    valid: In(1)
    first: In(1)
    last: In(1)
    acc: Out(32)
    done: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dot = dot = Mx4Dot()
        m.submodules.accumulate = accumulate = Fp32AccumulateShort(
            width=14, exponent_bits=9, bias=256)
        valid, last = Signal(), Signal()
        first, nan = Signal(reset_less=True), Signal(reset_less=True)
        product, exponent = Signal(signed(14), reset_less=True), Signal(9, reset_less=True)
        acc = Signal(32, reset_less=True)
        connect(m, flipped(self.a), dot.a)
        connect(m, flipped(self.b), dot.b)
        m.d.comb += [
            accumulate.d.eq(product),
            accumulate.exponent.eq(exponent),
            accumulate.nan.eq(nan),
            accumulate.acc.eq(Mux(first, 0, acc)),
            self.acc.eq(acc),
        ]
        m.d.sync += [
            product.eq(dot.o),
            exponent.eq(self.scale_a + self.scale_b),
            nan.eq((self.scale_a == 0xFF) | (self.scale_b == 0xFF)),
            valid.eq(self.valid),
            first.eq(self.first),
            last.eq(self.last),
            self.done.eq(valid & last),
        ]
        with m.If(valid):
            m.d.sync += acc.eq(accumulate.o)
        return m


class _WideCell(wiring.Component):
    """Common part of the cells whose operands carry their scales and special values."""

    def __init__(self, operand):
        super().__init__({"a": In(operand), "b": In(operand), "valid": In(1), "first": In(1),
                          "last": In(1), "acc": Out(32), "done": Out(1)})

    def pipeline(self, m, dot, exponent, accumulate):
        """Connect ``dot`` and ``accumulate`` through the stage registers."""
        m.submodules.dot, m.submodules.accumulate = dot, accumulate
        valid, last, first = Signal(), Signal(), Signal(reset_less=True)
        acc = Signal(32, reset_less=True)
        connect(m, flipped(self.a), dot.a)
        connect(m, flipped(self.b), dot.b)
        for name, value in {"d": dot.o, "exponent": exponent, "nan": dot.nan, "pinf": dot.pinf,
                            "ninf": dot.ninf}.items():
            port = getattr(accumulate, name)
            register = Signal(port.shape(), name=f"{name}_q", reset_less=True)
            m.d.sync += register.eq(value)
            m.d.comb += port.eq(register)
        m.d.comb += [accumulate.acc.eq(Mux(first, 0, acc)), self.acc.eq(acc)]
        m.d.sync += [valid.eq(self.valid), first.eq(self.first), last.eq(self.last),
                     self.done.eq(valid & last)]
        with m.If(valid):
            m.d.sync += acc.eq(accumulate.o)


class Mx8Cell(_WideCell):
    """Accumulates dot products of 32-element blocks of E4M3, E5M2 or E2M1 in FP32.

    Latency, throughput, reset and the members ``valid``, ``first``, ``last``, ``acc`` and ``done``
    are as of :class:`Mx4Cell`; the scales are part of the operands.

    Members
    -------
    a, b : In(Mx8Operand())
        Decoded blocks.
    """

    def __init__(self):
        super().__init__(Mx8Operand())

    def elaborate(self, platform):
        m = Module()
        self.pipeline(m, Mx8Dot(), self.a.exponent + self.b.exponent,
                      Fp32Accumulate(width=71, exponent_bits=10, bias=286))
        return m


class Wide16Cell(_WideCell):
    """Accumulates dot products of 16-element groups of any 4-, 8- or 16-bit formats in FP32.

    Latency, throughput, reset and the members ``valid``, ``first``, ``last``, ``acc`` and ``done``
    are as of :class:`Mx4Cell`, with a group of 16 as a beat.

    Members
    -------
    a, b : In(Wide16Operand())
        Decoded groups.
    """

    def __init__(self):
        super().__init__(Wide16Operand())

    def elaborate(self, platform):
        m = Module()
        dot = Wide16Dot()
        self.pipeline(m, dot, dot.exponent,
                      Fp32Accumulate(width=53, exponent_bits=11, bias=1050))
        return m
