"""A NIC: queue pairs, reliable transport, registered memory."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.arbiter import RoundRobin
from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.common.select import one_of
from rtl.net.interfaces import MacPort, QpState, header_layout
from rtl.net.nic.access import NicAccess
from rtl.net.nic.completions import CompletionWriter
from rtl.net.nic.fetch import PayloadFetch
from rtl.net.nic.frame_in import FrameReceiver
from rtl.net.nic.frame_out import FrameSender
from rtl.net.nic.layouts import event_layout
from rtl.net.nic.place import PayloadWriter
from rtl.net.nic.receive import ReceiveQueues
from rtl.net.nic.regions import RegionTable
from rtl.net.nic.send import SendQueues
from rtl.pe.interfaces import LINE_BYTES, request_layout, response_layout

FETCH_LINES, PLACE_LINES = 128, 64      # read and written at once: tags 0 and 128 up
PLACE_TAG, COMPLETION_TAG = 128, 192
REQUESTS = FETCH_LINES + PLACE_LINES + 16   # of memory under way at most


class Nic(wiring.Component):
    """A network interface with queue pairs, see docs/network.md.

    A frame takes ``3 + length / 16 + 1`` beats on the wire, a beat a cycle; payload is read and
    written a line in 4 cycles. All outputs are functions of registers. The clock stops while
    nothing comes, is under way or awaited.

    Parameters
    ----------
    qps : int
        Queue pairs. :exc:`ValueError` unless a power of two in 2 to 4096.
    regions : int
        Regions of memory. :exc:`ValueError` unless a power of two in 2 to 1024.

    Members
    -------
    mac : Out(MacPort())
        Frames.
    request, response : Out(stream.Signature(request_layout())), In(...)
        Accesses to memory; at most 208 at once, answered in any order; answers are always taken.
    access, access_response : In(stream.Signature(request_layout())), Out(...)
        Accesses of others to the window of this NIC, answered in order.
    awake : Out(1)
        The registers take the coming edge of the clock.
    """

    def __init__(self, *, qps=16, regions=64):
        for name, value, most in (("Queue pairs", qps, 4096), ("Regions", regions, 1024)):
            if not isinstance(value, int) or not 2 <= value <= most or value & (value - 1):
                raise ValueError(f"{name} must be a power of two in 2 to {most}, not {value!r}")
        self.qps, self.regions = qps, regions
        super().__init__({
            "mac": Out(MacPort()), "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "access": In(stream.Signature(request_layout())),
            "access_response": Out(stream.Signature(response_layout())), "awake": Out(1)})

    def elaborate(self, platform):
        top, m = Module(), Module()
        top.submodules.core = DomainRenamer("work")(m)
        gated_domain(top, name="work", enable=ResetSignal("sync") | self.awake)
        sizes = {"qps": self.qps, "regions": self.regions}
        parts = {
            "window": NicAccess(**sizes), "send": SendQueues(**sizes),
            "receive": ReceiveQueues(**sizes), "completions": CompletionWriter(qps=self.qps),
            "fetch": PayloadFetch(lines=FETCH_LINES), "sender": FrameSender(),
            "receiver": FrameReceiver(), "place": PayloadWriter(event_layout(), lines=PLACE_LINES)}
        for name, part in parts.items():
            m.submodules[name] = part
        window, send, receive, completions, fetch, sender, receiver, place = parts.values()
        connect(m, flipped(self.access), window.access)
        connect(m, window.access_response, flipped(self.access_response))
        connect(m, window.set[0], send.set)
        connect(m, window.set[1], receive.set)
        connect(m, window.receive, receive.post)
        connect(m, receive.answer, send.answer)
        connect(m, send.read_start, receive.read_start)
        connect(m, send.payload, fetch.command)
        connect(m, fetch.o, sender.payload)
        connect(m, receiver.o, receive.frame)
        connect(m, receiver.payload, place.payload)
        connect(m, receive.place, place.command)
        connect(m, place.placed, receive.placed)
        connect(m, send.completion, completions.i[0])
        connect(m, receive.completion, completions.i[1])
        regions = RegionTable(m, depth=self.regions, readers=2)
        regions.store(m, enable=window.region_valid, index=window.region_index,
                      line=window.region_line)
        for side, port in zip((send, receive), regions.reads, strict=True):
            m.d.comb += [port.addr.eq(side.region_address), side.region.eq(port.data),
                         side.mac.eq(window.mac)]
        line = window.set[0].payload.line
        m.d.comb += [
            send.stop_valid.eq(receive.stopped_valid), send.stop_qp.eq(receive.stopped_qp),
            receive.stop_valid.eq(send.stopped_valid), receive.stop_qp.eq(send.stopped_qp),
            send.failed_valid.eq(sender.failed), send.failed_qp.eq(sender.failed_qp),
            send.look_qp.eq(window.look_qp), window.look.eq(send.look),
            receiver.mac.eq(window.mac), completions.set_valid.eq(
                window.set[0].valid & window.set[0].ready & (line.state != QpState.ERROR)),
            completions.set_qp.eq(window.set[0].payload.qp),
            completions.set_base.eq(line.completions), completions.set_log2.eq(line.ring_log2)]
        self._posts(m, window.send, receive.respond, send.post)
        replies = self._headers(m, send.header, receive.reply, sender.header)
        moving = self._memory(m, fetch, place, completions)
        self._mac(m, sender, receiver)
        counts = receiver.counters
        for n, value in enumerate((counts.taken, counts.wrong, counts.foreign, counts.overflow,
                                   receive.dropped, send.repeated, send.timeouts,
                                   completions.failures)):
            m.d.comb += window.counters[n].eq(value)
        m.d.comb += self.awake.eq(Cat(
            (part.active for part in parts.values()), replies, moving, self.response.valid).any())
        return top

    def _posts(self, m, window, respond, post):
        """Requests of the host and of the receiving side; the latter go first."""
        m.d.comb += post.valid.eq(window.valid | respond.valid)
        held, own = Signal(), Signal()      # what stands stays until it is taken
        m.d.sync += [held.eq(post.valid & ~post.ready),
                     own.eq(Mux(held, own, respond.valid))]
        chosen = Mux(held, own, respond.valid)
        m.d.comb += [
            post.payload.eq(Mux(chosen, respond.payload, window.payload)),
            respond.ready.eq(post.ready & chosen), window.ready.eq(post.ready & ~chosen)]

    def _headers(self, m, frames, replies, header):
        """Replies go before frames with payload; gives whether some wait."""
        m.submodules.headers = queue = Queue(header_layout())
        m.d.comb += [
            queue.i.valid.eq(frames.valid | replies.valid),
            queue.i.payload.eq(Mux(replies.valid, replies.payload, frames.payload)),
            replies.ready.eq(queue.i.ready), frames.ready.eq(queue.i.ready & ~replies.valid)]
        connect(m, queue.o, header)
        return queue.i.valid | queue.o.valid

    def _memory(self, m, fetch, place, completions):
        """Accesses to memory, in turn; gives whether some wait."""
        m.submodules.requests = queue = Queue(request_layout())
        m.submodules.turn = turn = RoundRobin(3)
        connect(m, queue.o, flipped(self.request))
        sources = (fetch.request, place.request, completions.request)
        o, every = queue.i.payload, (1 << LINE_BYTES) - 1
        m.d.comb += [turn.requests.eq(Cat(s.valid for s in sources)),
                     turn.ready.eq(queue.i.ready), queue.i.valid.eq(turn.requests.any()),
                     o.address.eq(one_of(turn.grant, [s.payload.address for s in sources])),
                     o.write.eq(~turn.grant[0]),
                     o.tag.eq(one_of(turn.grant, [
                         fetch.request.payload.tag, PLACE_TAG | place.request.payload.tag,
                         COMPLETION_TAG])),
                     o.data.eq(Mux(turn.grant[1], place.request.payload.data,
                                   Mux(turn.grant[2], completions.request.payload.data, 0))),
                     o.mask.eq(Mux(turn.grant[1], place.request.payload.mask,
                                   Mux(turn.grant[2], every, 0)))]
        for n, source in enumerate(sources):
            m.d.comb += source.ready.eq(turn.grant[n] & queue.i.ready)
        back, valid = self.response.payload, self.response.valid
        m.d.comb += [
            self.response.ready.eq(1),
            fetch.response.valid.eq(valid & ~back.tag[7]), fetch.response.payload.tag.eq(back.tag),
            fetch.response.payload.error.eq(back.error),
            fetch.response.payload.data.eq(back.data),
            place.response.valid.eq(valid & (back.tag[6:] == PLACE_TAG >> 6)),
            place.response.payload.tag.eq(back.tag), place.response.payload.error.eq(back.error),
            completions.answered.eq(valid & (back.tag[6:] == COMPLETION_TAG >> 6)),
            completions.error.eq(back.error)]
        return queue.o.valid

    def _mac(self, m, sender, receiver):
        mac = self.mac
        m.d.comb += [
            mac.tx_tdata.eq(sender.o.payload.data), mac.tx_tkeep.eq(~C(0, len(mac.tx_tkeep))),
            mac.tx_tvalid.eq(sender.o.valid), mac.tx_tlast.eq(sender.o.payload.last),
            sender.o.ready.eq(mac.tx_tready), mac.rx_tready.eq(1),
            receiver.i_valid.eq(mac.rx_tvalid), receiver.i_data.eq(mac.rx_tdata),
            receiver.i_last.eq(mac.rx_tlast), receiver.i_error.eq(mac.rx_tuser)]
