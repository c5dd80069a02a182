"""Decides which block of the operands goes to the dot products, and when."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.mx.formats import Format
from rtl.pe.a_buffer import SCALE_WORDS, content_layout, place_layout
from rtl.pe.frontend import fault_layout
from rtl.pe.interfaces import ErrorCode
from rtl.pe.operand_tensor import BUFFER_LINES, block_log2, is_mx, is_wide, row_lines

MOST_BLOCKS = 256   # half blocks of E2M1 in 2048 bytes


class Path(enum.Enum, shape=2):
    """The kind of cell that multiplies."""

    MX4 = 0     # E2M1 with E2M1, all lanes
    MX8 = 1     # other pairs of MX formats, lane 0
    WIDE = 2    # BF16 or FP16 with anything, lane 0


def dot_job_layout():
    """A DOT command for :class:`BeatSequencer`. ``bad``: to be refused for word ``field``."""
    return data.StructLayout({"a": Format, "b": Format, "release": 1, "columns": 16, "blocks": 16,
                              "bad": 1, "field": 8})


def beat_layout(*, lanes):
    """One beat: a block of each row of A and of ``group`` rows of B; ``rows`` rows of A count."""
    return data.StructLayout({"valid": 1, "first": 1, "last": 1, "path": Path, "rows": 5,
                              "group": range(lanes + 1)})


class BeatSequencer(wiring.Component):
    """Issues the beats of DOT commands: group by group of rows of B, block by block.

    One beat a cycle, from the cycle after the job on; no cycle is lost between groups or jobs. A
    beat waits for the A buffer, for the line and the words of B that it begins, and, if it ends a
    sum, for a place in the drain. Idle after reset. Source: this project's choice.

    Parameters
    ----------
    lanes : int
        Rows of B in a group of MX4.

    Members
    -------
    i : In(stream.Signature(dot_job_layout()))
        Jobs.
    full, content : In
        Of the A buffers.
    line_ready, word_ready, room : In
        Of the stream of B and of the drain.
    take_line, take_words : Out
        To the stream of B.
    reserve : Out(1)
        The beat ends a sum.
    read_line, line, read_word, word, release : Out
        To the A buffers.
    place_a, place_b : Out(place_layout())
        Parts of the lines and words for the beat ``o``.
    o : Out(beat_layout(lanes=lanes))
        The beat issued in the cycle before.
    a, b : Out(Format)
        Formats of its operands.
    done : Out(1)
        The last beat of the job is issued.
    fault : Out(fault_layout())
        The job is refused; ends with the reset.
    active, starved, blocked : Out(1)
        For the counters.
    """

    def __init__(self, *, lanes):
        if not isinstance(lanes, int) or not 1 <= lanes <= 16:
            raise ValueError(f"Lanes must be in 1 to 16, not {lanes!r}")
        self.lanes = lanes
        super().__init__({
            "i": In(stream.Signature(dot_job_layout())),
            "full": In(1), "content": In(content_layout()), "line_ready": In(1),
            "word_ready": In(lanes), "room": In(1), "take_line": Out(1), "take_words": Out(lanes),
            "reserve": Out(1), "read_line": Out(1), "line": Out(range(BUFFER_LINES)),
            "read_word": Out(1), "word": Out(range(SCALE_WORDS)), "release": Out(1),
            "place_a": Out(place_layout()), "place_b": Out(place_layout()),
            "o": Out(beat_layout(lanes=lanes)), "a": Out(Format), "b": Out(Format),
            "done": Out(1), "fault": Out(fault_layout()), "active": Out(1), "starved": Out(1),
            "blocked": Out(1)})

    def elaborate(self, platform):
        m = Module()
        incoming = self.i.payload
        job, open_ = Signal(dot_job_layout()), Signal()
        path = Signal(Path)
        half_a, half_b, scaled_b = Signal(), Signal(), Signal()
        log2_a, log2_b = Signal(2), Signal(2)
        left, final = Signal(16), Signal(range(MOST_BLOCKS))
        k = Signal(range(MOST_BLOCKS))
        wide = is_wide(incoming.a) | is_wide(incoming.b)

        group = Signal(range(self.lanes + 1))
        together = path == Path.MX4
        m.d.comb += group.eq(Mux(together, Mux(left < self.lanes, left, self.lanes), 1))
        used = Signal(self.lanes)
        m.d.comb += used.eq((1 << group) - 1)

        # What the A buffer holds must be what the command says.
        content = self.content
        bad_format = content.format != job.a
        bad_blocks = (content.blocks != job.blocks) | ((path != Path.WIDE) & (
            ~content.whole | (row_lines(content.blocks, log2_a) > BUFFER_LINES)))
        refused = job.bad | (self.full & (bad_format | bad_blocks))
        m.d.comb += [
            self.fault.valid.eq(open_ & refused),
            self.fault.code.eq(ErrorCode.BAD_FIELD),
            self.fault.field.eq(Mux(job.bad, job.field, Mux(bad_format, 1, 8))),
        ]

        at_a, at_b, scale_a, scale_b = Signal(10), Signal(10), Signal(8), Signal(8)
        m.d.comb += [at_a.eq(k << log2_a), at_b.eq(k << log2_b), scale_a.eq(k >> half_a),
                     scale_b.eq(k >> half_b)]
        last = k == final
        begins_line = at_b[:3] == 0
        begins_word = scaled_b & (scale_b[:3] == 0) & ~(half_b & k[0])
        fed = ((self.line_ready | ~begins_line) & self.full
               & (~begins_word | ((self.word_ready | ~used) == (1 << self.lanes) - 1)))
        issue, ends = Signal(), Signal()
        m.d.comb += [
            issue.eq(open_ & ~refused & fed & (self.room | ~last)),
            ends.eq(issue & last & (left == group)),
            self.i.ready.eq(~open_ | ends),
            self.take_line.eq(issue & begins_line),
            self.take_words.eq(Mux(issue & begins_word, used, 0)),
            self.reserve.eq(issue & last),
            self.read_line.eq(issue & (at_a[:3] == 0)), self.line.eq(at_a[3:]),
            self.read_word.eq(issue & (scale_a[:3] == 0)), self.word.eq(scale_a[3:]),
            self.release.eq(ends & job.release), self.done.eq(ends),
            self.active.eq(issue), self.blocked.eq(open_ & fed & ~issue),
            self.starved.eq(open_ & ~fed),
        ]
        m.d.sync += self.o.valid.eq(issue)
        with m.If(issue):
            m.d.sync += [
                self.o.first.eq(k == 0), self.o.last.eq(last), self.o.path.eq(path),
                self.o.rows.eq(content.rows), self.o.group.eq(group),
                self.a.eq(job.a), self.b.eq(job.b),
                self.place_a.eighth.eq(at_a), self.place_a.scale.eq(scale_a),
                self.place_b.eighth.eq(at_b), self.place_b.scale.eq(scale_b),
                k.eq(k + 1)]
            with m.If(last):
                m.d.sync += [k.eq(0), left.eq(left - group)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                open_.eq(1), job.eq(incoming), left.eq(incoming.columns),
                final.eq(incoming.blocks - 1), k.eq(0),
                half_a.eq(wide & is_mx(incoming.a)), half_b.eq(wide & is_mx(incoming.b)),
                scaled_b.eq(is_mx(incoming.b)),
                log2_a.eq(block_log2(incoming.a, wide & is_mx(incoming.a))),
                log2_b.eq(block_log2(incoming.b, wide & is_mx(incoming.b))),
                path.eq(Mux(wide, Path.WIDE,
                            Mux((incoming.a == Format.E2M1) & (incoming.b == Format.E2M1),
                                Path.MX4, Path.MX8)))]
        with m.Elif(ends):
            m.d.sync += open_.eq(0)
        return m
