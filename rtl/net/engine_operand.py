"""Reads an operand of a move, line by line, wherever its bytes are."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.queue import Queue
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
        came = stream.Signature(LINE_BITS).create()
        given = self._store(m, came, self._ask(m, runs))
        self._give(m, runs, came, given)
        return m

    def _ask(self, m, runs):
        """Asks for the lines. Gives the place of the next one, and whether it is asked for."""
        asking, mx = Signal(), Signal()
        line, scales = Signal(LINE_NUMBER_BITS), Signal(LINE_NUMBER_BITS)
        left, position = Signal(LINES_BITS + 1), Signal(range(SCALED_LINES + 1))
        entry, tail, held = Signal(LABEL_BITS), Signal(AHEAD_LOG2), Signal(AHEAD_LOG2 + 1)
        start, scale = self.start.payload, mx & (position == 0)
        begun, asked = self.start.valid & self.start.ready, Signal()
        m.d.comb += [
            self.start.ready.eq(~asking & runs.i.ready), runs.i.valid.eq(begun),
            runs.i.payload.offset.eq(start.address[:OFFSET_BITS]),
            runs.i.payload.length.eq(start.length), runs.i.payload.mx.eq(start.mx),
            self.request.valid.eq(asking & ~held[AHEAD_LOG2]),
            self.request.payload.line.eq(Mux(scale, scales, line)),
            self.request.payload.slot.eq(tail), self.request.payload.label.eq(entry),
            asked.eq(self.request.valid & self.request.ready)]
        with m.If(begun):
            m.d.sync += [asking.eq(1), mx.eq(start.mx), scales.eq(start.scales),
                         line.eq(start.address[OFFSET_BITS:]), position.eq(0),
                         left.eq(lines_of(start.address[:OFFSET_BITS], start.length)),
                         entry.eq(start.label)]
        with m.If(asked):
            m.d.sync += tail.eq(tail + 1)
            with m.If(scale):
                m.d.sync += [scales.eq(scales + 1), position.eq(1)]
            with m.Else():
                m.d.sync += [line.eq(line + 1), left.eq(left - 1), asking.eq(left != 1),
                             position.eq(Mux(position == SCALED_LINES, 0, position + 1))]
        return held, asked

    def _store(self, m, came, asking):
        """Brings the answers into the order of the requests. Gives when one is taken out."""
        held, asked = asking
        m.submodules.lines = lines = memory.Memory(shape=LINE_BITS, depth=1 << AHEAD_LOG2, init=[])
        write, read = lines.write_port(), lines.read_port()
        filled, head, taken = Signal(1 << AHEAD_LOG2), Signal(AHEAD_LOG2), Signal()
        m.d.comb += [
            write.en.eq(self.answer.valid), write.addr.eq(self.answer.slot),
            write.data.eq(self.answer.data),
            taken.eq(filled.bit_select(head, 1) & (~came.valid | came.ready)),
            read.en.eq(taken), read.addr.eq(head), came.payload.eq(read.data)]
        m.d.sync += [
            held.eq(held + asked - taken), head.eq(head + taken),
            came.valid.eq(taken | came.valid & ~came.ready),
            filled.eq((filled | (self.answer.valid << self.answer.slot)) & ~(taken << head))]
        return taken

    def _give(self, m, runs, came, taken):
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
