"""Shapes what a node sends: no faster than a rate in the long run, and in limited bursts."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

RATE_BITS = 9       # requests in 256 cycles; 0 is off
BURST_BITS = 8
ONE = 256           # of the level: one request


class LeakyBucket(wiring.Component):
    """Says when the next request may go.

    The level rises by ``rate`` a cycle, falls by 256 with each request, and ends at 256 x burst +
    255. A request may go at a level of 256 or more. So in any T cycles at most burst +
    ceil(rate x (T - 1) / 256) requests go, and exactly ``rate`` in 256 cycles if there are always
    some. Latency is 0 cycles. After reset one request may go. Source: ITU-T I.371, annex A.

    Members
    -------
    rate : In(9)
        Requests in 256 cycles, at most 256; 0: as many as come.
    burst : In(8)
        Requests that may go at once after a pause [request]; 0 counts as 1.
    spend : In(1)
        A request goes; only while ``permit`` is high.
    permit : Out(1)
        A request may go. Stays high until ``spend``.
    rests : Out(1)
        Nothing changes without ``spend``: the clock may stop.
    """

    rate: In(RATE_BITS)
    burst: In(BURST_BITS)
    spend: In(1)
    permit: Out(1)
    rests: Out(1)

    def __init__(self):
        self.level = Signal(BURST_BITS + 8, init=ONE)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        off, limit = self.rate == 0, Cat(C(ONE - 1, 8), Mux(self.burst == 0, 1, self.burst))
        level = self.level
        raised = Signal(BURST_BITS + 9)
        m.d.comb += [raised.eq(level + self.rate - Mux(self.spend, ONE, 0)),
                     self.permit.eq(off | (level >= ONE)),
                     self.rests.eq(Mux(off, level == ONE, level == limit))]
        with m.If(off):
            m.d.sync += level.eq(ONE)
        with m.Else():
            m.d.sync += level.eq(Mux(raised > limit, limit, raised))
        return m
