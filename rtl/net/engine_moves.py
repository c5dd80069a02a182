"""REDUCE and COPY of a message engine: lines from memory through near-memory compute and back."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.mx.formats import Format
from rtl.mx.quantise import Rule
from rtl.net.engine_interfaces import (
    LABEL_BITS,
    Tags,
    answer_layout,
    move_layout,
    read_layout,
    write_layout,
)
from rtl.net.engine_operand import AHEAD_LOG2, OperandReader
from rtl.net.engine_writer import WRITES_LOG2, ResultWriter
from rtl.net.near_memory import NearMemory, is_block_format
from rtl.pe.interfaces import UnitState


class Moves(wiring.Component):
    """Does one move after another: S = A + B, or S = A, byte by byte.

    A line of a REDUCE takes 3 requests, one of a COPY 2, and for MX formats 1 in 32 more of each
    kind; with a request a cycle that is the pace, for lines that come within about 60 cycles. The
    reads of a move start while the one before is added and written. A line of S is written after
    the same bytes of A and B were read, so S may be A or B; no other overlap is allowed.

    Members
    -------
    i : In(stream.Signature(move_layout()))
        Moves; their fields were checked. ``ready`` is a register.
    reads : Out(stream.Signature(read_layout())).array(2)
        Lines of A and of B.
    writes : Out(stream.Signature(write_layout()))
        Lines of S.
    answer : In(answer_layout())
        Answers to all requests of the engine.
    end : Out(stream.Signature(16))
        Label of a move of which all writes were answered. A function of registers.
    state : Out(UnitState)
        What happens in this cycle: a line is asked for or written (BUSY), waits for the port
        (BLOCKED), or for its answer (STARVED).
    active : Out(1)
        A move is under way. A function of registers.
    """

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(move_layout())),
            "reads": Out(stream.Signature(read_layout())).array(2),
            "writes": Out(stream.Signature(write_layout())), "answer": In(answer_layout()),
            "end": Out(stream.Signature(LABEL_BITS)), "state": Out(UnitState), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(move_layout())
        m.submodules.joins = joins = Queue(data.StructLayout({
            "copy": 1, "format": Format, "rule": Rule}))
        m.submodules.writer = writer = ResultWriter()
        m.submodules.a, m.submodules.b = operands = OperandReader(), OperandReader()
        connect(m, flipped(self.i), queue.i)
        self._begin(m, queue, joins, writer, operands)
        self._ask(m, operands, writer)
        self._join(m, joins, writer, operands)

        count = Signal(3)
        m.d.sync += count.eq(count + (self.i.valid & self.i.ready)
                             - (self.end.valid & self.end.ready))
        streams = [*self.reads, self.writes]
        moved = Cat(port.valid & port.ready for port in streams).any()
        asking = Cat(port.valid for port in streams).any()
        m.d.comb += [self.active.eq(count != 0), self.state.eq(
            Mux(moved, UnitState.BUSY, Mux(asking, UnitState.BLOCKED, Mux(
                self.active, UnitState.STARVED, UnitState.IDLE))))]
        return m

    def _begin(self, m, queue, joins, writer, operands):
        """A move starts when all who take part can take it."""
        move, begun = queue.o.payload, Signal()
        m.submodules.results = results = Queue(writer.start.payload.shape())
        connect(m, results.o, writer.start)
        mx = is_block_format(move.format)
        m.d.comb += [
            begun.eq(queue.o.valid & operands[0].start.ready & operands[1].start.ready
                     & joins.i.ready & results.i.ready),
            queue.o.ready.eq(begun), joins.i.valid.eq(begun), results.i.valid.eq(begun),
            operands[0].start.valid.eq(begun), operands[1].start.valid.eq(begun & ~move.copy)]
        m.d.comb += [joins.i.payload[name].eq(move[name]) for name in ("copy", "format", "rule")]
        result = results.i.payload
        m.d.comb += [result.copy.eq(move.copy), result.mx.eq(mx), result.length.eq(move.length),
                     result.line.eq(move.s), result.scales.eq(move.scales_s),
                     result.label.eq(move.label)]
        for name, operand in zip("ab", operands, strict=True):
            start = operand.start.payload
            m.d.comb += [start.address.eq(move[name]), start.length.eq(move.length),
                         start.mx.eq(mx), start.scales.eq(move[f"scales_{name}"]),
                         start.label.eq(move.label)]

    def _ask(self, m, operands, writer):
        connect(m, writer.request, flipped(self.writes))
        connect(m, writer.end, flipped(self.end))
        answer = self.answer
        result = (answer.tag >> WRITES_LOG2 + 1) == Tags.RESULTS >> WRITES_LOG2 + 1
        m.d.comb += [writer.answered.valid.eq(answer.valid & result),
                     writer.answered.tag.eq(answer.tag)]
        for port, operand, kind in zip(self.reads, operands, (Tags.A, Tags.B), strict=True):
            request = operand.request
            m.d.comb += [
                port.valid.eq(request.valid), request.ready.eq(port.ready),
                port.payload.line.eq(request.payload.line),
                port.payload.tag.eq(kind | request.payload.slot),
                port.payload.label.eq(request.payload.label),
                operand.answer.valid.eq(answer.valid & (
                    (answer.tag >> AHEAD_LOG2) == kind >> AHEAD_LOG2)),
                operand.answer.slot.eq(answer.tag), operand.answer.data.eq(answer.data)]

    def _join(self, m, joins, writer, operands):
        """Lines of A go to the writer, or with those of B to be added."""
        a, b = (operand.o for operand in operands)
        m.submodules.memory = near = NearMemory()
        connect(m, near.o, writer.sums)
        join, pair = joins.o.payload, near.i.payload
        copies, adds = joins.o.valid & join.copy, joins.o.valid & ~join.copy
        m.d.comb += [
            near.i.valid.eq(adds & a.valid & b.valid), b.ready.eq(adds & a.valid & near.i.ready),
            a.ready.eq(Mux(join.copy, copies & writer.copied.ready,
                           adds & b.valid & near.i.ready)),
            writer.copied.valid.eq(copies & a.valid),
            writer.copied.payload.line.eq(a.payload.line),
            writer.copied.payload.scales.eq(a.payload.scales),
            joins.o.ready.eq(a.valid & a.ready & a.payload.last),
            pair.format.eq(join.format), pair.rule.eq(join.rule),
            pair.a.eq(a.payload.line), pair.b.eq(b.payload.line),
            pair.scales_a.eq(a.payload.scales), pair.scales_b.eq(b.payload.scales)]
