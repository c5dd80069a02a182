"""Small parts that the HBM controller shares: waits, and a memory of past commands."""
from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2


class Wait:
    """A counter down to zero, at which something becomes legal."""

    def __init__(self, m, most, name):
        self.left = Signal(range(max(most, 2)), name=name)
        self.m = m
        with m.If(self.left != 0):
            m.d.sync += self.left.eq(self.left - 1)

    def start(self, cycles):
        """Not before ``cycles`` from now; to be called under the condition of the event."""
        self.m.d.sync += self.left.eq(cycles - 1)

    @property
    def over(self):
        return self.left == 0


class History(wiring.Component):
    """What was in the clocks before.

    Item ``n`` of :attr:`past` is what :attr:`now` was ``ages[n]`` clocks ago, zero if that was
    before the reset.

    Parameters
    ----------
    shape : ShapeLike
        Shape of an item.
    ages : list of int
        How long ago [clock], at least 1.

    Members
    -------
    now : In(shape)
        This clock's item.
    past<n> : Out(shape)
        Earlier ones.
    clock, clock<n> : Out(...)
        Number of this clock and of those, modulo a power of two beyond all ages.
    """

    def __init__(self, shape, *, ages):
        self.shape, self.ages = shape, tuple(ages)
        self.bits = ceil_log2(max(ages) + 1)
        super().__init__({"now": In(shape), "clock": Out(self.bits),
                          **{f"past{n}": Out(shape) for n in range(len(ages))},
                          **{f"clock{n}": Out(self.bits) for n in range(len(ages))}})

    def elaborate(self, platform):
        m = Module()
        m.submodules.items = items = memory.Memory(shape=self.shape, depth=1 << self.bits, init=[])
        write, full = items.write_port(), Signal()
        m.d.sync += [self.clock.eq(self.clock + 1), full.eq(full | self.clock.all())]
        m.d.comb += [write.en.eq(1), write.addr.eq(self.clock), write.data.eq(self.now)]
        for n, age in enumerate(self.ages):
            read, clock = items.read_port(domain="comb"), getattr(self, f"clock{n}")
            m.d.comb += [clock.eq(self.clock - age), read.addr.eq(clock)]
            with m.If(full | (self.clock >= age)):
                m.d.comb += getattr(self, f"past{n}").eq(read.data)
        return m
