"""What others may do to a message engine: read its registers, bring completions."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.net.interfaces import COOKIE_BITS, Status, completion_layout
from rtl.pe.interfaces import (
    LINE_BITS,
    TAG_BITS,
    AccessError,
    request_layout,
    response_layout,
)

WINDOW_BITS = 13                # log2 of the bytes of the window; higher address bits are ignored
COMPLETIONS = 0x1000            # offset of the completion port
LINES = 2                       # of registers, from offset 0 on
USED_BYTES = 24                 # of a completion


def arrival_layout():
    """What an engine needs of a completion."""
    return data.StructLayout({"status": Status, "cookie": COOKIE_BITS, "address": 64})


class EngineWindow(wiring.Component):
    """Answers reads of registers, and takes completions, one access after another, in order.

    Latency is 2 cycles, throughput one access a cycle. Other writes, a completion of which not the
    first 24 bytes come, and reads of other lines are answered with ``AccessError.ADDRESS``.

    Members
    -------
    access : In(stream.Signature(request_layout()))
        Accesses. ``ready`` is a register.
    access_response : Out(stream.Signature(response_layout()))
        Their answers; registers.
    lines : In(data.ArrayLayout(512, 2))
        The registers.
    arrivals : Out(stream.Signature(arrival_layout()))
        Completions.
    busy : Out(1)
        An access or its answer is here. A function of registers.
    """

    access: In(stream.Signature(request_layout()))
    access_response: Out(stream.Signature(response_layout()))
    lines: In(data.ArrayLayout(LINE_BITS, LINES))
    arrivals: Out(stream.Signature(arrival_layout()))
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inward = inward = Queue(data.StructLayout({
            "offset": WINDOW_BITS, "tag": TAG_BITS, "write": 1, "whole": 1,
            "arrival": arrival_layout()}))
        m.submodules.outward = outward = Queue(response_layout())
        connect(m, outward.o, flipped(self.access_response))
        request, asked, answer = self.access.payload, inward.i.payload, outward.i.payload
        completion = data.View(completion_layout(), request.data)
        m.d.comb += [
            inward.i.valid.eq(self.access.valid), self.access.ready.eq(inward.i.ready),
            asked.offset.eq(request.address), asked.tag.eq(request.tag),
            asked.write.eq(request.write), asked.whole.eq(request.mask[:USED_BYTES].all())]
        m.d.comb += [asked.arrival[name].eq(completion[name])
                     for name in ("status", "cookie", "address")]

        here = inward.o.payload
        line = here.offset >> 6
        arrives = here.write & (line == COMPLETIONS >> 6) & here.whole
        shown = ~here.write & (line < LINES)
        taken = inward.o.valid & outward.i.ready & (~arrives | self.arrivals.ready)
        m.d.comb += [
            self.arrivals.payload.eq(here.arrival),
            self.arrivals.valid.eq(inward.o.valid & arrives & outward.i.ready),
            inward.o.ready.eq(taken), outward.i.valid.eq(taken), answer.tag.eq(here.tag),
            answer.write.eq(here.write),
            answer.error.eq(Mux(arrives | shown, AccessError.NONE, AccessError.ADDRESS)),
            answer.data.eq(Mux(shown, Mux(line[0], self.lines[1], self.lines[0]), 0)),
            self.busy.eq(inward.o.valid | outward.o.valid)]
        return m
