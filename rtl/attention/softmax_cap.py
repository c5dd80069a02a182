"""Soft cap of the softmax unit: scores become B + C / (1 + 2^(s a)), which is B tanh(s scale / c).

It stands before the first pass and has few lanes, which take a line in four parts: the array needs
four cycles for a key of 128 elements in MXFP8.
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention.interfaces import KEYS, LINE_BITS
from rtl.attention.softmax_command import (
    LANES,
    PARTS,
    cap_layout,
    line_count,
    part_layout,
    score_layout,
)
from rtl.attention.softmax_lane import ONE
from rtl.common.clockgate import gated_domain
from rtl.common.fp32 import Adder, Multiplier
from rtl.common.place import Place
from rtl.pe.functions import LATENCY, Function, FunctionUnit

CAP_LATENCY = 2 * LATENCY + 4   # two functions; registers of the score, after each, and a product
CAP_LANES = LANES // PARTS


class CapLane(wiring.Component):
    """Caps a score a cycle. Latency is 14 cycles. No reset; the domain ``sync`` may be gated.

    Members
    -------
    score : In(32)
        FP32 pattern s.
    settings : In(cap_layout())
        FP32 patterns a, B, C; constant while a score is under way.
    o : Out(32)
        B + C / (1 + 2^(s a)), each operation rounded.
    """

    score: In(32)
    settings: In(cap_layout())
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.scaled = scaled = Multiplier()
        m.submodules.power = power = FunctionUnit((Function.EXP2,))
        m.submodules.one_more = one_more = Adder()
        m.submodules.quotient = quotient = FunctionUnit((Function.RECIPROCAL,))
        m.submodules.product = product = Multiplier()
        m.submodules.total = total = Adder()
        score, e, q, drop = (Signal(32, name=name, reset_less=True)
                             for name in ("s", "e", "q", "drop"))
        m.d.comb += [
            scaled.a.eq(score), scaled.b.eq(self.settings.factor),
            power.x.eq(scaled.o), power.function.eq(Function.EXP2),
            one_more.a.eq(e), one_more.b.eq(ONE),
            quotient.x.eq(one_more.o), quotient.function.eq(Function.RECIPROCAL),
            product.a.eq(q), product.b.eq(self.settings.slope),
            total.a.eq(drop), total.b.eq(self.settings.offset), self.o.eq(total.o),
        ]
        m.d.sync += [score.eq(self.score), e.eq(power.o), q.eq(quotient.o), drop.eq(product.o)]
        return m


class SoftCap(wiring.Component):
    """Takes the lines of blocks with a soft cap, 4 scores a cycle.

    A line takes 4 cycles; each of its parts leaves 14 cycles after its scores were looked at.
    Nothing is clocked for other blocks. Idle after reset.

    Members
    -------
    start : In(1)
        A block begins in the cycle after, when no part is under way.
    command : In(score_layout())
        Its command.
    settings : In(cap_layout())
        Its numbers, from the cycle after on.
    hold : In(1)
        Take nothing.
    i : In(stream.Signature(512))
        Lines of scores; ready once in 4 cycles while a block with a soft cap lacks lines.
    o : Out(part_layout())
        Parts of capped lines, in order.
    busy : Out(1)
        A part is taken or under way.
    """

    def __init__(self):
        super().__init__({
            "start": In(1), "command": In(score_layout()), "settings": In(cap_layout()),
            "hold": In(1),
            "i": In(stream.Signature(LINE_BITS)), "o": Out(part_layout()), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        left, part, flight = Signal(range(KEYS + 1)), Signal(range(PARTS)), Signal(CAP_LATENCY)
        wanted = (left != 0) & ~self.hold
        step = self.i.valid & wanted
        m.d.comb += [
            self.i.ready.eq(wanted & (part == PARTS - 1)),
            self.o.valid.eq(flight[-1]), self.busy.eq(step | flight.any()),
        ]
        m.d.sync += [flight.eq(Cat(step, flight[:-1])), part.eq(part + step),
                     self.o.part.eq(self.o.part + self.o.valid)]
        with m.If(self.start & self.command.soft_cap):
            m.d.sync += left.eq(line_count(self.command))
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += left.eq(left - 1)

        gated_domain(m, name="lanes", enable=self.busy)
        scores = [self.i.payload[32 * n:32 * n + 32] for n in range(LANES)]
        for n in range(CAP_LANES):
            m.submodules[f"lane{n}"] = lane = Place(CapLane(), domain="lanes")
            m.d.comb += [lane.score.eq(Array(scores[n::CAP_LANES])[part]),
                         lane.settings.eq(self.settings), self.o.x[n].eq(lane.o)]
        return m
