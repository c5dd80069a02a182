"""Read-only registers of the control block, as lines of 16 words."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, AccessError, request_layout, response_layout


class RegisterLines(wiring.Component):
    """Answers reads of ``lines``; a write is answered with ``AccessError.ADDRESS``.

    Latency is 1 cycle, throughput one access a cycle.

    Parameters
    ----------
    count : int
        Lines. :exc:`ValueError` unless a power of two, at least 2.

    Members
    -------
    lines : In(data.ArrayLayout(512, count))
        What the registers hold.
    access : In(stream.Signature(request_layout()))
        Accesses; the address counts modulo the size.
    access_response : Out(stream.Signature(response_layout()))
        One for each access, in order.
    """

    def __init__(self, *, count):
        if not isinstance(count, int) or count < 2 or count & (count - 1):
            raise ValueError(f"Count must be a power of two of at least 2, not {count!r}")
        self.count = count
        super().__init__({"lines": In(data.ArrayLayout(LINE_BITS, count)),
                          "access": In(stream.Signature(request_layout())),
                          "access_response": Out(stream.Signature(response_layout()))})

    def elaborate(self, platform):
        m = Module()
        access, answer = self.access.payload, self.access_response.payload
        line = access.address[exact_log2(LINE_BYTES):][:exact_log2(self.count)]
        free = self.access_response.ready | ~self.access_response.valid
        m.d.comb += self.access.ready.eq(free)
        with m.If(free):
            m.d.sync += self.access_response.valid.eq(self.access.valid)
        with m.If(free & self.access.valid):
            m.d.sync += [answer.tag.eq(access.tag), answer.write.eq(access.write),
                         answer.error.eq(Mux(access.write, AccessError.ADDRESS,
                                             AccessError.NONE)),
                         answer.data.eq(Mux(access.write, 0, self.lines[line]))]
        return m
