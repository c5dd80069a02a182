"""Where the time of an HBM pseudo-channel goes."""
from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

EVENTS = ("activates", "precharges", "bank_refreshes", "refreshes", "corrected", "uncorrectable",
          "conflicts")


class Cause(enum.Enum, shape=3):
    """What a clock without data went to: the first of these that applies."""

    IDLE = 0        # nothing is queued, or nobody takes the answers
    TURNAROUND = 1  # nothing in the direction of the bus, or its open rows wait for the turn
    GROUP = 2       # open rows wait for their bank groups
    REFRESH = 3     # all banks with requests of this direction are being refreshed or wait for it
    ROW = 4         # rows are being opened


def counters_layout():
    """The line of counters, each modulo 2**32.

    Clocks: ``clocks`` in all, of which ``reading`` and ``writing`` had data on the pins, ``ecc``
    data read for a partial write, and the others went to the causes of :class:`Cause`; these eight
    make up ``clocks``. Then commands (``refreshes`` are those of all banks), accesses of 32 bytes
    ``corrected`` and ``uncorrectable``, and ``conflicts``: rows closed for another row.
    """
    return data.StructLayout({name: 32 for name in (
        "clocks", "reading", "writing", "refresh", "turnaround", "row", "group", "idle", "ecc",
        *EVENTS)})


class HbmCounters(wiring.Component):
    """Counts :func:`counters_layout`. Latency 1 cycle. Zero after reset.

    Parameters
    ----------
    bl : int
        Length of a burst [clock].

    Members
    -------
    column, write, partial : In(1)
        A column command is given, and which.
    cause : In(Cause)
        What the clock went to if there are no data.
    activates, precharges, ... : In(1)
        An event of ``EVENTS``.
    clocks : In(32)
        All clocks.
    counters : Out(counters_layout())
        The counts.
    """

    def __init__(self, *, bl):
        self.bl = bl
        super().__init__({"column": In(1), "write": In(1), "partial": In(1), "cause": In(Cause),
                          **{name: In(1) for name in EVENTS}, "clocks": In(32),
                          "counters": Out(counters_layout())})

    def elaborate(self, platform):
        m = Module()
        line, burst = self.counters, Signal(range(self.bl + 1))
        shown = ("reading", "writing", "refresh", "turnaround", "row", "group", "ecc")
        counts = {name: Signal(32, name=f"count_{name}") for name in (*shown, *EVENTS)}

        def count(name, by=1):
            m.d.sync += counts[name].eq(counts[name] + by)

        with m.If(self.column):
            m.d.sync += burst.eq(self.bl - 1)
            with m.If(self.write):
                count("writing", self.bl)
            with m.Elif(self.partial):
                count("ecc", self.bl)
            with m.Else():
                count("reading", self.bl)
        with m.Elif(burst != 0):
            m.d.sync += burst.eq(burst - 1)
        with m.Else():
            with m.Switch(self.cause):
                for cause in (Cause.TURNAROUND, Cause.GROUP, Cause.REFRESH, Cause.ROW):
                    with m.Case(cause):
                        count(cause.name.lower())
        for name in EVENTS:
            with m.If(getattr(self, name)):
                count(name)
        m.d.comb += [line[name].eq(signal) for name, signal in counts.items()]
        m.d.comb += [line.clocks.eq(self.clocks), line.idle.eq(
            self.clocks - sum(counts[name] for name in shown))]
        return m
