"""Decoded operands: what the decoders at an array's edge hand to the dot products inside it."""
from amaranth.lib import wiring
from amaranth.lib.wiring import Out


class Mx4A(wiring.Signature):
    """Decoded MXFP4 block of the A side.

    Members are ``x``, four words of eight 8-bit fields: twice the element plus 15, in 3 to 27.
    """

    def __init__(self):
        super().__init__({"x": Out(64).array(4)})

    def __eq__(self, other):
        return type(self) is type(other)


class Mx4B(wiring.Signature):
    """Decoded MXFP4 block of the B side, as masks over the fields of the A side.

    Members are ``negative``, four words, each field 31 where the element is negative, else 0;
    ``plane0`` to ``plane3``, four words each, fields 31 where that bit of twice the magnitude is
    set, else 0; ``offset``, what the +15 of the A side adds to the sum of products.
    """

    def __init__(self):
        super().__init__({"negative": Out(64).array(4), "plane0": Out(64).array(4),
                          "plane1": Out(64).array(4), "plane2": Out(64).array(4),
                          "plane3": Out(64).array(4), "offset": Out(13)})

    def __eq__(self, other):
        return type(self) is type(other)


class Mx8Operand(wiring.Signature):
    """Decoded block of 32 elements of E4M3, E5M2 or E2M1, either side.

    An element is ``magnitude << (8 * place)`` with its sign in ``negative``, in units of
    ``2 ** (exponent - 143)``, scale included. NaN and infinities have magnitude 0; ``inf`` and
    ``zero`` are one bit an element, ``nan`` is for the block.
    """

    def __init__(self):
        super().__init__({"magnitude": Out(11).array(32), "place": Out(2).array(32),
                          "negative": Out(32), "zero": Out(32), "inf": Out(32), "nan": Out(1),
                          "exponent": Out(9)})

    def __eq__(self, other):
        return type(self) is type(other)


class Wide16Operand(wiring.Signature):
    """Decoded group of 16 elements of any 4-, 8- or 16-bit format, either side.

    An element is ``significand * 2 ** (exponent - 512)`` with its sign in ``negative``; both are 0
    for a zero, NaN or infinity. ``inf`` and ``zero`` are one bit an element, ``nan`` is for the
    group.
    """

    def __init__(self):
        super().__init__({"significand": Out(11).array(16), "exponent": Out(10).array(16),
                          "negative": Out(16), "zero": Out(16), "inf": Out(16), "nan": Out(1)})

    def __eq__(self, other):
        return type(self) is type(other)
