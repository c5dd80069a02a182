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
    """Follows the commands given to a channel and says which ones are legal now.

    A command given in one cycle counts from the next on. After reset all banks are closed and
    every wait is over. Source: JESD238 (see :class:`HbmTiming`).

    Parameters
    ----------
    timing : HbmTiming
        Least distances [clock].

    Members
    -------
    activate, precharge, precharge_all, refresh : In(1)
        The row command given in this cycle; the first two for :attr:`row_bank`.
    row_bank : In(4)
        Its bank.
    column, write, column_bank : In(1), In(1), In(4)
        The column command given in this cycle.
    look_precharge, look_activate, look_column : In(4)
        Banks asked about.
    precharge_open, can_precharge : Out(1)
        The first of them has an open row; it may be precharged.
    activate_open, can_activate : Out(1)
        The second has an open row; it may be activated (if it is closed).
    can_read, can_write : Out(1)
        The third takes that column command (if the wanted row is open).
    any_open, can_precharge_all, can_refresh : Out(1)
        For all banks.
    active : Out(1)
        A function of registers. While it is low, nothing changes until a command is given.
    """

    activate: In(1)
    precharge: In(1)
    precharge_all: In(1)
    refresh: In(1)
    row_bank: In(4)
    column: In(1)
    write: In(1)
    column_bank: In(4)
    look_precharge: In(4)
    look_activate: In(4)
    look_column: In(4)
    precharge_open: Out(1)
    can_precharge: Out(1)
    activate_open: Out(1)
    can_activate: Out(1)
    can_read: Out(1)
    can_write: Out(1)
    any_open: Out(1)
    can_precharge_all: Out(1)
    can_refresh: Out(1)
    active: Out(1)

    def __init__(self, *, timing):
        if not isinstance(timing, HbmTiming):
            raise TypeError(f"Timing must be an HbmTiming, not {timing!r}")
        self.timing = timing
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        t = self.timing
        opened = Signal(BANKS)
        activates, precharges, columns = [], [], []         # waits, bank by bank
        for bank in range(BANKS):
            here = self.row_bank == bank
            activates.append(wait := Wait(m, max(t.rc, t.rp), f"activate{bank}"))
            with m.If(self.activate & here):
                wait.start(t.rc)
            with m.If((self.precharge & here) | (self.precharge_all & opened[bank])):
                wait.extend(t.rp)
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
            m.d.sync += opened.bit_select(self.row_bank, 1).eq(1)
        with m.If(self.precharge):
            m.d.sync += opened.bit_select(self.row_bank, 1).eq(0)
        with m.If(self.precharge_all):
            m.d.sync += opened.eq(0)

        spaced, spacing = self._activates(m)
        reads, writes, turning = self._columns(m)
        refreshing = Wait(m, t.rfc, "refreshing")
        waits = [*activates, *precharges, *columns, *turning, refreshing]
        m.d.comb += self.active.eq(spacing | ~Cat(wait.over for wait in waits).all())
        with m.If(self.refresh):
            refreshing.start(t.rfc)

        since = Array(wait.left for wait in columns)[self.look_column]
        m.d.comb += [
            self.precharge_open.eq(opened.bit_select(self.look_precharge, 1)),
            self.can_precharge.eq(Array(w.over for w in precharges)[self.look_precharge]),
            self.activate_open.eq(opened.bit_select(self.look_activate, 1)),
            self.can_activate.eq(Array(w.over for w in activates)[self.look_activate] & spaced
                                 & refreshing.over),
            self.can_read.eq((since == 0) & reads),
            self.can_write.eq((since <= t.rcdrd - t.rcdwr) & writes),
            self.any_open.eq(opened.any()),
            self.can_precharge_all.eq(Cat(w.over for w in precharges).all()),
            self.can_refresh.eq(Cat(w.over for w in activates).all() & ~opened.any()
                                & refreshing.over),
        ]
        return m

    def _activates(self, m):
        """Distances between activates of different banks: one is legal, some wait is not over."""
        t = self.timing
        near, recent, count = Wait(m, t.rrds, "rrds"), Signal(t.faw - 1), Signal(3)
        groups = [Wait(m, t.rrdl, f"rrdl{n}") for n in range(GROUPS)]
        m.d.sync += [recent.eq(Cat(self.activate, recent)),
                     count.eq(count + self.activate - recent[-1])]
        with m.If(self.activate):
            near.start(t.rrds)
        for group, wait in enumerate(groups):
            with m.If(self.activate & (self.row_bank[:2] == group)):
                wait.start(t.rrdl)
        own = Array(w.over for w in groups)[self.look_activate[:2]]
        waiting = ~Cat(wait.over for wait in (near, *groups)).all() | recent.any()
        return near.over & own & (count < 4), waiting

    def _columns(self, m):
        """Distances between column commands: a read, a write would be legal; and all the waits."""
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
        own = self.look_column[:2]
        return (read.over & Array(w.over for w in reads)[own],
                write.over & Array(w.over for w in writes)[own], [read, write, *reads, *writes])
