"""Network interfaces: between streams of requests and responses and the packets of the mesh."""
from amaranth import *
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.noc.address import DIE_BITS, OFFSET_BITS, REGION_BITS, Region
from rtl.noc.packets import (
    MeshLayout,
    members_layout,
    node_layout,
    request_packet_layout,
    response_packet_layout,
)
from rtl.noc.shaper import BURST_BITS, RATE_BITS, LeakyBucket
from rtl.pe.interfaces import TAG_BITS, AccessError, request_layout, response_layout


class Requester(wiring.Component):
    """Sends a node's requests to where their addresses say, and brings the responses back.

    Latency is 0 cycles both ways, throughput one a cycle. A request that no node answers is
    answered here with ``AccessError.ADDRESS``, to this node alone whatever its ``members``; such
    answers may overtake others. So is a multicast of another die. While ``window`` requests for
    other chiplets are under way, none is taken. No combinational path leads from ``request`` to
    ``response``, or from the valid or the payload to the ready of one stream. The clock stops while
    there is neither a request nor a response, and the bucket that shapes the requests is off or
    full.

    Parameters
    ----------
    addresses : AddressMap
        Addresses of the die, or what has its ``layout`` and ``decode``.
    ways : tuple of str
        Ways to other dies that requests may take, of :attr:`AddressMap.ways`; others are refused.
    networks : bool
        Requests may go to the network chiplets of the die.
    window : int
        Requests for other chiplets under way at once; 0: no limit, as who sends them keeps to one.
        :exc:`ValueError` if negative.

    Members
    -------
    request : In(stream.Signature(request_layout()))
        Requests of the node.
    members : In(members_layout(...))
        Who gets the response to the request that stands: with ``multicast`` the PEs of ``rows`` and
        ``columns``, else this node. Held as its payload is.
    response : Out(stream.Signature(response_layout()))
        One response for each request, by tag, in any order; and those of others' multicasts, with
        the tags of those who asked.
    multicast : Out(1)
        The response that stands is a multicast.
    o_packets : Out(stream.Signature(request_packet_layout(...)))
        To the request network.
    i_packets : In(stream.Signature(response_packet_layout(...)))
        From the response network.
    rate, burst : In(9), In(8)
        Shape of what is sent, see :class:`rtl.noc.shaper.LeakyBucket`; a rate of 0 is off.
    die : In(4)
        Number of this die; constant.
    node : In(node_layout())
        Where the responses go; constant.
    fault : Out(1)
        High for one cycle per request that no node answers.
    """

    def __init__(self, addresses, *, ways=(), networks=False, window=0):
        if not all(hasattr(addresses, name) for name in ("layout", "decode")):
            raise TypeError(f"Addresses must have a layout and decode, not {addresses!r}")
        for way in ways:
            if way not in ("X", "Y"):
                raise ValueError(f"Way must be X or Y, not {way!r}")
        if not isinstance(window, int) or window < 0:
            raise ValueError(f"Window must be a natural number, not {window!r}")
        self.addresses, self.ways, self.window = addresses, tuple(ways), window
        self.networks = bool(networks)
        super().__init__({
            "request": In(stream.Signature(request_layout())),
            "response": Out(stream.Signature(response_layout())),
            "members": In(members_layout(addresses.layout)), "multicast": Out(1),
            "o_packets": Out(stream.Signature(request_packet_layout(addresses.layout))),
            "i_packets": In(stream.Signature(response_packet_layout(addresses.layout))),
            "rate": In(RATE_BITS), "burst": In(BURST_BITS),
            "die": In(DIE_BITS), "node": In(node_layout()), "fault": Out(1)})

    def elaborate(self, platform):
        m = Module()
        refused = data.StructLayout({"tag": TAG_BITS, "write": 1})
        faults, stalled = fifo.SyncFIFO(width=refused.size, depth=4), Signal()
        m.submodules.faults = DomainRenamer("work")(faults)
        m.submodules.bucket = bucket = DomainRenamer("work")(LeakyBucket())
        gated_domain(m, name="work", enable=Cat(
            ResetSignal("sync"), self.request.valid, self.i_packets.valid, faults.r_rdy,
            stalled, ~bucket.rests).any())
        target, far, known = self.addresses.decode(
            m, self.request.payload.address, die=self.die, ways=self.ways, networks=self.networks)
        room = self._room(m, far)
        packet, fault = self.o_packets.payload, data.View(refused, faults.r_data)
        body, answer = self.i_packets.payload.body, self.response.payload
        fault_in = data.View(refused, faults.w_data)
        own = faults.r_rdy & ~stalled   # a response of the mesh that stands is not displaced

        free = faults.w_rdy & bucket.permit & room
        region = self.request.payload.address[OFFSET_BITS:][:REGION_BITS]
        shareable = ~far & ((region == Region.SRAM) | (region == Region.HBM))
        sent = known & (shareable | ~self.members.multicast)
        m.d.comb += [bucket.rate.eq(self.rate), bucket.burst.eq(self.burst),
                     bucket.spend.eq(self.request.valid & self.request.ready)]
        m.d.comb += [packet.target.eq(target), packet.source.eq(self.node),
                     packet.members.eq(self.members), packet.body.eq(self.request.payload),
                     self.o_packets.valid.eq(self.request.valid & sent & free),
                     self.request.ready.eq(self.o_packets.ready & free),
                     faults.w_en.eq(self.request.valid & self.request.ready & ~sent),
                     fault_in.tag.eq(self.request.payload.tag),
                     fault_in.write.eq(self.request.payload.write),
                     self.fault.eq(faults.w_en)]
        m.d.comb += [self.response.valid.eq(self.i_packets.valid | faults.r_rdy),
                     self.i_packets.ready.eq(self.response.ready & ~own),
                     faults.r_en.eq(self.response.ready & own),
                     self.multicast.eq(self.i_packets.payload.members.multicast & ~own),
                     answer.tag.eq(Mux(own, fault.tag, body.tag)),
                     answer.write.eq(Mux(own, fault.write, body.write)),
                     answer.error.eq(Mux(own, AccessError.ADDRESS, body.error)),
                     answer.data.eq(Mux(own, 0, body.data))]
        m.d.work += stalled.eq(self.i_packets.valid & ~own & ~self.response.ready)
        return m

    def _room(self, m, far):
        """Whether the window has a place; counts requests that are ``far`` and their answers."""
        if not self.window or not (self.ways or self.networks and self.addresses.networks):
            return C(1)
        count, room = Signal(range(self.window + 1)), Signal()
        m.d.comb += room.eq(count != self.window)
        sent = far & self.o_packets.valid & self.o_packets.ready
        back = self.i_packets.payload.far & self.i_packets.valid & self.i_packets.ready
        m.d.work += count.eq(count + sent - back)
        return room


class Target(wiring.Component):
    """Remembers who wants the response to each request of a node that answers in order.

    A multicast for no row or no column goes to the node that asked, as a plain response. Latency
    is 0 cycles both ways, throughput one a cycle as long as fewer than ``depth`` requests are under
    way. The clock stops while none is.

    Parameters
    ----------
    layout : rtl.noc.packets.MeshLayout
        The mesh. :exc:`TypeError` if it is none.
    depth : int
        Requests under way [request]. :exc:`ValueError` unless positive.

    Members
    -------
    i_packets : In(stream.Signature(request_packet_layout(layout)))
        From the request network.
    o_packets : Out(stream.Signature(response_packet_layout(layout)))
        To the response network.
    request : Out(stream.Signature(request_layout()))
        The requests, in the order in which they came.
    response : In(stream.Signature(response_layout()))
        One response for each, in the same order.
    """

    def __init__(self, layout, *, depth=4):
        if not isinstance(layout, MeshLayout):
            raise TypeError(f"Layout must be a MeshLayout, not {layout!r}")
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"Depth must be a positive integer, not {depth!r}")
        self.layout, self.depth = layout, depth
        super().__init__({
            "i_packets": In(stream.Signature(request_packet_layout(layout))),
            "o_packets": Out(stream.Signature(response_packet_layout(layout))),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout()))})

    def elaborate(self, platform):
        m = Module()
        asked = data.StructLayout({"source": node_layout(),
                                   "members": members_layout(self.layout)})
        sources = fifo.SyncFIFO(width=asked.size, depth=self.depth)
        m.submodules.sources = DomainRenamer("work")(sources)
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.i_packets.valid
                     | sources.r_rdy)
        i, o = self.i_packets.payload, self.o_packets.payload
        asks, answers = data.View(asked, sources.w_data), data.View(asked, sources.r_data)
        somebody = i.members.rows.any() & i.members.columns.any()
        m.d.comb += [self.request.payload.eq(i.body), asks.source.eq(i.source),
                     asks.members.eq(i.members),
                     asks.members.multicast.eq(i.members.multicast & somebody),
                     self.request.valid.eq(self.i_packets.valid & sources.w_rdy),
                     self.i_packets.ready.eq(self.request.ready & sources.w_rdy),
                     sources.w_en.eq(self.i_packets.valid & self.request.ready)]
        m.d.comb += [o.target.eq(answers.source), o.members.eq(answers.members),
                     o.body.eq(self.response.payload),
                     self.o_packets.valid.eq(self.response.valid),
                     self.response.ready.eq(self.o_packets.ready),
                     sources.r_en.eq(self.response.valid & self.o_packets.ready)]
        return m
