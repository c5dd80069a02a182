"""What goes over a slice by itself: scrubbing, write-back on command, change of the ways."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.memory.slice.interfaces import Work, walk_layout

PATIENCE_LOG2 = 3       # cycles that a step of the scrubber waits for an idle one


class Keeper(wiring.Component):
    """Sends jobs of its own to the tags: one for each step of scrubbing, one for a set to walk.

    A walk waits until nothing is under way, then takes a cycle for each set, and one for each line
    written back; it ends when memory has answered all writes. Ways that become cache are free
    then, whatever the tags held. After reset no way is cache. A tick while a step of the scrubber
    still waits is lost. Source: this project's choice.

    Parameters
    ----------
    places, ways : int
        Size of the data array [line], and its ways.

    Members
    -------
    cache_ways : In(range(ways + 1))
        Ways that are to be cache, the highest ones; more than there are count as all.
    flush : In(1)
        For one cycle: write all changed lines back.
    tick : In(1)
        For one cycle: scrub the next line.
    cached, cached_ways : Out(ways), Out(range(ways + 1))
        Ways that are cache.
    hold : Out(1)
        Requests must wait.
    quiet, writing : In(1)
        Nothing is under way but maybe writes to memory; such are.
    offered : In(1)
        A request waits to be taken.
    work : Out(stream.Signature(walk_layout(...)))
        The jobs.
    scrubbed : Out(1)
        For one cycle: a step of the scrubber was taken.
    awake : Out(1)
        It needs the coming edge of the clock.
    """

    def __init__(self, *, places, ways):
        self.places, self.ways = places, ways
        super().__init__({
            "cache_ways": In(range(ways + 1)), "flush": In(1), "tick": In(1),
            "cached": Out(ways), "cached_ways": Out(range(ways + 1)), "hold": Out(1),
            "quiet": In(1), "writing": In(1), "offered": In(1),
            "work": Out(stream.Signature(walk_layout(places=places, ways=ways))),
            "scrubbed": Out(1), "awake": Out(1)})

    def elaborate(self, platform):
        m = Module()
        wanted, target = Signal.like(self.cached_ways), Signal.like(self.cached_ways)
        flush, flushing = Signal(), Signal()
        due, patience = Signal(), Signal(PATIENCE_LOG2)
        line, number = Signal(range(self.places)), Signal(range(self.places // self.ways))
        work = self.work.payload
        stays = self._mask(target)
        idle = Signal()
        m.d.comb += [
            wanted.eq(Mux(self.cache_ways > self.ways, self.ways, self.cache_ways)),
            self.cached.eq(self._mask(self.cached_ways)),
            self.hold.eq(~idle | flush | (wanted != self.cached_ways)),
            self.awake.eq(self.hold | self.flush | self.tick | due)]
        with m.If(self.flush):
            m.d.sync += flush.eq(1)
        with m.If(self.tick):
            m.d.sync += due.eq(1)
        with m.FSM():
            with m.State("REST"):
                m.d.comb += [
                    idle.eq(1), work.work.eq(Work.SCRUB), work.place.eq(line),
                    self.work.valid.eq(due & ~self.hold & (~self.offered | patience.all())),
                    self.scrubbed.eq(self.work.valid & self.work.ready)]
                with m.If(due & ~patience.all()):
                    m.d.sync += patience.eq(patience + 1)
                with m.If(self.scrubbed):
                    m.d.sync += [due.eq(self.tick), patience.eq(0), line.eq(line + 1)]
                with m.If(self.hold):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.sync += [target.eq(wanted), flushing.eq(flush), number.eq(0)]
                with m.If(self.quiet):
                    m.d.sync += flush.eq(self.flush)
                    m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += [
                    self.work.valid.eq(1), work.work.eq(Work.WALK), work.place.eq(number),
                    work.clean.eq(self.cached & Mux(flushing, ~0, ~stays)),
                    work.leave.eq(self.cached ^ stays)]
                with m.If(self.work.ready):
                    m.d.sync += number.eq(number + 1)
                    with m.If(number == self.places // self.ways - 1):
                        m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(self.quiet & ~self.writing):
                    m.d.sync += self.cached_ways.eq(target)
                    m.next = "REST"
        return m

    def _mask(self, count):
        """The highest ``count`` ways."""
        return Cat(way + count >= self.ways for way in range(self.ways))
