"""Dot-product engine: operand B streams past all rows of operand A."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.attention.interfaces import PFill
from rtl.common.isa import OPCODE, Opcode, word
from rtl.mx.formats import Format
from rtl.pe.a_buffer import ABuffers, AFill
from rtl.pe.b_stream import BStream
from rtl.pe.beat_sequencer import MOST_BLOCKS, BeatSequencer
from rtl.pe.dot_array import HALF, DotArray
from rtl.pe.drain import Drain
from rtl.pe.frontend import OperandField, UnitFrontend, events_since
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

    With ``attention`` also of ``SCORE``, whose lines leave by a stream of their own, and of
    ``WEIGH``, whose operand A is the oldest full P buffer; both may take the rows of B in pairs: a
    line then holds row n for rows 0 to 7 of A, and row n + 1 for rows 8 to 15 (or, after the last
    of an odd number, anything).

    A command takes ``blocks * ceil(columns / n)`` cycles, where ``n`` is 2 for a pair, ``lanes``
    for other MX4 x MX4 and else 1, and at most 4 cycles more if the one before it kept the engine
    busy; ``max(blocks, n * lines of a row)`` instead of ``blocks`` with fewer than 9 MX4 blocks a
    row, and for a pair. A line leaves 9 cycles after the beat that ended its sum. This holds if
    local memory never refuses and the drain is taken.
    The command is refused with ``BAD_FIELD`` for word 1 (a format; the A or P buffer holds another;
    a pair of ``DOT``, or with other than 16 rows), 8 (no rows of B; no blocks, too
    many, or not as many as the A or P buffer) or 9 (a stride). Counters: busy, a beat is issued;
    starved, it waits for operands; blocked, for the drain; word 4, beats.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    rows : int
        Rows of operand A, 1 to 16.
    lanes : int
        Rows of operand B that MX4 takes at once; 0: there is no MX4, and commands with it are
        refused as of a bad format.
    attention : bool
        ``SCORE`` and ``WEIGH`` are there. :exc:`ValueError` with less than two lanes.

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
    p : In(PFill(rows=rows))
        With ``attention``: from the softmax unit. No word is taken while a line of A is written, no
        P buffer is free, or one is handed over.
    o_scores : Out(stream.Signature(512))
        With ``attention``: finished columns of ``SCORE``, to the softmax unit.
    """

    def __init__(self, *, lines, rows=16, lanes=3, attention=False):
        if attention and lanes < 2:
            raise ValueError(f"Lanes must be at least 2 for attention, not {lanes!r}")
        self.lines = lines
        self.rows = rows
        self.lanes = max(lanes, 1)
        self.mx4 = lanes > 0
        self.attention = attention
        self.pairs = attention and rows == 2 * HALF
        super().__init__({
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)), "fill": In(AFill()),
            "elements": Out(LocalRead(lines=lines)), "scales": Out(LocalRead(lines=lines)),
            "o": Out(stream.Signature(LINE_BITS))} | ({
                "p": In(PFill(rows=rows)), "o_scores": Out(stream.Signature(LINE_BITS))}
                if attention else {}))

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(
            lines=self.lines, operands=[OperandField(2), OperandField(4)])
        connect(m, flipped(self.unit), frontend.unit)
        connect(m, flipped(self.buffers), frontend.buffers)
        core = Module()
        m.submodules.core = ResetInserter(self.unit.clear)(core)
        core.submodules.a = a = ABuffers(rows=self.rows, attention=self.attention)
        core.submodules.b = b = BStream(lines=self.lines, lanes=self.lanes, pairs=self.pairs)
        options = {"lanes": self.lanes, "attention": self.attention}
        core.submodules.sequencer = sequencer = BeatSequencer(**options)
        core.submodules.array = array = DotArray(rows=self.rows, mx4=self.mx4, **options)
        core.submodules.drain = drain = Drain(**options)
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
        if self.attention:
            self._attend(core, a, b, sequencer, array, drain)

        m.d.comb += frontend.extra[0].eq(events_since(m, self.unit.launch, sequencer.active))
        return m

    def _attend(self, m, a, b, sequencer, array, drain):
        """What only SCORE and WEIGH need."""
        connect(m, flipped(self.p), a.p)
        connect(m, drain.o_scores, flipped(self.o_scores))
        m.d.comb += [
            sequencer.p_full.eq(a.p_full), sequencer.p_content.eq(a.p_content),
            a.weigh.eq(sequencer.weigh), a.p_release.eq(sequencer.p_release),
            drain.scores.eq(array.scores)]
        if self.pairs:
            m.d.comb += array.b_pair_elements.eq(b.pair_elements)

    def _decode(self, m, job, b, sequencer):
        """Fill in the jobs; tell whether the command is bad, where, and whether B has scales."""
        words = [word(job.payload.command, i) for i in range(16)]
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
        bad_format = ~(is_mx(a_format) | is_wide(a_format)) | ~(mx | is_wide(b_format))
        if not self.mx4:
            bad_format |= (a_format == Format.E2M1) | (b_format == Format.E2M1)
        if self.attention:
            together, bad_pair = self._decode_pair(m, words, together, b, sequencer)
            bad_format |= bad_pair
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
        bad_size = (columns == 0) | (blocks == 0) | (blocks > MOST_BLOCKS)
        bad_stride = ~stride_fits(stride, grants[0], columns) | (mx & ~(
            scales_fit(scale_stride, count) & stride_fits(scale_stride[6:], grants[1], columns)))
        return (bad_format | bad_size | bad_stride,
                Mux(bad_format, 1, Mux(bad_size, 8, 9)), mx)

    def _decode_pair(self, m, words, together, b, sequencer):
        """Fill in what SCORE and WEIGH add to the jobs.

        Tells whether rows of B go together, and whether they do not but should be a pair.
        """
        opcode, pair = words[0][OPCODE], words[1][10]
        beats = sequencer.i.payload
        m.d.comb += [beats.weigh.eq(opcode == Opcode.WEIGH), beats.pair.eq(pair),
                     beats.scores.eq(opcode == Opcode.SCORE)]
        if not self.pairs:
            return together, pair
        m.d.comb += [b.i.payload.pair.eq(pair), b.i_scales.payload.walk.pair.eq(pair)]
        return together | pair, pair & ~(beats.weigh | beats.scores)

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
