"""Quantiser of the SIMD engine: pairs of beats to 32 codes and one scale byte."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.mx.formats import Format
from rtl.mx.quantise import (
    COLUMN_STEP,
    RANDOM_BITS,
    ROW_STEP,
    BlockScale,
    ElementQuantiser,
    Mixer,
    largest_magnitude,
)
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.simd_command import LANES, command_layout
from rtl.pe.simd_issue import tag_layout


class QuantiserLane(wiring.Component):
    """One lane: an element and its scale in, its code out one cycle later.

    No reset; the domain ``sync`` may be gated. The format may change only while no element is
    under way.

    Members
    -------
    x, scale, random, stochastic : In
        As of :class:`ElementQuantiser`; ``random`` is taken one cycle later than the others.
    format : In(4)
        Element format, as :class:`Format`.
    o : Out(8)
        Code.
    """

    x: In(32)
    scale: In(8)
    random: In(RANDOM_BITS)
    stochastic: In(1)
    format: In(4)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.element = element = ElementQuantiser()
        x, scale = Signal(32, reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [x.eq(self.x), scale.eq(self.scale)]
        m.d.comb += [element.x.eq(x), element.scale.eq(scale), element.random.eq(self.random),
                     element.stochastic.eq(self.stochastic), element.format.eq(self.format),
                     self.o.eq(element.o)]
        return m


class SimdQuantise(wiring.Component):
    """Quantises blocks of 32 elements that come as two beats.

    The codes of a block's beats come 3 cycles after its second beat, and in the cycle after.
    Throughput is 1 beat a cycle. Everything stands still while ``advance`` is low. Idle after
    reset. Random numbers: those of :class:`Mixer` for row x ROW_STEP + column x COLUMN_STEP + hash
    of the seed.

    Members
    -------
    start : In(1)
        A command begins: rows and columns count from zero. High for one cycle before its beats.
    advance : In(1)
        Move by one stage.
    command : In(command_layout())
        The command, which holds while there are beats.
    valid : In(1)
        There is a beat.
    x : In(512)
        Sixteen FP32 numbers, taken if ``advance``.
    tag : In(tag_layout())
        Their tag; lanes that hold no element count as zero.
    o_valid : Out(1)
        There are codes.
    o : Out(128)
        Sixteen codes, 8 bits each.
    scale : Out(8)
        Scale byte of their block.
    second, last, final : Out(1)
        They are the second half of their block; the last of their row; the last of the command.
    busy : Out(1)
        Beats are under way.
    """

    start: In(1)
    advance: In(1)
    command: In(command_layout())
    valid: In(1)
    x: In(LINE_BITS)
    tag: In(tag_layout())
    o_valid: Out(1)
    o: Out(8 * LANES)
    scale: Out(8)
    second: Out(1)
    last: Out(1)
    final: Out(1)
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        tail = self.command.columns[:4]
        taken, odd = Signal(), Signal()             # a beat waits; it is the second of its block
        ready = Signal(2)                           # a block is complete: its halves leave now
        taken_tag, block_tag = Signal(tag_layout()), Signal(tag_layout())
        leaving = ready.any()
        with m.If(self.advance):
            m.d.sync += [taken.eq(self.valid), ready.eq(Cat(taken & odd, ready[0])),
                         self.o_valid.eq(leaving), self.second.eq(ready[1]),
                         self.last.eq(ready[1] & block_tag.last),
                         self.final.eq(ready[1] & block_tag.final)]
            with m.If(self.valid):
                m.d.sync += taken_tag.eq(self.tag)
            with m.If(taken):
                m.d.sync += odd.eq(~odd)
            with m.If(taken & odd):
                m.d.sync += block_tag.eq(taken_tag)
        m.d.comb += self.busy.eq(taken | odd | leaving | self.o_valid)

        gated_domain(m, name="block", enable=self.advance & (self.valid | taken))
        gated_domain(m, name="codes", enable=self.advance & leaving)
        value, even, uneven = (Signal(LINE_BITS, name=name, reset_less=True)
                               for name in ("value", "even", "uneven"))
        half_peak, peak = Signal(31, reset_less=True), Signal(31, reset_less=True)
        keep = Cat(~self.tag.pad & (~self.tag.ragged | (lane < tail)) for lane in range(LANES))
        m.d.block += value.eq(Cat(Mux(keep[i], self.x[32 * i:32 * i + 32], 0)
                                  for i in range(LANES)))
        top = largest_magnitude(m, [value.word_select(i, 32) for i in range(LANES)])
        with m.If(taken & ~odd):
            m.d.block += [even.eq(value), half_peak.eq(top)]
        with m.If(taken & odd):
            m.d.block += [uneven.eq(value), peak.eq(Mux(top > half_peak, top, half_peak))]

        m.submodules.scale = scale = Place(BlockScale())
        held_scale = Signal(8, reset_less=True)
        m.d.codes += held_scale.eq(scale.o)
        m.d.comb += [scale.magnitude.eq(peak), scale.format.eq(self.command.destination),
                     scale.rule.eq(self.command.rule), self.scale.eq(held_scale)]
        random = self._random(m, leaving, ready[1] & block_tag.last)
        for i in range(LANES):
            word = slice(32 * i, 32 * i + 32)
            m.submodules[f"lane{i}"] = lane = Place(QuantiserLane(), domain="codes")
            m.d.comb += [
                lane.x.eq(Mux(ready[1], uneven[word], even[word])), lane.scale.eq(scale.o),
                lane.random.eq(random[i]), lane.stochastic.eq(self.command.stochastic),
                lane.format.eq(self.command.destination), self.o[8 * i:8 * i + 8].eq(lane.o)]
        return m

    def _random(self, m, leaving, row_ends):
        """Random bits of the 16 elements that leave in the cycle before."""
        gated_domain(m, name="random", enable=self.start | (
            self.advance & leaving & self.command.stochastic))
        m.submodules.key = key = Place(Mixer())
        row, place = Signal(32, reset_less=True), Signal(32, reset_less=True)
        m.d.comb += key.i.eq(self.command.seed)
        with m.If(self.start):
            m.d.random += [row.eq(key.o), place.eq(key.o)]
        with m.Elif(row_ends):
            m.d.random += [row.eq(row + ROW_STEP), place.eq(row + ROW_STEP)]
        with m.Else():
            m.d.random += place.eq(place + LANES * COLUMN_STEP)
        bits = []
        for lane in range(LANES):
            m.submodules[f"mixer{lane}"] = mixer = Place(Mixer())
            held = Signal(RANDOM_BITS, name=f"random{lane}", reset_less=True)
            m.d.comb += mixer.i.eq(place + lane * COLUMN_STEP)
            m.d.random += held.eq(mixer.o[32 - RANDOM_BITS:])
            bits.append(held)
        return bits


def code_bytes(codes, format):
    """Sixteen codes packed as in memory, and repeated to a line: E2M1 two a byte, else one."""
    nibbles = Cat(codes[8 * i:8 * i + 4] for i in range(LANES))
    return Mux(format == Format.E2M1, nibbles.replicate(8), codes.replicate(4))
