"""A bank of the on-chip memory at the edge of the mesh."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.clockgate import gated_domain
from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, request_layout, response_layout


class SramBank(wiring.Component):
    """Lines that are read, and written under a byte mask; answers every request, in order.

    Latency is 1 cycle, throughput one access a cycle. A read sees all earlier writes. Reset
    leaves the contents as they are. ``response.data`` means nothing after a write. The clock stops
    while no request and no response is there.

    Parameters
    ----------
    lines : int
        Size [line of 64 bytes]. :exc:`ValueError` unless a power of two, at least 2.

    Members
    -------
    request : In(stream.Signature(request_layout()))
        ``address`` in bytes from the start of the bank, modulo its size.
    response : Out(stream.Signature(response_layout()))
        One for each request, in the same order.
    awake : Out(1)
        The registers and the memory take the coming edge of the clock.
    """

    def __init__(self, *, lines):
        if not isinstance(lines, int) or lines < 2 or lines & (lines - 1):
            raise ValueError(f"Lines must be a power of two of at least 2, not {lines!r}")
        self.lines = lines
        super().__init__({"request": In(stream.Signature(request_layout())),
                          "response": Out(stream.Signature(response_layout())), "awake": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = Memory(shape=LINE_BITS, depth=self.lines, init=[])
        read = storage.read_port(domain="work")
        write = storage.write_port(domain="work", granularity=8)
        request, response = self.request.payload, self.response.payload
        line = request.address[exact_log2(LINE_BYTES):][:exact_log2(self.lines)]
        free = self.response.ready | ~self.response.valid
        accepted = self.request.valid & free
        m.d.comb += [self.request.ready.eq(free),
                     read.addr.eq(line), read.en.eq(accepted & ~request.write),
                     write.addr.eq(line), write.data.eq(request.data),
                     response.data.eq(read.data)]
        with m.If(accepted & request.write):
            m.d.comb += write.en.eq(request.mask)
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.awake)
        m.d.comb += self.awake.eq(self.request.valid | self.response.valid)
        with m.If(free):
            m.d.work += self.response.valid.eq(self.request.valid)
        with m.If(accepted):
            m.d.work += [response.tag.eq(request.tag), response.write.eq(request.write)]
        return m
