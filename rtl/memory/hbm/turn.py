"""Whether an HBM pseudo-channel reads or writes at the moment."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.memory.hbm.timing import BANKS


class HbmTurn(wiring.Component):
    """Turns the data bus rarely: reads until few are left, then writes until few are left.

    It turns to writes when at least ``high`` are queued and the reads are done but for a tail (at
    most ``low``, none of which hits an open row); when ``full`` are queued, as then hardly another
    one fits, and the reads behind it wait with it; when no read has been queued for ``linger``
    clocks; or when a request at the door waits for a queued write. It turns to reads when no write
    is queued; or when the writes are done but for a tail, some read is queued, and nobody is at the
    door for a queued write. A bank whose first run of a direction has not ended in a whole
    period of ``patience`` clocks is urgent until it does: the bus stays in a direction with
    an urgent bank, and turns to it from one without. The periods begin anew when something is
    queued after nothing was, so nothing changes while nothing is. Latency 1 cycle. Reads after
    reset.

    Parameters
    ----------
    most : int
        Most requests of a direction.
    low, high, full : int
        Marks [request].
    linger, patience : int
        See above [clock].

    Members
    -------
    reads, writes : In(range(most + 1))
        Queued requests.
    has0, has1 : In(16)
        Banks for which reads, writes are queued.
    read_hits, write_hits : In(1)
        Some of them hit an open row.
    ends, end_write, end_bank : In(1), In(1), In(4)
        The first run of this direction and bank has ended.
    conflict : In(1)
        A request at the door waits for a queued write.
    write : Out(1)
        Register: column commands are writes.
    """

    def __init__(self, *, most, low, high, full, linger, patience):
        self.low, self.high, self.full = low, high, full
        self.linger, self.patience = linger, patience
        super().__init__({
            "reads": In(range(most + 1)), "writes": In(range(most + 1)), "has0": In(BANKS),
            "has1": In(BANKS), "end_bank": In(4),
            **{name: In(1) for name in ("read_hits", "write_hits", "ends", "end_write",
                                        "conflict")}, "write": Out(1)})

    def elaborate(self, platform):
        m = Module()
        idle = Signal(range(self.linger + 1), init=self.linger)
        some_reads, some_writes = self.reads != 0, self.writes != 0
        read_tail = (self.reads <= self.low) & ~self.read_hits
        write_tail = (self.writes <= self.low) & ~self.write_hits
        read_urgent, write_urgent = self._urgent(m)
        turns = Signal()
        with m.If(some_reads):
            m.d.sync += idle.eq(self.linger)
        with m.Elif(some_writes & (idle != 0)):
            m.d.sync += idle.eq(idle - 1)
        with m.If(self.write):
            m.d.comb += turns.eq(~some_writes | (~write_urgent & (
                read_urgent | (write_tail & some_reads & ~self.conflict))))
        with m.Else():
            m.d.comb += turns.eq(some_writes & ~read_urgent & (
                write_urgent | (self.writes >= self.full) | ((self.writes >= self.high) & read_tail)
                | (~some_reads & (idle == 0)) | self.conflict))
        m.d.sync += self.write.eq(self.write ^ turns)
        return m

    def _urgent(self, m):
        """Whether there are banks with urgent reads, urgent writes."""
        left = Signal(range(self.patience), init=self.patience - 1)
        over, ended, found = Signal(), Signal(BANKS), []
        none = (self.has0 | self.has1) == 0
        m.d.comb += [over.eq(left == 0), ended.eq(Mux(self.ends, 1 << self.end_bank, 0))]
        m.d.sync += left.eq(Mux(over | none, self.patience - 1, left - 1))
        for n, has in ((0, self.has0), (1, self.has1)):
            waits, urgent = Signal(BANKS, name=f"waits{n}"), Signal(BANKS, name=f"urgent{n}")
            kept = ~Mux(self.end_write == n, ended, 0)
            m.d.sync += [waits.eq(Mux(over, has, waits) & kept),
                         urgent.eq(Mux(over, waits, urgent) & kept)]
            found.append(urgent.any())
        return found
