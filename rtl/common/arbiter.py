"""Fair choice among requests."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class RoundRobin(wiring.Component):
    """Grants one of ``width`` requests; a request that was not taken keeps its grant.

    Latency is 0 cycles. Each request that stands is granted after at most ``width - 1`` others.
    After reset request 0 comes first.

    Parameters
    ----------
    width : int
        Number of requests. :exc:`ValueError` unless positive.

    Members
    -------
    requests : In(width)
        Who asks; a request must stand until it was granted and taken.
    ready : In(1)
        What was granted is taken in this cycle.
    grant : Out(width)
        One-hot; zero if nobody asks. A function of ``requests`` and registers, not of ``ready``.
    """

    def __init__(self, width):
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"Width must be a positive integer, not {width!r}")
        self.width = width
        super().__init__({"requests": In(width), "ready": In(1), "grant": Out(width)})

    def elaborate(self, platform):
        m = Module()
        if self.width == 1:
            m.d.comb += self.grant.eq(self.requests)
            return m
        first = Signal(self.width, init=1)  # one-hot: who comes first
        twice, found = Signal(2 * self.width), Signal(2 * self.width)
        m.d.comb += twice.eq(Cat(self.requests, self.requests))
        m.d.comb += found.eq(twice & ~(twice - first))  # lowest request from `first` upwards
        m.d.comb += self.grant.eq(found[:self.width] | found[self.width:])
        with m.If(self.requests.any()):
            m.d.sync += first.eq(Mux(self.ready, self.grant.rotate_left(1), self.grant))
        return m
