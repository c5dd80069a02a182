"""Addresses of the lines of an operand tensor, in the order in which the dot products want them."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import grant_layout

ROW_LINES = 128     # most lines of a row: 256 blocks of 16 BF16 elements


def line_walk_layout(*, lines, pairs=False):
    """A job for :class:`LineWalk`: ``rows`` rows of ``count`` lines each, from ``grant.start`` on.

    Row r starts ``r * (64 * stride_lines + stride_bytes)`` bytes on; a row of several lines starts
    on a line. ``together``: rows are walked several at a time; with ``pair``, which is there with
    ``pairs``, these are two, whatever the number of lanes.
    """
    return data.StructLayout({"grant": grant_layout(lines=lines), "stride_lines": 16,
                              "stride_bytes": 6, "rows": 16, "count": range(ROW_LINES + 1),
                              "together": 1} | ({"pair": 1} if pairs else {}))


def line_layout(*, lines, lanes):
    """A line to read. ``row``: of the tensor, modulo 16; ``lane``: row within its group; ``index``:
    line of the row; ``byte``: where the row starts within its line; ``last``: the last line of this
    index in the group; ``end``: the last line of its row.
    """
    return data.StructLayout({"address": range(lines), "row": 4, "lane": range(lanes),
                              "index": range(ROW_LINES), "byte": 6, "last": 1, "end": 1})


class LineWalk(wiring.Component):
    """Walks the lines of a tensor group by group, in a group line by line over its rows.

    A group is one row, or ``lanes`` rows for a job with ``together``, or two with ``pair`` too
    (the last group may have fewer). The first address of a job comes in the cycle after the job,
    then one a cycle; one cycle is lost between jobs. Idle after reset. Source: this project's
    choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    lanes : int
        Rows of a group. :exc:`ValueError` unless in 1 to 16.
    pairs : bool
        Jobs may ask for groups of two. :exc:`ValueError` with less than two lanes.

    Members
    -------
    i : In(stream.Signature(line_walk_layout(lines=lines, pairs=pairs)))
        Jobs; not ready while one is under way. No row may be empty.
    o : Out(stream.Signature(line_layout(lines=lines, lanes=lanes)))
        Lines to read.
    """

    def __init__(self, *, lines, lanes, pairs=False):
        if not isinstance(lanes, int) or not 1 <= lanes <= 16:
            raise ValueError(f"Lanes must be in 1 to 16, not {lanes!r}")
        if pairs and lanes < 2:
            raise ValueError(f"Lanes must be at least 2 for pairs, not {lanes!r}")
        self.lines = lines
        self.lanes = lanes
        self.pairs = pairs
        super().__init__({"i": In(stream.Signature(line_walk_layout(lines=lines, pairs=pairs))),
                          "o": Out(stream.Signature(line_layout(lines=lines, lanes=lanes)))})

    def elaborate(self, platform):
        m = Module()
        job, o = self.i.payload, self.o.payload
        active, together = Signal(), Signal()
        limit, size = Signal(range(self.lines + 1)), Signal(range(self.lines + 1))
        stride_lines, stride_bytes = Signal(16), Signal(6)
        final = Signal(range(ROW_LINES))
        left = Signal(16)                               # rows that are not walked
        line, byte, row = Signal(range(self.lines)), Signal(6), Signal(4)   # the next fresh row
        lane, index = Signal(range(self.lanes)), Signal(range(ROW_LINES))
        where = Array(Signal(range(self.lines), name=f"where{i}") for i in range(self.lanes))

        def advanced(at, step):
            """A line of the CB ``step`` lines on; ``step`` is at most the size of the CB."""
            target = Signal(18)
            m.d.comb += target.eq(at + step)
            return Mux(target >= limit, target - size, target)

        fresh = index == 0
        group = Signal(range(self.lanes + 1))
        most = Signal(range(self.lanes + 1)) if self.pairs else self.lanes
        m.d.comb += group.eq(Mux(together, Mux(left < most, left, most), 1))
        moved_byte = Signal(7)
        m.d.comb += moved_byte.eq(byte + stride_bytes)
        m.d.comb += [
            self.i.ready.eq(~active),
            self.o.valid.eq(active),
            o.address.eq(Mux(fresh, line, where[lane])),
            o.byte.eq(byte),
            o.row.eq(row),
            o.lane.eq(lane),
            o.index.eq(index),
            o.last.eq(lane == group - 1),
            o.end.eq(index == final),
        ]
        with m.If(self.i.valid & ~active):
            m.d.sync += [
                active.eq(1), together.eq(job.together), limit.eq(job.grant.limit),
                size.eq(job.grant.limit - job.grant.base), stride_lines.eq(job.stride_lines),
                stride_bytes.eq(job.stride_bytes), final.eq(job.count - 1), left.eq(job.rows),
                line.eq(job.grant.start), byte.eq(0), row.eq(0), lane.eq(0), index.eq(0)]
            if self.pairs:
                m.d.sync += most.eq(Mux(job.pair, 2, self.lanes))
        with m.Elif(active & self.o.ready):
            m.d.sync += [where[lane].eq(advanced(o.address, 1)), lane.eq(lane + 1)]
            with m.If(fresh):
                m.d.sync += [line.eq(advanced(line, stride_lines + moved_byte[6])),
                             byte.eq(moved_byte)]
            with m.If(o.last):
                m.d.sync += [lane.eq(0), index.eq(index + 1)]
                with m.If(o.end):
                    m.d.sync += [index.eq(0), row.eq(row + group), left.eq(left - group),
                                 active.eq(left != group)]
        return m
