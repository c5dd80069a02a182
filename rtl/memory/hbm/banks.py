"""Which commands the banks of an HBM pseudo-channel would take at the moment."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.memory.hbm.history import History, Wait
from rtl.memory.hbm.timing import BANKS, GROUPS, HbmTiming

EACH = BANKS // GROUPS


class HbmBanks(wiring.Component):
    """Follows the commands given to a pseudo-channel and says which ones are legal now.

    A command given in one cycle counts from the next on. A memory of the past commands says which
    waits of single banks end; so there is a bit for each wait and bank, and no counter. After reset
    all banks are closed and every wait is over. Source: JESD238 (see :class:`HbmTiming`).

    Parameters
    ----------
    timing : HbmTiming
        Least distances [clock]. :exc:`TypeError` if it is none.

    Members
    -------
    activate, precharge, refresh, refresh_all : In(1)
        The row command given in this cycle, one at most, for :attr:`row_bank` (but for
        ``refresh_all``).
    row_bank : In(4)
        Its bank.
    column, write, column_bank : In(1), In(1), In(4)
        The column command given in this cycle.
    opened : Out(16)
        The bank has an open row.
    can_activate, can_precharge, can_refresh : Out(16)
        The row command is legal, if the bank is closed, open, closed.
    refreshing : Out(16)
        It is being refreshed.
    ready_read, ready_write : Out(16)
        The open row takes a column command, as far as its activate goes.
    groups_read, groups_write : Out(4)
        So does the bank group, as far as other column commands go.
    soon_read, soon_write : Out(4)
        It will within less than ``ccds`` clocks.
    read_turned, write_turned : Out(1)
        No earlier column command of any bank keeps a read, a write away, but for those in the same
        bank group.
    active : Out(1)
        A function of registers. While it is low, nothing changes until a command is given.
    """

    def __init__(self, *, timing):
        if not isinstance(timing, HbmTiming):
            raise TypeError(f"Timing must be an HbmTiming, not {timing!r}")
        self.timing = timing
        super().__init__({
            **{name: In(1) for name in ("activate", "precharge", "refresh", "refresh_all",
                                        "column", "write")},
            "row_bank": In(4), "column_bank": In(4),
            **{name: Out(BANKS) for name in (
                "opened", "can_activate", "can_precharge", "can_refresh", "refreshing",
                "ready_read", "ready_write")},
            **{name: Out(GROUPS) for name in (
                "groups_read", "groups_write", "soon_read", "soon_write")},
            "read_turned": Out(1), "write_turned": Out(1), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        t = self.timing
        kind = data.StructLayout({"activate": 1, "precharge": 1, "refresh": 1, "bank": 4})
        ends = {"rc": t.rc, "rp": t.rp, "rfcpb": t.rfcpb, "ras": t.ras, "rcdrd": t.rcdrd,
                "rcdwr": t.rcdwr, "faw": t.faw}
        m.submodules.rows = rows = History(kind, ages=[clocks - 1 for clocks in ends.values()])
        m.d.comb += [rows.now.activate.eq(self.activate), rows.now.precharge.eq(self.precharge),
                     rows.now.refresh.eq(self.refresh), rows.now.bank.eq(self.row_bank)]
        past = {name: getattr(rows, f"past{n}") for n, name in enumerate(ends)}
        here = Signal(BANKS)
        m.d.comb += here.eq(1 << self.row_bank)

        def wait(name, event):
            """Banks for which too few clocks went by since this event."""
            waits, over = Signal(BANKS, name=name), past[name]
            happens = getattr(self, event)
            m.d.sync += waits.eq((waits & ~Mux(over[event], 1 << over.bank, 0)[:BANKS])
                                 | Mux(happens, here, 0))
            return waits

        closed = [wait("rc", "activate"), wait("rp", "precharge"), wait("rfcpb", "refresh")]
        ras, rcdrd, rcdwr = (wait(name, "activate") for name in ("ras", "rcdrd", "rcdwr"))
        columns = self._columns_of_banks(m)
        with m.If(self.activate):
            m.d.sync += self.opened.eq(self.opened | here)
        with m.If(self.precharge):
            m.d.sync += self.opened.eq(self.opened & ~here)
        idle = ~(closed[0] | closed[1] | closed[2])
        spaced, few, spacing = self._activates(m, past["faw"].activate)
        turning = self._turns(m)
        m.d.comb += [
            self.active.eq(spacing | turning | Cat(*closed, ras, rcdrd, rcdwr, *columns).any()),
            self.refreshing.eq(closed[2] | (~self.refreshed_all).replicate(BANKS)),
            self.can_refresh.eq(idle & spaced.replicate(EACH)),
            self.can_activate.eq(Mux(few, self.can_refresh, 0)),
            self.can_precharge.eq(~(ras | columns[0] | columns[1])),
            self.ready_read.eq(self.opened & ~rcdrd), self.ready_write.eq(self.opened & ~rcdwr)]
        return m

    def _columns_of_banks(self, m):
        """Banks that the last read, the last write keeps from a precharge."""
        t = self.timing
        kind, found = data.StructLayout({"valid": 1, "write": 1, "bank": 4}), []
        ends = (t.rtp, t.write_to_precharge)
        m.submodules.columns = history = History(kind, ages=[clocks - 1 for clocks in ends])
        m.d.comb += [history.now.valid.eq(self.column), history.now.write.eq(self.write),
                     history.now.bank.eq(self.column_bank)]
        for n, name in enumerate(("rtp", "wr")):
            last = memory.Memory(shape=history.bits, depth=BANKS, init=[])
            m.submodules[f"last_{name}"] = last
            write, read = last.write_port(), last.read_port(domain="comb")
            waits, over = Signal(BANKS, name=name), getattr(history, f"past{n}")
            happens = self.column & (self.write == n)
            ended = over.valid & (over.write == n) & (read.data == getattr(history, f"clock{n}"))
            m.d.comb += [write.en.eq(happens), write.addr.eq(self.column_bank),
                         write.data.eq(history.clock), read.addr.eq(over.bank)]
            m.d.sync += waits.eq((waits & ~Mux(ended, 1 << over.bank, 0)[:BANKS])
                                 | Mux(happens, 1 << self.column_bank, 0)[:BANKS])
            found.append(waits)
        return found

    def _activates(self, m, ended):
        """Distances between activates, refreshes of different banks.

        Gives the bank groups that take another one, whether fewer than four activates were given
        in the window of four, and whether some wait is not over.
        """
        t = self.timing
        near, count = Wait(m, t.rrds, "rrds"), Signal(3)
        groups = [Wait(m, t.rrdl, f"rrdl{n}") for n in range(GROUPS)]
        refreshed, all_refreshed = Wait(m, t.rrefd, "rrefd"), Wait(m, t.rfc, "rfc")
        m.d.sync += count.eq(count + self.activate - ended)
        with m.If(self.activate):
            near.start(t.rrds)
        with m.If(self.refresh):
            refreshed.start(t.rrefd)
        with m.If(self.refresh_all):
            all_refreshed.start(t.rfc)
        for group, wait in enumerate(groups):
            with m.If(self.activate & (self.row_bank[:2] == group)):
                wait.start(t.rrdl)
        self.refreshed_all = all_refreshed.over
        free = near.over & refreshed.over & all_refreshed.over
        spaced = Signal(GROUPS)
        m.d.comb += spaced.eq(Mux(free, Cat(wait.over for wait in groups), 0))
        return spaced, count < 4, ~spaced.all() | (count != 0)

    def _turns(self, m):
        """Distances between column commands; gives whether some wait is not over."""
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
        m.d.comb += [
            self.read_turned.eq(read.over), self.write_turned.eq(write.over),
            self.groups_read.eq(Mux(read.over, Cat(w.over for w in reads), 0)),
            self.groups_write.eq(Mux(write.over, Cat(w.over for w in writes), 0)),
            self.soon_read.eq(Cat(w.left < t.ccds for w in reads)),
            self.soon_write.eq(Cat(w.left < t.ccds for w in writes))]
        return ~Cat(self.groups_read.all(), self.groups_write.all()).all()
