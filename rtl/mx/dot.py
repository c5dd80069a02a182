"""Exact dot products of one block: decoded operands in, signed integer out."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.mx.operands import Mx4A, Mx4B


class Mx4Dot(wiring.Component):
    """Exact dot product of two decoded blocks of 32 E2M1 elements.

    Latency 0 cycles. The sum is built from narrow adders side by side in 64-bit words: the A side
    comes with 15 added to each field, is complemented where B is negative (31 - x), gated by the
    bits of B's magnitude, and summed; what the 15 and the complement add is known to the B side
    alone and subtracted at the end.

    Members
    -------
    a : In(Mx4A())
        Decoded block.
    b : In(Mx4B())
        Decoded block.
    o : Out(signed(14))
        Sum of the products of the doubled elements, that is four times the dot product.
    """

    a: In(Mx4A())
    b: In(Mx4B())
    o: Out(signed(14))

    def elaborate(self, platform):
        m = Module()

        def wire(name, value, shape=64):
            signal = Signal(shape, name=name)
            m.d.comb += signal.eq(value)
            return signal

        low = 0x00FF00FF00FF00FF
        planes = [self.b.plane0, self.b.plane1, self.b.plane2, self.b.plane3]
        x = [wire(f"x{i}", self.a.x[i] ^ self.b.negative[i]) for i in range(4)]
        wide = []
        for i, plane in enumerate(planes):  # fields: 4 x 28 at most
            gated = wire(f"gated{i}", (x[0] & plane[0]) + (x[1] & plane[1])
                         + (x[2] & plane[2]) + (x[3] & plane[3]))
            wide.append(wire(f"wide{i}", (gated & low) + ((gated >> 8) & low)))
        total = wire("total", wide[0] + (wide[1] << 1) + (wide[2] << 2) + (wide[3] << 3))
        half = wire("half", total + (total >> 32))
        sum_ = wire("sum", half[:16] + half[16:32], 14)
        m.d.comb += self.o.eq(sum_ - self.b.offset)
        return m
