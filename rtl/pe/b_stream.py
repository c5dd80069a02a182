"""Operand B on its way from local memory to the dot products."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.pe.a_buffer import BEAT_BITS, place_layout, select_elements, select_scale
from rtl.pe.interfaces import LINE_BITS, LocalRead
from rtl.pe.line_walk import LineWalk, line_walk_layout
from rtl.pe.scale_fetch import LINE_WORDS, ScaleFetch, scale_walk_layout

LINE_SLOTS = 4      # lines per lane that were read ahead (this project's choice)
WORD_SLOTS = 16     # words of scales per lane that were read ahead (this project's choice)


class BLane(wiring.Component):
    """One lane: lines and words of scales that were read ahead, and those of the current beat.

    ``elements`` and ``scale`` follow a take by 1 cycle, and then ``place``; they stay until the
    next take. Empty after reset.

    Parameters
    ----------
    bits : int
        Element bits of a beat. :exc:`ValueError` unless 128 or 256.

    Members
    -------
    write_line : In(1)
        ``line`` goes to slot ``line_slot``.
    write_word : In(1)
        ``word`` goes to the next slot.
    take_line, take_word : In(1)
        The line in ``taken_slot``, the oldest word becomes the current one.
    word_ready : Out(1)
        There is a word to take.
    words : Out(5)
        Words read ahead.
    place : In(place_layout())
        What the beat wants of the current line and word.
    elements : Out(bits)
        Elements of the beat.
    scale : Out(8)
        Scale of the beat.
    """

    def __init__(self, *, bits):
        if bits not in (128, 256):
            raise ValueError(f"Bits must be 128 or 256, not {bits!r}")
        self.bits = bits
        super().__init__({
            "write_line": In(1), "line_slot": In(range(LINE_SLOTS)), "line": In(LINE_BITS),
            "write_word": In(1), "word": In(64), "take_line": In(1),
            "taken_slot": In(range(LINE_SLOTS)), "take_word": In(1), "word_ready": Out(1),
            "words": Out(range(WORD_SLOTS + 1)), "place": In(place_layout()),
            "elements": Out(bits), "scale": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.lines = lines = memory.Memory(shape=LINE_BITS, depth=LINE_SLOTS, init=[])
        m.submodules.store = store = memory.Memory(shape=64, depth=WORD_SLOTS, init=[])
        line_write, line_read = lines.write_port(), lines.read_port()
        word_write, word_read = store.write_port(), store.read_port()
        m.d.comb += [
            line_write.en.eq(self.write_line), line_write.addr.eq(self.line_slot),
            line_write.data.eq(self.line),
            line_read.en.eq(self.take_line), line_read.addr.eq(self.taken_slot),
            word_write.en.eq(self.write_word), word_write.data.eq(self.word),
            word_read.en.eq(self.take_word), self.word_ready.eq(self.words != 0),
            self.elements.eq(select_elements(m, line_read.data, self.place.eighth, name="beat",
                                             bits=self.bits)),
            self.scale.eq(select_scale(word_read.data, self.place.scale)),
        ]
        m.d.sync += [
            Assert(~self.write_word | (self.words != WORD_SLOTS), "too many words of scales"),
            Assert(~self.take_word | (self.words != 0), "a word was taken that is not there")]
        m.d.sync += [word_write.addr.eq(word_write.addr + self.write_word),
                     word_read.addr.eq(word_read.addr + self.take_word),
                     self.words.eq(self.words + self.write_word - self.take_word)]
        return m


class BStream(wiring.Component):
    """Reads operand B ahead, up to 4 lines and 16 words of scales a lane, and selects beats.

    A beat that needs a new line or word takes it; its elements and scales are there 1 cycle later.
    The first line of a job can be taken 3 cycles after the job, its first scales 4. With no refusal
    by local memory, a group of ``g`` rows of ``n`` lines and ``b`` beats takes ``max(b, g * n)``
    cycles, so that one beat leaves every cycle from 9 MX4 blocks a row on, with any one-lane pair
    of formats, and with two rows of an even number of blocks of 32 bytes; the walk of lines loses
    one cycle between jobs. Empty after reset. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    lanes : int
        Rows of B in a group.
    pairs : bool
        Jobs may ask for groups of two rows, with beats of 256 bits.

    Members
    -------
    i : In(stream.Signature(line_walk_layout(lines=lines, pairs=pairs)))
        Elements to read.
    i_scales : In(stream.Signature(scale_walk_layout(lines=lines, pairs=pairs)))
        Scales to read.
    read_elements, read_scales : Out(LocalRead(lines=lines))
        Ports of local memory.
    line_ready : Out(1)
        The next line of every lane of its group can be taken.
    word_ready : Out(lanes)
        The next word of scales of each lane can be taken.
    take_line : In(1)
        Take it. Lanes past the end of the group keep something, which nobody wants.
    take_words : In(lanes)
        Take them.
    place : In(place_layout())
        What the beat wants, in the cycle after its takes.
    elements : Out(256)
        Elements of lane 0.
    more_elements : Out(128).array(lanes - 1)
        Elements of the other lanes.
    pair_elements : Out(256)
        With ``pairs``: all elements of lane 1.
    scales : Out(8).array(lanes)
        Scales.
    """

    def __init__(self, *, lines, lanes, pairs=False):
        self.lines = lines
        self.lanes = lanes
        self.pairs = pairs
        super().__init__({
            "i": In(stream.Signature(line_walk_layout(lines=lines, pairs=pairs))),
            "i_scales": In(stream.Signature(scale_walk_layout(lines=lines, pairs=pairs))),
            "read_elements": Out(LocalRead(lines=lines)),
            "read_scales": Out(LocalRead(lines=lines)),
            "line_ready": Out(1), "word_ready": Out(lanes), "take_line": In(1),
            "take_words": In(lanes), "place": In(place_layout()), "elements": Out(BEAT_BITS),
            "more_elements": Out(128).array(lanes - 1), "scales": Out(8).array(lanes)}
            | ({"pair_elements": Out(BEAT_BITS)} if pairs else {}))

    def elaborate(self, platform):
        m = Module()
        options = {"lines": self.lines, "lanes": self.lanes, "pairs": self.pairs}
        m.submodules.walk = walk = LineWalk(**options)
        m.submodules.fetch = fetch = ScaleFetch(**options)
        connect(m, flipped(self.i), walk.i)
        connect(m, flipped(self.i_scales), fetch.i)
        connect(m, flipped(self.read_scales), fetch.read)
        whole = 2 if self.pairs else 1      # lanes with beats of 256 bits
        lanes = [BLane(bits=BEAT_BITS if i < whole else 128) for i in range(self.lanes)]

        # Lines: a slot holds one line of every lane; it is reserved with the first of them.
        asked, address = Signal(), self.read_elements.address
        free = Signal(range(LINE_SLOTS + 1), init=LINE_SLOTS)
        filled = Signal(range(LINE_SLOTS + 1))
        slot, taken = Signal(range(LINE_SLOTS)), Signal(range(LINE_SLOTS))
        line = walk.o.payload
        begins = asked & (line.lane == 0)
        coming = Signal(data.StructLayout({"valid": 1, "last": 1, "lane": range(self.lanes)}))
        complete = coming.valid & coming.last
        m.d.comb += [
            address.valid.eq(walk.o.valid & ((line.lane != 0) | (free != 0))),
            address.payload.eq(line.address),
            asked.eq(address.valid & address.ready),
            walk.o.ready.eq(asked),
            self.line_ready.eq(filled != 0),
        ]
        m.d.sync += [
            Assert(~self.take_line | (filled != 0), "a line was taken that is not there"),
            coming.valid.eq(asked), coming.last.eq(line.last), coming.lane.eq(line.lane),
            free.eq(free - begins + self.take_line),
            filled.eq(filled + complete - self.take_line),
            slot.eq(slot + complete), taken.eq(taken + self.take_line),
        ]
        # Scales: words that were asked for are reserved in their lane.
        reserved = Array(Signal(range(WORD_SLOTS + 1), name=f"reserved{i}")
                         for i in range(self.lanes))
        m.d.comb += fetch.room.eq(reserved[fetch.lane] <= WORD_SLOTS - LINE_WORDS)
        for i, lane in enumerate(lanes):
            m.submodules[f"lane{i}"] = lane
            asks = fetch.asked & (fetch.lane == i)
            m.d.sync += reserved[i].eq(reserved[i] + Mux(asks, fetch.words, 0)
                                       - self.take_words[i])
            m.d.comb += [
                lane.write_line.eq(coming.valid & (coming.lane == i)),
                lane.line_slot.eq(slot), lane.line.eq(self.read_elements.data),
                lane.write_word.eq(fetch.valid & (fetch.word.lane == i)),
                lane.word.eq(fetch.word.data),
                lane.take_line.eq(self.take_line), lane.taken_slot.eq(taken),
                lane.take_word.eq(self.take_words[i]), self.word_ready[i].eq(lane.word_ready),
                lane.place.eq(self.place), self.scales[i].eq(lane.scale),
                (self.more_elements[i - 1] if i else self.elements).eq(lane.elements),
            ]
        if self.pairs:
            m.d.comb += self.pair_elements.eq(lanes[1].elements)
        return m
