"""Decides which block of the operands goes to the dot products, and when."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention.interfaces import p_content_layout
from rtl.mx.formats import Format
from rtl.pe.a_buffer import SCALE_WORDS, content_layout, place_layout
from rtl.pe.frontend import fault_layout
from rtl.pe.interfaces import ErrorCode
from rtl.pe.operand_tensor import BUFFER_LINES, block_log2, is_mx, is_wide, row_lines

MOST_BLOCKS = 256   # half blocks of E2M1 in 2048 bytes
ALL_ROWS = 16


class Path(enum.Enum, shape=2):
    """The kind of cell that multiplies."""

    MX4 = 0     # E2M1 with E2M1, all lanes
    MX8 = 1     # other pairs of MX formats, and pairs of rows of all of them, lane 0
    WIDE = 2    # BF16 or FP16 with anything, lane 0


def dot_job_layout(*, attention=False):
    """A DOT command for :class:`BeatSequencer`. ``bad``: to be refused for word ``field``.

    With ``attention``, ``weigh``: operand A is a P buffer; ``scores``: the lines are scores;
    ``pair``: two rows of B at once, each for half of the rows of A.
    """
    more = {"weigh": 1, "scores": 1, "pair": 1} if attention else {}
    return data.StructLayout({"a": Format, "b": Format, "release": 1, "columns": 16, "blocks": 16,
                              "bad": 1, "field": 8} | more)


def beat_layout(*, lanes, attention=False):
    """One beat: a block of each row of A for ``group`` lines of sums; ``rows`` rows of A count.

    A line has a row of B, or with ``pair`` two.
    """
    more = {"scores": 1, "pair": 1} if attention else {}
    return data.StructLayout({"valid": 1, "first": 1, "last": 1, "path": Path, "rows": 5,
                              "group": range(lanes + 1)} | more)


class BeatSequencer(wiring.Component):
    """Issues the beats of DOT commands: group by group of rows of B, block by block.

    One beat a cycle, from the cycle after the job on; no cycle is lost between groups or jobs. A
    beat waits for the A or P buffer, for the line and the words of B that it begins, and, if it
    ends a sum, for a place in the drain. Idle after reset. Source: this project's choice.

    Parameters
    ----------
    lanes : int
        Rows of B in a group of MX4. :exc:`ValueError` unless in 1 to 16.
    attention : bool
        Jobs may take operand A from a P buffer, give scores, or take rows of B in pairs.

    Members
    -------
    i : In(stream.Signature(dot_job_layout(attention=attention)))
        Jobs.
    full, content : In
        Of the A buffers.
    p_full, p_content : In
        With ``attention``: of the P buffers.
    line_ready, word_ready, room : In
        Of the stream of B and of the drain.
    take_line, take_words : Out
        To the stream of B.
    reserve : Out(1)
        The beat ends a sum.
    read_line, line, read_word, word, release : Out
        To the A buffers.
    weigh, p_release : Out(1)
        With ``attention``: the read is of a P buffer; release it.
    place_a, place_b : Out(place_layout())
        Parts of the lines and words for the beat ``o``.
    o : Out(beat_layout(lanes=lanes, attention=attention))
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

    def __init__(self, *, lanes, attention=False):
        if not isinstance(lanes, int) or not 1 <= lanes <= 16:
            raise ValueError(f"Lanes must be in 1 to 16, not {lanes!r}")
        self.lanes = lanes
        self.attention = attention
        super().__init__({
            "i": In(stream.Signature(dot_job_layout(attention=attention))),
            "full": In(1), "content": In(content_layout()), "line_ready": In(1),
            "word_ready": In(lanes), "room": In(1), "take_line": Out(1), "take_words": Out(lanes),
            "reserve": Out(1), "read_line": Out(1), "line": Out(range(BUFFER_LINES)),
            "read_word": Out(1), "word": Out(range(SCALE_WORDS)), "release": Out(1),
            "place_a": Out(place_layout()), "place_b": Out(place_layout()),
            "o": Out(beat_layout(lanes=lanes, attention=attention)),
            "a": Out(Format), "b": Out(Format), "done": Out(1), "fault": Out(fault_layout()),
            "active": Out(1), "starved": Out(1), "blocked": Out(1)} | ({
                "p_full": In(1), "p_content": In(p_content_layout()), "weigh": Out(1),
                "p_release": Out(1)} if attention else {}))

    def elaborate(self, platform):
        m = Module()
        incoming = self.i.payload
        job, open_ = Signal(dot_job_layout(attention=self.attention)), Signal()
        path = Signal(Path)
        half_a, half_b, scaled_b = Signal(), Signal(), Signal()
        log2_a, log2_b = Signal(2), Signal(2)
        left, final = Signal(16), Signal(range(MOST_BLOCKS))
        k = Signal(range(MOST_BLOCKS))
        wide = is_wide(incoming.a) | is_wide(incoming.b)
        mx4 = (incoming.a == Format.E2M1) & (incoming.b == Format.E2M1)
        if self.attention:
            mx4 &= ~incoming.pair       # the cells of a pair are those of MX8

        group = Signal(range(self.lanes + 1))
        together, most = path == Path.MX4, self.lanes
        if self.attention:
            together, most = together | job.pair, Mux(job.pair, 2, self.lanes)
        m.d.comb += group.eq(Mux(together, Mux(left < most, left, most), 1))
        used = Signal(self.lanes)
        m.d.comb += used.eq((1 << group) - 1)

        # What the A or P buffer holds must be what the command says.
        content, rows = self.content, self.content.rows
        full, release_a = self.full, job.release
        bad_format = content.format != job.a
        bad_blocks = (content.blocks != job.blocks) | ((path != Path.WIDE) & (
            ~content.whole | (row_lines(content.blocks, log2_a) > BUFFER_LINES)))
        if self.attention:
            bad_p_format, bad_p_blocks = self._check_p(job, path)
            bad_format = Mux(job.weigh, bad_p_format, bad_format)
            bad_blocks = Mux(job.weigh, bad_p_blocks, bad_blocks)
            full, rows = Mux(job.weigh, self.p_full, self.full), Mux(job.weigh, ALL_ROWS, rows)
            release_a = job.release & ~job.weigh
        refused = job.bad | (full & (bad_format | bad_blocks))
        m.d.comb += [
            self.fault.valid.eq(open_ & refused),
            self.fault.code.eq(ErrorCode.BAD_FIELD),
            self.fault.field.eq(Mux(job.bad, job.field, Mux(bad_format, 1, 8))),
        ]

        at_a, at_b, scale_a, scale_b = Signal(10), Signal(10), Signal(8), Signal(8)
        m.d.comb += [at_a.eq(k << log2_a), at_b.eq(k << log2_b), scale_a.eq(k >> half_a),
                     scale_b.eq(k >> half_b)]
        last, reads_word = k == final, scale_a[:3] == 0
        if self.attention:
            reads_word &= ~job.weigh        # P has no scales
        begins_line = at_b[:3] == 0
        begins_word = scaled_b & (scale_b[:3] == 0) & ~(half_b & k[0])
        fed = ((self.line_ready | ~begins_line) & full
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
            self.read_word.eq(issue & reads_word), self.word.eq(scale_a[3:]),
            self.release.eq(ends & release_a), self.done.eq(ends),
            self.active.eq(issue), self.blocked.eq(open_ & fed & ~issue),
            self.starved.eq(open_ & ~fed),
        ]
        m.d.sync += self.o.valid.eq(issue)
        with m.If(issue):
            m.d.sync += [
                self.o.first.eq(k == 0), self.o.last.eq(last), self.o.path.eq(path),
                self.o.rows.eq(rows), self.o.group.eq(group),
                self.a.eq(job.a), self.b.eq(job.b),
                self.place_a.eighth.eq(at_a), self.place_a.scale.eq(scale_a),
                self.place_b.eighth.eq(at_b), self.place_b.scale.eq(scale_b),
                k.eq(k + 1)]
            with m.If(last):
                m.d.sync += [k.eq(0), left.eq(left - group)]
        if self.attention:
            m.d.comb += [self.weigh.eq(job.weigh), self.p_release.eq(ends & job.weigh)]
            with m.If(issue):
                m.d.sync += [self.o.pair.eq(job.pair), self.o.scores.eq(job.scores),
                             self.o.group.eq(Mux(job.pair, 1, group))]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                open_.eq(1), job.eq(incoming), left.eq(incoming.columns),
                final.eq(incoming.blocks - 1), k.eq(0),
                half_a.eq(wide & is_mx(incoming.a)), half_b.eq(wide & is_mx(incoming.b)),
                scaled_b.eq(is_mx(incoming.b)),
                log2_a.eq(block_log2(incoming.a, wide & is_mx(incoming.a))),
                log2_b.eq(block_log2(incoming.b, wide & is_mx(incoming.b))),
                path.eq(Mux(wide, Path.WIDE, Mux(mx4, Path.MX4, Path.MX8)))]
        with m.Elif(ends):
            m.d.sync += open_.eq(0)
        return m

    def _check_p(self, job, path):
        """Whether the P buffer has another format than the job says, and another length."""
        content = self.p_content
        pairs = content.groups << 1     # half blocks; the last may be without any key
        return content.format != job.a, Mux(
            path == Path.WIDE, (job.blocks != pairs) & (job.blocks + 1 != pairs),
            job.blocks != content.groups)
