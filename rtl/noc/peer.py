"""The mesh's node at a link to another die: accesses go out, those of the peer come in."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.clockgate import gated_domain
from rtl.link.interfaces import LinkPort, SlotKind
from rtl.link.interfaces import response_layout as answer_layout
from rtl.noc.packets import (
    MeshLayout,
    node_layout,
    request_packet_layout,
    response_packet_layout,
)
from rtl.pe.interfaces import TAG_BITS, AccessError, request_layout, response_layout

SHALLOWEST = 4      # slots with which a queue takes as many as it has whenever they come
END_CYCLES = 12     # of a slot in the two ends of a link and the bridge behind it, one way
FAR_CYCLES = 64     # to memory and back on the other die, where HBM is (this project's choice)


def peer_counters_layout():
    """Counts of a :class:`PeerBridge` since reset, wrapping."""
    return data.StructLayout({name: 32 for name in (
        "requests_out", "requests_in", "tag_stalls", "link_stalls", "refused")})


def outgoing_layout():
    """A request that waits to go over the link, and who sent it."""
    return data.StructLayout({"source": node_layout(), "body": request_layout()})


def origin_layout():
    """Who awaits the answer to a request under way, kept by its tag on the link."""
    return data.StructLayout({"source": node_layout(), "tag": TAG_BITS, "write": 1})


def link_tags(latency_cycles, far_cycles=FAR_CYCLES):
    """Requests that must be under way to fill a link: the next power of two, at most 256.

    A link takes 3 slots in 4 cycles, and a tag is in use for the round trip of
    ``2 (latency_cycles + 12) + far_cycles`` cycles.
    """
    trip = 2 * (latency_cycles + END_CYCLES) + far_cycles
    return min(1 << (3 * trip // 4 - 1).bit_length(), 1 << TAG_BITS)


class PeerBridge(wiring.Component):
    """Sends requests for other dies over a link and does the peer's; answers go where they belong.

    Outward, a request waits in a queue of ``capacity`` for its turn, a free tag and the link: at
    least 2 cycles. Its answer waits in a queue with a place for each tag, 2 cycles or more, and
    goes to the node that asked, with the tag of that node. Tags are given out in turn. Inward, the
    latency is 0 cycles. Throughput is one message a cycle each way, of which a link takes 3 in 4
    cycles, for reads as long as ``tags`` cover the round trip (see :func:`link_tags`).

    ``i_packets`` and both inward streams of the link are taken without waiting for any other
    stream, if no more than ``capacity`` requests are on their way to this node: see
    docs/decisions/0012-peers.md. That is the duty of those who send (an ``Assert`` watches it).

    Once ``down`` is high, requests under way and all that follow are answered with
    ``AccessError.LINK_DOWN``; a write may have been done. While an answer does not come for
    ``patience_cycles``, a PING is sent: if the other end has given up, this end then does as well.

    The clock stops while no request is under way and nothing comes.
    Source: this project's choice.

    Parameters
    ----------
    layout : MeshLayout
        The mesh.
    capacity : int
        Requests that may be on their way to this node [request]. :exc:`ValueError` unless positive.
    tags : int
        Requests under way over the link [request]. :exc:`ValueError` unless a power of two in 4
        to 256.
    patience_cycles : int
        Time without an answer before a PING [cycle]. :exc:`ValueError` unless positive.

    Members
    -------
    link : Out(LinkPort())
        The link's inner side.
    down : In(1)
        The link has given up; stays high.
    i_packets : In(stream.Signature(request_packet_layout(layout)))
        Requests for other dies, from the request network.
    o_packets : Out(stream.Signature(response_packet_layout(layout)))
        Their answers, to the response network, ``far``; data zero where nothing was read.
    request, response : Out(stream.Signature(request_layout())), In(...)
        Requests of the peer, with its tags, and their answers in any order.
    counters : Out(peer_counters_layout())
        Requests sent and received; cycles in which a request waited for a tag, and for the link
        (its pace, its credits); requests answered with ``LINK_DOWN``.
    fault : Out(1)
        High for one cycle per message dropped: of a kind for which a compute die has no use, or an
        answer that nobody awaits.
    awake : Out(1)
        The registers take the coming edge of the clock.
    """

    def __init__(self, layout, *, capacity, tags, patience_cycles=1024):
        if not isinstance(layout, MeshLayout):
            raise TypeError(f"Layout must be a MeshLayout, not {layout!r}")
        for name, value in (("Capacity", capacity), ("Patience", patience_cycles)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        if not isinstance(tags, int) or not SHALLOWEST <= tags <= 256 or tags & (tags - 1):
            raise ValueError(f"Tags must be a power of two in 4 to 256, not {tags!r}")
        self.layout, self.capacity, self.tags = layout, capacity, tags
        self.patience_cycles = patience_cycles
        super().__init__({
            "link": Out(LinkPort()), "down": In(1),
            "i_packets": In(stream.Signature(request_packet_layout(layout))),
            "o_packets": Out(stream.Signature(response_packet_layout(layout))),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "counters": Out(peer_counters_layout()), "fault": Out(1), "awake": Out(1)})

    def elaborate(self, platform):
        top, m = Module(), Module()
        top.submodules.core = DomainRenamer("work")(m)
        gated_domain(top, name="work", enable=ResetSignal("sync") | self.awake)
        m.submodules.outward = outward = SyncFIFOBuffered(
            width=outgoing_layout().size, depth=max(self.capacity, SHALLOWEST))
        m.submodules.landed = landed = SyncFIFOBuffered(
            width=answer_layout().size, depth=self.tags)
        m.submodules.origins = origins = Memory(shape=origin_layout(), depth=self.tags, init=[])
        busy, awaited = Signal(self.tags), Signal(self.tags)    # tags in use; not yet answered
        under_way = Signal(range(self.tags + 1))                # how many are in use
        ping = Signal()
        issued, tag = self._send(m, outward, origins, busy, ping)
        come, come_tag, stray = self._land(m, landed, awaited, under_way)
        left, left_tag = self._return(m, landed, origins)
        useless = self._serve(m)
        waits = outward.r_rdy & ~busy.bit_select(tag, 1)
        self._look_after(m, ping, waits, moved=issued | come, idle=under_way == 0)

        taken, given = Mux(issued, 1 << tag, 0), Mux(left, 1 << left_tag, 0)
        m.d.sync += [under_way.eq(under_way + issued - left), busy.eq((busy | taken) & ~given),
                     awaited.eq((awaited | taken) & ~Mux(come, 1 << come_tag, 0))]
        m.d.comb += [self.fault.eq(stray | useless), self.awake.eq(Cat(
            self.i_packets.valid, self.link.i_request.valid, self.link.i_response.valid,
            outward.level != 0, under_way != 0, ping).any())]
        return top

    def _send(self, m, outward, origins, busy, ping):
        """Requests get a tag and go over the link; gives whether one does, and which tag."""
        entry, head = Signal(outgoing_layout()), Signal(outgoing_layout())
        o, write, tag = self.link.o_request, origins.write_port(), Signal(range(self.tags))
        body, slot = head.body, o.payload.body.write
        free = ~busy.bit_select(tag, 1)
        wants, issued = outward.r_rdy & free & ~ping, Signal()
        m.d.comb += [
            entry.source.eq(self.i_packets.payload.source),
            entry.body.eq(self.i_packets.payload.body), outward.w_data.eq(entry),
            outward.w_en.eq(self.i_packets.valid), self.i_packets.ready.eq(outward.w_rdy),
            head.as_value().eq(outward.r_data), outward.r_en.eq(issued),
            issued.eq(wants & (o.ready | self.down)), o.valid.eq((wants | ping) & ~self.down),
            write.en.eq(issued), write.addr.eq(tag), write.data.source.eq(head.source),
            write.data.tag.eq(body.tag), write.data.write.eq(body.write)]
        with m.If(ping):
            m.d.comb += o.payload.kind.eq(SlotKind.PING)
        with m.Else():
            m.d.comb += [
                o.payload.kind.eq(Mux(body.write, SlotKind.WRITE, SlotKind.READ)),
                slot.address.eq(body.address), slot.tag.eq(tag),
                slot.data.eq(Mux(body.write, body.data, 0)),
                slot.mask.eq(Mux(body.write, body.mask, 0))]
        excess = Signal()   # a register: settled when it is looked at
        m.d.sync += [tag.eq(tag + issued), excess.eq(self.i_packets.valid & ~outward.w_rdy)]
        m.d.comb += Assert(~excess, "Too many requests for another die")
        count = self.counters
        for name, event in (("requests_out", issued & ~self.down),
                            ("tag_stalls", outward.r_rdy & ~free),
                            ("link_stalls", wants & ~issued)):
            with m.If(event):
                m.d.sync += count[name].eq(count[name] + 1)
        return issued, tag

    def _land(self, m, landed, awaited, under_way):
        """Answers of the link are queued, or those that it owes; gives which, and a stray one."""
        i, scan = self.link.i_response, Signal(range(self.tags))
        answer, lost = Signal(answer_layout()), Signal()    # lost: the answer to `scan`
        tag = Mux(self.down, scan, i.payload.body.response.tag[:len(scan)])
        mine = (i.payload.kind == SlotKind.RESPONSE) & awaited.bit_select(tag, 1) & (
            i.payload.body.response.tag < self.tags)
        come, heard = Signal(), i.valid & ~self.down
        m.d.comb += [lost.eq(self.down & awaited.bit_select(tag, 1)),
                     come.eq(lost | heard & mine), i.ready.eq(1),
                     landed.w_en.eq(come), landed.w_data.eq(answer)]
        with m.If(self.down):
            m.d.comb += [answer.tag.eq(scan), answer.error.eq(AccessError.LINK_DOWN)]
            m.d.sync += scan.eq(scan + (under_way != 0))
        with m.Else():
            m.d.comb += answer.eq(i.payload.body.response)
        with m.If(lost):
            m.d.sync += self.counters.refused.eq(self.counters.refused + 1)
        return come, tag, heard & ~mine

    def _return(self, m, landed, origins):
        """The oldest answer goes to its node; gives whether it leaves, and its tag."""
        answer, read = data.View(answer_layout(), landed.r_data), origins.read_port(domain="comb")
        o, out, tag = self.o_packets, self.o_packets.payload, answer.tag[:exact_log2(self.tags)]
        m.d.comb += [
            read.addr.eq(tag), out.target.eq(read.data.source), out.far.eq(1),
            out.body.tag.eq(read.data.tag), out.body.write.eq(read.data.write),
            out.body.error.eq(answer.error), out.body.data.eq(answer.data),
            o.valid.eq(landed.r_rdy), landed.r_en.eq(o.ready)]
        return landed.r_rdy & o.ready, tag

    def _serve(self, m):
        """Requests of the peer go to the mesh, and answers back; gives whether one is useless."""
        i, o, body = self.link.i_request, self.link.o_response, self.link.i_request.payload.body
        access, answer, sent = self.request.payload, self.response.payload, o.payload.body.response
        known, useless = Signal(), Signal()
        m.d.comb += [
            access.address.eq(body.write.address), access.tag.eq(body.write.tag),
            access.data.eq(body.write.data), access.mask.eq(body.write.mask),
            access.write.eq(i.payload.kind == SlotKind.WRITE),
            known.eq(access.write | (i.payload.kind == SlotKind.READ)),
            self.request.valid.eq(i.valid & known), i.ready.eq(self.request.ready | ~known),
            useless.eq(i.valid & ~known & (i.payload.kind != SlotKind.PING))]
        empty = answer.write | (answer.error != AccessError.NONE)
        m.d.comb += [
            o.payload.kind.eq(SlotKind.RESPONSE), sent.tag.eq(answer.tag),
            sent.write.eq(answer.write), sent.error.eq(answer.error),
            sent.data.eq(Mux(empty, 0, answer.data)), o.valid.eq(self.response.valid & ~self.down),
            self.response.ready.eq(o.ready | self.down)]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += self.counters.requests_in.eq(self.counters.requests_in + 1)
        return useless

    def _look_after(self, m, ping, waits, *, moved, idle):
        """Raise ``ping`` when nothing has moved for a while; a request that stands is a ping."""
        timer = Signal(range(self.patience_cycles))
        expired = timer == self.patience_cycles - 1
        m.d.sync += timer.eq(Mux(moved | idle | expired, 0, timer + 1))
        with m.If(self.link.o_request.ready | self.down):
            m.d.sync += ping.eq(0)
        with m.If(expired & ~waits & ~self.down):
            m.d.sync += ping.eq(1)
