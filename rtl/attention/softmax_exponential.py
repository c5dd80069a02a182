"""Second pass of the softmax unit: stored scores become weights, and their sums."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.attention.interfaces import KEYS, LINE_BITS, PFill, factors_layout
from rtl.attention.softmax_command import (
    LANES,
    LINE_INDEX,
    SINK_LINE,
    block_layout,
    maxima_layout,
)
from rtl.attention.softmax_lane import ExponentialLane
from rtl.attention.softmax_pack import WeightPack
from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.pe.functions import LATENCY

HALF = LANES // 2
STAGES = LATENCY + 3    # of a line: 5 in the function, then weight, code, sum


class ExponentialPass(wiring.Component):
    """Makes P and the factors of one block at a time.

    A block of ``n`` lines, that of its sinks included, whose groups lack ``z`` words of zeros,
    takes ``n + z + 11`` cycles, the last of which has ``p.full``; a last block takes
    ``max(n + z + 11, n + 16 + pair)`` cycles, one that exports its state
    ``max(n + z + 11, n + 11 + pair)``. Each cycle in which a word of P waits adds one. Idle after
    reset.

    Parameters
    ----------
    rows : int
        Rows of a P buffer.

    Members
    -------
    i : In(stream.Signature(maxima_layout()))
        The next block. It starts when ``p.free`` and ``factors.ready`` are high and the block
        before has ended; it is accepted one cycle later.
    read, bank, line : Out
        Read a line of one of the two stores.
    x : In(512)
        The line read in the cycle before, which stays until the next read.
    p : Out(PFill(rows=rows))
        To the P buffers.
    factors : Out(stream.Signature(factors_layout()))
        To a queue that stays ready until it takes something; one entry a block, two of one that
        exports its state.
    busy : Out(1)
        A block is under way.
    advance : Out(1)
        No word of P waits.
    done : Out(1)
        The last cycle of a block.
    """

    def __init__(self, *, rows):
        self.rows = rows
        super().__init__({
            "i": In(stream.Signature(maxima_layout())), "read": Out(1), "bank": Out(1),
            "line": Out(LINE_INDEX), "x": In(LINE_BITS), "p": Out(PFill(rows=rows)),
            "factors": Out(stream.Signature(factors_layout())), "busy": Out(1),
            "advance": Out(1), "done": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.pack = pack = WeightPack(rows=self.rows)
        connect(m, pack.p, flipped(self.p))
        block, advance = Signal(block_layout()), pack.advance
        left = Signal(range(KEYS + 2))
        head, line, final = Signal(STAGES), Signal(STAGES), Signal(STAGES)
        sink, sunk = head[-1] & block.sink, Signal()    # the sinks' weights are there; are rounded
        coming = self.i.payload.block
        start = self.i.valid & ~self.busy & self.p.free & self.factors.ready
        handed, pushed = Signal(), Signal()
        exporting = Signal()    # the second entry of a block that exports its state
        push = self.factors.valid & self.factors.ready
        final_push = push & (exporting | ~block.state)
        m.d.comb += [
            self.advance.eq(advance), self.i.ready.eq(head[0]),
            self.read.eq((left != 0) & advance),
            self.done.eq(self.busy & (handed | self.p.full) & (pushed | final_push)),
            pack.block.eq(block), pack.valid.eq(line[-1] & ~sunk), pack.final.eq(final[-1]),
        ]
        with m.If(start):
            m.d.sync += [self.busy.eq(1), block.eq(coming), left.eq(coming.lines + coming.sink),
                         self.line.eq(Mux(coming.sink, SINK_LINE, 0)), handed.eq(0), pushed.eq(0)]
        with m.Elif(self.read):
            m.d.sync += [left.eq(left - 1),
                         self.line.eq(Mux(self.line == SINK_LINE, 0, self.line + 1))]
        with m.If(self.p.full):
            m.d.sync += handed.eq(1)
        with m.If(final_push):
            m.d.sync += pushed.eq(1)
        with m.If(self.done):
            m.d.sync += [self.busy.eq(0), self.bank.eq(~self.bank)]
        with m.If(advance):
            m.d.sync += [head.eq(Cat(start, head[:-1])), line.eq(Cat(left != 0, line[:-1])),
                         final.eq(Cat(left == 1, final[:-1])), sunk.eq(sink)]

        # after the last weight: join the lanes of a pair, add the earlier sum, take the inverse
        summed, merged, closed, inverting = (Signal(name=name) for name in (
            "summed", "merged", "closed", "inverting"))
        merge, finish = summed & block.pair, merged | (summed & ~block.pair)
        inverse = Signal(LATENCY)
        with m.If(advance):
            m.d.sync += [summed.eq(line[-1] & final[-1]), merged.eq(merge),
                         closed.eq(finish & block.last), inverse.eq(Cat(closed, inverse[:-1]))]
            with m.If(finish & block.last):
                m.d.sync += inverting.eq(1)
            with m.Elif(inverse[-1]):
                m.d.sync += inverting.eq(0)
        with m.If(advance & finish & block.state):
            m.d.sync += exporting.eq(1)
        with m.Elif(push):
            m.d.sync += exporting.eq(0)
        m.d.comb += self.factors.valid.eq(
            exporting | (advance & Mux(block.last, inverse[-1], summed)))

        gated_domain(m, name="lanes", enable=advance & (head.any() | line.any() | merge | finish
                                                        | inverting))
        lanes = [Place(ExponentialLane(), domain="lanes") for _ in range(LANES)]
        for r, lane in enumerate(lanes):
            word = slice(32 * r, 32 * r + 32)
            m.submodules[f"lane{r}"] = lane
            m.d.comb += [
                lane.head.eq(head[0]), lane.peak.eq(self.i.payload.peak[word]),
                lane.restart.eq(block.first), lane.x.eq(self.x[word]),
                lane.format.eq(block.format), lane.sink.eq(sink),
                lane.take_factor.eq(head[LATENCY]),
                lane.rescale.eq(head[LATENCY + 1]), lane.clear.eq(head[LATENCY + 2]),
                lane.add.eq(line[-1]), lane.merge.eq(merge), lane.other.eq(lanes[r ^ HALF].sum),
                lane.finish.eq(finish), lane.invert.eq(inverting), lane.export.eq(exporting),
                pack.codes[r].eq(lane.code)]
        payload = self.factors.payload
        m.d.comb += [
            payload.factor.eq(Cat(lane.factor for lane in lanes)),
            payload.inverse.eq(Mux(block.last | exporting, Cat(lane.inverse for lane in lanes), 0)),
            payload.moved.eq(Cat(lane.moved for lane in lanes).any()),
            payload.state.eq(block.state & ~exporting),
        ]
        return m
