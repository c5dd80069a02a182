"""The two operand-A buffers of a dot-product engine, and the two P buffers beside them."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention.interfaces import WORDS, PFill, p_content_layout
from rtl.common.place import Place
from rtl.mx.formats import Format
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.operand_tensor import BUFFER_LINES, BUFFER_SCALES

BEAT_BITS = 256     # most element bits of a beat and row: 32 MX8 or 16 BF16 elements
SCALE_WORDS = BUFFER_SCALES // 8
LINE_WORDS = LINE_BITS // 64
P_LINES = WORDS // LINE_WORDS       # lines of a row in a P buffer
SCALE_ONE = 127


def content_layout():
    """What an A buffer holds, as its LOAD_A said. ``whole``: its scales are enough for whole
    blocks, not only for as many half blocks.
    """
    return data.StructLayout({"format": Format, "rows": 5, "blocks": 16, "whole": 1})


def place_layout():
    """Part of a row that a beat wants: ``eighth`` of the line, byte ``scale`` of the word."""
    return data.StructLayout({"eighth": 3, "scale": 3})


class AFill(wiring.Signature):
    """From the A loader to the buffer that is filled: lines of elements, words of scales.

    ``free`` says that a buffer may be filled; ``full`` hands it over with its ``content``. ``row``
    and ``line`` place ``elements`` when ``element_valid`` is high; ``scale_row`` and ``word`` place
    ``scales`` when ``scale_valid`` is.
    """

    def __init__(self):
        super().__init__({
            "free": In(1), "full": Out(1), "content": Out(content_layout()),
            "element_valid": Out(1), "row": Out(4), "line": Out(range(BUFFER_LINES)),
            "elements": Out(LINE_BITS),
            "scale_valid": Out(1), "scale_row": Out(4), "word": Out(range(SCALE_WORDS)),
            "scales": Out(64)})

    def __eq__(self, other):
        return isinstance(other, AFill)


def select_elements(m, line, eighth, *, name, bits=BEAT_BITS):
    """Beat of ``bits`` bits from ``eighth`` of a line on; longer beats start at their multiple."""
    quarters = Array(line[128 * i:128 * (i + 1)] for i in range(4))
    quarter = Signal(128, name=f"{name}_quarter")
    m.d.comb += quarter.eq(quarters[eighth[1:]])
    low = Mux(eighth[0], quarter[64:], quarter[:64])
    if bits == 128:
        return Cat(low, quarter[64:])
    return Cat(low, quarter[64:], Mux(eighth[2], line[384:], line[128:256]))


def select_scale(word, index):
    return (word >> (index << 3))[:8]


def take_turns(m, fill, release, layout, *, kind, prefix=""):
    """Two buffers filled through ``fill`` and emptied by ``release`` in turn.

    Gives which is filled, which is read, whether that one is full, and what it holds.
    """
    count = Signal(range(3), name=f"{prefix}count")
    filling, reading = Signal(name=f"{prefix}filling"), Signal(name=f"{prefix}reading")
    contents = Array(Signal(layout, name=f"{prefix}content{i}") for i in range(2))
    m.d.comb += fill.free.eq(count != 2)
    m.d.sync += [count.eq(count + fill.full - release),
                 filling.eq(filling ^ fill.full), reading.eq(reading ^ release)]
    with m.If(fill.full):
        m.d.sync += contents[filling].eq(fill.content)
    m.d.sync += [Assert(~fill.full | (count != 2), f"{kind} buffer was filled twice"),
                 Assert(~release | (count != 0), f"{kind} buffer was released twice")]
    return filling, reading, count != 0, contents[reading]


class ARow(wiring.Component):
    """One row of both A buffers, 64 lines of elements and 32 words of scales, and of the P buffers.

    ``elements`` and ``scale`` follow a read of line and word after 1 cycle, and then ``place`` of
    the beat; they stay until the next read. Throughput is 1 line and word a cycle, both ways.

    Parameters
    ----------
    attention : bool
        There are P buffers: 8 lines more. Their words are written one by one.

    Members
    -------
    write_line, write_word : In(1)
        Write in this cycle, at ``line_address`` with ``elements_in``, or at ``word_address`` with
        ``scales_in``.
    write_p : In(8)
        With ``attention``: write ``p_in`` to these words of the line at ``line_address``, if not
        ``write_line``.
    read_line, read_word : In(1)
        Read in this cycle at ``line``, ``word``.
    place : In(place_layout())
        What the beat after the read wants.
    elements : Out(256)
        Elements of the beat, from the lowest bit.
    scale : Out(8)
        Scale of the beat.
    """

    def __init__(self, *, attention=False):
        self.attention = attention
        self._lines = 2 * BUFFER_LINES + (2 * P_LINES if attention else 0)
        super().__init__({
            "write_line": In(1), "line_address": In(range(self._lines)),
            "elements_in": In(LINE_BITS), "write_word": In(1), "word_address": In(5),
            "scales_in": In(64), "read_line": In(1), "line": In(range(self._lines)),
            "read_word": In(1), "word": In(5), "place": In(place_layout()),
            "elements": Out(BEAT_BITS), "scale": Out(8)}
            | ({"write_p": In(LINE_WORDS), "p_in": In(64)} if attention else {}))

    def elaborate(self, platform):
        m = Module()
        m.submodules.lines = lines = memory.Memory(shape=LINE_BITS, depth=self._lines, init=[])
        m.submodules.words = words = memory.Memory(shape=64, depth=2 * SCALE_WORDS, init=[])
        parts = {"granularity": 64} if self.attention else {}
        line_write, line_read = lines.write_port(**parts), lines.read_port()
        word_write, word_read = words.write_port(), words.read_port()
        enable, line_in = self.write_line, self.elements_in
        if self.attention:
            enable = self.write_line.replicate(LINE_WORDS) | self.write_p
            line_in = Mux(self.write_line, self.elements_in, self.p_in.replicate(LINE_WORDS))
        m.d.comb += [
            line_write.en.eq(enable), line_write.addr.eq(self.line_address),
            line_write.data.eq(line_in),
            word_write.en.eq(self.write_word), word_write.addr.eq(self.word_address),
            word_write.data.eq(self.scales_in),
            line_read.en.eq(self.read_line), line_read.addr.eq(self.line),
            word_read.en.eq(self.read_word), word_read.addr.eq(self.word),
            self.elements.eq(select_elements(m, line_read.data, self.place.eighth, name="beat")),
            self.scale.eq(select_scale(word_read.data, self.place.scale)),
        ]
        return m


class ABuffers(wiring.Component):
    """Two A buffers, filled and emptied in turn, and with ``attention`` two P buffers likewise.

    A buffer that was filled can be read from the next cycle on, one that was released be filled.
    Elements and scale of a beat follow its read after 1 cycle. All are empty after reset. P shares
    the memory of A: a word of P waits while a line of A is written. Source: this project's choice.

    Parameters
    ----------
    rows : int
        Rows of operand A. :exc:`ValueError` unless in 1 to 16.
    attention : bool
        There are P buffers: 4 lines a row, without scales.

    Members
    -------
    fill : In(AFill())
        From the A loader. Rows past ``rows`` are dropped.
    full : Out(1)
        The buffer to be read is full.
    content : Out(content_layout())
        What it holds.
    read_line, read_word : In(1)
        Read ``line``, ``word`` of all rows of it.
    place : In(place_layout())
        Which part of the line and word read last, 1 cycle later.
    elements : Out(256).array(rows)
        Elements of the beat, from the lowest bit.
    scale : Out(8).array(rows)
        Scale of the beat.
    release : In(1)
        That buffer is no longer wanted.
    p : In(PFill(rows=rows))
        With ``attention``: from the softmax unit. No word is taken while no buffer is free, nor
        in the cycle of ``full``.
    p_full, p_content, p_release
        With ``attention``: ``full``, ``content`` and ``release`` of the P buffers.
    weigh : In(1)
        With ``attention``: what is read in this cycle is P; its scale is one.
    """

    def __init__(self, *, rows, attention=False):
        if not isinstance(rows, int) or not 1 <= rows <= 16:
            raise ValueError(f"Rows must be in 1 to 16, not {rows!r}")
        self.rows = rows
        self.attention = attention
        super().__init__({
            "fill": In(AFill()), "full": Out(1), "content": Out(content_layout()),
            "read_line": In(1), "line": In(range(BUFFER_LINES)), "read_word": In(1),
            "word": In(range(SCALE_WORDS)), "place": In(place_layout()),
            "elements": Out(BEAT_BITS).array(self.rows), "scale": Out(8).array(self.rows),
            "release": In(1)} | ({
                "p": In(PFill(rows=rows)), "p_full": Out(1), "p_content": Out(p_content_layout()),
                "p_release": In(1), "weigh": In(1)} if attention else {}))

    def elaborate(self, platform):
        m = Module()
        filling, reading, full, content = take_turns(m, self.fill, self.release, content_layout(),
                                                     kind="an A")
        m.d.comb += [self.full.eq(full), self.content.eq(content)]
        rows = [Place(ARow(attention=self.attention)) for _ in range(self.rows)]
        line_in, line_out = Cat(self.fill.line, filling), Cat(self.line, reading)
        if self.attention:
            line_in, line_out, scaled = self._share(m, rows, line_in, line_out)
        for i, row in enumerate(rows):
            m.submodules[f"row{i}"] = row
            m.d.comb += [
                row.write_line.eq(self.fill.element_valid & (self.fill.row == i)),
                row.line_address.eq(line_in),
                row.elements_in.eq(self.fill.elements),
                row.write_word.eq(self.fill.scale_valid & (self.fill.scale_row == i)),
                row.word_address.eq(Cat(self.fill.word, filling)),
                row.scales_in.eq(self.fill.scales),
                row.read_line.eq(self.read_line), row.line.eq(line_out),
                row.read_word.eq(self.read_word), row.word.eq(Cat(self.word, reading)),
                row.place.eq(self.place), self.elements[i].eq(row.elements),
                self.scale[i].eq(Mux(scaled, row.scale, SCALE_ONE) if self.attention
                                 else row.scale),
            ]
        return m

    def _share(self, m, rows, line_in, line_out):
        """The P buffers, in the lines after those of the A buffers.

        Gives the address that the rows write to, and the one they read from; and, 1 cycle later,
        whether it was one of A.
        """
        filling, reading, full, content = take_turns(
            m, self.p, self.p_release, p_content_layout(), kind="a P", prefix="p_")
        word, scaled = self.p.word.payload, Signal()
        place, moves = Signal(LINE_WORDS), Signal()
        m.d.comb += [
            self.p_full.eq(full), self.p_content.eq(content),
            self.p.word.ready.eq(~self.fill.element_valid & self.p.free & ~self.p.full),
            moves.eq(self.p.word.valid & self.p.word.ready),
            place.eq(Mux(moves, 1 << word.index[:3], 0)),
        ]
        m.d.sync += scaled.eq(~self.weigh)
        for i, row in enumerate(rows):
            m.d.comb += [row.write_p.eq(place), row.p_in.eq(word.data[i])]
        first = 2 * BUFFER_LINES        # a multiple of the lines of both P buffers
        return (Mux(self.fill.element_valid, line_in, first | Cat(word.index[3:], filling)),
                Mux(self.weigh, first | Cat(self.line[:2], reading), line_out), scaled)
