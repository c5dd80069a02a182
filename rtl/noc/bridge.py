"""The mesh's node at a die-to-die link: does the far die's accesses, passes work packets on."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.arbiter import RoundRobin
from rtl.link import interfaces as link
from rtl.link.interfaces import LinkPort, SlotKind
from rtl.pe.interfaces import AccessError, request_layout, response_layout


class Bridge(wiring.Component):
    """Requests of the far die become requests to memory, launches and aborts; answers go back.

    Latency is 0 cycles, throughput one message a cycle each way; memory and completions take turns
    on the way back. Accesses under way are bounded by the tags of the far die. Messages that a
    compute die has no use for are dropped and counted by ``fault``. No stream's ``valid`` depends
    on a ``ready``.

    Members
    -------
    link : Out(LinkPort())
        The link's inner side.
    request, response : Out(stream.Signature(request_layout())), In(...)
        To memory; tags are those of the far die.
    packets, aborts : Out(stream.Signature(link.launch_layout())), Out(...)
        To the control block.
    completions : In(stream.Signature(link.completion_layout()))
        From the control block.
    fault : Out(1)
        High for one cycle per message dropped.
    """

    def __init__(self):
        super().__init__({
            "link": Out(LinkPort()), "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "packets": Out(stream.Signature(link.launch_layout())),
            "aborts": Out(stream.Signature(link.abort_layout())),
            "completions": In(stream.Signature(link.completion_layout())), "fault": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.turn = turn = RoundRobin(2)
        i, o = self.link.i_request, self.link.o_response
        body, access = i.payload.body, self.request.payload
        answer, sent = self.response.payload, o.payload.body
        known = Signal()

        m.d.comb += [access.address.eq(body.write.address), access.tag.eq(body.write.tag),
                     access.data.eq(body.write.data), access.mask.eq(body.write.mask),
                     access.write.eq(i.payload.kind == SlotKind.WRITE),
                     self.packets.payload.eq(body.launch), self.aborts.payload.eq(body.abort)]
        with m.Switch(i.payload.kind):
            for kinds, way in (((SlotKind.READ, SlotKind.WRITE), self.request),
                               ((SlotKind.LAUNCH,), self.packets),
                               ((SlotKind.ABORT,), self.aborts)):
                with m.Case(*kinds):
                    m.d.comb += [known.eq(1), way.valid.eq(i.valid), i.ready.eq(way.ready)]
            with m.Default():
                m.d.comb += i.ready.eq(1)
        m.d.comb += [self.link.i_response.ready.eq(1),  # this die asks nothing of the other
                     self.fault.eq((i.valid & ~known) | self.link.i_response.valid)]

        m.d.comb += [turn.requests.eq(Cat(self.response.valid, self.completions.valid)),
                     turn.ready.eq(o.ready), o.valid.eq(turn.requests.any()),
                     self.response.ready.eq(turn.grant[0] & o.ready),
                     self.completions.ready.eq(turn.grant[1] & o.ready)]
        with m.If(turn.grant[1]):
            m.d.comb += [o.payload.kind.eq(SlotKind.COMPLETION),
                         sent.completion.eq(self.completions.payload)]
        with m.Else():
            empty = answer.write | (answer.error != AccessError.NONE)
            m.d.comb += [o.payload.kind.eq(SlotKind.RESPONSE),
                         sent.response.data.eq(Mux(empty, 0, answer.data)),
                         sent.response.write.eq(answer.write),
                         sent.response.error.eq(answer.error), sent.response.tag.eq(answer.tag)]
        return m
