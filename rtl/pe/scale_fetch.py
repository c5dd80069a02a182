"""Scales of an operand tensor, read from local memory as words of eight."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.select import part_of
from rtl.pe.interfaces import LocalRead
from rtl.pe.line_walk import LineWalk, line_walk_layout

WORD = 8            # scales of a word
LINE_WORDS = 8      # words of a line
ROW_SCALES = 128    # most scales of a row


def scale_walk_layout(*, lines, pairs=False):
    """A job for :class:`ScaleFetch`: ``scales`` of each row; ``walk.count`` is filled in."""
    return data.StructLayout({"walk": line_walk_layout(lines=lines, pairs=pairs),
                              "scales": range(ROW_SCALES + 1)})


def scale_word_layout(*, lanes):
    """Eight scales: word ``index`` of row ``row`` (modulo 16) of the tensor, for ``lane``."""
    return data.StructLayout({"row": 4, "lane": range(lanes), "index": range(ROW_SCALES // WORD),
                              "data": 8 * WORD})


class ScaleFetch(wiring.Component):
    """Reads rows of scales and hands them out from each row's first scale on, eight at a time.

    A line that holds ``n`` scales of a row takes ``ceil(n / 8)`` cycles. Its first word comes two
    cycles after its address was accepted. Rows are read in the order of :class:`LineWalk`. Idle
    after reset. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    lanes : int
        Rows of a group.
    pairs : bool
        Jobs may ask for groups of two.

    Members
    -------
    i : In(stream.Signature(scale_walk_layout(lines=lines, pairs=pairs)))
        Jobs. Rows that start inside a line end in it; those that start inside a word end in it.
    read : Out(LocalRead(lines=lines))
        Port of local memory.
    lane : Out(range(lanes))
        Lane of the line that is to be read next.
    words : Out(4)
        How many words that line holds for its row.
    room : In(1)
        That line may be read: there is room for its words. Once high, stays high until it is read.
    asked : Out(1)
        The line's address is accepted in this cycle.
    valid : Out(1)
        ``word`` holds a word. It must be taken.
    word : Out(scale_word_layout(lanes=lanes))
        The words.
    busy : Out(1)
        A job is under way or a word is still to come.
    """

    def __init__(self, *, lines, lanes, pairs=False):
        self.lines = lines
        self.lanes = lanes
        self.pairs = pairs
        super().__init__({
            "i": In(stream.Signature(scale_walk_layout(lines=lines, pairs=pairs))),
            "read": Out(LocalRead(lines=lines)), "lane": Out(range(lanes)),
            "words": Out(range(LINE_WORDS + 1)), "room": In(1), "asked": Out(1),
            "valid": Out(1), "word": Out(scale_word_layout(lanes=lanes)), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.walk = walk = LineWalk(lines=self.lines, lanes=self.lanes, pairs=self.pairs)
        job, asking = self.i.payload, walk.o.payload
        tail = Signal(range(LINE_WORDS + 1))    # words of the last line of a row
        pause = Signal(range(LINE_WORDS))       # cycles until the next line may be asked for
        for name, _ in line_walk_layout(lines=self.lines, pairs=self.pairs):
            if name != "count":
                m.d.comb += getattr(walk.i.payload, name).eq(getattr(job.walk, name))
        m.d.comb += [
            walk.i.payload.count.eq((job.scales + 63) >> 6),
            walk.i.valid.eq(self.i.valid),
            self.i.ready.eq(walk.i.ready),
            self.lane.eq(asking.lane),
            self.words.eq(Mux(asking.end, tail, LINE_WORDS)),
            self.read.address.valid.eq(walk.o.valid & self.room & (pause == 0)),
            self.read.address.payload.eq(asking.address),
            self.asked.eq(self.read.address.valid & self.read.address.ready),
            walk.o.ready.eq(self.asked),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += tail.eq(((job.scales - 1)[3:6]) + 1)
        with m.If(self.asked):
            m.d.sync += pause.eq(self.words - 1)
        with m.Elif(pause != 0):
            m.d.sync += pause.eq(pause - 1)

        # The line arrives in the cycle after its address, in the register one cycle later.
        coming, held = Signal(), Signal()
        line = Signal(data.ArrayLayout(8 * WORD, LINE_WORDS))
        left, skip = Signal(range(LINE_WORDS + 1)), Signal(range(LINE_WORDS))
        start = Signal(6)
        parts = {name: (Signal.like(getattr(self.word, name), name=f"coming_{name}"),
                        Signal.like(getattr(self.word, name), name=f"held_{name}"))
                 for name in ("row", "lane")}
        index = [Signal(1, name="coming_index"), Signal(1, name="held_index")]
        coming_start, coming_words = Signal(6), Signal(range(LINE_WORDS + 1))
        m.d.sync += coming.eq(self.asked)
        with m.If(self.asked):
            m.d.sync += [coming_start.eq(asking.byte), coming_words.eq(self.words),
                         index[0].eq(asking.index)]
            m.d.sync += [first.eq(getattr(asking, name)) for name, (first, _) in parts.items()]
        with m.If(coming):
            m.d.sync += [held.eq(1), line.eq(self.read.data), left.eq(coming_words), skip.eq(0),
                         start.eq(coming_start), index[1].eq(index[0])]
            m.d.sync += [second.eq(first) for first, second in parts.values()]
        with m.Elif(held):
            m.d.sync += [skip.eq(skip + 1), left.eq(left - 1), held.eq(left != 1)]
        m.d.comb += [
            self.valid.eq(held),
            self.word.data.eq(part_of(line, (start[3:] + skip)[:3]) >> (start[:3] << 3)),
            self.word.index.eq(Cat(skip, index[1])),
            self.busy.eq(walk.o.valid | coming | held),
        ]
        m.d.sync += Assert(~coming | ~held | (left == 1), "a line of scales came too early")
        m.d.comb += [getattr(self.word, name).eq(second) for name, (_, second) in parts.items()]
        return m

