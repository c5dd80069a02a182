"""Answers for a unit that is not open yet."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import TAG_BITS, AccessError, request_layout, response_layout


class Guard(wiring.Component):
    """Passes accesses on to a unit that is ``open``; those to a closed one it answers itself.

    Latency is 0 cycles both ways while the unit is open. An access to a closed one is answered with
    ``AccessError.ADDRESS`` 1 cycle later, and changes nothing; one access every 2 cycles. Source:
    this project's choice.

    Members
    -------
    open : In(1)
        Changes only while no access is under way.
    access, access_response : In(stream.Signature(request_layout())), Out(...)
        From and to whoever asks.
    unit, unit_response : Out(stream.Signature(request_layout())), In(...)
        To and from the unit. It is not listened to while it is closed.
    """

    def __init__(self):
        super().__init__({
            "open": In(1), "access": In(stream.Signature(request_layout())),
            "access_response": Out(stream.Signature(response_layout())),
            "unit": Out(stream.Signature(request_layout())),
            "unit_response": In(stream.Signature(response_layout()))})

    def elaborate(self, platform):
        m = Module()
        access, answer, theirs = self.access, self.access_response, self.unit_response
        held, tag, write = Signal(), Signal(TAG_BITS), Signal()
        m.d.comb += [
            self.unit.payload.eq(access.payload), self.unit.valid.eq(access.valid & self.open),
            access.ready.eq(Mux(self.open, self.unit.ready, ~held)),
            theirs.ready.eq(answer.ready & self.open),
            answer.valid.eq(Mux(self.open, theirs.valid, held)),
            answer.payload.eq(theirs.payload)]
        with m.If(~self.open):
            m.d.comb += answer.payload.eq(response_layout().const({"error": AccessError.ADDRESS}))
            m.d.comb += [answer.payload.tag.eq(tag), answer.payload.write.eq(write)]
            m.d.sync += held.eq(Mux(held, ~answer.ready, access.valid))
            with m.If(~held):
                m.d.sync += [tag.eq(access.payload.tag), write.eq(access.payload.write)]
        return m
