"""Exact dot products of one block: decoded operands in, signed integer out."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.mx.operands import Mx4A, Mx4B, Mx8Operand, Wide16Operand


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


def special_products(a, b):
    """Flags of a dot product: NaN, plus infinity among the products, minus infinity among them."""
    inf, opposite = a.inf | b.inf, a.negative ^ b.negative
    invalid = (a.inf & b.zero) | (a.zero & b.inf)
    return a.nan | b.nan | invalid.any(), (inf & ~opposite).any(), (inf & opposite).any()


class Mx8Dot(wiring.Component):
    """Exact dot product of two decoded blocks of 32 MX elements of any kind.

    Latency 0 cycles. Products are placed by whole bytes, in two sums of which the upper one is
    worth ``2 ** 32``.

    Members
    -------
    a, b : In(Mx8Operand())
        Decoded blocks.
    o : Out(signed(71))
        Sum of products, in units of the two operands' units.
    nan, pinf, ninf : Out(1)
        A product is NaN, plus infinity, minus infinity. The latter two say nothing beside NaN.
    """

    a: In(Mx8Operand())
    b: In(Mx8Operand())
    o: Out(signed(71))
    nan: Out(1)
    pinf: Out(1)
    ninf: Out(1)

    def elaborate(self, platform):
        m = Module()
        nan, pinf, ninf = special_products(self.a, self.b)
        m.d.comb += [self.nan.eq(nan), self.pinf.eq(pinf), self.ninf.eq(ninf)]
        opposite = Signal(32)
        m.d.comb += opposite.eq(self.a.negative ^ self.b.negative)
        low, high = Const(0, 64), Const(0, 64)
        for i in range(32):
            product = Signal(22, name=f"product{i}")
            place = Signal(3, name=f"place{i}")
            placed, signed_ = Signal(64, name=f"placed{i}"), Signal(64, name=f"signed{i}")
            low_sum, high_sum = Signal(64, name=f"low{i}"), Signal(64, name=f"high{i}")
            m.d.comb += [
                product.eq(self.a.magnitude[i] * self.b.magnitude[i]),
                place.eq(self.a.place[i] + self.b.place[i]),
                placed.eq(product << Cat(Const(0, 3), place[:2])),
                signed_.eq(Mux(opposite[i], 0 - placed, placed)),
                low_sum.eq(low + Mux(place[2], 0, signed_)),
                high_sum.eq(high + Mux(place[2], signed_, 0)),
            ]
            low, high = low_sum, high_sum
        m.d.comb += self.o.eq(low.as_signed() + (high[:40].as_signed() << 32))
        return m


class Wide16Dot(wiring.Component):
    """Dot product of two decoded groups of 16, aligned to the largest product exponent.

    Latency 0 cycles. Each product is exact (22 bits); it is placed at the top of a 48-bit window,
    shifted down by how far its exponent is below the largest, and cut off toward zero; the signed
    sum of the 16 is exact.

    Members
    -------
    a, b : In(Wide16Operand())
        Decoded groups.
    o : Out(signed(53))
        Sum of products, in units of ``2 ** (exponent - 1050)``.
    exponent : Out(11)
        Largest sum of the exponents of a pair.
    nan, pinf, ninf : Out(1)
        A product is NaN, plus infinity, minus infinity. The latter two say nothing beside NaN.
    """

    a: In(Wide16Operand())
    b: In(Wide16Operand())
    o: Out(signed(53))
    exponent: Out(11)
    nan: Out(1)
    pinf: Out(1)
    ninf: Out(1)

    def elaborate(self, platform):
        m = Module()
        nan, pinf, ninf = special_products(self.a, self.b)
        m.d.comb += [self.nan.eq(nan), self.pinf.eq(pinf), self.ninf.eq(ninf)]
        exponents = []
        for i in range(16):
            exponents.append(Signal(11, name=f"exponent{i}"))
            m.d.comb += exponents[i].eq(self.a.exponent[i] + self.b.exponent[i])
        level = exponents
        while len(level) > 1:
            level, pairs = [], zip(level[0::2], level[1::2], strict=True)
            for x, y in pairs:
                level.append(Signal(11, name="larger"))
                m.d.comb += level[-1].eq(Mux(x > y, x, y))
        m.d.comb += self.exponent.eq(level[0])
        total = Const(0, 53)
        for i in range(16):
            product, depth = Signal(48, name=f"product{i}"), Signal(11, name=f"depth{i}")
            placed, sum_ = Signal(48, name=f"placed{i}"), Signal(53, name=f"sum{i}")
            opposite = self.a.negative[i] ^ self.b.negative[i]
            m.d.comb += [
                product[26:].eq(self.a.significand[i] * self.b.significand[i]),
                depth.eq(self.exponent - exponents[i]),
                placed.eq(Mux(depth[6:].any(), 0, product >> depth[:6])),
                sum_.eq(Mux(opposite, total - placed, total + placed)),
            ]
            total = sum_
        m.d.comb += self.o.eq(total)
        return m
