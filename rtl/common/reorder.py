"""Brings answers that come in any order into that of their requests."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class Reorder(wiring.Component):
    """Keeps each answer at the place of its request until those before it were given on.

    Places are given out in turn. Latency is 2 cycles from an answer, if it is the next, to the
    output; throughput one a cycle.

    Parameters
    ----------
    shape : ShapeLike
        Shape of an answer.
    places_log2 : int
        log2 of the requests under way. :exc:`ValueError` unless a positive integer.

    Members
    -------
    room : Out(1)
        A place is free. A function of registers.
    place : Out(places_log2)
        That of the next request. A function of registers.
    asked : In(1)
        This request leaves; only while there is ``room``.
    answer : In(data.StructLayout({"valid": 1, "place": places_log2, "data": shape}))
        An answer; there is no back-pressure on it.
    o : Out(stream.Signature(shape))
        The answers, in the order of their requests.
    active : Out(1)
        A request is under way, or an answer is here. A function of registers.
    """

    def __init__(self, shape, *, places_log2):
        if not isinstance(places_log2, int) or places_log2 < 1:
            raise ValueError(f"Places must be a positive integer (log2), not {places_log2!r}")
        self.shape, self.places_log2 = shape, places_log2
        super().__init__({
            "room": Out(1), "place": Out(places_log2), "asked": In(1),
            "answer": In(data.StructLayout({"valid": 1, "place": places_log2, "data": shape})),
            "o": Out(stream.Signature(shape)), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        places = 1 << self.places_log2
        m.submodules.store = store = Memory(shape=self.shape, depth=places, init=[])
        write, read = store.write_port(), store.read_port()
        filled, oldest = Signal(places), Signal(self.places_log2)
        held, taken = Signal(self.places_log2 + 1), Signal()    # places in use; one is free again
        m.d.comb += [
            self.room.eq(~held[-1]), self.active.eq((held != 0) | self.o.valid),
            write.en.eq(self.answer.valid), write.addr.eq(self.answer.place),
            write.data.eq(self.answer.data),
            taken.eq(filled.bit_select(oldest, 1) & (~self.o.valid | self.o.ready)),
            read.en.eq(taken), read.addr.eq(oldest), self.o.payload.eq(read.data)]
        m.d.sync += [
            held.eq(held + self.asked - taken), oldest.eq(oldest + taken),
            self.place.eq(self.place + self.asked),
            self.o.valid.eq(taken | self.o.valid & ~self.o.ready),
            filled.eq((filled | (self.answer.valid << self.answer.place)) & ~(taken << oldest))]
        return m
