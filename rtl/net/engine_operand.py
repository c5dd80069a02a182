"""Reads an operand of a move, line by line, wherever its bytes are."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.queue import Queue
from rtl.common.reorder import Reorder
from rtl.host.realigner import LINES_BITS, OFFSET_BITS, Realigner, lines_of
from rtl.net.engine_interfaces import LABEL_BITS, LINE_NUMBER_BITS
from rtl.net.near_memory import BLOCKS
from rtl.pe.interfaces import ADDRESS_BITS, LINE_BITS

AHEAD_LOG2 = 6      # lines asked for and not given on (this project's choice)
SCALED_LINES = LINE_BITS // 8 // BLOCKS     # lines whose scale bytes fill a line


def operand_layout():
    """``length`` bytes, not zero, from a byte address on; for ``mx`` the line of their scales."""
    return data.StructLayout({"address": ADDRESS_BITS, "length": 32, "mx": 1,
                              "scales": LINE_NUMBER_BITS, "label": LABEL_BITS})


def part_layout():
    """The next 64 bytes of an operand, and the scale bytes of their blocks."""
    return data.StructLayout({"line": LINE_BITS, "scales": 8 * BLOCKS, "last": 1})


class OperandReader(wiring.Component):
    """Gives the bytes of an operand in lines, the first byte lowest.

    Asks for up to 64 lines ahead, those of the next operand as well. A line stands 4 cycles after
    its answer, or after that of the next one; throughput is one a cycle, less the lines of scales,
    of which there is one before each 32 of an MX format. Such an operand is at a line.

    Members
    -------
    start : In(stream.Signature(operand_layout()))
        Operands, one after another.
    request : Out(stream.Signature(struct))
        A ``line`` to read into the place ``slot``, for the entry ``label``.
    answer : In(struct)
        What was read; any order.
    o : Out(stream.Signature(part_layout()))
        The operands.
    """

    start: In(stream.Signature(operand_layout()))
    request: Out(stream.Signature(data.StructLayout({
        "line": LINE_NUMBER_BITS, "slot": AHEAD_LOG2, "label": LABEL_BITS})))
    answer: In(data.StructLayout({"valid": 1, "slot": AHEAD_LOG2, "data": LINE_BITS}))
    o: Out(stream.Signature(part_layout()))

    def elaborate(self, platform):
        m = Module()
        run = data.StructLayout({"offset": OFFSET_BITS, "length": 32, "mx": 1})
        m.submodules.runs = runs = Queue(run)
        m.submodules.lines = lines = Reorder(LINE_BITS, places_log2=AHEAD_LOG2)
        answer = self.answer
        m.d.comb += [lines.answer.valid.eq(answer.valid), lines.answer.place.eq(answer.slot),
                     lines.answer.data.eq(answer.data)]
        self._ask(m, runs, lines)
        self._give(m, runs, lines.o)
        return m

    def _ask(self, m, runs, lines):
        """Asks for the lines."""
        asking, mx = Signal(), Signal()
        line, scales = Signal(LINE_NUMBER_BITS), Signal(LINE_NUMBER_BITS)
        left, position = Signal(LINES_BITS + 1), Signal(range(SCALED_LINES + 1))
        entry = Signal(LABEL_BITS)
        start, scale = self.start.payload, mx & (position == 0)
        begun, asked = self.start.valid & self.start.ready, Signal()
        m.d.comb += [
            self.start.ready.eq(~asking & runs.i.ready), runs.i.valid.eq(begun),
            runs.i.payload.offset.eq(start.address[:OFFSET_BITS]),
            runs.i.payload.length.eq(start.length), runs.i.payload.mx.eq(start.mx),
            self.request.valid.eq(asking & lines.room),
            self.request.payload.line.eq(Mux(scale, scales, line)),
            self.request.payload.slot.eq(lines.place), self.request.payload.label.eq(entry),
            asked.eq(self.request.valid & self.request.ready), lines.asked.eq(asked)]
        with m.If(begun):
            m.d.sync += [asking.eq(1), mx.eq(start.mx), scales.eq(start.scales),
                         line.eq(start.address[OFFSET_BITS:]), position.eq(0),
                         left.eq(lines_of(start.address[:OFFSET_BITS], start.length)),
                         entry.eq(start.label)]
        with m.If(asked):
            with m.If(scale):
                m.d.sync += [scales.eq(scales + 1), position.eq(1)]
            with m.Else():
                m.d.sync += [line.eq(line + 1), left.eq(left - 1), asking.eq(left != 1),
                             position.eq(Mux(position == SCALED_LINES, 0, position + 1))]

    def _give(self, m, runs, came):
        """Cuts the lines to the operand's bytes; lines of scales go two bytes with each line."""
        m.submodules.realigner = realigner = Realigner()
        running, mx = Signal(), Signal()
        left, position = Signal(LINES_BITS + 1), Signal(range(SCALED_LINES + 1))
        scales = Signal(LINE_BITS)
        run, begun = runs.o.payload, Signal()
        scale = mx & (position == 0)
        given = self.o.valid & self.o.ready
        m.d.comb += [
            begun.eq(runs.o.valid & ~running), runs.o.ready.eq(begun),
            realigner.start.valid.eq(begun & ~run.mx),
            realigner.start.payload.source.eq(run.offset),
            realigner.start.payload.count.eq(run.length),
            realigner.i.valid.eq(came.valid & running & ~mx),
            realigner.i.payload.data.eq(came.payload),
            realigner.o.ready.eq(self.o.ready & ~mx),
            came.ready.eq(running & Mux(mx, scale | self.o.ready, realigner.i.ready)),
            self.o.valid.eq(running & Mux(mx, came.valid & ~scale, realigner.o.valid)),
            self.o.payload.line.eq(Mux(mx, came.payload, realigner.o.payload.data)),
            self.o.payload.scales.eq(scales),
            self.o.payload.last.eq(Mux(mx, left == 1, realigner.o.payload.last))]
        with m.If(begun):
            m.d.sync += [running.eq(1), mx.eq(run.mx), position.eq(0),
                         left.eq(lines_of(run.offset, run.length))]
        with m.If(given):
            m.d.sync += [running.eq(~self.o.payload.last), left.eq(left - 1)]
        with m.If(mx & running & came.valid & came.ready):
            m.d.sync += [position.eq(Mux(position == SCALED_LINES, 0, position + 1)),
                         scales.eq(Mux(scale, came.payload, scales >> 8 * BLOCKS))]
