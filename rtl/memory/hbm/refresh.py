"""When which bank of an HBM pseudo-channel is refreshed."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.common.select import lowest, number_of
from rtl.memory.hbm.timing import BANKS, GROUPS

PATIENT = BANKS         # refreshes owed, from which on any bank without requests is taken
FORCED = 6 * BANKS      # refreshes owed, from which on a bank with requests is taken
POSTPONED = 4           # refreshes of all banks that are put off while there are requests


def each_of_group(mask):
    """All banks of the groups that have a bank in the mask."""
    some = mask[:GROUPS]
    for low in range(GROUPS, BANKS, GROUPS):
        some = some | mask[low:low + GROUPS]
    return some.replicate(BANKS // GROUPS)


def refresh_members():
    """The ports that the two ways of refreshing share, see :class:`BankRefresh`."""
    return {"due": In(1), "tick": In(1), "quiet": In(1), "pending": In(BANKS),
            "opened": In(BANKS), "can_precharge": In(BANKS), "can_refresh": In(BANKS),
            "block": Out(BANKS), "precharge": Out(1), "refresh": Out(1), "refresh_all": Out(1),
            "bank": Out(4), "active": Out(1)}


class BankRefresh(wiring.Component):
    """Refreshes single banks: each once, in any order, before any of them again.

    One refresh comes to be owed with each pulse of :attr:`due`. It is given to a bank that rests:
    no request has been queued for it from one :attr:`tick` to the next, longer than a requester
    waits for an answer, so that a slow stream is not there. As long as few are owed, it is the one
    that a stream left last for another bank of its group, since it is likely to come back late;
    from ``PATIENT`` owed on, any. From ``FORCED`` on, all banks are taken, one with each refresh
    that comes to be owed. So a bank is refreshed after at most 8 intervals. When nothing has been
    queued from one pulse of :attr:`due` to the next, one refresh for each bank is owed before they
    are all given, so that the clock can rest in between.

    Members
    -------
    due : In(1)
        A pulse every sixteenth of an interval.
    tick : In(1)
        A pulse several times as often.
    quiet : In(1)
        No request is queued.
    pending : In(16)
        Banks for which requests are queued.
    opened, can_precharge, can_refresh : In(16)
        As those of :class:`rtl.memory.hbm.banks.HbmBanks`.
    block : Out(16)
        The banks that wait for their refresh, if any. They must get no other command.
    precharge, refresh, refresh_all : Out(1)
        The command of this cycle. No other row command may be given.
    bank : Out(4)
        Its bank.
    active : Out(1)
        While it is low and inputs do not change, nothing does.
    """

    def __init__(self):
        super().__init__(refresh_members())

    def elaborate(self, platform):
        m = Module()
        owed = Signal(range(8 * BANKS))
        done, before, fresh = (Signal(BANKS, name=n) for n in ("done", "before", "fresh"))
        passed = Signal(BANKS)              # another bank of the group had a request since
        catching = Signal()                 # up with all refreshes owed
        asked, calm = Signal(), Signal()    # since the last pulse; not between the last two
        choice, chosen, after = Signal(BANKS), Signal(BANKS), Signal(BANKS)
        free = ~self.pending & ~done
        used, rests = Signal(BANKS), Signal(BANKS)      # since the last tick; not between ticks
        left_alone = free & rests
        with m.If(self.tick):
            m.d.sync += [used.eq(self.pending), rests.eq((rests | ~used) & ~self.pending)]
        with m.Else():
            m.d.sync += [used.eq(used | self.pending), rests.eq(rests & ~self.pending)]
        with m.If(catching):
            m.d.comb += choice.eq(free)
        with m.Elif((owed >= FORCED) & ~left_alone.any()):
            m.d.comb += choice.eq(Mux(free.any(), free, ~done))
        with m.Elif(owed >= PATIENT):
            m.d.comb += choice.eq(left_alone)
        with m.Else():
            m.d.comb += choice.eq(left_alone & fresh)
        some = (owed != 0) & choice.any()
        with m.If(self.refresh):
            m.d.sync += self.block.eq(0)
        with m.Elif(some & (self.block == 0)):
            m.d.sync += self.block.eq(lowest(choice))
        with m.If(~self.quiet):
            m.d.sync += [asked.eq(1), calm.eq(0)]
        with m.Elif(self.due):
            m.d.sync += [asked.eq(0), calm.eq(~asked)]
        idle = self.quiet & calm
        starts, ends = idle & (owed >= BANKS), ~idle | (owed == 0)
        with m.If(ends):
            m.d.sync += catching.eq(0)
        with m.Elif(starts):
            m.d.sync += catching.eq(1)

        m.d.comb += [
            self.precharge.eq((self.block & self.opened & self.can_precharge).any()),
            self.refresh.eq((self.block & ~self.opened & self.can_refresh).any()),
            self.bank.eq(number_of(self.block)),
            chosen.eq(Mux(self.refresh, self.block, 0)), after.eq(done | chosen),
            self.active.eq(some | (self.block != 0) | (before != self.pending)
                           | ~rests.all() | Mux(catching, ends, starts))]
        m.d.sync += [owed.eq(owed + self.due - self.refresh),
                     done.eq(Mux(after.all(), 0, after)), before.eq(self.pending)]
        came, left = self.pending & ~before, before & ~self.pending
        now, last, comes = Signal(BANKS), Signal(BANKS), Signal(BANKS)
        m.d.comb += [
            comes.eq(each_of_group(came)), now.eq((passed | comes) & ~came),
            last.eq(now & ~self.pending & (left | ~passed))]
        m.d.sync += [passed.eq(now), fresh.eq((last | (fresh & ~each_of_group(last))) & ~came)]
        return m


class AllRefresh(wiring.Component):
    """Refreshes all banks at once, one for every 16 pulses of :attr:`due`.

    It is put off while there are requests, but no more than ``POSTPONED`` of them. Open banks are
    closed one after the other. Members as those of :class:`BankRefresh`.
    """

    def __init__(self):
        super().__init__(refresh_members())

    def elaborate(self, platform):
        m = Module()
        pulses, owed, waits = Signal(range(BANKS)), Signal(4), Signal()
        comes = self.due & pulses.all()
        m.d.sync += [pulses.eq(pulses + self.due), owed.eq(owed + comes - self.refresh_all)]
        start = (owed > POSTPONED) | ((owed != 0) & self.quiet)
        with m.If(self.refresh_all):
            m.d.sync += waits.eq(0)
        with m.Elif(start):
            m.d.sync += waits.eq(1)
        closing = self.opened & self.can_precharge & self.block
        m.d.comb += [
            self.block.eq(waits.replicate(BANKS)), self.precharge.eq(closing.any()),
            self.bank.eq(number_of(lowest(closing))),
            self.refresh_all.eq(waits & (self.opened == 0) & self.can_refresh.all()),
            self.active.eq(waits | start)]
        return m
