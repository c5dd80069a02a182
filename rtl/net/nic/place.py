"""Writes the payload of frames to memory, and tells in order what is there."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.host.realigner import Realigner
from rtl.net.interfaces import BEAT_BITS, BEAT_BYTES
from rtl.net.nic.fetch import BEATS, COUNT_BITS
from rtl.pe.interfaces import ADDRESS_BITS, LINE_BITS, LINE_BYTES, AccessError


def placement_layout(event):
    """A payload's bytes and where they go, and what is to be told when they are there.

    ``drop``: the payload is for nobody.
    """
    return data.StructLayout({"address": ADDRESS_BITS, "count": COUNT_BITS, "drop": 1,
                              "event": event})


def placed_layout(event):
    """What was to be told; ``error``: how a write of this payload ended that failed, if any."""
    return data.StructLayout({"event": event, "error": AccessError})


class PayloadWriter(wiring.Component):
    """Writes payloads to where they belong, and gives the event of each when all is written.

    Events come in the order of the payloads. Latency is that of memory and 6 cycles, throughput a
    beat a cycle as long as ``lines`` cover the latency of memory, with a gap of at most 3 cycles
    between payloads. Source: this project's choice.

    Parameters
    ----------
    event : data.StructLayout
        What is told.
    lines : int
        Writes under way. :exc:`ValueError` unless a power of two from 4 on.
    events : int
        Payloads of which has not been told.

    Members
    -------
    command : In(stream.Signature(placement_layout(event)))
        Payloads, also such without a byte.
    payload : In(stream.Signature(128))
        Their beats, as many as each has.
    request : Out(stream.Signature({"address": 48, "tag": ..., "data": 512, "mask": 64}))
        Writes of lines.
    response : In(stream.Signature({"tag": ..., "error": AccessError}))
        Their answers, in any order, always taken.
    placed : Out(stream.Signature(placed_layout(event)))
        Events.
    active : Out(1)
        Something is under way.
    """

    def __init__(self, event, *, lines=64, events=16):
        if not isinstance(lines, int) or lines < 4 or lines & (lines - 1):
            raise ValueError(f"Lines must be a power of two from 4 on, not {lines!r}")
        if not isinstance(events, int) or events < 1:
            raise ValueError(f"Events must be a positive integer, not {events!r}")
        self.event, self.lines, self.events = event, lines, events
        tag = range(lines)
        super().__init__({
            "command": In(stream.Signature(placement_layout(event))),
            "payload": In(stream.Signature(BEAT_BITS)),
            "request": Out(stream.Signature(data.StructLayout(
                {"address": ADDRESS_BITS, "tag": tag, "data": LINE_BITS, "mask": LINE_BYTES}))),
            "response": In(stream.Signature(data.StructLayout(
                {"tag": tag, "error": AccessError}))),
            "placed": Out(stream.Signature(placed_layout(event))), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.realigner = realigner = Realigner()
        next_tag, oldest = (Signal(range(2 * self.lines), name=name)
                            for name in ("next_tag", "oldest"))
        events = SyncFIFOBuffered(width=self.event.size + len(next_tag), depth=self.events)
        m.submodules.events = events
        busy = self._pack(m, realigner, events, next_tag, oldest)
        self._settle(m, events, oldest, next_tag)
        m.d.comb += self.active.eq(Cat(self.command.valid, busy, events.level != 0,
                                       self.placed.valid).any())
        return m

    def _pack(self, m, realigner, events, next_tag, oldest):
        """Beats become lines, shifted to where they belong; gives whether some are under way."""
        command, run, line = self.command.payload, realigner.start.payload, realigner.i.payload
        left, part = Signal(COUNT_BITS - 4), Signal(range(BEATS))
        first, filled = Signal(LINE_BITS - BEAT_BITS), Signal()
        address, drop, event = Signal(ADDRESS_BITS - 6), Signal(), Signal(self.event)
        writing, busy = Signal(), Signal()
        empty = (command.count == 0) | command.drop
        begins = self.command.valid & ~busy & (empty | realigner.start.ready)
        m.d.comb += [
            run.source.eq(0), run.target.eq(command.address[:6]), run.count.eq(command.count),
            realigner.start.valid.eq(self.command.valid & ~busy & ~empty),
            self.command.ready.eq(~busy & (empty | realigner.start.ready))]
        with m.If(begins):
            m.d.sync += [busy.eq(1), drop.eq(command.drop), event.eq(command.event),
                         left.eq((command.count + BEAT_BYTES - 1) >> 4), part.eq(0),
                         address.eq(command.address[6:]), writing.eq(~empty)]
        # A line goes on with its last beat: the beats before it are kept.
        last = left == 1
        full = last | (part == BEATS - 1)
        taken = self.payload.valid & self.payload.ready
        pieces = [first[n * BEAT_BITS:][:BEAT_BITS] for n in range(BEATS - 1)]
        m.d.comb += [
            filled.eq(self.payload.valid & (left != 0) & full & ~drop),
            self.payload.ready.eq((left != 0) & (~full | drop | realigner.i.ready)),
            realigner.i.valid.eq(filled),
            line.data.eq(Cat(*(Mux(part == n, self.payload.payload, piece)
                               for n, piece in enumerate(pieces)), self.payload.payload))]
        with m.If(taken):
            m.d.sync += [left.eq(left - 1), part.eq(part + 1)]
            for n, piece in enumerate(pieces):
                with m.If(part == n):
                    m.d.sync += piece.eq(self.payload.payload)
        o, shifted = self.request.payload, realigner.o.payload
        room = (next_tag - oldest)[:len(next_tag)] != self.lines
        sent = self.request.valid & self.request.ready
        m.d.comb += [
            self.request.valid.eq(realigner.o.valid & room), realigner.o.ready.eq(sent),
            o.address.eq(Cat(C(0, 6), address)), o.tag.eq(next_tag), o.data.eq(shifted.data),
            o.mask.eq(shifted.mask)]
        with m.If(sent):
            m.d.sync += [next_tag.eq(next_tag + 1), address.eq(address + 1),
                         writing.eq(~shifted.last)]
        done = busy & (left == 0) & ~writing
        m.d.comb += [events.w_en.eq(done), events.w_data.eq(Cat(event, next_tag))]
        with m.If(done & events.w_rdy):
            m.d.sync += busy.eq(0)
        return busy

    def _settle(self, m, events, oldest, next_tag):
        """Writes are answered in any order, and told of in theirs."""
        back, error = self.response.payload, Signal(AccessError)
        answered = Signal(self.lines)
        failed = Signal(self.lines)
        kind, slot = Signal(AccessError), oldest[:-1]
        position = Signal.like(oldest)
        event = Signal(self.event)
        m.d.comb += [Cat(event, position).eq(events.r_data), self.response.ready.eq(1)]
        told = events.r_rdy & (position == oldest)
        ended = answered.bit_select(slot, 1) & (oldest != next_tag) & ~told
        here = Mux(self.response.valid, 1 << back.tag, 0)
        wrong = back.error != AccessError.NONE
        m.d.sync += [
            answered.eq((answered | here) & ~Mux(ended, 1 << slot, 0)),
            failed.eq((failed | Mux(wrong, here, 0)) & ~Mux(ended, 1 << slot, 0)),
            oldest.eq(oldest + ended)]
        with m.If(self.response.valid & wrong):
            m.d.sync += kind.eq(back.error)
        with m.If(ended & failed.bit_select(slot, 1)):
            m.d.sync += error.eq(kind)
        out = self.placed.payload
        m.d.comb += [self.placed.valid.eq(told), out.event.eq(event), out.error.eq(error),
                     events.r_en.eq(self.placed.ready & told)]
        with m.If(self.placed.ready & told):
            m.d.sync += error.eq(AccessError.NONE)
