"""Layout unit: transposes matrices in local memory."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.pe.frontend import OperandField, UnitFrontend
from rtl.pe.interfaces import LINE_BYTES, BufferPort, ErrorCode, LocalRead, LocalWrite, UnitPort

SIDE = 16               # elements in a row and in a column of a tile
WORD_BITS = 32          # the widest element


def turned(words, by):
    """A row of words moved down by ``by`` places; the lowest come back at the top."""
    return (Cat(words, words) >> Cat(Const(0, 5), by))[:SIDE * WORD_BITS]


class Tiles(wiring.Component):
    """Two tiles of 16 x 16 words, written by rows and read by columns.

    A row is there in the cycle after its write; a column is read in 0 cycles. One of each a cycle.
    Word ``(r, c)`` is in memory ``(r + c) mod 16``, so that a row and a column touch each of the
    16 memories once. Undefined after reset. Source: this project's choice.

    Members
    -------
    write, write_tile, row, i : In(1), In(1), In(4), In(512)
        Write ``i``, 16 words, as a row.
    read_tile, column, o : In(1), In(4), Out(512)
        A column.
    """

    write: In(1)
    write_tile: In(1)
    row: In(4)
    i: In(SIDE * WORD_BITS)
    read_tile: In(1)
    column: In(4)
    o: Out(SIDE * WORD_BITS)

    def elaborate(self, platform):
        m = Module()
        skewed, words = Signal.like(self.i), Signal(data.ArrayLayout(WORD_BITS, SIDE))
        m.d.comb += skewed.eq(turned(self.i, (-self.row)[:4]))
        for n in range(SIDE):
            m.submodules[f"bank{n}"] = bank = memory.Memory(shape=WORD_BITS, depth=2 * SIDE,
                                                            init=[])
            write, read = bank.write_port(), bank.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.write), write.addr.eq(Cat(self.row, self.write_tile)),
                write.data.eq(skewed[WORD_BITS * n:WORD_BITS * (n + 1)]),
                read.addr.eq(Cat((n - self.column)[:4], self.read_tile)), words[n].eq(read.data)]
        m.d.comb += self.o.eq(turned(words.as_value(), self.column))
        return m


class LayoutUnit(wiring.Component):
    """Transposes a matrix of elements of 1, 2 or 4 bytes: ``TRANSPOSE``.

    Works in tiles of 16 x 16 elements, down the columns of tiles of the source. A **chunk** is the
    16 elements of a tile that lie side by side: 16, 32 or 64 bytes. Two tiles are in hand, one
    being read while the other is written, so a whole tile costs 16 cycles; a ragged one as many as
    it has rows to read or to write, whichever is more. A job costs about 20 cycles on top. One
    job at a time. Bytes of the destination outside the transposed matrix are not written.
    Source: this project's choice.

    ``BAD_FIELD``: element size not 1, 2 or 4 (word 1); no row or no column (8); the stride of the
    source (if it has several rows) or of the destination (if it has several, that is if the source
    has several columns) is no multiple of a chunk, or is the whole CB or more (9).

    Parameters
    ----------
    lines : int
        Size of local memory [line].

    Members
    -------
    unit : Out(UnitPort())
        Commands.
    buffers : Out(BufferPort(lines=lines))
        Operands: 0 source (word 2, consumer), 1 destination (word 4, producer).
    source : Out(LocalRead(lines=lines))
        Reads; one that is not accepted is withdrawn by ``clear``.
    destination : Out(LocalWrite(lines=lines))
        Writes; as for reads.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({"unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
                          "source": Out(LocalRead(lines=lines)),
                          "destination": Out(LocalWrite(lines=lines))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(
            lines=self.lines, operands=[OperandField(2), OperandField(4, producer=True)])
        core = Module()     # all that `clear` resets
        m.submodules.core = DomainRenamer("work")(ResetInserter(self.unit.clear)(core))
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.unit.clear
                     | frontend.working)
        core.submodules.tiles = tiles = Tiles()
        connect(m, frontend.unit, flipped(self.unit))
        connect(m, frontend.buffers, flipped(self.buffers))

        working, refused = Signal(), Signal()
        job, field = self._take(core, frontend, working, refused)
        full = Array(Signal(name=f"full{n}") for n in range(2))
        taken = frontend.job.valid & frontend.job.ready
        self._fill(core, job, working, frontend.job.payload, taken, tiles, full)
        done = self._drain(core, job, frontend.job.payload, taken, tiles, full)
        with core.If(done):
            core.d.sync += working.eq(0)

        reads, writes = self.source.address, self.destination.o
        moved = (reads.valid & reads.ready) | (writes.valid & writes.ready)
        m.d.comb += [
            frontend.done.eq(done), frontend.fault.valid.eq(refused),
            frontend.fault.code.eq(ErrorCode.BAD_FIELD), frontend.fault.field.eq(field),
            frontend.active.eq(moved), frontend.blocked.eq(working & writes.valid),
            frontend.starved.eq(working & ~writes.valid),
        ]
        return m

    def _take(self, m, frontend, working, refused):
        """Takes a job and checks it; gives its constants and the field that is refused."""
        job = Signal(data.StructLayout({
            "element": 3, "rows": 16, "columns": 16, "source_stride": 16, "target_stride": 16,
            "source_limit": range(64 * self.lines + 1), "source_size": range(64 * self.lines + 1),
            "target_limit": range(64 * self.lines + 1),
            "target_size": range(64 * self.lines + 1)}))
        field = Signal(8)
        words = data.View(data.ArrayLayout(32, 16), frontend.job.payload.command)
        source, target = frontend.job.payload.grants[0], frontend.job.payload.grants[1]
        element = words[1][:4]
        rows, columns = words[8][:16], words[8][16:]
        loose = [(stride[:4].any() | (stride[4] & (element != 1)) | (stride[5] & (element == 4))
                  | ((stride >> 6) >= grant.limit - grant.base)) & (count != 1)
                 for stride, grant, count in ((words[9][:16], source, rows),
                                              (words[9][16:], target, columns))]
        bad = Signal()
        m.d.comb += bad.eq(1)
        m.d.comb += frontend.job.ready.eq(~working & ~refused)
        found = Signal(8)
        with m.If((element != 1) & (element != 2) & (element != 4)):
            m.d.comb += found.eq(1)
        with m.Elif((rows == 0) | (columns == 0)):
            m.d.comb += found.eq(8)
        with m.Elif(loose[0] | loose[1]):
            m.d.comb += found.eq(9)
        with m.Else():
            m.d.comb += bad.eq(0)
        with m.If(frontend.job.valid & frontend.job.ready):
            m.d.sync += [
                working.eq(~bad), refused.eq(bad), field.eq(found), job.element.eq(element),
                job.rows.eq(rows), job.columns.eq(columns), job.source_stride.eq(words[9][:16]),
                job.target_stride.eq(words[9][16:]),
                job.source_limit.eq(source.limit << 6), job.target_limit.eq(target.limit << 6),
                job.source_size.eq((source.limit - source.base) << 6),
                job.target_size.eq((target.limit - target.base) << 6)]
        return job, field

    def _pointer(self, m, name, limit, size):
        """A byte address and a function that advances it within its CB."""
        at = Signal(range(64 * self.lines), name=name)

        def advanced(start, by):
            after = start + by
            return Mux(after >= limit, after - size, after)
        return at, advanced

    def _fill(self, m, job, working, offered, taken, tiles, full):
        """Reads chunks, row by row, and writes them into a tile that is free."""
        at, advanced = self._pointer(m, "source_at", job.source_limit, job.source_size)
        top = Signal.like(at)                           # of the column of tiles being read
        rows, columns = Signal(16), Signal(16)          # still to read in it, and from it on
        tile, row = Signal(), Signal(4)
        coming = Signal(data.StructLayout({"valid": 1, "tile": 1, "row": 4, "last": 1,
                                           "place": 6}))
        address = self.source.address
        read = address.valid & address.ready
        bottom = rows == 1
        tile_ends = bottom | (row == SIDE - 1)
        m.d.comb += [address.valid.eq(working & (columns != 0) & ~full[tile]),
                     address.payload.eq(at >> 6)]
        m.d.sync += coming.valid.eq(read)
        with m.If(read):
            m.d.sync += [coming.tile.eq(tile), coming.row.eq(row), coming.last.eq(tile_ends),
                         coming.place.eq(at), row.eq(Mux(tile_ends, 0, row + 1)),
                         tile.eq(tile ^ tile_ends)]
            with m.If(bottom):
                next_top = advanced(top, job.element << 4)
                m.d.sync += [top.eq(next_top), at.eq(next_top), rows.eq(job.rows),
                             columns.eq(Mux(columns > SIDE, columns - SIDE, 0))]
            with m.Else():
                m.d.sync += [rows.eq(rows - 1), at.eq(advanced(at, job.source_stride))]
        with m.If(taken):
            start = offered.grants[0].start << 6
            m.d.sync += [at.eq(start), top.eq(start), row.eq(0),
                         rows.eq(offered.command[256:272]), columns.eq(offered.command[272:288])]

        line = self.source.data
        half, quarter = line.word_select(coming.place[5], 256), line.word_select(
            coming.place[4:], 128)
        with m.Switch(job.element):
            for element, chunk in ((1, quarter), (2, half), (4, line)):
                with m.Case(element):
                    m.d.comb += tiles.i.eq(Cat(
                        chunk[8 * element * n:][:8 * element].as_unsigned() | Const(0, WORD_BITS)
                        for n in range(SIDE)))
        m.d.comb += [tiles.write.eq(coming.valid), tiles.write_tile.eq(coming.tile),
                     tiles.row.eq(coming.row)]
        with m.If(coming.valid & coming.last):
            m.d.sync += full[coming.tile].eq(1)

    def _drain(self, m, job, offered, taken, tiles, full):
        """Writes the columns of a full tile; gives "that was the last write of the job"."""
        at, advanced = self._pointer(m, "target_at", job.target_limit, job.target_size)
        left = Signal.like(at)          # chunk of the tile being written in the first row of it
        below = Signal.like(at)         # start of the next rows of tiles of the destination
        rows, columns = Signal(16), Signal(16)      # of the source: from this tile on
        tile, column = Signal(), Signal(4)
        out = self.destination.o
        written = out.valid & out.ready
        height = Mux(rows > SIDE, SIDE, rows[:5])
        tile_ends = (column == SIDE - 1) | (column + 1 == columns)
        group_ends = tile_ends & (rows <= SIDE)
        m.d.comb += [
            tiles.read_tile.eq(tile), tiles.column.eq(column),
            out.valid.eq(full[tile]), out.payload.address.eq(at >> 6),
        ]
        words = data.View(data.ArrayLayout(WORD_BITS, SIDE), tiles.o)
        with m.Switch(job.element):
            for element in (1, 2, 4):
                with m.Case(element):
                    chunk = Cat(words[n][:8 * element] for n in range(SIDE))
                    covered = ((1 << (height * element)) - 1)[:LINE_BYTES]
                    m.d.comb += [out.payload.data.eq(chunk.replicate(4 // element)),
                                 out.payload.mask.eq(covered << at[:6])]
        following = advanced(at, job.target_stride)
        with m.If(written):
            m.d.sync += [column.eq(Mux(tile_ends, 0, column + 1)), at.eq(following)]
            with m.If(tile_ends):
                next_left = advanced(left, job.element << 4)
                m.d.sync += [full[tile].eq(0), tile.eq(~tile), left.eq(next_left),
                             at.eq(next_left), rows.eq(rows - SIDE)]
                with m.If(rows == job.rows):
                    m.d.sync += below.eq(following)
            with m.If(group_ends):
                start = Mux(rows == job.rows, following, below)
                m.d.sync += [at.eq(start), left.eq(start), rows.eq(job.rows),
                             columns.eq(columns - SIDE)]
        with m.If(taken):
            start = offered.grants[1].start << 6
            m.d.sync += [at.eq(start), left.eq(start), column.eq(0),
                         rows.eq(offered.command[256:272]), columns.eq(offered.command[272:288])]
        return written & group_ends & (columns <= SIDE)
