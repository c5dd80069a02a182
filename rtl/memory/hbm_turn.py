"""Whether an HBM channel reads or writes at the moment."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class HbmTurn(wiring.Component):
    """Turns the data bus rarely: reads until few are left, then writes until few are left.

    It turns to writes when at least ``high`` are queued and the reads are done but for a tail (at
    most ``low``, none of which hits an open row or is urgent); when no read has been queued for
    ``linger`` clocks; or, unless the oldest read is urgent, when a request at the door waits for a
    queued write or the oldest write is urgent. It turns to reads when no write is queued; when the
    writes are done but for a tail, some read is queued, and nobody is at the door for a queued
    write; or when the oldest read is urgent and the oldest write is not. Latency 1 cycle. Reads
    after reset.

    Parameters
    ----------
    depth : int
        Most requests of each direction.
    low, high : int
        Marks [request].
    linger : int
        Clocks without a read.

    Members
    -------
    reads, writes : In(range(depth + 1))
        Queued requests.
    read_hits, write_hits : In(1)
        Some of them hit an open row.
    read_urgent, write_urgent : In(1)
        The oldest has waited too long.
    conflict : In(1)
        A request at the door waits for a queued write.
    write : Out(1)
        Register: column commands are writes.
    """

    def __init__(self, *, depth, low, high, linger):
        self.low, self.high, self.linger = low, high, linger
        super().__init__({
            "reads": In(range(depth + 1)), "writes": In(range(depth + 1)),
            **{name: In(1) for name in ("read_hits", "write_hits", "read_urgent", "write_urgent",
                                        "conflict")}, "write": Out(1)})

    def elaborate(self, platform):
        m = Module()
        patience = Signal(range(self.linger + 1), init=self.linger)
        some = self.writes != 0
        read_tail = (self.reads <= self.low) & ~self.read_hits & ~self.read_urgent
        write_tail = (self.writes <= self.low) & ~self.write_hits & ~self.write_urgent
        with m.If(self.reads != 0):
            m.d.sync += patience.eq(self.linger)
        with m.Elif(some & (patience != 0)):
            m.d.sync += patience.eq(patience - 1)
        with m.If(self.write):
            with m.If(~some | (write_tail & (self.reads != 0) & ~self.conflict)
                      | (self.read_urgent & ~self.write_urgent)):
                m.d.sync += self.write.eq(0)
        with m.Elif(some):
            with m.If(((self.writes >= self.high) & read_tail)
                      | ((self.reads == 0) & (patience == 0))
                      | ((self.conflict | self.write_urgent) & ~self.read_urgent)):
                m.d.sync += self.write.eq(1)
        return m
