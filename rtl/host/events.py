"""Counters by which streams wait for each other."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .jobs import EVENT_BITS, EVENTS, STREAMS


class EventCounters(wiring.Component):
    """16 counters of 32 bits, one for each event; they count records, from 0 after reset.

    A record is counted 1 cycle later; records of several streams in one cycle all count. Counters
    wrap. Source: this project's choice.

    Members
    -------
    record : In(STREAMS)
        Streams that record their event.
    event : In(EVENT_BITS).array(STREAMS)
        The event of each stream.
    count : Out(32).array(STREAMS)
        What that event has counted.
    """

    record: In(STREAMS)
    event: In(EVENT_BITS).array(STREAMS)
    count: Out(32).array(STREAMS)

    def elaborate(self, platform):
        m = Module()
        counters = Array(Signal(32, name=f"event{n}") for n in range(EVENTS))
        for n, counter in enumerate(counters):
            records = [self.record[s] & (self.event[s] == n) for s in range(STREAMS)]
            with m.If(Cat(records).any()):
                m.d.sync += counter.eq(counter + sum(records))
        for event, count in zip(self.event, self.count, strict=True):
            m.d.comb += count.eq(counters[event])
        return m
