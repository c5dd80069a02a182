"""Reads the payload of frames from memory, in order, as beats."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect
from amaranth.utils import exact_log2

from rtl.common.queue import Queue
from rtl.common.reorder import Reorder
from rtl.common.select import part_of
from rtl.host.realigner import Realigner, lines_of
from rtl.net.interfaces import BEAT_BITS, BEAT_BYTES, MTU_BYTES
from rtl.pe.interfaces import ADDRESS_BITS, LINE_BITS, LINE_BYTES, AccessError

COUNT_BITS = MTU_BYTES.bit_length()     # of the bytes of a payload
BEATS = LINE_BYTES // BEAT_BYTES        # of a line


def payload_layout():
    """Bytes of memory that are the payload of a frame; not none."""
    return data.StructLayout({"address": ADDRESS_BITS, "count": COUNT_BITS})


def payload_beat_layout():
    """A beat of a payload; bytes past its end are zero. ``error``: memory could not be read."""
    return data.StructLayout({"data": BEAT_BITS, "last": 1, "error": 1})


class PayloadFetch(wiring.Component):
    """Gives the bytes of memory that were asked for, from the first on, whatever their alignment.

    Latency is that of memory and 5 cycles, throughput a beat a cycle as long as ``lines`` cover the
    latency of memory: ``lines x 64 / latency`` bytes a cycle. Payloads follow each other with a gap
    of at most 3 cycles. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Lines read ahead [line]. :exc:`ValueError` unless a power of two from 4 on.

    Members
    -------
    command : In(stream.Signature(payload_layout()))
        What to read.
    o : Out(stream.Signature(payload_beat_layout()))
        Its beats.
    request : Out(stream.Signature({"address": 48, "tag": ...}))
        Reads of lines.
    response : In(stream.Signature({"tag": ..., "error": AccessError, "data": 512}))
        Lines, in any order, always taken.
    active : Out(1)
        Something is under way.
    """

    def __init__(self, *, lines=128):
        if not isinstance(lines, int) or lines < 4 or lines & (lines - 1):
            raise ValueError(f"Lines must be a power of two from 4 on, not {lines!r}")
        self.lines = lines
        tag = range(lines)
        super().__init__({
            "command": In(stream.Signature(payload_layout())),
            "o": Out(stream.Signature(payload_beat_layout())),
            "request": Out(stream.Signature(data.StructLayout(
                {"address": ADDRESS_BITS, "tag": tag}))),
            "response": In(stream.Signature(data.StructLayout(
                {"tag": tag, "error": AccessError, "data": LINE_BITS}))),
            "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.realigner = realigner = Realigner()
        runs = SyncFIFOBuffered(width=6 + COUNT_BITS, depth=4)
        m.submodules.runs = runs
        m.submodules.slots = slots = Reorder(realigner.i.payload.shape(),
                                             places_log2=exact_log2(self.lines))
        connect(m, slots.o, realigner.i)
        answer, response = slots.answer, self.response.payload
        m.d.comb += [self.response.ready.eq(1), answer.valid.eq(self.response.valid),
                     answer.place.eq(response.tag), answer.data.data.eq(response.data),
                     answer.data.error.eq(response.error != AccessError.NONE)]
        asking = self._issue(m, runs, slots)
        left = self._beats(m, realigner, runs)
        m.d.comb += self.active.eq(Cat(self.command.valid, runs.level != 0, left != 0,
                                       self.o.valid, asking, slots.active).any())
        return m

    def _issue(self, m, runs, slots):
        """Lines of a payload are read, one a cycle; gives whether some are to be."""
        i, o = self.command.payload, self.request.payload
        address, lines = Signal(ADDRESS_BITS - 6), Signal(COUNT_BITS)
        begins = self.command.valid & (lines == 0) & runs.w_rdy
        sent = self.request.valid & self.request.ready
        m.d.comb += [
            self.command.ready.eq((lines == 0) & runs.w_rdy), runs.w_en.eq(begins),
            runs.w_data.eq(Cat(i.address[:6], i.count)),
            self.request.valid.eq((lines != 0) & slots.room), slots.asked.eq(sent),
            o.address.eq(Cat(C(0, 6), address)), o.tag.eq(slots.place)]
        with m.If(begins):
            m.d.sync += [address.eq(i.address[6:]), lines.eq(lines_of(i.address[:6], i.count))]
        with m.If(sent):
            m.d.sync += [address.eq(address + 1), lines.eq(lines - 1)]
        return lines != 0

    def _beats(self, m, realigner, runs):
        """Lines of a payload, its first byte lowest, become beats; gives the beats left."""
        m.submodules.queue = queue = Queue(payload_beat_layout())
        count, left = Signal(COUNT_BITS), Signal(range(MTU_BYTES // BEAT_BYTES + 1))
        part, failed = Signal(range(BEATS)), Signal()
        run, line = Signal(6 + COUNT_BITS), realigner.o.payload
        m.d.comb += [run.eq(runs.r_data), realigner.start.payload.source.eq(run[:6]),
                     realigner.start.payload.target.eq(0),
                     realigner.start.payload.count.eq(run[6:])]
        begins = runs.r_rdy & (left == 0) & realigner.start.ready
        m.d.comb += [realigner.start.valid.eq(runs.r_rdy & (left == 0)), runs.r_en.eq(begins)]
        with m.If(begins):
            m.d.sync += [left.eq((run[6:] + BEAT_BYTES - 1) >> 4), count.eq(run[6:]), part.eq(0),
                         failed.eq(0)]
        beat, last = queue.i.payload, left == 1
        given = realigner.o.valid & (left != 0) & queue.i.ready
        whole = part_of(line.data, part)
        keep = Signal(BEAT_BYTES)
        m.d.comb += [
            keep.eq(Mux(last & (count[:4] != 0), (C(1, BEAT_BYTES) << count[:4]) - 1,
                        ~C(0, BEAT_BYTES))),
            queue.i.valid.eq(realigner.o.valid & (left != 0)),
            beat.data.eq(whole & Cat(bit.replicate(8) for bit in keep)), beat.last.eq(last),
            beat.error.eq(failed | line.error),
            realigner.o.ready.eq(given & (last | (part == BEATS - 1)))]
        with m.If(given):
            m.d.sync += [left.eq(left - 1), part.eq(part + 1), failed.eq(failed | line.error)]
        m.d.comb += [self.o.valid.eq(queue.o.valid), self.o.payload.eq(queue.o.payload),
                     queue.o.ready.eq(self.o.ready)]
        return left
