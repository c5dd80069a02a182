"""Lines under way in the reduction engine: each has a slot until it has left, in order."""
from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, LocalWrite


class LineSlots(wiring.Component):
    """Keeps order and places of lines while they are computed, and hands them out.

    A line is offered the cycle after it left the arithmetic, or when those before it have gone;
    throughput is a line a cycle. Empty after reset.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    depth : int
        Slots.

    Members
    -------
    room, empty : Out(1)
        A line may be taken; there is none. Functions of registers.
    take, place, send, final : In
        A line is taken: where it will be written, whether it is sent instead, whether it is the
        last of its job.
    head : Out(range(depth))
        Its slot.
    leave, leave_slot, leave_line : In
        A line left the arithmetic.
    query, conflict : In(range(lines)), Out(1)
        Whether a line under way will be written to that place.
    destination : Out(LocalWrite(lines=lines)), ring : Out(stream.Signature(512))
        Lines handed out. Functions of registers.
    written, ended : Out(1)
        One was accepted; the line that is offered is the last of its job.
    """

    def __init__(self, *, lines, depth):
        self.lines, self.depth = lines, depth
        super().__init__({
            "room": Out(1), "empty": Out(1), "take": In(1), "place": In(range(lines)),
            "send": In(1), "final": In(1), "head": Out(range(depth)),
            "leave": In(1), "leave_slot": In(range(depth)), "leave_line": In(LINE_BITS),
            "query": In(range(lines)), "conflict": Out(1),
            "destination": Out(LocalWrite(lines=lines)),
            "ring": Out(stream.Signature(LINE_BITS)), "written": Out(1), "ended": Out(1)})

    def elaborate(self, platform):
        m = Module()
        depth = self.depth
        count, tail = Signal(range(depth + 1)), Signal(range(depth))
        pending, filled, final, sends = (Signal(depth, name=name) for name in (
            "pending", "filled", "final", "sends"))
        places = Array(Signal(range(self.lines), name=f"place{i}") for i in range(depth))
        m.submodules.store = store = memory.Memory(shape=LINE_BITS, depth=depth, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        output, ready, away = self.destination.o, filled.bit_select(tail, 1), Signal()
        m.d.comb += [
            self.room.eq(count != depth), self.empty.eq(count == 0),
            self.conflict.eq(Cat(pending[i] & (places[i] == self.query)
                                 for i in range(depth)).any()),
            write.en.eq(self.leave), write.addr.eq(self.leave_slot),
            write.data.eq(self.leave_line), read.addr.eq(tail),
            away.eq(sends.bit_select(tail, 1)),
            output.valid.eq(ready & ~away), output.payload.address.eq(places[tail]),
            output.payload.data.eq(read.data), output.payload.mask.eq((1 << LINE_BYTES) - 1),
            self.ring.valid.eq(ready & away), self.ring.payload.eq(read.data),
            self.written.eq(ready & Mux(away, self.ring.ready, output.ready)),
            self.ended.eq(final.bit_select(tail, 1)),
        ]
        m.d.sync += count.eq(count + self.take - self.written)
        for pointer, moves in ((self.head, self.take), (tail, self.written)):
            with m.If(moves):
                m.d.sync += pointer.eq(Mux(pointer == depth - 1, 0, pointer + 1))
        for i in range(depth):
            with m.If(self.take & (self.head == i)):
                m.d.sync += [places[i].eq(self.place), final[i].eq(self.final),
                             sends[i].eq(self.send), pending[i].eq(~self.send)]
            with m.Elif(self.written & (tail == i)):
                m.d.sync += pending[i].eq(0)
            with m.If(self.leave & (self.leave_slot == i)):
                m.d.sync += filled[i].eq(1)
            with m.Elif(self.written & (tail == i)):
                m.d.sync += filled[i].eq(0)
        return m
