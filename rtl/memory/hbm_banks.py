"""Which commands the banks of an HBM channel would take at the moment."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.memory.hbm_timing import BANKS, GROUPS, HbmTiming


class Wait:
    """A counter down to zero, at which something becomes legal; ``start`` is a set of cases."""

    def __init__(self, m, most, name):
        self.left = Signal(range(max(most, 2)), name=name)
        self.m = m
        with m.If(self.left != 0):
            m.d.sync += self.left.eq(self.left - 1)

    def start(self, cycles):
        """Not before ``cycles`` from now; to be called under the condition of the event."""
        self.m.d.sync += self.left.eq(cycles - 1)

    def extend(self, cycles):
        """As :meth:`start`, but never shortens the wait."""
        with self.m.If(self.left < cycles):
            self.m.d.sync += self.left.eq(cycles - 1)

    @property
    def over(self):
        return self.left == 0


class HbmBanks(wiring.Component):
    """Follows the commands given to a channel and says which ones are legal now, bank by bank.

    A command given in one cycle counts from the next on. After reset all banks are closed and
    every wait is over. Source: JESD238 (see :class:`HbmTiming`).

    Parameters
    ----------
    timing : HbmTiming
        Least distances [clock]. :exc:`TypeError` if it is none.
    rows : int
        Rows of a bank.

    Members
    -------
    activate, precharge, refresh : In(1)
        The row command given in this cycle, one at most, for :attr:`row_bank`; the refresh is one
        of this bank alone.
    row_bank, row : In(4), In(range(rows))
        Its bank, and the row of an activate.
    column, write, column_bank : In(1), In(1), In(4)
        The column command given in this cycle.
    look_bank, look_row : In(4), In(range(rows))
        A row asked about.
    hit : Out(1)
        It will be open in the next cycle. A function of the row command.
    opened : Out(16)
        The bank has an open row.
    can_activate, can_precharge, can_refresh : Out(16)
        The row command is legal, if the bank is closed, open, closed.
    ready_read, ready_write : Out(16)
        The open row takes a column command, as far as its activate goes.
    can_read, can_write : Out(16)
        It is legal.
    read_turned, write_turned : Out(1)
        No earlier column command of any bank keeps a read, a write away, but for those in the same
        bank group.
    active : Out(1)
        A function of registers. While it is low, nothing changes until a command is given.
    """

    def __init__(self, *, timing, rows):
        if not isinstance(timing, HbmTiming):
            raise TypeError(f"Timing must be an HbmTiming, not {timing!r}")
        self.timing, self.rows = timing, rows
        super().__init__({
            "activate": In(1), "precharge": In(1), "refresh": In(1), "row_bank": In(4),
            "row": In(range(rows)), "column": In(1), "write": In(1), "column_bank": In(4),
            "look_bank": In(4), "look_row": In(range(rows)), "hit": Out(1),
            **{name: Out(BANKS) for name in (
                "opened", "can_activate", "can_precharge", "can_refresh", "ready_read",
                "ready_write", "can_read", "can_write")},
            "read_turned": Out(1), "write_turned": Out(1), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        t = self.timing
        activates, precharges, columns = [], [], []         # waits, bank by bank
        for bank in range(BANKS):
            here = self.row_bank == bank
            activates.append(wait := Wait(m, max(t.rc, t.rp, t.rfcpb), f"activate{bank}"))
            with m.If(self.activate & here):
                wait.start(t.rc)
            with m.If(self.precharge & here):
                wait.extend(t.rp)
            with m.If(self.refresh & here):
                wait.start(t.rfcpb)
            precharges.append(wait := Wait(m, max(t.ras, t.rtp, t.write_to_precharge),
                                           f"precharge{bank}"))
            with m.If(self.activate & here):
                wait.start(t.ras)
            with m.If(self.column & (self.column_bank == bank)):
                with m.If(self.write):
                    wait.extend(t.write_to_precharge)
                with m.Else():
                    wait.extend(t.rtp)
            columns.append(wait := Wait(m, t.rcdrd, f"column{bank}"))
            with m.If(self.activate & here):
                wait.start(t.rcdrd)
        with m.If(self.activate):
            m.d.sync += self.opened.bit_select(self.row_bank, 1).eq(1)
        with m.If(self.precharge):
            m.d.sync += self.opened.bit_select(self.row_bank, 1).eq(0)

        idle = Cat(wait.over for wait in activates)
        spaced, few, spacing = self._activates(m)
        reads, writes, turning = self._columns(m)
        m.d.comb += [
            self.active.eq(spacing | ~Cat(wait.over for wait in (
                *activates, *precharges, *columns, *turning)).all()),
            self.can_refresh.eq(idle & spaced.replicate(BANKS // GROUPS)),
            self.can_activate.eq(Mux(few, self.can_refresh, 0)),
            self.can_precharge.eq(Cat(wait.over for wait in precharges)),
            self.ready_read.eq(self.opened & Cat(wait.over for wait in columns)),
            self.ready_write.eq(self.opened & Cat(wait.left <= t.rcdrd - t.rcdwr
                                                  for wait in columns)),
            self.can_read.eq(self.ready_read & reads.replicate(BANKS // GROUPS)),
            self.can_write.eq(self.ready_write & writes.replicate(BANKS // GROUPS))]
        self._rows(m)
        return m

    def _rows(self, m):
        """Rows of the open banks."""
        rows = Array(Signal(range(self.rows), name=f"row{n}") for n in range(BANKS))
        here = self.row_bank == self.look_bank
        m.d.comb += self.hit.eq(Mux(
            self.activate & here, self.row == self.look_row,
            self.opened.bit_select(self.look_bank, 1) & ~(self.precharge & here)
            & (rows[self.look_bank] == self.look_row)))
        with m.If(self.activate):
            m.d.sync += rows[self.row_bank].eq(self.row)

    def _activates(self, m):
        """Distances between activates, refreshes of different banks.

        Gives the bank groups that take another one, whether the last four activates are far enough
        away, and whether some wait is not over.
        """
        t = self.timing
        near, recent, count = Wait(m, t.rrds, "rrds"), Signal(t.faw - 1), Signal(3)
        groups = [Wait(m, t.rrdl, f"rrdl{n}") for n in range(GROUPS)]
        refreshed = Wait(m, t.rrefd, "rrefd")
        m.d.sync += [recent.eq(Cat(self.activate, recent)),
                     count.eq(count + self.activate - recent[-1])]
        with m.If(self.activate):
            near.start(t.rrds)
        with m.If(self.refresh):
            refreshed.start(t.rrefd)
        for group, wait in enumerate(groups):
            with m.If(self.activate & (self.row_bank[:2] == group)):
                wait.start(t.rrdl)
        waiting = ~Cat(wait.over for wait in (near, refreshed, *groups)).all() | recent.any()
        spaced = Cat(wait.over & near.over & refreshed.over for wait in groups)
        return spaced, count < 4, waiting

    def _columns(self, m):
        """Distances between column commands.

        Gives the bank groups that take a read, a write, and all the waits.
        """
        t = self.timing
        read = Wait(m, max(t.ccds, t.write_to_read_s), "read")
        write = Wait(m, max(t.ccds, t.rtw), "write")
        reads = [Wait(m, max(t.ccdl, t.write_to_read_l), f"read{n}") for n in range(GROUPS)]
        writes = [Wait(m, t.ccdl, f"write{n}") for n in range(GROUPS)]
        with m.If(self.column & self.write):
            write.start(t.ccds)
            read.start(t.write_to_read_s)
        with m.If(self.column & ~self.write):
            read.start(t.ccds)
            write.start(t.rtw)
        for group in range(GROUPS):
            here = self.column & (self.column_bank[:2] == group)
            with m.If(here & self.write):
                writes[group].start(t.ccdl)
                reads[group].start(t.write_to_read_l)
            with m.If(here & ~self.write):
                reads[group].start(t.ccdl)
        m.d.comb += [self.read_turned.eq(read.over), self.write_turned.eq(write.over)]
        return (Cat(wait.over & read.over for wait in reads),
                Cat(wait.over & write.over for wait in writes), [read, write, *reads, *writes])
