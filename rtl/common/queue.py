"""A small queue that cuts every combinational path through a stream."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Queue(wiring.Component):
    """Two-slot queue: both ``o.valid`` and ``i.ready`` are registers, and so is the payload.

    Latency is 1 cycle, throughput 1 item a cycle. Empty after reset. The payload registers change
    only when an item moves.

    Parameters
    ----------
    shape : ShapeLike
        Shape of an item.

    Members
    -------
    i : In(stream.Signature(shape))
        Items in.
    o : Out(stream.Signature(shape))
        The same items, in the same order.
    """

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        spare, spare_full = Signal(self.shape), Signal()
        moved = self.i.valid & ~spare_full
        m.d.comb += self.i.ready.eq(~spare_full)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [self.o.valid.eq(self.i.valid | spare_full), spare_full.eq(0)]
            with m.If(spare_full):
                m.d.sync += self.o.payload.eq(spare)
            with m.Elif(self.i.valid):
                m.d.sync += self.o.payload.eq(self.i.payload)
        with m.Elif(moved):
            m.d.sync += [spare.eq(self.i.payload), spare_full.eq(1)]
        return m
