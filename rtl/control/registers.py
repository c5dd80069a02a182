"""Registers of the control block, as lines of 16 words."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, AccessError, request_layout, response_layout


class RegisterLines(wiring.Component):
    """Answers reads of ``lines``, and writes of those bytes of one line that are registers.

    Latency is 1 cycle, throughput one access a cycle. A write elsewhere, or one that is refused,
    is answered with ``AccessError.ADDRESS`` and changes nothing. Registers are zero after reset.

    Parameters
    ----------
    count : int
        Lines. :exc:`ValueError` unless a power of two, at least 2.
    stored : int
        Line that holds registers; None if there is none.
    stored_bits : int
        Width of the registers; the rest of the line reads as zero, and what is written is lost.

    Members
    -------
    lines : In(data.ArrayLayout(512, count))
        What the read-only lines hold.
    access : In(stream.Signature(request_layout()))
        Accesses; the address counts modulo the size.
    access_response : Out(stream.Signature(response_layout()))
        One for each access, in order.
    value : Out(stored_bits)
        The registers.
    offer : Out(stored_bits)
        What they would be after the write that is there.
    refuse : In(1)
        The registers must not become what is offered.
    """

    def __init__(self, *, count, stored=None, stored_bits=LINE_BITS):
        if not isinstance(count, int) or count < 2 or count & (count - 1):
            raise ValueError(f"Count must be a power of two of at least 2, not {count!r}")
        self.count, self.stored, self.stored_bits = count, stored, stored_bits
        super().__init__({"lines": In(data.ArrayLayout(LINE_BITS, count)),
                          "access": In(stream.Signature(request_layout())),
                          "access_response": Out(stream.Signature(response_layout())),
                          "value": Out(stored_bits), "offer": Out(stored_bits),
                          "refuse": In(1)})

    def elaborate(self, platform):
        m = Module()
        access, answer = self.access.payload, self.access_response.payload
        line = access.address[exact_log2(LINE_BYTES):][:exact_log2(self.count)]
        free = self.access_response.ready | ~self.access_response.valid
        here = 0 if self.stored is None else line == self.stored
        allowed = here & ~self.refuse
        mask = Cat(bit.replicate(8) for bit in access.mask)[:self.stored_bits]
        m.d.comb += [self.access.ready.eq(free),
                     self.offer.eq((self.value & ~mask) | (access.data & mask))]
        with m.If(free):
            m.d.sync += self.access_response.valid.eq(self.access.valid)
        with m.If(free & self.access.valid):
            m.d.sync += [answer.tag.eq(access.tag), answer.write.eq(access.write),
                         answer.error.eq(Mux(access.write & ~allowed, AccessError.ADDRESS,
                                             AccessError.NONE)),
                         answer.data.eq(Mux(access.write, 0,
                                            Mux(here, self.value, self.lines[line])))]
            with m.If(access.write & allowed):
                m.d.sync += self.value.eq(self.offer)
        return m
