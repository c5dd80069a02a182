"""Row reductions of the SIMD engine: one accumulator a lane, then a tree over the lanes."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.simd_command import LANES, command_layout
from rtl.pe.simd_issue import tag_layout
from rtl.pe.simd_lane import ReduceNode

TREE_LEVELS = 4


class SimdReduce(wiring.Component):
    """Reduces each row of beats to one FP32 number, in the order of docs/programming-model.md.

    The number comes 6 cycles after the row's last beat; throughput 1 beat a cycle, also over rows
    of one beat. Everything stands still while ``advance`` is low. Idle after reset.

    Members
    -------
    advance : In(1)
        Move by one stage.
    command : In(command_layout())
        The command; with ``reduce`` NONE, as in a norm, rows are summed.
    valid : In(1)
        There is a beat.
    x : In(512)
        Sixteen FP32 numbers, taken if ``advance``.
    tag : In(tag_layout())
        Their tag.
    o_valid, o, o_final : Out
        The reduced row: whether there is one, its FP32 pattern, and whether it is the last one.
    busy : Out(1)
        Beats or rows are under way.
    """

    advance: In(1)
    command: In(command_layout())
    valid: In(1)
    x: In(LINE_BITS)
    tag: In(tag_layout())
    o_valid: Out(1)
    o: Out(32)
    o_final: Out(1)
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        tail = self.command.columns[:4]
        joined, summed = Signal(), Signal()     # a beat waits to be added; a row is complete
        final = Signal(TREE_LEVELS + 2)
        levels = Signal(TREE_LEVELS + 1)        # rows in the tree, by level
        tag = Signal(tag_layout())
        with m.If(self.advance):
            m.d.sync += [joined.eq(self.valid), summed.eq(joined & tag.last),
                         levels.eq(Cat(summed, levels[:-1])),
                         final.eq(Cat(tag.final, final[:-1]))]
            with m.If(self.valid):
                m.d.sync += tag.eq(self.tag)
        m.d.comb += [self.busy.eq(joined | summed | levels.any()), self.o_valid.eq(levels[-1]),
                     self.o_final.eq(final[-1])]

        gated_domain(m, name="lanes", enable=self.advance & (self.valid | joined))
        gated_domain(m, name="tree", enable=self.advance & (summed | levels[:-1].any()))
        value = Signal(LINE_BITS, reset_less=True)      # the beat
        total = Signal(LINE_BITS, reset_less=True)      # of each lane
        first, add = Signal(reset_less=True), Signal(LANES, reset_less=True)
        m.d.lanes += [value.eq(self.x), first.eq(self.tag.first)]
        for lane in range(LANES):
            word = slice(32 * lane, 32 * lane + 32)
            present = self.valid & (~self.tag.ragged | (lane < tail))
            m.submodules[f"lane{lane}"] = node = Place(ReduceNode())
            m.d.lanes += add[lane].eq(present)
            m.d.comb += [node.a.eq(total[word]), node.b.eq(value[word]),
                         node.reduce.eq(self.command.reduce)]
            with m.If(add[lane]):
                m.d.lanes += total[word].eq(Mux(first, value[word], node.o))

        row = Signal(LINE_BITS, reset_less=True)
        m.d.tree += row.eq(total)
        level = [row[32 * lane:32 * lane + 32] for lane in range(LANES)]
        for depth in range(TREE_LEVELS):
            distance = LANES >> (depth + 1)
            joined_level = []
            for lane in range(distance):
                m.submodules[f"tree{distance}_{lane}"] = node = Place(ReduceNode())
                number = Signal(32, name=f"tree{distance}_{lane}", reset_less=True)
                m.d.comb += [node.a.eq(level[lane]), node.b.eq(level[lane + distance]),
                             node.alone.eq(self.command.columns <= lane + distance),
                             node.reduce.eq(self.command.reduce)]
                m.d.tree += number.eq(node.o)
                joined_level.append(number)
            level = joined_level
        m.d.comb += self.o.eq(level[0])
        return m
