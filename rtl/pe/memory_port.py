"""The way of a PE's clients to memory, and of others to the PE's registers."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.arbiter import RoundRobin
from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.common.select import one_of
from rtl.pe.interfaces import (
    LINE_BITS,
    TAG_BITS,
    AccessError,
    Unit,
    request_layout,
    response_layout,
)

WIDE = 1            # the client that has most of the tags: those whose upper bits are not ones
OTHERS_BITS = 5     # of the tags of another client; above them are two ones and which client it is


def _tag(client, own):
    """The port's tag for a client's own one."""
    return own if client == WIDE else Cat(own[:OTHERS_BITS], C(client // 2 | 6, 3))


class MemoryPort(wiring.Component):
    """Shares the PE's requests and responses among 2 or 3 clients, by the upper tag bits.

    Latency 1 cycle each way, throughput one request and one response a cycle. Clients take turns;
    a request not yet accepted may be withdrawn. All but the last client only read, so data and
    mask are those of the last.

    Parameters
    ----------
    clients : int
        2 or 3, else :exc:`ValueError`.

    Members
    -------
    requests : In(stream.Signature(request_layout())).array(clients)
        Requests; tags 0 to 191 of client 1, 0 to 31 of the others.
    responses : Out(stream.Signature(response_layout())).array(clients)
        Answers with the same tags.
    request, response : Out(stream.Signature(...)), In(stream.Signature(...))
        Towards memory. Registered.
    busy : Out(1)
        A request or a response stands in a queue. A function of registers.
    """

    def __init__(self, *, clients):
        if clients not in (2, 3):
            raise ValueError(f"Clients must be 2 or 3, not {clients!r}")
        self.clients = clients
        super().__init__({
            "requests": In(stream.Signature(request_layout())).array(clients),
            "responses": Out(stream.Signature(response_layout())).array(clients),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.outward = outward = Queue(request_layout())
        m.submodules.inward = inward = Queue(response_layout())
        m.submodules.arbiter = arbiter = RoundRobin(self.clients)
        connect(m, outward.o, flipped(self.request))
        connect(m, flipped(self.response), inward.i)
        payloads = [port.payload for port in self.requests]
        grant, last, out = arbiter.grant, payloads[-1], outward.i.payload
        m.d.comb += [
            arbiter.requests.eq(Cat(port.valid for port in self.requests)),
            arbiter.ready.eq(outward.i.ready), outward.i.valid.eq(arbiter.requests.any()),
            out.address.eq(one_of(grant, [p.address for p in payloads])),
            out.tag.eq(one_of(grant, [_tag(n, p.tag) for n, p in enumerate(payloads)])),
            out.write.eq(grant[-1] & last.write), out.data.eq(last.data), out.mask.eq(last.mask),
            out.hint.eq(one_of(grant, [p.hint for p in payloads])),
            out.group.eq(one_of(grant, [p.group for p in payloads])),
            self.busy.eq(outward.o.valid | inward.o.valid),
        ]
        for index, port in enumerate(self.requests):
            m.d.comb += port.ready.eq(grant[index] & outward.i.ready)
        answer = inward.o.payload
        for index, port in enumerate(self.responses):
            mine = (~answer.tag[-2:].all() if index == WIDE else
                    answer.tag[OTHERS_BITS:] == _tag(index, C(0, TAG_BITS))[OTHERS_BITS:])
            own = answer.tag if index == WIDE else answer.tag[:OTHERS_BITS]
            m.d.comb += [port.payload.eq(answer), port.payload.tag.eq(own),
                         port.valid.eq(inward.o.valid & mine)]
            with m.If(mine):
                m.d.comb += inward.o.ready.eq(port.ready)
        return m


class RegisterWindow(wiring.Component):
    """Answers reads of a PE's counters: line ``u`` of the window holds those of unit ``u``.

    Latency 2 cycles, throughput one access a cycle. Writes, and lines of no unit, are answered
    with ``AccessError.ADDRESS``.

    Members
    -------
    access : In(stream.Signature(request_layout()))
        Bits 15:6 of the address are the line; higher bits are ignored.
    response : Out(stream.Signature(response_layout()))
        Answers, in order. Registered, as is ``access.ready``.
    counters : In(data.ArrayLayout(32, 16)).array(9)
        The lines.
    busy : Out(1)
        An access stands in a queue. A function of registers.
    """

    def __init__(self):
        super().__init__({"access": In(stream.Signature(request_layout())),
                          "response": Out(stream.Signature(response_layout())),
                          "counters": In(data.ArrayLayout(32, 16)).array(len(Unit)),
                          "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.access.valid | self.busy)
        asked = data.StructLayout({"line": 10, "tag": 8, "write": 1})
        inward, outward = Queue(asked), Queue(response_layout())
        m.submodules.inward = DomainRenamer("work")(inward)
        m.submodules.outward = DomainRenamer("work")(outward)
        request, asked_for = self.access.payload, inward.o.payload
        # The line is chosen into a register, by two-way multiplexers: a simulator then does it in
        # the cycle of an access alone.
        answer, held = Signal(response_layout()), Signal()
        taken = inward.o.valid & (~held | outward.i.ready)
        wrong = asked_for.write | (asked_for.line >= len(Unit))
        chosen = C(0, LINE_BITS)
        for number, line in enumerate(self.counters):
            chosen = Mux(asked_for.line == number, Value.cast(line), chosen)
        m.d.comb += [
            inward.i.valid.eq(self.access.valid), self.access.ready.eq(inward.i.ready),
            inward.i.payload.line.eq(request.address[6:16]), inward.i.payload.tag.eq(request.tag),
            inward.i.payload.write.eq(request.write),
            outward.i.valid.eq(held), inward.o.ready.eq(taken), outward.i.payload.eq(answer),
            self.busy.eq(inward.o.valid | held | outward.o.valid),
        ]
        connect(m, outward.o, flipped(self.response))
        with m.If(outward.i.ready):
            m.d.work += held.eq(0)
        with m.If(taken):
            m.d.work += [
                held.eq(1), answer.tag.eq(asked_for.tag), answer.write.eq(asked_for.write),
                answer.error.eq(Mux(wrong, AccessError.ADDRESS, AccessError.NONE)),
                answer.data.eq(Mux(wrong, 0, chosen))]
        return m
