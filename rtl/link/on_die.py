"""In place of a die-to-die link where both sides are on one chiplet: queues."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.link.interfaces import LinkPort, slot_layout
from rtl.link.link import link_counters_layout
from rtl.link.transmitter import LinkState


class OnDiePort(wiring.Signature):
    """Wires between the two ends, seen by one of them: a stream for each class and direction."""

    def __init__(self):
        slots = stream.Signature(slot_layout())
        super().__init__({"tx_request": Out(slots), "tx_response": Out(slots),
                          "rx_request": In(slots), "rx_response": In(slots)})

    def __eq__(self, other):
        return isinstance(other, OnDiePort)


class OnDieLink(wiring.Component):
    """One end of a connection on a chiplet; has the ports of :class:`rtl.link.link.D2dLink`.

    Latency is 1 cycle at each end, throughput one slot of each class a cycle each way. All outputs
    are functions of registers. Nothing is ever lost.

    Members
    -------
    port : In(LinkPort())
        Towards the logic at this end.
    phits : Out(OnDiePort())
        Towards the other end.
    counters, state
        As those of a link; constant: no errors, ACTIVE.
    awake : Out(1)
        Something is on its way.
    """

    port: In(LinkPort())
    phits: Out(OnDiePort())
    counters: Out(link_counters_layout())
    state: Out(LinkState)
    awake: Out(1)

    def elaborate(self, platform):
        m = Module()
        port, phits, moving = self.port, self.phits, []
        for name, source, sink in (
                ("o_request", flipped(port.o_request), flipped(phits.tx_request)),
                ("o_response", flipped(port.o_response), flipped(phits.tx_response)),
                ("i_request", flipped(phits.rx_request), flipped(port.i_request)),
                ("i_response", flipped(phits.rx_response), flipped(port.i_response))):
            m.submodules[name] = queue = Queue(slot_layout())
            connect(m, source, queue.i)
            connect(m, queue.o, sink)
            moving += [queue.i.valid, queue.o.valid]
        m.d.comb += self.awake.eq(Cat(moving).any())
        return m


def join(m, one, other):
    """Connect the ports ``phits`` of two ends."""
    for here, there in ((one, other), (other, one)):
        connect(m, here.tx_request, there.rx_request)
        connect(m, here.tx_response, there.rx_response)
