"""First pass of the softmax unit: scores are scaled, masked and stored, their maxima found."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention.interfaces import GROUP, KEYS, LINE_BITS
from rtl.attention.softmax_command import (
    LANES,
    LINE_INDEX,
    PARTS,
    SINK_LINE,
    block_layout,
    line_count,
    maxima_layout,
    part_layout,
    score_layout,
)
from rtl.attention.softmax_lane import ONE, MaximumLane
from rtl.common.clockgate import gated_domain
from rtl.common.place import Place

HALF = LANES // 2


def limited(value):
    """A first or last key as a number of few bits; beyond any key it makes no difference."""
    return Mux(value < -LANES, C(-LANES, signed(9)), Mux(value > KEYS, C(KEYS, signed(9)),
                                                         value[:9].as_signed()))


class MaximumPass(wiring.Component):
    """Takes the lines of one block at a time.

    A line is written to the store 2 cycles after it, or its last part, was taken; ``o`` follows the
    last line of a block after 4 cycles, with ``pair`` after 5, or when the block before has left
    ``o``. Throughput is 1 line a cycle. Idle after reset.

    Members
    -------
    start : In(1)
        A block begins in the cycle after; only while ``open`` is low, and only when there is room
        for it in the store and at most one block before it is unfinished.
    command : In(score_layout())
        Its command.
    i : In(stream.Signature(512))
        Lines of scores; ready while ``open`` is high, but for a block with a soft cap.
    capped : In(part_layout())
        Parts of lines of a block with a soft cap, taken at once.
    sink_valid, sink : In(1), In(512)
        A line of sinks, taken at once if ``sinking`` is high.
    open : Out(1)
        A block lacks lines.
    sinking : Out(1)
        It lacks its sinks, which come before all lines.
    write, bank, line, x : Out
        Write the scaled and masked scores ``x`` to a line of one of the two stores.
    o : Out(stream.Signature(maxima_layout()))
        Blocks that are stored.
    """

    def __init__(self):
        super().__init__({
            "start": In(1), "command": In(score_layout()), "i": In(stream.Signature(LINE_BITS)),
            "capped": In(part_layout()), "sink_valid": In(1), "sink": In(LINE_BITS),
            "open": Out(1), "sinking": Out(1), "write": Out(1), "bank": Out(1),
            "line": Out(LINE_INDEX), "x": Out(LINE_BITS),
            "o": Out(stream.Signature(maxima_layout()))})

    def elaborate(self, platform):
        m = Module()
        command, block, new = self.command, Signal(block_layout()), Signal(block_layout())
        unused = Signal(init=1)     # no block since reset: the coming one is a first one
        scale, left, line = Signal(32), Signal(range(KEYS + 1)), Signal(range(KEYS))
        capping, sunk = Signal(), self.sinking & self.sink_valid
        last_part = self.capped.valid & (self.capped.part == PARTS - 1)
        score = (self.i.valid & self.i.ready) | last_part
        take, ends = score | sunk, (left == 1) & ~self.sinking
        m.d.comb += [
            self.i.ready.eq(self.open & ~capping & ~self.sinking),
            new.lines.eq(line_count(command)),
            new.groups.eq((command.columns[:8] + GROUP - 1) // GROUP), new.pair.eq(command.pair),
            new.first.eq(command.first | unused), new.last.eq(command.last),
            new.state.eq(command.state), new.sink.eq(command.sink.any()),
            new.format.eq(command.format),
        ]
        with m.If(self.start):
            m.d.sync += [self.open.eq(1), block.eq(new), unused.eq(0), left.eq(new.lines),
                         line.eq(0), scale.eq(Mux(command.soft_cap, ONE, command.scale)),
                         capping.eq(command.soft_cap), self.sinking.eq(new.sink)]
        with m.Elif(score):
            m.d.sync += [left.eq(left - 1), line.eq(line + 1), self.open.eq(~ends)]
        with m.Elif(sunk):
            m.d.sync += self.sinking.eq(0)

        # a line is taken; then multiplied; then it is x, compared and written; merge comes then
        taken, compare, merge, final, complete = (Signal(name=name) for name in (
            "taken", "compare", "merge", "final", "complete"))
        taken_line, fresh = Signal(LINE_INDEX), Signal()
        taken_final, taken_fresh, taken_sink, seen = Signal(), Signal(), Signal(), Signal(LANES)
        ending, closing = Signal(block_layout()), Signal(block_layout())
        visible = self._visible(m, block.pair, line, ends)
        m.d.sync += [taken.eq(take), compare.eq(taken), merge.eq(compare & final & ending.pair)]
        with m.If(take):
            with m.If(ends):
                m.d.sync += ending.eq(block)    # a line of the next block may come in 2 cycles
            m.d.sync += [taken_line.eq(Mux(sunk, SINK_LINE, line)), taken_final.eq(ends),
                         taken_fresh.eq((line == 0) & block.first & (self.sinking == block.sink)),
                         taken_sink.eq(sunk), seen.eq(visible)]
        with m.If(taken):
            m.d.sync += [self.line.eq(taken_line), final.eq(taken_final), fresh.eq(taken_fresh)]
        m.d.comb += self.write.eq(compare)
        with m.If(compare & final):
            m.d.sync += [self.bank.eq(~self.bank), closing.eq(ending)]

        transfer = complete & (~self.o.valid | self.o.ready)
        with m.If(merge | (compare & final & ~ending.pair)):
            m.d.sync += complete.eq(1)
        with m.Elif(transfer):
            m.d.sync += complete.eq(0)
        with m.If(transfer):
            m.d.sync += [self.o.valid.eq(1), self.o.payload.block.eq(closing)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        gated_domain(m, name="lanes", enable=take | self.capped.valid | taken | compare | merge)
        gated_domain(m, name="handover", enable=transfer)
        lanes = [Place(MaximumLane(), domain="lanes") for _ in range(LANES)]
        for r, lane in enumerate(lanes):
            word = slice(32 * r, 32 * r + 32)
            m.submodules[f"lane{r}"] = lane
            m.d.comb += [
                lane.score.eq(Mux(self.sinking, self.sink[word], Mux(
                    capping, self.capped.x[r % (LANES // PARTS)], self.i.payload[word]))),
                lane.load.eq(~capping | self.sinking | (self.capped.part == r // (LANES // PARTS))),
                lane.scale.eq(Mux(taken_sink, ONE, scale)), lane.seen.eq(seen[r]),
                lane.compare.eq(compare), lane.fresh.eq(fresh), lane.merge.eq(merge),
                lane.other.eq(lanes[r ^ HALF].peak), self.x[word].eq(lane.x)]
        peak = Signal(LINE_BITS, reset_less=True)
        m.d.handover += peak.eq(Cat(lane.peak for lane in lanes))
        m.d.comb += self.o.payload.peak.eq(peak)
        return m

    def _visible(self, m, pair, line, ends):
        """Which lanes see their key in ``line``; ``ends``: it is the last one.

        With ``pair`` only the lanes of even keys see the sinks, which count once.
        """
        command = self.command
        low, high = Signal(signed(9)), Signal(signed(9))
        share, odd = Signal(3), Signal()
        with m.If(self.start):
            m.d.sync += [low.eq(limited(command.low)), high.eq(limited(command.high)),
                         share.eq(command.share_log2), odd.eq(command.columns[0])]
        result = Signal(LANES, name="visible")
        for r in range(LANES):
            key = Mux(pair, Cat(C(r // HALF, 1), line), line)
            place = Mux(pair, r % HALF, r) >> share
            behind = Signal(signed(9), name=f"behind{r}")   # key, counted from the row's position
            m.d.comb += behind.eq(key - place)
            absent = pair & odd & ends if r >= HALF else 0
            within = (behind >= low) & (behind <= high) & ~absent
            m.d.comb += result[r].eq(Mux(self.sinking, ~pair | (r < HALF), within))
        return result
