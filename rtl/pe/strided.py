"""Address walks of the fabric interface: rows of bytes cut at the lines of the far memory."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import (
    ADDRESS_BITS,
    LINE_BITS,
    ErrorCode,
    Group,
    Hint,
    LocalRead,
    wrapped,
)

INDEX_BITS = 32
GATHER = 0x12           # opcode, see docs/programming-model.md


def walk_layout(*, lines):
    """A job for :class:`RowWalk`. ``line``, ``byte``: where row 0 starts in local memory;
    ``line_stride``, ``byte_stride``: from row to row there; ``base``, ``limit``: of the CB.
    ``bound``: indices from there on are past the table; 0 for none. ``hint``, ``group``: of all
    requests.
    """
    return data.StructLayout({
        "address": ADDRESS_BITS, "rows": 32, "row_bytes": 32, "stride": signed(32), "indexed": 1,
        "bound": INDEX_BITS, "hint": Hint, "group": Group,
        "line": range(lines), "byte": 6, "line_stride": range(lines), "byte_stride": 6,
        "base": range(lines), "limit": range(lines + 1), "slot": 1})


def chunk_layout(*, lines):
    """The part of a row in one far line: ``count`` bytes, from byte ``start`` of line ``address``.

    In local memory it starts at byte ``byte`` of ``line`` and runs on in ``next_line``. ``stray``:
    the index of the row is past the table.
    """
    return data.StructLayout({
        "address": ADDRESS_BITS, "start": 6, "count": 7, "line": range(lines),
        "next_line": range(lines), "byte": 6, "slot": 1, "last": 1, "stray": 1, "hint": Hint,
        "group": Group})


def index_layout(*, lines):
    """A job for :class:`IndexReader`: ``count`` words from the start of ``line``."""
    return data.StructLayout({"line": range(lines), "base": range(lines),
                              "limit": range(lines + 1), "count": 32})


def wrap(line, base, limit):
    """``line`` brought back into its CB, of which it is at most one size past the end."""
    return Mux(line >= limit, line - (limit - base), line)


class IndexReader(wiring.Component):
    """Reads an array of 32-bit words from local memory and sends them one by one.

    The first word comes 3 cycles after its job. Throughput is 16 words in 17 cycles. Idle after
    reset. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].

    Members
    -------
    i : In(stream.Signature(index_layout(lines=lines)))
        Jobs; not ready before the last word of the former one is gone.
    o : Out(stream.Signature(32))
        The words.
    local : Out(LocalRead(lines=lines))
        Where they are read.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({"i": In(stream.Signature(index_layout(lines=lines))),
                          "o": Out(stream.Signature(INDEX_BITS)),
                          "local": Out(LocalRead(lines=lines))})

    def elaborate(self, platform):
        m = Module()
        job, waiting = Signal(self.i.payload.shape()), Signal()
        words, held, at = Signal(data.ArrayLayout(INDEX_BITS, 16)), Signal(), Signal(4)
        taken = self.o.valid & self.o.ready
        emptied = taken & ((at == 15) | (job.count == 1))
        m.d.comb += [
            self.i.ready.eq(job.count == 0),
            self.o.valid.eq(held), self.o.payload.eq(words[at]),
            self.local.address.payload.eq(job.line),
            self.local.address.valid.eq(
                (job.count != 0) & ~waiting & (~held | (taken & (at == 15) & (job.count != 1)))),
        ]
        with m.If(taken):
            m.d.sync += [at.eq(at + 1), job.count.eq(job.count - 1)]
        with m.If(emptied):
            m.d.sync += held.eq(0)
        with m.If(self.local.address.valid & self.local.address.ready):
            m.d.sync += [waiting.eq(1), job.line.eq(wrap(job.line + 1, job.base, job.limit))]
        with m.If(waiting & self.local.valid):
            m.d.sync += [waiting.eq(0), words.eq(self.local.data), held.eq(1)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [job.eq(self.i.payload), at.eq(0)]
        return m


class RowWalk(wiring.Component):
    """Cuts the rows of a job into chunks that lie in one line of the far memory.

    The first chunk comes 2 cycles after its job (with indices: 2 cycles after the first index);
    then one chunk a cycle, through the ends of rows and of jobs. A row of an indexed job starts at
    ``address + index x stride``. Idle after reset. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    indexed : bool
        Whether jobs can be indexed.

    Members
    -------
    i : In(stream.Signature(walk_layout(lines=lines)))
        Jobs of at least one row of at least one byte.
    o : Out(stream.Signature(chunk_layout(lines=lines)))
        Chunks, in the order of the rows.
    indices : In(stream.Signature(32))
        One word for each row of an indexed job. Only if ``indexed``.
    idle : Out(1)
        No job is under way.
    """

    def __init__(self, *, lines, indexed):
        self.lines = lines
        self.indexed = indexed
        super().__init__({"i": In(stream.Signature(walk_layout(lines=lines))),
                          "o": Out(stream.Signature(chunk_layout(lines=lines))), "idle": Out(1)}
                         | ({"indices": In(stream.Signature(INDEX_BITS))} if indexed else {}))

    def elaborate(self, platform):
        m = Module()
        # Rows that are still to come: the next one starts at `ahead`, once that is known.
        job, ahead, known = Signal(self.i.payload.shape()), Signal(ADDRESS_BITS), Signal()
        stray = Signal()
        # The row being cut.
        row = Signal(data.StructLayout({
            "address": ADDRESS_BITS, "left": 32, "line": range(self.lines), "byte": 6,
            "base": range(self.lines), "limit": range(self.lines + 1), "slot": 1, "final": 1,
            "stray": 1, "hint": Hint, "group": Group}))
        busy = Signal()

        room = 64 - row.address[:6]
        row_ends = row.left <= room
        cut = self.o.valid & self.o.ready
        load = (job.rows != 0) & known & (~busy | (cut & row_ends))
        spent = load & (job.rows == 1)
        next_line = Signal(range(self.lines))
        m.d.comb += [
            self.idle.eq(~busy & (job.rows == 0)),
            self.i.ready.eq((job.rows == 0) | spent),
            next_line.eq(wrap(row.line + 1, row.base, row.limit)),
            self.o.valid.eq(busy),
            self.o.payload.address.eq(row.address & ~63), self.o.payload.start.eq(row.address[:6]),
            self.o.payload.count.eq(Mux(row_ends, row.left, room)),
            self.o.payload.line.eq(row.line), self.o.payload.next_line.eq(next_line),
            self.o.payload.byte.eq(row.byte), self.o.payload.slot.eq(row.slot),
            self.o.payload.last.eq(row_ends & row.final), self.o.payload.stray.eq(row.stray),
            self.o.payload.hint.eq(row.hint), self.o.payload.group.eq(row.group),
        ]
        with m.If(cut):
            after = row.byte + self.o.payload.count
            m.d.sync += [busy.eq(~row_ends), row.left.eq(row.left - room),
                         row.address.eq(row.address + room), row.byte.eq(after)]
            with m.If(after[6]):
                m.d.sync += row.line.eq(next_line)
        with m.If(load):
            after = job.byte + job.byte_stride
            m.d.sync += [
                busy.eq(1), row.address.eq(ahead), row.left.eq(job.row_bytes),
                row.line.eq(job.line), row.byte.eq(job.byte), row.base.eq(job.base),
                row.limit.eq(job.limit), row.slot.eq(job.slot), row.final.eq(job.rows == 1),
                row.stray.eq(stray), row.hint.eq(job.hint), row.group.eq(job.group),
                job.rows.eq(job.rows - 1), job.byte.eq(after),
                job.line.eq(wrap(job.line + job.line_stride + after[6], job.base, job.limit)),
                known.eq(~job.indexed), ahead.eq(ahead + job.stride)]
        if self.indexed:
            wanted = job.indexed & (job.rows != 0) & (~known | (load & ~spent))
            m.d.comb += self.indices.ready.eq(wanted)
            with m.If(wanted & self.indices.valid):
                m.d.sync += [known.eq(1),
                             stray.eq((job.bound != 0) & (self.indices.payload >= job.bound)),
                             ahead.eq(job.address + self.indices.payload * job.stride)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [job.eq(self.i.payload), ahead.eq(self.i.payload.address),
                         known.eq(~self.i.payload.indexed), stray.eq(0)]
        return m


def rotated(line, by):
    """``line`` with its bytes moved down by ``by`` places; the lowest come back at the top."""
    return (Cat(line, line) >> Cat(Const(0, 3), by))[:LINE_BITS]


def fill_walk(job, walk, grant, *, index=None, hints, groups=(Group.ALONE,)):
    """Statements that make the walk ``walk`` of a DMA command, and the command's bad fields.

    ``hints`` and ``groups`` are those that the command may carry.
    The second result is a list of ``(word number, condition)``, the first that holds counts.
    """
    words = data.View(data.ArrayLayout(32, 16), job.command)
    indexed = words[0][:8] == GATHER if index is not None else 0
    size = grant.limit - grant.base
    fields = [
        walk.address.eq(job.command[128:128 + ADDRESS_BITS]), walk.rows.eq(words[6]),
        walk.row_bytes.eq(words[7]), walk.stride.eq(words[8]), walk.indexed.eq(indexed),
        walk.bound.eq(words[11]), walk.hint.eq(words[1][:2]), walk.group.eq(words[1][2:4]),
        walk.line.eq(wrapped(grant, words[10][6:6 + len(grant.start)])), walk.byte.eq(words[10]),
        walk.line_stride.eq(words[9] >> 6), walk.byte_stride.eq(words[9]),
        walk.base.eq(grant.base), walk.limit.eq(grant.limit)]
    bad = [(1, (words[1][4:] != 0) | ~Cat(walk.hint == allowed for allowed in hints).any()
            | ~Cat(walk.group == allowed for allowed in groups).any()),
           (5, words[5][16:] != 0), (6, words[6] == 0), (7, words[7] == 0),
           (9, (words[6] != 1) & ((words[9] >> 6) >= size)), (10, (words[10] >> 6) >= size)]
    if index is not None:
        bad.append((12, indexed & (index.limit == 0)))  # an absent operand
    return fields, bad


def refuse(m, refused, bad):
    """Drive ``refused`` by the first field of ``bad``."""
    for word, condition in reversed(bad):
        with m.If(condition):
            m.d.comb += [refused.valid.eq(1), refused.code.eq(ErrorCode.BAD_FIELD),
                         refused.field.eq(word)]
