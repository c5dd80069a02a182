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
