"""Adding an exact integer sum to an FP32 accumulator with one rounding."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

QUIET_NAN = 0x7FC00000
INFINITY = 0x7F800000


def choose(condition, x, y):
    """``Mux(condition, x, y)`` as masks: a simulator then has no branch to predict wrongly."""
    return y ^ Mux(condition, x ^ y, 0)


def leading_zeros(m, word, name):
    """Leading zeros of ``word``, whose width is a power of two from 4 up; the width less 1 if 0."""
    bits, halves = len(word), []
    while bits > 4:
        bits //= 2
        empty = Signal(name=f"{name}_empty{bits}")
        half = Signal(bits, name=f"{name}_half{bits}")
        m.d.comb += [empty.eq(word[bits:] == 0), half.eq(choose(empty, word[:bits], word[bits:]))]
        word, halves = half, [empty, *halves]
    table = sum((min(3, 4 - i.bit_length())) << (2 * i) for i in range(16))
    return Cat((Const(table, 32) >> (word << 1))[:2], *halves)


class Fp32AccumulateShort(wiring.Component):
    """Adds a short integer times a power of two to an FP32 number, rounded once to nearest even.

    Latency 0 cycles. The exact sum is formed in one 64-bit window: where the operands are too far
    apart for it, the lower one is below a quarter of the last place and its position no longer
    matters. Subnormals are kept, overflow gives an infinity, an exact zero is +0; NaN comes out
    as 0x7FC00000.
    Source: IEEE 754-2019, clauses 4.3.1, 6.3, 7.4.

    Parameters
    ----------
    width : int
        Width of ``d`` [bit]. :exc:`ValueError` unless in 2 to 14.
    exponent_bits : int
        Width of ``exponent`` [bit]. :exc:`ValueError` unless in 1 to 9.
    bias : int
        Subtracted from ``exponent``. :exc:`ValueError` unless in 190 to 300.

    Members
    -------
    acc : In(32)
        FP32 number.
    d : In(signed(width))
        Integer; its magnitude is at most ``2 ** (width - 1) - 1``.
    exponent : In(exponent_bits)
        Biased exponent of the last bit of ``d``: it is worth ``2 ** (exponent - bias)``.
    nan : In(1)
        The addend is NaN, whatever ``d`` is.
    o : Out(32)
        ``acc + d * 2 ** (exponent - bias)``.
    """

    def __init__(self, *, width, exponent_bits, bias):
        if not isinstance(width, int) or not 2 <= width <= 14:
            raise ValueError(f"Width must be in 2 to 14, not {width!r}")
        if not isinstance(exponent_bits, int) or not 1 <= exponent_bits <= 9:
            raise ValueError(f"Exponent width must be in 1 to 9, not {exponent_bits!r}")
        if not isinstance(bias, int) or not 190 <= bias <= 300:
            raise ValueError(f"Bias must be in 190 to 300, not {bias!r}")
        self.width = width
        self.exponent_bits = exponent_bits
        self.bias = bias
        super().__init__({"acc": In(32), "d": In(signed(width)), "exponent": In(exponent_bits),
                          "nan": In(1), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()

        def wire(name, value, shape):
            signal = Signal(shape, name=name)
            m.d.comb += signal.eq(value)
            return signal

        field = wire("field", self.acc[23:31], 8)
        normal = wire("normal", field != 0, 1)
        significand = wire("significand", Cat(self.acc[:23], normal), 24)
        # magnitudes, not signed numbers: sign extension is dear in simulation and in gates
        d = self.d.as_unsigned()
        size = wire("size", choose(d[-1], (0 - d)[:self.width], d), self.width)
        subtract = wire("subtract", self.d[-1] ^ self.acc[31], 1)

        # place of the last bits, both 106 or so above the smallest that can occur
        d_place = wire("d_place", Mux(self.d == 0, 0, self.exponent), 9)
        acc_place = wire("acc_place", field + ~normal + (self.bias - 150), 9)
        above = wire("above", d_place >= acc_place, 1)
        apart = d_place - acc_place
        apart = wire("apart", choose(above, apart[:9], (-apart)[:9]), 9)
        reach = wire("reach", Mux(above, 50, 38), 6)
        shift = wire("shift", choose(apart > reach, reach, apart), 6)
        upper = wire("upper", choose(above, size, significand), 64)
        lower = wire("lower", choose(above, significand, size), 64)
        shifted = wire("shifted", upper << shift, 64)
        total = wire("total", choose(subtract, (shifted - lower)[:64], (shifted + lower)[:64]), 64)
        swapped = wire("swapped", total[63], 1)
        magnitude = wire("magnitude", choose(swapped, (0 - total)[:64], total), 64)
        negative = wire("negative", Mux(above, self.d[-1], self.acc[31]) ^ swapped, 1)

        # places from the window's top bit down to the last bit of a subnormal
        place = wire("place", choose(above, d_place, acc_place), 9)
        room = wire("room", place - shift - (self.bias - 189), 9)
        stop = wire("stop", Mux(room > 63, 0, Const(1 << 63, 64) >> room[:6]), 64)
        zeros = wire("zeros", leading_zeros(m, wire("counted", magnitude | stop, 64), "z"), 6)
        aligned = wire("aligned", magnitude << zeros, 64)
        rounded = wire("rounded", (aligned[1:] + ((1 << 38) - 1) + aligned[40])[39:], 25)
        bits = wire("bits", ((room - zeros)[:9] << 23) + rounded, 32)
        over = wire("over", bits >= INFINITY, 1)
        number = wire("number", Mux(total == 0, 0,
                                    Cat(Mux(over, INFINITY, bits)[:31], negative)), 32)
        acc_special = field == 255
        acc_nan = acc_special & (self.acc[:23] != 0)
        m.d.comb += self.o.eq(Mux(self.nan | acc_nan, QUIET_NAN,
                                  Mux(acc_special, self.acc, number)))
        return m


class Fp32Accumulate(wiring.Component):
    """Adds an integer of any width times a power of two to an FP32 number, rounded once.

    Latency 0 cycles. Normalises the integer, aligns the lower operand with a sticky bit, adds,
    normalises, and rounds to nearest even. Subnormals are kept, overflow gives an infinity, an
    exact zero is +0; NaN comes out as 0x7FC00000.
    Source: IEEE 754-2019, clauses 4.3.1, 6.1, 6.2, 6.3, 7.4.

    Parameters
    ----------
    width : int
        Width of ``d`` [bit]. :exc:`ValueError` unless in 2 to 120.
    exponent_bits : int
        Width of ``exponent`` [bit]. :exc:`ValueError` unless in 1 to 12.
    bias : int
        Subtracted from ``exponent``. :exc:`ValueError` unless in 126 to 2000.

    Members
    -------
    acc : In(32)
        FP32 number.
    d : In(signed(width))
        Integer; its magnitude is at most ``2 ** (width - 1) - 1``.
    exponent : In(exponent_bits)
        Biased exponent of the last bit of ``d``: it is worth ``2 ** (exponent - bias)``.
    nan, pinf, ninf : In(1)
        The addend is NaN or an infinity (both of them: NaN), whatever ``d`` is.
    o : Out(32)
        ``acc + d * 2 ** (exponent - bias)``.
    """

    def __init__(self, *, width, exponent_bits, bias):
        if not isinstance(width, int) or not 2 <= width <= 120:
            raise ValueError(f"Width must be in 2 to 120, not {width!r}")
        if not isinstance(exponent_bits, int) or not 1 <= exponent_bits <= 12:
            raise ValueError(f"Exponent width must be in 1 to 12, not {exponent_bits!r}")
        if not isinstance(bias, int) or not 126 <= bias <= 2000:
            raise ValueError(f"Bias must be in 126 to 2000, not {bias!r}")
        self.width = width
        self.exponent_bits = exponent_bits
        self.bias = bias
        super().__init__({"acc": In(32), "d": In(signed(width)), "exponent": In(exponent_bits),
                          "nan": In(1), "pinf": In(1), "ninf": In(1), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()

        def wire(name, value, shape):
            signal = Signal(shape, name=name)
            m.d.comb += signal.eq(value)
            return signal

        digits = max(self.width - 1, 24)       # of both significands
        word = 1 << (digits + 3).bit_length()  # a power of two that holds carry, digits, 3 more
        field = wire("field", self.acc[23:31], 8)
        significand = Cat(Const(0, digits - 24), self.acc[:23], field != 0)
        acc_top = wire("acc_top", field + (field == 0) + (self.bias - 127), 13)

        d = self.d.as_unsigned()
        size = wire("size", Mux(d[-1], 0 - d, d), self.width - 1)
        left = wire("left", Cat(Const(0, word - len(size)), size), word)
        lead = leading_zeros(m, left, "lead")
        normal = wire("normal", (left << lead)[word - digits:word], digits)
        d_top = wire("d_top", Mux(size == 0, 0, self.exponent + (self.width - 2) - lead), 13)

        above = wire("above", d_top > acc_top, 1)
        apart = wire("apart", Mux(above, d_top - acc_top, acc_top - d_top), 13)
        shift = wire("shift", Mux(apart > digits + 3, digits + 3, apart), range(digits + 4))
        upper = wire("upper", Cat(Const(0, 3), Mux(above, normal, significand)), digits + 5)
        lower = wire("lower", Cat(Const(0, 3), Mux(above, significand, normal)), digits + 3)
        shifted = wire("shifted", lower >> shift, digits + 3)
        lost = wire("lost", (shifted << shift)[:digits + 3] != lower, 1)
        lower = wire("aligned_lower", shifted | lost, digits + 5)
        subtract = wire("subtract", d[-1] ^ self.acc[31], 1)
        total = wire("total", Mux(subtract, upper - lower, upper + lower), digits + 5)
        swapped = wire("swapped", total[-1], 1)
        magnitude = wire("magnitude", Mux(swapped, 0 - total, total), digits + 4)
        negative = Mux(above, d[-1], self.acc[31]) ^ swapped

        # places from the carry down to the last bit of a subnormal; counting stops there
        room = wire("room", Mux(above, d_top, acc_top) - (self.bias - 127), 13)
        left = wire("left_sum", Cat(Const(0, word - len(magnitude)), magnitude), word)
        stop = Mux(room >= word, 0, Const(1 << (word - 1), word) >> room[:word.bit_length() - 1])
        zeros = leading_zeros(m, wire("counted", left | stop, word), "z")
        aligned = wire("aligned", left << zeros, word)
        kept, rest = aligned[-24:], aligned[:-25]
        up = wire("up", aligned[-25] & (kept[0] | rest.any()), 1)
        bits = wire("bits", ((room - zeros)[:13] << 23) + kept + up, 37)
        number = Mux(total == 0, 0, Cat(Mux(bits >= INFINITY, INFINITY, bits)[:31], negative))

        full, fraction = field == 255, self.acc[:23].any()
        inf = self.pinf | self.ninf
        nan = (self.nan | (full & fraction) | (self.pinf & self.ninf)
               | (full & Mux(self.acc[31], self.pinf, self.ninf)))
        with m.If(nan):
            m.d.comb += self.o.eq(QUIET_NAN)
        with m.Elif(full):
            m.d.comb += self.o.eq(self.acc)
        with m.Elif(inf):
            m.d.comb += self.o.eq(Cat(Const(INFINITY, 31), self.ninf))
        with m.Else():
            m.d.comb += self.o.eq(number)
        return m
