"""Which line of a set is replaced."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.select import lowest

FAR, LONG = 3, 2        # re-reference numbers of lines expected never, and late
DUEL_BITS, RARE_BITS = 6, 5
DUEL_SETS = 32          # of so many sets two compare


class Replacement(wiring.Component):
    """Re-reference interval prediction, with SRRIP and BRRIP in a duel.

    cosim/golden/cache.py describes it. A set that is read in one cycle is judged in the next, and
    stays until the next read. The memory has no ECC: a wrong bit costs a hit, never a wrong line.
    After reset neither policy is ahead; the memory stays as it is.
    Source: Jaleel et al., "High performance cache replacement using re-reference interval
    prediction", ISCA 2010; sizes are this project's choice.

    Parameters
    ----------
    sets, ways : int
        Size.

    Members
    -------
    read, read_set : In(1), In(range(sets))
        Read a set.
    set : In(range(sets))
        The set that was read.
    eligible, free : In(ways)
        Ways that may be replaced, and those of them without a line.
    victim : Out(ways)
        The way to replace, one-hot; zero if none is eligible.
    done, use, used : In(1), In(1), In(ways)
        It comes to pass: if ``use``, a line was used, its way one-hot; else a line is brought into
        ``victim``.
    prefetch : In(1)
        By PREFETCH.
    """

    def __init__(self, *, sets, ways):
        self.sets, self.ways = sets, ways
        super().__init__({
            "read": In(1), "read_set": In(range(sets)), "set": In(range(sets)),
            "eligible": In(ways), "free": In(ways), "victim": Out(ways),
            "done": In(1), "use": In(1), "used": In(ways), "prefetch": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = Memory(shape=data.ArrayLayout(2, self.ways), depth=self.sets,
                                            init=[])
        write = store.write_port()
        read = store.read_port(transparent_for=[write])
        oldest, raised, filled = Signal(self.ways), Signal(2), Signal(2)
        m.d.comb += oldest.eq(lowest(self.free))
        for number in range(FAR + 1):      # the largest that is there decides
            those = self.eligible & Cat(r == number for r in read.data)
            with m.If(~self.free.any() & those.any()):
                m.d.comb += [oldest.eq(lowest(those)), raised.eq(FAR - number)]
        m.d.comb += [
            read.en.eq(self.read), read.addr.eq(self.read_set), self.victim.eq(oldest),
            write.en.eq(self.done), write.addr.eq(self.set)]
        for way in range(self.ways):
            r = read.data[way]
            older = Mux(r + raised > FAR, FAR, r + raised)
            m.d.comb += write.data[way].eq(Mux(
                self.use, Mux(self.used[way], 0, r), Mux(oldest[way], filled, older)))

        duel = Signal(DUEL_BITS, init=(1 << DUEL_BITS - 1) - 1)
        rare, rarely = Signal(RARE_BITS), Signal()
        m.d.comb += rarely.eq(duel[-1])
        counts = self.done & ~self.use & ~self.prefetch
        period = min(self.sets, DUEL_SETS)
        if period > 1:
            leader = self.set[:exact_log2(period)]
            with m.If(leader == 0):
                m.d.comb += rarely.eq(0)
                with m.If(counts & ~duel.all()):
                    m.d.sync += duel.eq(duel + 1)
            with m.Elif(leader == period // 2):
                m.d.comb += rarely.eq(1)
                with m.If(counts & duel.any()):
                    m.d.sync += duel.eq(duel - 1)
        m.d.comb += filled.eq(Mux(self.prefetch | ~rarely | rare.all(), LONG, FAR))
        with m.If(counts & rarely):
            m.d.sync += rare.eq(rare + 1)
        return m
