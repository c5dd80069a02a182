"""The two operand-A buffers of a dot-product engine."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.place import Place
from rtl.mx.formats import Format
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.operand_tensor import BUFFER_LINES, BUFFER_SCALES

BEAT_BITS = 256     # most element bits of a beat and row: 32 MX8 or 16 BF16 elements
SCALE_WORDS = BUFFER_SCALES // 8


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


class ARow(wiring.Component):
    """One row of both A buffers: 64 lines of elements and 32 words of scales.

    ``elements`` and ``scale`` follow a read of line and word after 1 cycle, and then ``place`` of
    the beat; they stay until the next read. Throughput is 1 line and word a cycle, both ways.

    Members
    -------
    write_line, write_word : In(1)
        Write in this cycle, at ``line_address`` with ``elements_in``, or at ``word_address`` with
        ``scales_in``.
    read_line, read_word : In(1)
        Read in this cycle at ``line``, ``word``.
    place : In(place_layout())
        What the beat after the read wants.
    elements : Out(256)
        Elements of the beat, from the lowest bit.
    scale : Out(8)
        Scale of the beat.
    """

    write_line: In(1)
    line_address: In(6)
    elements_in: In(LINE_BITS)
    write_word: In(1)
    word_address: In(5)
    scales_in: In(64)
    read_line: In(1)
    line: In(6)
    read_word: In(1)
    word: In(5)
    place: In(place_layout())
    elements: Out(BEAT_BITS)
    scale: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.lines = lines = memory.Memory(shape=LINE_BITS, depth=2 * BUFFER_LINES, init=[])
        m.submodules.words = words = memory.Memory(shape=64, depth=2 * SCALE_WORDS, init=[])
        line_write, line_read = lines.write_port(), lines.read_port()
        word_write, word_read = words.write_port(), words.read_port()
        m.d.comb += [
            line_write.en.eq(self.write_line), line_write.addr.eq(self.line_address),
            line_write.data.eq(self.elements_in),
            word_write.en.eq(self.write_word), word_write.addr.eq(self.word_address),
            word_write.data.eq(self.scales_in),
            line_read.en.eq(self.read_line), line_read.addr.eq(self.line),
            word_read.en.eq(self.read_word), word_read.addr.eq(self.word),
            self.elements.eq(select_elements(m, line_read.data, self.place.eighth, name="beat")),
            self.scale.eq(select_scale(word_read.data, self.place.scale)),
        ]
        return m


class ABuffers(wiring.Component):
    """Two A buffers, filled and emptied in turn.

    A buffer that was filled can be read from the next cycle on, one that was released be filled.
    Elements and scale of a beat follow its read after 1 cycle. Both are empty after reset.
    Source: this project's choice.

    Parameters
    ----------
    rows : int
        Rows of operand A. :exc:`ValueError` unless in 1 to 16.

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
    """

    def __init__(self, *, rows):
        if not isinstance(rows, int) or not 1 <= rows <= 16:
            raise ValueError(f"Rows must be in 1 to 16, not {rows!r}")
        self.rows = rows
        super().__init__({
            "fill": In(AFill()), "full": Out(1), "content": Out(content_layout()),
            "read_line": In(1), "line": In(range(BUFFER_LINES)), "read_word": In(1),
            "word": In(range(SCALE_WORDS)), "place": In(place_layout()),
            "elements": Out(BEAT_BITS).array(self.rows), "scale": Out(8).array(self.rows),
            "release": In(1)})

    def elaborate(self, platform):
        m = Module()
        count, filling, reading = Signal(range(3)), Signal(), Signal()
        contents = Array(Signal(content_layout(), name=f"content{i}") for i in range(2))
        m.d.comb += [self.fill.free.eq(count != 2), self.full.eq(count != 0),
                     self.content.eq(contents[reading])]
        m.d.sync += [count.eq(count + self.fill.full - self.release),
                     filling.eq(filling ^ self.fill.full), reading.eq(reading ^ self.release)]
        with m.If(self.fill.full):
            m.d.sync += contents[filling].eq(self.fill.content)
        m.d.sync += [Assert(~self.fill.full | (count != 2), "an A buffer was filled twice"),
                     Assert(~self.release | (count != 0), "an A buffer was released twice")]
        for i in range(self.rows):
            m.submodules[f"row{i}"] = row = Place(ARow())
            m.d.comb += [
                row.write_line.eq(self.fill.element_valid & (self.fill.row == i)),
                row.line_address.eq(Cat(self.fill.line, filling)),
                row.elements_in.eq(self.fill.elements),
                row.write_word.eq(self.fill.scale_valid & (self.fill.scale_row == i)),
                row.word_address.eq(Cat(self.fill.word, filling)),
                row.scales_in.eq(self.fill.scales),
                row.read_line.eq(self.read_line), row.line.eq(Cat(self.line, reading)),
                row.read_word.eq(self.read_word), row.word.eq(Cat(self.word, reading)),
                row.place.eq(self.place), self.elements[i].eq(row.elements),
                self.scale[i].eq(row.scale),
            ]
        return m
