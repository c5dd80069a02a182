"""Operand decoders: packed codes to the form that the dot products want; one per row or column."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.mx.operands import Mx4A, Mx4B

ONES = 0x0101010101010101  # bit 0 of each 8-bit field


def field_sum(word):
    """Sum of the eight 8-bit fields of ``word``, 16 bits."""
    low = 0x00FF00FF00FF00FF
    pairs = (word & low) + ((word >> 8) & low)
    quads = (pairs + (pairs >> 16))[:64]
    return (quads + (quads >> 32))[:16]


class Mx4Decoder(wiring.Component):
    """Decodes 32 packed E2M1 codes for one side of :class:`rtl.mx.dot.Mx4Dot`.

    Latency 0 cycles. The code of the lower index is in the lower half of a byte. Both sides map
    elements to fields in the same way: words 0 and 2 hold the even elements of the lower and
    upper 8 bytes, words 1 and 3 the odd ones.
    Source: OCP Microscaling Formats v1.0, clause 5.3.3.

    Parameters
    ----------
    side : str
        "a" or "b". :exc:`ValueError` if another.

    Members
    -------
    codes : In(128)
        Packed codes.
    o : Out(Mx4A()) or Out(Mx4B())
        Decoded block.
    """

    def __init__(self, *, side):
        if side not in ("a", "b"):
            raise ValueError(f"Side must be 'a' or 'b', not {side!r}")
        self.side = side
        super().__init__({"codes": In(128), "o": Out(Mx4A() if side == "a" else Mx4B())})

    def elaborate(self, platform):
        m = Module()

        def wire(name, value):
            signal = Signal(64, name=name)
            m.d.comb += signal.eq(value)
            return signal

        magnitudes, negatives = Const(0, 64), Const(0, 64)
        for word in range(4):
            code = wire(f"code{word}", self.codes[64 * (word // 2):][4 * (word % 2):64])
            bit = [wire(f"bit{word}{i}", (code >> i) & ONES) for i in range(4)]
            fraction, low, high, sign = bit
            plane = [fraction & ~high, (low & ~high) | (fraction & high & ~low),
                     high & (~low | fraction), high & low]
            magnitude = wire(f"magnitude{word}",
                             plane[0] | (plane[1] << 1) | (plane[2] << 2) | (plane[3] << 3))
            mask = wire(f"mask{word}", (sign << 5) - sign)
            negative = wire(f"negative{word}", magnitude & mask)
            if self.side == "a":
                m.d.comb += self.o.x[word].eq(15 * ONES + magnitude - (negative << 1))
            else:
                m.d.comb += self.o.negative[word].eq(mask)
                for i in range(4):
                    one = wire(f"plane{i}{word}", plane[i])
                    m.d.comb += getattr(self.o, f"plane{i}")[word].eq((one << 5) - one)
                magnitudes, negatives = magnitudes + magnitude, negatives + negative
        if self.side == "b":
            total, below = wire("total", magnitudes), wire("below", negatives)
            m.d.comb += self.o.offset.eq(15 * field_sum(total) + field_sum(below))
        return m
