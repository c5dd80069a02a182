"""Where the time of an HBM channel goes."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


def counters_layout():
    """Clocks in which something was queued, by what they went to; each modulo 2**32.

    ``data``: the data pins were used (if ``ccds`` is not below ``bl``). Otherwise the first of
    these that applies: ``turnaround``: the open rows wait for the turn between reads and writes;
    ``group``: they wait for their bank groups; ``refresh``: the bank of the oldest request is being
    refreshed; ``row``: its row is being opened. What is missing to all clocks was idle.
    """
    return data.StructLayout({name: 32 for name in (
        "data", "turnaround", "group", "refresh", "row")})


class HbmCounters(wiring.Component):
    """Counts :func:`counters_layout`. Latency 1 cycle. Zero after reset.

    Parameters
    ----------
    bl : int
        Length of a burst [clock].

    Members
    -------
    column : In(1)
        A column command is given.
    queued : In(1)
        Some request is queued.
    empty : In(1)
        None of them in the direction of the bus.
    ready : In(1)
        For one of these the row is open, and takes a column command as far as its activate goes.
    turned : In(1)
        The turn of the bus keeps none of them away.
    refreshing : In(1)
        The bank of the oldest of them is being refreshed, or waits for it.
    counters : Out(counters_layout())
        The counts.
    """

    column: In(1)
    queued: In(1)
    empty: In(1)
    ready: In(1)
    turned: In(1)
    refreshing: In(1)
    counters: Out(counters_layout())

    def __init__(self, *, bl):
        self.bl = bl
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        counters, burst = self.counters, Signal(range(self.bl + 1))

        def count(name, by=1):
            m.d.sync += counters[name].eq(counters[name] + by)

        with m.If(burst != 0):
            m.d.sync += burst.eq(burst - 1)
        with m.If(self.column):
            m.d.sync += burst.eq(self.bl - 1)
            count("data", self.bl)
        with m.Elif((burst == 0) & self.queued):
            with m.If(self.empty | (self.ready & ~self.turned)):
                count("turnaround")
            with m.Elif(self.ready):
                count("group")
            with m.Elif(self.refreshing):
                count("refresh")
            with m.Else():
                count("row")
        return m
