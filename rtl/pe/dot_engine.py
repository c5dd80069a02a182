"""Dot-product engine: operand B streams past all rows of operand A."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.pe.a_buffer import ABuffers, AFill
from rtl.pe.b_stream import BStream
from rtl.pe.beat_sequencer import MOST_BLOCKS, BeatSequencer
from rtl.pe.dot_array import DotArray
from rtl.pe.drain import Drain
from rtl.pe.frontend import OperandField, UnitFrontend
from rtl.pe.interfaces import LINE_BITS, BufferPort, LocalRead, UnitPort
from rtl.pe.operand_tensor import (
    block_log2,
    is_mx,
    is_wide,
    row_lines,
    row_scales,
    scales_fit,
    stride_fits,
)


class DotEngine(wiring.Component):
    """Carries out the first half of ``DOT``: sums for each row of B and all rows of A.

    A command takes ``blocks * ceil(columns / n)`` cycles, where ``n`` is ``lanes`` for MX4 x MX4
    and 1 for all other pairs of formats, and at most 4 cycles more if the one before it kept the
    engine busy; with fewer than 9 MX4 blocks a row, ``max(blocks, lanes * lines of a row)`` instead
    of ``blocks``. A line leaves 9 cycles after the beat that ended its sum. This holds if local
    memory never refuses and the drain is taken.
    The command is refused with ``BAD_FIELD`` for word 1 (a format; the A buffer holds another), 8
    (no rows of B; no blocks, too many, or not as many as the A buffer) or 9 (a stride). Counters:
    busy, a beat is issued; starved, it waits for operands; blocked, for the drain; word 4, beats.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    rows : int
        Rows of operand A, 1 to 16.
    lanes : int
        Rows of operand B that MX4 takes at once.

    Members
    -------
    unit : Out(UnitPort())
        From the command processor.
    buffers : Out(BufferPort(lines=lines))
        To the table of circular buffers; operands 2 and 4.
    fill : In(AFill())
        From the A loader.
    elements, scales : Out(LocalRead(lines=lines))
        Operand B.
    o : Out(stream.Signature(512))
        Finished columns, 16 FP32 sums each, to the reduction engine.
    """

    def __init__(self, *, lines, rows=16, lanes=3):
        self.lines = lines
        self.rows = rows
        self.lanes = lanes
        super().__init__({
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)), "fill": In(AFill()),
            "elements": Out(LocalRead(lines=lines)), "scales": Out(LocalRead(lines=lines)),
            "o": Out(stream.Signature(LINE_BITS))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(
            lines=self.lines, operands=[OperandField(2), OperandField(4)])
        connect(m, flipped(self.unit), frontend.unit)
        connect(m, flipped(self.buffers), frontend.buffers)
        core = Module()
        m.submodules.core = ResetInserter(self.unit.clear)(core)
        core.submodules.a = a = ABuffers(rows=self.rows)
        core.submodules.b = b = BStream(lines=self.lines, lanes=self.lanes)
        core.submodules.sequencer = sequencer = BeatSequencer(lanes=self.lanes)
        core.submodules.array = array = DotArray(rows=self.rows, lanes=self.lanes)
        core.submodules.drain = drain = Drain(lanes=self.lanes)
        connect(core, flipped(self.fill), a.fill)
        connect(core, flipped(self.elements), b.read_elements)
        connect(core, flipped(self.scales), b.read_scales)
        connect(core, drain.o, flipped(self.o))

        bad, field, mx = self._decode(core, frontend.job, b, sequencer)
        self._fork(core, frontend.job, bad, mx, b, sequencer)
        core.d.comb += [
            sequencer.i.payload.bad.eq(bad), sequencer.i.payload.field.eq(field),
            sequencer.full.eq(a.full), sequencer.content.eq(a.content),
            sequencer.line_ready.eq(b.line_ready), sequencer.word_ready.eq(b.word_ready),
            sequencer.room.eq(drain.room),
            b.take_line.eq(sequencer.take_line), b.take_words.eq(sequencer.take_words),
            b.place.eq(sequencer.place_b), drain.reserve.eq(sequencer.reserve),
            a.read_line.eq(sequencer.read_line), a.line.eq(sequencer.line),
            a.read_word.eq(sequencer.read_word), a.word.eq(sequencer.word),
            a.place.eq(sequencer.place_a), a.release.eq(sequencer.release),
            array.beat.eq(sequencer.o), array.a_format.eq(sequencer.a),
            array.b_format.eq(sequencer.b), array.b_elements.eq(b.elements),
            drain.put.eq(array.put), drain.group.eq(array.group),
            frontend.done.eq(sequencer.done), frontend.fault.eq(sequencer.fault),
            frontend.active.eq(sequencer.active), frontend.starved.eq(sequencer.starved),
            frontend.blocked.eq(sequencer.blocked),
        ]
        for r in range(self.rows):
            core.d.comb += [array.a_elements[r].eq(a.elements[r]), array.a_scales[r].eq(a.scale[r])]
        for i in range(self.lanes):
            core.d.comb += [array.b_scales[i].eq(b.scales[i]), drain.lines[i].eq(array.lines[i])]
            if i:
                core.d.comb += array.b_more_elements[i - 1].eq(b.more_elements[i - 1])

        beats = frontend.extra[0]
        with m.If(self.unit.launch):
            m.d.sync += beats.eq(0)
        with m.Elif(sequencer.active):
            m.d.sync += beats.eq(beats + 1)
        return m

    def _decode(self, m, job, b, sequencer):
        """Fill in the jobs; tell whether the command is bad, where, and whether B has scales."""
        words = [job.payload.command[32 * i:32 * (i + 1)] for i in range(16)]
        a_format, b_format = words[1][:4], words[1][4:8]
        columns, blocks = words[8][:16], words[8][16:]
        stride, scale_stride = words[9][:16], words[9][16:]
        grants = job.payload.grants
        mx = is_mx(b_format)
        wide = is_wide(a_format) | is_wide(b_format)
        half = Signal()
        count = Signal(16)
        m.d.comb += [half.eq(wide & mx), count.eq(row_scales(blocks, half))]
        together = ~wide & (block_log2(a_format, 0) == 1) & (block_log2(b_format, 0) == 1)
        lines, scales, beats = b.i.payload, b.i_scales.payload, sequencer.i.payload
        m.d.comb += [
            lines.grant.eq(grants[0]), lines.stride_lines.eq(stride), lines.rows.eq(columns),
            lines.count.eq(row_lines(blocks, block_log2(b_format, half))),
            lines.together.eq(together),
            scales.walk.grant.eq(grants[1]), scales.walk.stride_lines.eq(scale_stride[6:]),
            scales.walk.stride_bytes.eq(scale_stride[:6]), scales.walk.rows.eq(columns),
            scales.walk.together.eq(together), scales.scales.eq(count),
            beats.a.eq(a_format), beats.b.eq(b_format), beats.release.eq(words[1][8]),
            beats.columns.eq(columns), beats.blocks.eq(blocks),
        ]
        bad_format = ~(is_mx(a_format) | is_wide(a_format)) | ~(mx | is_wide(b_format))
        bad_size = (columns == 0) | (blocks == 0) | (blocks > MOST_BLOCKS)
        bad_stride = ~stride_fits(stride, grants[0], columns) | (mx & ~(
            scales_fit(scale_stride, count) & stride_fits(scale_stride[6:], grants[1], columns)))
        return (bad_format | bad_size | bad_stride,
                Mux(bad_format, 1, Mux(bad_size, 8, 9)), mx)

    def _fork(self, m, job, bad, mx, b, sequencer):
        """Each of the three takes a job when it can; the job is accepted with the last of them."""
        sinks = [(b.i, ~bad), (b.i_scales, ~bad & mx), (sequencer.i, Const(1))]
        served = []
        for i, (sink, wanted) in enumerate(sinks):
            taken = Signal(name=f"taken{i}")
            m.d.comb += sink.valid.eq(job.valid & wanted & ~taken)
            served.append(~wanted | taken | sink.ready)
            with m.If(job.valid & job.ready):
                m.d.sync += taken.eq(0)
            with m.Elif(sink.valid & sink.ready):
                m.d.sync += taken.eq(1)
        m.d.comb += job.ready.eq(Cat(served).all())
