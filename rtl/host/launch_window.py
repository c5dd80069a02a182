"""Launches of one stream that are under way on a die, and how they ended."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.link.interfaces import LAUNCH_ID_BITS, completion_layout
from rtl.pe.interfaces import ErrorCode

from .jobs import DIE_BITS, STREAM_BITS, result_layout

AHEAD = 2       # launches of a stream on a die: one runs, the next waits; this project's choice


class LaunchWindow(wiring.Component):
    """Gives ids to launches, and their results in the order in which they began.

    All that are under way are on one die, so that its control block keeps their order. A die has
    a place for each of them, so that no launch ever waits on the link. A result stands 1 cycle
    after its completion, or after the die was lost.

    Parameters
    ----------
    number : int
        Number of the stream.

    Members
    -------
    free, empty : Out(1)
        Another launch may begin; none is under way or untold. Functions of registers.
    begin : In(1)
        A launch is sent, with these:
    tag, fetched, to : In(16), In(32), In(4)
        Of its entry; its die. It must be ``die`` unless ``empty``.
    id : Out(8)
        For the launch that begins next.
    running, oldest, die : Out(1), Out(8), Out(4)
        Some launch has not ended; the id of the first of those; the die of all.
    completion, completion_valid : In(completion_layout()), In(1)
        A launch has ended; those with ids of none that is under way are ignored.
    lost, now : In(16), In(32)
        Dies whose link is down; time.
    o : Out(stream.Signature(result_layout()))
        Results.
    active : Out(1)
        While it is low, nothing changes until a launch begins or ends, or a die is lost.
    """

    def __init__(self, *, number):
        self.number = number
        super().__init__({
            "free": Out(1), "empty": Out(1), "begin": In(1), "tag": In(16), "fetched": In(32),
            "to": In(DIE_BITS), "id": Out(LAUNCH_ID_BITS), "running": Out(1),
            "oldest": Out(LAUNCH_ID_BITS), "die": Out(DIE_BITS),
            "completion": In(completion_layout()), "completion_valid": In(1), "lost": In(16),
            "now": In(32), "o": Out(stream.Signature(result_layout())), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        sequence = Signal(LAUNCH_ID_BITS - STREAM_BITS)
        head, tail = Signal(range(AHEAD)), Signal(range(AHEAD))
        busy, ended = Signal(AHEAD), Signal(AHEAD)
        slots = [Signal(data.StructLayout({
            "id": LAUNCH_ID_BITS, "fetched": 32, "result": result_layout()}), name=f"slot{n}")
            for n in range(AHEAD)]
        told = self.o.valid & self.o.ready
        dead = self.lost.bit_select(self.die, 1)
        m.d.comb += [
            self.id.eq(Cat(Const(self.number, STREAM_BITS), sequence)),
            self.empty.eq(busy == 0), self.free.eq(~busy.bit_select(tail, 1)),
            self.running.eq((busy & ~ended).any()),
            self.o.valid.eq(ended.bit_select(head, 1)),
            self.active.eq(self.o.valid | self.running & dead)]
        with m.If(self.begin):
            m.d.sync += [tail.eq(tail + 1), sequence.eq(sequence + 1), self.die.eq(self.to)]
        with m.If(told):
            m.d.sync += head.eq(head + 1)
        names = ("command_tag", "unit", "field", "failed_pe", "address")
        for n, slot in enumerate(slots):
            result = slot.result
            hit = self.completion_valid & (self.completion.id == slot.id)
            with m.If(head == n):
                m.d.comb += self.o.payload.eq(result)
            # The first that has not ended is at the head, or the one behind it.
            with m.If(busy[n] & ~ended[n] & ((head == n) | ended.bit_select(head, 1))):
                m.d.comb += self.oldest.eq(slot.id)
            with m.If(busy[n] & ~ended[n] & (hit | dead)):
                m.d.sync += [ended[n].eq(1), result.cycles.eq(self.now - slot.fetched)]
                m.d.sync += [result[name].eq(Mux(dead, 0, self.completion[name]))
                             for name in names]
                failed = self.completion.failed_mask
                m.d.sync += [
                    Cat(result.failed_mask, result.value).eq(Mux(dead, 0, failed)),
                    result.code.eq(Mux(dead, ErrorCode.LINK_DOWN, self.completion.code))]
            with m.If(told & (head == n)):
                m.d.sync += [busy[n].eq(0), ended[n].eq(0)]
            with m.If(self.begin & (tail == n)):
                m.d.sync += [busy[n].eq(1), slot.id.eq(self.id), slot.fetched.eq(self.fetched),
                             result.tag.eq(self.tag), result.die.eq(self.to)]
        return m
