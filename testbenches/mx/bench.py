"""Tops that put decoders, a dot product and a cell behind one pair of packed operands."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from rtl.common.place import flat_ports
from rtl.mx.cell import Mx4Cell, Mx8Cell, Wide16Cell
from rtl.mx.decode import Mx4Decoder, Mx8Decoder, Wide16Decoder
from rtl.mx.dot import Mx4Dot, Mx8Dot, Wide16Dot
from rtl.mx.formats import Format

KINDS = {"mx4": (lambda side: Mx4Decoder(side=side), Mx4Dot, Mx4Cell),
         "mx8": (lambda side: Mx8Decoder(), Mx8Dot, Mx8Cell),
         "wide16": (lambda side: Wide16Decoder(), Wide16Dot, Wide16Cell)}


class Bench(wiring.Component):
    """Packed operands, decoded, to a dot product at once and, registered, to a cell.

    ``o`` and the flags are the dot product's, in the cycle of its inputs; ``acc`` and ``done`` are
    the cell's, 3 cycles after them.
    """

    def __init__(self, kind):
        self.kind = kind
        super().__init__({
            "a": In(256), "b": In(256), "scale_a": In(8), "scale_b": In(8),
            "format_a": In(Format), "format_b": In(Format),
            "valid": In(1), "first": In(1), "last": In(1),
            "o": Out(signed(71)), "exponent": Out(11), "flags": Out(3),
            "acc": Out(32), "done": Out(1)})

    def elaborate(self, platform):
        m = Module()
        decoder, dot, cell = KINDS[self.kind]
        m.submodules.dot, m.submodules.cell = dot, cell = dot(), cell()
        for side in "ab":
            m.submodules[side] = decode = decoder(side)
            m.d.comb += decode.codes.eq(getattr(self, side))
            if self.kind == "mx4":
                m.d.sync += getattr(cell, f"scale_{side}").eq(getattr(self, f"scale_{side}"))
            else:
                m.d.comb += [decode.scale.eq(getattr(self, f"scale_{side}")),
                             decode.format.eq(getattr(self, f"format_{side}"))]
            held = decode.o.signature.create()
            pairs = zip(flat_ports(held), flat_ports(decode.o), strict=True)
            m.d.sync += [ours.eq(theirs) for (_, _, ours), (_, _, theirs) in pairs]
            connect(m, decode.o, getattr(dot, side))
            connect(m, held, getattr(cell, side))
        m.d.comb += [self.o.eq(dot.o), self.acc.eq(cell.acc), self.done.eq(cell.done)]
        m.d.sync += [cell.valid.eq(self.valid), cell.first.eq(self.first), cell.last.eq(self.last)]
        exponent = {"mx4": lambda: 0, "mx8": lambda: dot.a.exponent + dot.b.exponent,
                    "wide16": lambda: dot.exponent}[self.kind]()
        m.d.comb += [self.exponent.eq(exponent),
                     self.flags.eq(0 if self.kind == "mx4" else Cat(dot.nan, dot.pinf, dot.ninf))]
        return m
