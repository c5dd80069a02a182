"""A bank of the on-chip memory at the edge of the mesh."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.clockgate import gated_domain
from rtl.memory.interfaces import memory_response_layout, slice_request_layout
from rtl.pe.interfaces import LINE_BITS, AccessError


class SramBank(wiring.Component):
    """Lines that are read, and written under a byte mask; answers every request, in order.

    Latency is 1 cycle, throughput one access a cycle. A read sees all earlier writes. Reset
    leaves the contents as they are. ``response.data`` means nothing after a write. The clock stops
    while no request and no response is there.

    Parameters
    ----------
    lines : int
        Size [line of 64 bytes]. :exc:`ValueError` unless a power of two, at least 2.
    name_bits : int
        Width of the names of requests.

    Members
    -------
    request : In(stream.Signature(slice_request_layout(name_bits)))
        One past the end is answered with ``AccessError.ADDRESS`` and does nothing.
    response : Out(stream.Signature(memory_response_layout(name_bits)))
        One for each request, in the same order.
    awake : Out(1)
        The registers and the memory take the coming edge of the clock.
    """

    def __init__(self, *, lines, name_bits):
        if not isinstance(lines, int) or lines < 2 or lines & (lines - 1):
            raise ValueError(f"Lines must be a power of two of at least 2, not {lines!r}")
        self.lines, self.name_bits = lines, name_bits
        super().__init__({"request": In(stream.Signature(slice_request_layout(name_bits))),
                          "response": Out(stream.Signature(memory_response_layout(name_bits))),
                          "awake": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = Memory(shape=LINE_BITS, depth=self.lines, init=[])
        read = storage.read_port(domain="work")
        write = storage.write_port(domain="work", granularity=8)
        request, response = self.request.payload, self.response.payload
        line = request.line[:exact_log2(self.lines)]
        outside = request.line[exact_log2(self.lines):].any()
        free = self.response.ready | ~self.response.valid
        accepted = self.request.valid & free
        m.d.comb += [self.request.ready.eq(free),
                     read.addr.eq(line), read.en.eq(accepted & ~request.write),
                     write.addr.eq(line), write.data.eq(request.data),
                     response.data.eq(read.data)]
        with m.If(accepted & request.write & ~outside):
            m.d.comb += write.en.eq(request.mask)
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.awake)
        m.d.comb += self.awake.eq(self.request.valid | self.response.valid)
        with m.If(free):
            m.d.work += self.response.valid.eq(self.request.valid)
        with m.If(accepted):
            m.d.work += [response.name.eq(request.name), response.write.eq(request.write),
                         response.error.eq(Mux(outside, AccessError.ADDRESS, AccessError.NONE))]
        return m
