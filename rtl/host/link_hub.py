"""Between the engines of the I/O chiplet and its links."""
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.arbiter import RoundRobin
from rtl.common.queue import Queue
from rtl.common.select import one_of
from rtl.link.interfaces import LinkPort, SlotKind, slot_layout
from rtl.pe.interfaces import AccessError

from .jobs import request_layout


class LinkHub(wiring.Component):
    """Sends requests to the link of their die, and brings together what the links answer.

    Requests for a die whose link is down are dropped. A request that comes from a die (this
    chiplet has nothing that a die could address) is answered with error ADDRESS. Latency 0
    cycles outwards and 1 inwards; one request for each link and one answer in all a cycle.

    Parameters
    ----------
    dies : int
        Number of links.
    clients : int
        Number of sources of requests.

    Members
    -------
    requests : In(stream.Signature(request_layout())).array(clients)
        Requests; the die must exist.
    links : Out(LinkPort()).array(dies)
        Links, by die.
    answer, valid : Out(slot_layout()), Out(1)
        Responses and completions.
    lost : In(16)
        Dies whose link is down.
    active : Out(1)
        While it is low, nothing changes until a request or a message of a link comes.
    """

    def __init__(self, *, dies, clients):
        self.dies = dies
        self.clients = clients
        super().__init__({
            "requests": In(stream.Signature(request_layout())).array(clients),
            "links": Out(LinkPort()).array(dies), "answer": Out(slot_layout()), "valid": Out(1),
            "lost": In(16), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        taken = [[] for _ in self.requests]
        for die, link in enumerate(self.links):
            m.submodules[f"arbiter{die}"] = arbiter = RoundRobin(self.clients)
            m.d.comb += [
                arbiter.requests.eq(Cat(r.valid & (r.payload.die == die) for r in self.requests)),
                link.o_request.payload.eq(one_of(
                    arbiter.grant, [r.payload.slot for r in self.requests])),
                link.o_request.valid.eq(arbiter.requests.any() & ~self.lost[die]),
                arbiter.ready.eq(link.o_request.ready | self.lost[die])]
            for n, client in enumerate(taken):
                client.append(arbiter.grant[n] & arbiter.ready)
            self._refuse(m, die, link)
        for request, client in zip(self.requests, taken, strict=True):
            m.d.comb += request.ready.eq(reduce(or_, client))

        m.submodules.answers = answers = RoundRobin(self.dies)
        valid = [link.i_response.valid for link in self.links]
        m.d.comb += [answers.requests.eq(Cat(valid)), answers.ready.eq(1)]
        m.d.sync += self.valid.eq(answers.requests.any())
        with m.If(answers.requests.any()):
            m.d.sync += self.answer.eq(one_of(
                answers.grant, [link.i_response.payload for link in self.links]))
        for die, link in enumerate(self.links):
            m.d.comb += link.i_response.ready.eq(answers.grant[die])
        m.d.comb += self.active.eq(self.valid | Cat(
            link.o_response.valid for link in self.links).any())
        return m

    def _refuse(self, m, die, link):
        """Answer READ and WRITE with an error; take anything else without effect."""
        shape = data.StructLayout({"tag": 8, "write": 1})
        m.submodules[f"refused{die}"] = refused = Queue(shape)
        slot, answer = link.i_request.payload, link.o_response.payload
        write = slot.kind == SlotKind.WRITE
        wanted = write | (slot.kind == SlotKind.READ)
        m.d.comb += [
            refused.i.valid.eq(link.i_request.valid & wanted),
            refused.i.payload.tag.eq(slot.body.write.tag), refused.i.payload.write.eq(write),
            link.i_request.ready.eq(refused.i.ready | ~wanted),
            answer.kind.eq(SlotKind.RESPONSE), answer.body.response.tag.eq(refused.o.payload.tag),
            answer.body.response.write.eq(refused.o.payload.write),
            answer.body.response.error.eq(AccessError.ADDRESS),
            link.o_response.valid.eq(refused.o.valid), refused.o.ready.eq(link.o_response.ready)]
