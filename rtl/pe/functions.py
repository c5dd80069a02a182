"""Non-linear functions on FP32: a table of parabolas and one rounding."""
from amaranth import *
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.fp32 import (
    INFINITY,
    NAN,
    effective_exponent,
    is_infinite,
    is_nan,
    normalise,
    rounded,
    significand,
)
from rtl.pe import function_rom

FRACTION_BITS = 27      # of coefficients and gates
RESIDUAL_BITS = 18      # place within a segment
PLACE_BITS = 25         # segment and place within it
LATENCY = 5


class Function(enum.Enum, shape=4):
    """What the SIMD engine applies to every element, see docs/programming-model.md."""

    NONE = 0
    EXP2 = 1
    RECIPROCAL = 2
    RSQRT = 3
    GELU = 4
    SILU = 5


TABLES = [Function.EXP2, Function.RECIPROCAL, Function.RSQRT, Function.GELU, Function.SILU]
GATE_LIMIT_LOG2 = {Function.GELU: 3, Function.SILU: 4}  # from here on the gate is 0 or 1


def number_layout():
    """A number on its way through the unit: significand, exponent, sign; or a special result."""
    return data.StructLayout({"significand": 24, "exponent": signed(11), "sign": 1,
                              "special": 1, "result": 32})


class FunctionUnit(wiring.Component):
    """Applies one function to one FP32 number a cycle, with the bits of the golden model.

    Latency is 5 cycles, throughput 1 number a cycle; ``function`` may change only while no number
    is under way. No reset: what comes out before the first number is meaningless. The domain
    ``sync`` may be gated; every register changes only with it. Relative error below 2^-23.3
    (exp2, reciprocal, rsqrt); error of the gate below 2^-20.5 (GELU) and 2^-19.4 (SiLU).
    Source: the arithmetic is defined in ``cosim/golden/functions.py``.

    Parameters
    ----------
    functions : sequence of Function
        Those that are there; the table has 128 words of 70 bits for each. :exc:`ValueError` if
        there is none, or NONE.

    Members
    -------
    x : In(32)
        FP32 pattern.
    function : In(Function)
        What to apply, one of ``functions``.
    o : Out(32)
        The function of the ``x`` of 5 cycles before.
    """

    def __init__(self, functions=TABLES):
        if not functions or not set(functions) <= set(TABLES):
            raise ValueError(f"Functions must be some that have a table, not {functions!r}")
        self.functions = tuple(f for f in TABLES if f in functions)
        super().__init__({"x": In(32), "function": In(Function), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        x = Signal(32, reset_less=True)
        m.d.sync += x.eq(self.x)
        number, place = self._split(m, x)

        words = sum((function_rom.words(f.name) for f in self.functions), [])
        m.submodules.rom = rom = memory.Memory(shape=70, depth=len(words), init=words)
        entry = rom.read_port()
        index = Signal(range(len(words)))
        table = Signal(3)
        for row, function in enumerate(self.functions):
            with m.If(self.function == function):
                m.d.comb += table.eq(row)
        m.d.comb += [index.eq(Cat(place[18:], table)), entry.addr.eq(index)]
        c2 = entry.data[:17]
        c1, c0 = entry.data[17:41].as_signed(), entry.data[41:70]

        def register(value, shape, name):
            held = Signal(shape, name=name, reset_less=True)
            m.d.sync += held.eq(value)
            return held

        layout = number_layout()
        first = register(number, layout, "first")
        residual = register(place[:RESIDUAL_BITS], RESIDUAL_BITS, "residual")
        half = 1 << (RESIDUAL_BITS - 1)
        bend = Signal(18)
        m.d.comb += bend.eq((c2 * residual + half) >> RESIDUAL_BITS)
        slope = register(c1 + bend, signed(25), "slope")
        base = register(c0, 29, "base")
        residual2 = register(residual, RESIDUAL_BITS, "residual2")

        second = register(first, layout, "second")
        rise, value, gate = Signal(signed(26)), Signal(signed(31)), Signal(29)
        m.d.comb += [rise.eq((slope * residual2 + half) >> RESIDUAL_BITS),
                     value.eq(base + rise)]
        gated = Cat(self.function == function for function in self._gates()).any()
        shut = Signal()     # beyond the table
        for function, limit in self._gates().items():
            with m.If((self.function == function) & (second.exponent >= 127 + limit)):
                m.d.comb += shut.eq(1)
        tail = Mux(value[-1] | shut, 0, value[:29])
        with m.If(gated & ~second.sign):
            m.d.comb += gate.eq((1 << FRACTION_BITS) - tail)
        with m.Else():
            m.d.comb += gate.eq(tail)

        third = register(second, layout, "third")
        gate3 = register(gate, 29, "gate3")
        fourth = register(third, layout, "fourth")
        product = register(third.significand * gate3, 53, "product")
        exponent = Signal(signed(12))
        m.d.comb += exponent.eq(fourth.exponent + 2)    # of the top bit of 53
        result = rounded(m, fourth.sign, product, exponent, name="result")
        m.d.comb += self.o.eq(Mux(fourth.special, fourth.result, result))
        return m

    def _gates(self):
        return {f: limit for f, limit in GATE_LIMIT_LOG2.items() if f in self.functions}

    def _some(self, function):
        return (function,) if function in self.functions else ()

    def _split(self, m, x):
        """What goes into the product beside the gate, and the place in the table."""
        high = Signal(signed(11))       # high enough for subnormal numbers to normalise in full
        m.d.comb += high.eq(effective_exponent(x) + 64)
        significant, raised = normalise(m, significand(x), high, name="input")
        exponent, sign = Signal(signed(11)), x[31]
        m.d.comb += exponent.eq(raised - 64)
        zero = ~x[:31].any()

        # |x| in fixed point: 25 fractional bits for exp2, 25 bits in all for the gates
        top, down = Signal(signed(11)), Signal(6)
        fixed, turned = Signal(34), Signal(signed(35))
        with m.If(top - exponent > 33):
            m.d.comb += down.eq(34)
        with m.Elif(top > exponent):
            m.d.comb += down.eq(top - exponent)
        m.d.comb += [top.eq(134), fixed.eq((significant << 9) >> down),
                     turned.eq(Mux(sign, -fixed, fixed))]

        number, place = Signal(number_layout()), Signal(PLACE_BITS)
        one = 1 << 23
        odd = ~exponent[0]
        m.d.comb += [number.significand.eq(one), number.special.eq(is_nan(x)),
                     number.result.eq(NAN)]

        def special(condition, result):
            with m.If(condition & ~is_nan(x)):
                m.d.comb += [number.special.eq(1), number.result.eq(result)]

        with m.Switch(self.function):
            with m.Case(*self._some(Function.EXP2)):
                m.d.comb += [place.eq(turned[:PLACE_BITS]),
                             number.exponent.eq((turned >> PLACE_BITS) + 127)]
                special(exponent >= 135, Mux(sign, 0, INFINITY))
            with m.Case(*self._some(Function.RECIPROCAL)):
                m.d.comb += [place.eq(significant[:23] << 2), number.exponent.eq(253 - exponent),
                             number.sign.eq(sign)]
                special(zero, Cat(C(INFINITY, 31), sign))
                special(is_infinite(x), Cat(C(0, 31), sign))
            with m.Case(*self._some(Function.RSQRT)):
                m.d.comb += [place.eq(Cat(C(0, 1), significant[:23], odd)),
                             number.exponent.eq(126 - ((exponent - 127 - odd) >> 1))]
                special(is_infinite(x), 0)
                special(sign, NAN)
                special(zero, Cat(C(INFINITY, 31), sign))
            with m.Case(*self._gates()):
                m.d.comb += [place.eq(fixed), number.exponent.eq(exponent),
                             number.sign.eq(sign), number.significand.eq(significant)]
                special(is_infinite(x), Mux(sign, 1 << 31, INFINITY))
        for function, limit in self._gates().items():
            with m.If(self.function == function):
                m.d.comb += top.eq(134 + limit)
        return number, place


