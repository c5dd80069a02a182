"""IEEE 754 single precision in combinational logic: add, multiply, compare, convert.

Everything is correctly rounded (nearest, ties to even) with subnormal inputs and results. A NaN
result is always the canonical quiet NaN 0x7FC00000 (0x7FC0 as BF16, 0x7E00 as FP16); an invalid
operation gives it too. Overflow gives infinity. Source: IEEE 754-2019, clauses 4.3.1, 5.4, 6, 7;
the canonical NaN is this project's choice.
"""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

NAN = 0x7FC00000
INFINITY = 0x7F800000


def float_layout(*, exponent_bits=8, mantissa_bits=23):
    """Bits of a binary floating-point number."""
    return data.StructLayout({"mantissa": mantissa_bits, "exponent": exponent_bits, "sign": 1})


def is_nan(a):
    """Whether the FP32 pattern ``a`` is a NaN."""
    return a[:31] > INFINITY


def is_infinite(a):
    return a[:31] == INFINITY


def significand(a):
    """24-bit significand of an FP32 pattern, with the hidden bit."""
    return Cat(a[:23], a[23:31].any())


def effective_exponent(a):
    """Exponent field of an FP32 pattern; 1 for subnormal numbers and zero."""
    return Cat(a[23] | ~a[23:31].any(), a[24:31])


def shift_right_sticky(m, value, amount, *, name):
    """``value >> amount``; ones that are shifted out are collected in the lowest bit."""
    for bit in range(len(amount)):
        step = 1 << bit
        shifted = Signal(len(value), name=f"{name}_{step}")
        with m.If(amount[bit]):
            if step >= len(value):
                m.d.comb += shifted.eq(value.any())
            else:
                m.d.comb += shifted.eq(Cat(value[:step + 1].any(), value[step + 1:]))
        with m.Else():
            m.d.comb += shifted.eq(value)
        value = shifted
    return value


def normalise(m, value, exponent, *, name):
    """``value`` moved left until its top bit is one or ``exponent`` is 1; and the new exponent.

    ``exponent`` is signed; at 1 or below nothing moves.
    """
    for bit in reversed(range((len(value) - 1).bit_length())):
        step = 1 << bit
        if step >= len(value):
            continue
        shifted = Signal(len(value), name=f"{name}_{step}")
        lowered = Signal(exponent.shape(), name=f"{name}_exponent_{step}")
        with m.If(~value[-step:].any() & (exponent > step)):
            m.d.comb += [shifted.eq(Cat(C(0, step), value[:-step])), lowered.eq(exponent - step)]
        with m.Else():
            m.d.comb += [shifted.eq(value), lowered.eq(exponent)]
        value, exponent = shifted, lowered
    return value, exponent


def rounded(m, sign, value, exponent, *, name, normal=False):
    """FP32 pattern of ``value``, whose top bit has the weight of the biased ``exponent``.

    The exponent is signed and wide enough for every step; the lowest bit of ``value`` may be a
    sticky bit. With ``normal`` the exponent is never below 1.
    """
    value, exponent = normalise(m, value, exponent, name=name)
    if not normal:
        low = Signal(range(len(value) + 1), name=f"{name}_low")
        distance = 1 - exponent
        with m.If(distance >= len(value)):
            m.d.comb += low.eq(len(value))
        with m.Elif(distance > 0):
            m.d.comb += low.eq(distance)
        value = shift_right_sticky(m, value, low, name=f"{name}_down")
    field = Signal(9, name=f"{name}_field")  # exponent field less the hidden bit, saturated
    with m.If(~value[-1]):  # subnormal or zero
        m.d.comb += field.eq(0)
    with m.Elif(exponent > 255):
        m.d.comb += field.eq(255)
    with m.Elif(exponent > 1):
        m.d.comb += field.eq(exponent - 1)
    kept, guard, sticky = value[-24:], value[-25], value[:-25].any()
    result = Signal(32, name=f"{name}_rounded")
    magnitude = Signal(32, name=f"{name}_magnitude")
    m.d.comb += magnitude.eq((field << 23) + kept + (guard & (sticky | kept[0])))
    m.d.comb += result.eq(Cat(Mux(magnitude >= INFINITY, INFINITY, magnitude)[:31], sign))
    return result


class Adder(wiring.Component):
    """``o = a + b`` or, with ``subtract``, ``a - b`` in FP32. Latency is 0 cycles.

    A sum that is exactly zero is +0 unless both terms are -0 (IEEE 754-2019, 6.3).

    Members
    -------
    a, b : In(32)
        FP32 patterns.
    subtract : In(1)
        Subtract ``b``.
    o : Out(32)
        The sum, correctly rounded.
    """

    a: In(32)
    b: In(32)
    subtract: In(1)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        b = Signal(32)
        m.d.comb += b.eq(Cat(self.b[:31], self.b[31] ^ self.subtract))
        large, small = Signal(32), Signal(32)
        swap = self.a[:31] < b[:31]
        m.d.comb += [large.eq(Mux(swap, b, self.a)), small.eq(Mux(swap, self.a, b))]
        opposite = large[31] ^ small[31]
        exponent = Signal(signed(10))
        m.d.comb += exponent.eq(effective_exponent(large))
        distance = Signal(8)
        m.d.comb += distance.eq(effective_exponent(large) - effective_exponent(small))
        amount = Signal(5)
        m.d.comb += amount.eq(Mux(distance > 27, 27, distance))
        wide = Signal(27)  # guard, round and sticky bit below the significand
        m.d.comb += wide.eq(significand(small) << 3)
        aligned = shift_right_sticky(m, wide, amount, name="aligned")
        total = Signal(28)
        term = Signal(28)
        m.d.comb += term.eq(significand(large) << 3)
        with m.If(opposite):
            m.d.comb += total.eq(term - aligned)
        with m.Else():
            m.d.comb += total.eq(term + aligned)
        raised = Signal(signed(10))  # the top bit of the sum stands one above that of its terms
        m.d.comb += raised.eq(exponent + 1)
        sign = Mux(total == 0, large[31] & small[31], large[31])
        number = rounded(m, sign, total, raised, name="sum", normal=True)
        invalid = is_nan(large) | is_nan(small) | (is_infinite(small) & opposite)
        with m.If(invalid):
            m.d.comb += self.o.eq(NAN)
        with m.Elif(is_infinite(large)):
            m.d.comb += self.o.eq(large)
        with m.Else():
            m.d.comb += self.o.eq(number)
        return m


class Multiplier(wiring.Component):
    """``o = a * b`` in FP32. Latency is 0 cycles.

    Members
    -------
    a, b : In(32)
        FP32 patterns.
    o : Out(32)
        The product, correctly rounded.
    """

    a: In(32)
    b: In(32)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        sign = self.a[31] ^ self.b[31]
        product = Signal(48)
        m.d.comb += product.eq(significand(self.a) * significand(self.b))
        exponent = Signal(signed(11))
        m.d.comb += exponent.eq(effective_exponent(self.a) + effective_exponent(self.b) - 126)
        number = rounded(m, sign, product, exponent, name="product")
        zero = ~self.a[:31].any() | ~self.b[:31].any()
        infinite = is_infinite(self.a) | is_infinite(self.b)
        with m.If(is_nan(self.a) | is_nan(self.b) | (infinite & zero)):
            m.d.comb += self.o.eq(NAN)
        with m.Elif(infinite):
            m.d.comb += self.o.eq(Cat(C(INFINITY, 31), sign))
        with m.Else():
            m.d.comb += self.o.eq(number)
        return m


def less(a, b):
    """Whether ``a < b`` as FP32 in the total order that puts -0 below +0; NaN not considered."""
    return Mux(a[31] != b[31], a[31], (a[:31] < b[:31]) ^ (a[31] & (a[:31] != b[:31])))


def maximum(a, b, *, minimum=0):
    """The larger of two FP32 numbers, or with ``minimum`` the smaller.

    A NaN on either side gives the canonical NaN; +0 is larger than -0 (IEEE 754-2019, 9.6).
    """
    nan = is_nan(a) | is_nan(b)
    return Mux(nan, C(NAN, 32), Mux(less(a, b) ^ minimum, b, a))


def from_bf16(a):
    """FP32 of a BF16 pattern, exact; NaN becomes the canonical NaN."""
    return Mux(a[:15] > 0x7F80, C(NAN, 32), Cat(C(0, 16), a))


def from_fp16(m, a, *, name="half"):
    """FP32 of an FP16 pattern, exact; NaN becomes the canonical NaN."""
    result = Signal(32, name=f"{name}_wide")
    magnitude = Signal(11, name=f"{name}_magnitude")
    field = Signal(signed(9), name=f"{name}_field")
    normal = a[10:15].any()
    m.d.comb += [magnitude.eq(Cat(a[:10], normal)), field.eq(a[10:15] + 112 + ~normal)]
    value, exponent = normalise(m, magnitude, field, name=name)
    with m.If(a[:15] > 0x7C00):
        m.d.comb += result.eq(NAN)
    with m.Elif(a[10:15] == 31):
        m.d.comb += result.eq(Cat(C(INFINITY, 31), a[15]))
    with m.Elif(a[:15] == 0):
        m.d.comb += result.eq(Cat(C(0, 31), a[15]))
    with m.Else():
        m.d.comb += result.eq(Cat(C(0, 13), value[:10], exponent[:8], a[15]))
    return result


def to_bf16(a):
    """BF16 of an FP32 pattern, rounded to nearest even; overflow gives infinity."""
    return Mux(is_nan(a), C(NAN >> 16, 16),
               (a[16:] + (a[15] & (a[:15].any() | a[16])))[:16])


def to_fp16(m, a, *, name="half"):
    """FP16 of an FP32 pattern, rounded to nearest even; overflow gives infinity."""
    result = Signal(16, name=f"{name}_narrow")
    value = Signal(26, name=f"{name}_value")  # two bits below the significand
    m.d.comb += value.eq(significand(a) << 2)
    low = Signal(5, name=f"{name}_low")
    exponent = a[23:31]
    with m.If(exponent < 89):
        m.d.comb += low.eq(26)
    with m.Elif(exponent < 113):
        m.d.comb += low.eq(113 - exponent)
    shifted = shift_right_sticky(m, value, low, name=f"{name}_down")
    kept, guard, sticky = shifted[-11:], shifted[-12], shifted[:-12].any()
    magnitude = Signal(19, name=f"{name}_rounded")
    m.d.comb += magnitude.eq((Mux(exponent < 113, 0, exponent - 113)[:8] << 10) + kept
                             + (guard & (sticky | kept[0])))
    with m.If(is_nan(a)):
        m.d.comb += result.eq(0x7E00)
    with m.Else():
        m.d.comb += result.eq(Cat(Mux(magnitude >= 0x7C00, 0x7C00, magnitude)[:15], a[31]))
    return result


class Converter(wiring.Component):
    """An FP32, BF16 or FP16 pattern as FP32, exactly. Latency is 0 cycles.

    Members
    -------
    i : In(32)
        The pattern, in the low 16 bits for BF16 and FP16.
    bf16, fp16 : In(1)
        What it is; neither means FP32. At most one is high.
    o : Out(32)
        FP32; any NaN becomes the canonical NaN for BF16 and FP16, an FP32 pattern is passed.
    """

    i: In(32)
    bf16: In(1)
    fp16: In(1)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        half = from_fp16(m, self.i[:16])
        with m.If(self.bf16):
            m.d.comb += self.o.eq(from_bf16(self.i[:16]))
        with m.Elif(self.fp16):
            m.d.comb += self.o.eq(half)
        with m.Else():
            m.d.comb += self.o.eq(self.i)
        return m
