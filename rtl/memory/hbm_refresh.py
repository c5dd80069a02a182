"""When which bank of an HBM channel is refreshed."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.memory.hbm_timing import BANKS, GROUPS

PATIENT = 2 * BANKS     # refreshes owed, from which on any bank without requests is taken
FORCED = 6 * BANKS      # refreshes owed, from which on a bank with requests is taken


class HbmRefresh(wiring.Component):
    """Refreshes single banks: each once, in any order, before any of them again.

    One refresh comes to be owed with each pulse of :attr:`due`. It is given to a bank for which no
    request is queued: as long as few are owed, to the one in a bank group that was the last to be
    used up to the end of its row, since a stream is likely to come back to it late; from
    ``PATIENT`` owed on, to any. From ``FORCED`` on, banks with requests are taken too, one with
    each refresh that comes to be owed. So a bank is refreshed after at most 8 intervals. When
    nothing is queued, one refresh for each bank is owed before they are all given, so that the
    clock can rest in between.

    Members
    -------
    due : In(1)
        A pulse every sixteenth of an interval.
    quiet : In(1)
        No request is queued.
    pending : In(16)
        Banks for which requests are queued.
    ended : In(16)
        Banks whose last column command was for the last column of a row.
    opened, can_precharge, can_refresh : In(16)
        As those of :class:`rtl.memory.hbm_banks.HbmBanks`.
    block : Out(16)
        The bank that waits for its refresh, if any. It must get no other command.
    precharge, refresh : Out(1)
        The command of this cycle. No other row command may be given.
    bank : Out(4)
        Its bank.
    active : Out(1)
        While it is low and inputs do not change, nothing does.
    """

    due: In(1)
    quiet: In(1)
    pending: In(BANKS)
    ended: In(BANKS)
    opened: In(BANKS)
    can_precharge: In(BANKS)
    can_refresh: In(BANKS)
    block: Out(BANKS)
    precharge: Out(1)
    refresh: Out(1)
    bank: Out(4)
    active: Out(1)

    def elaborate(self, platform):
        m = Module()
        owed = Signal(range(8 * BANKS))
        done, before, fresh = (Signal(BANKS, name=n) for n in ("done", "before", "fresh"))
        catching = Signal()                 # up with all refreshes owed
        choice, chosen, after = Signal(BANKS), Signal(BANKS), Signal(BANKS)
        free = ~self.pending & ~done
        with m.If((owed >= FORCED) & ~free.any()):
            m.d.comb += choice.eq(~done)
        with m.Elif(catching | (owed >= PATIENT)):
            m.d.comb += choice.eq(free)
        with m.Else():
            m.d.comb += choice.eq(free & fresh)
        some = (owed != 0) & choice.any()
        with m.If(self.refresh):
            m.d.sync += self.block.eq(0)
        with m.Elif(some & (self.block == 0)):
            m.d.sync += self.block.eq(choice & -choice)
        starts, ends = self.quiet & (owed >= BANKS), ~self.quiet | (owed == 0)
        with m.If(ends):
            m.d.sync += catching.eq(0)
        with m.Elif(starts):
            m.d.sync += catching.eq(1)

        m.d.comb += [
            self.precharge.eq((self.block & self.opened & self.can_precharge).any()),
            self.refresh.eq((self.block & ~self.opened & self.can_refresh).any()),
            self.bank.eq(Cat((self.block & sum(1 << b for b in range(BANKS) if b >> bit & 1)).any()
                             for bit in range(4))),
            chosen.eq(Mux(self.refresh, self.block, 0)), after.eq(done | chosen),
            self.active.eq(some | (self.block != 0) | (before != self.pending)
                           | Mux(catching, ends, starts))]
        m.d.sync += [owed.eq(owed + self.due - self.refresh),
                     done.eq(Mux(after.all(), 0, after)), before.eq(self.pending)]
        left = before & ~self.pending & self.ended      # banks that a stream has just left
        for bank in range(BANKS):
            rest = Cat(left[n] for n in range(bank % GROUPS, BANKS, GROUPS)).any()
            with m.If(rest):
                m.d.sync += fresh[bank].eq(left[bank])
            with m.Elif(self.pending[bank]):
                m.d.sync += fresh[bank].eq(0)
        return m
