"""Whether an HBM pseudo-channel reads or writes at the moment."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class HbmTurn(wiring.Component):
    """Turns the data bus rarely: reads until few are left, then writes until few are left.

    It turns to writes when at least ``high`` are queued and the reads are done but for a tail (at
    most ``low``, none of which hits an open row); when no read has been queued for ``linger``
    clocks; or when a request at the door waits for a queued write. It turns to reads when no write
    is queued; or when the writes are done but for a tail, some read is queued, and nobody is at the
    door for a queued write. In any case it turns when it has kept the bus for ``patience`` clocks
    since a request of the other direction came. Latency 1 cycle. Reads after reset.

    Parameters
    ----------
    depth : int
        Most requests of each direction.
    low, high : int
        Marks [request].
    linger, patience : int
        See above [clock].

    Members
    -------
    reads, writes : In(range(depth + 1))
        Queued requests.
    read_hits, write_hits : In(1)
        Some of them hit an open row.
    conflict : In(1)
        A request at the door waits for a queued write.
    write : Out(1)
        Register: column commands are writes.
    """

    def __init__(self, *, depth, low, high, linger, patience):
        self.low, self.high, self.linger, self.patience = low, high, linger, patience
        super().__init__({
            "reads": In(range(depth + 1)), "writes": In(range(depth + 1)),
            **{name: In(1) for name in ("read_hits", "write_hits", "conflict")}, "write": Out(1)})

    def elaborate(self, platform):
        m = Module()
        idle = Signal(range(self.linger + 1), init=self.linger)
        kept = Signal(range(self.patience + 1))
        some_reads, some_writes = self.reads != 0, self.writes != 0
        read_tail = (self.reads <= self.low) & ~self.read_hits
        write_tail = (self.writes <= self.low) & ~self.write_hits
        too_long, turns = kept == self.patience, Signal()
        with m.If(some_reads):
            m.d.sync += idle.eq(self.linger)
        with m.Elif(some_writes & (idle != 0)):
            m.d.sync += idle.eq(idle - 1)
        with m.If(self.write):
            m.d.comb += turns.eq(~some_writes | (some_reads & (
                too_long | (write_tail & ~self.conflict))))
        with m.Else():
            m.d.comb += turns.eq(some_writes & (
                ((self.writes >= self.high) & read_tail) | (~some_reads & (idle == 0))
                | self.conflict | too_long))
        with m.If(turns):
            m.d.sync += [self.write.eq(~self.write), kept.eq(0)]
        with m.Elif(Mux(self.write, some_reads, some_writes) & ~too_long):
            m.d.sync += kept.eq(kept + 1)
        return m
