"""The way of a line through the arithmetic of the reduction engine."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.line_arithmetic import LineAdder, LineMultiplier


def kind_layout():
    """What a line needs: the earlier one added, that one times ``factor``, all times ``inverse``.

    ``moved`` comes with ``accumulate`` only.
    """
    return data.StructLayout({"accumulate": 1, "moved": 1, "last": 1})


class LinePath(wiring.Component):
    """Takes lines through the operations that they need: times factor, plus, times inverse.

    Latency is 0 cycles, 2 more with ``accumulate``, 1 more with ``moved``, 1 more with ``last``;
    throughput is a line a cycle. Lines leave in the order in which they entered. A line of another
    kind than the line before enters two cycles after it at the earliest.

    Parameters
    ----------
    depth : int
        Slots that lines are bound for.
    attention : bool
        Whether lines may be ``moved`` or ``last``.

    Members
    -------
    kind : In(kind_layout())
        What the line that would enter needs.
    in_order : Out(1)
        It would overtake none, nor be level with one: it may enter.
    enter : In(1)
        It enters.
    line, slot : In(512), In(range(depth))
        The line, and where it is bound for.
    old : In(512)
        The earlier line, in the cycle after one with ``accumulate`` entered.
    factor, inverse : In(512)
        The line's factors: ``factor`` in the cycle after it entered, ``inverse`` in the cycle
        before it leaves.
    needs_inverse : Out(1)
        A line under way reads ``inverse`` in the next cycle or later.
    leave, o, o_slot : Out(1), Out(512), Out(range(depth))
        A line leaves; the line, and where it is bound for.
    rests : In(1)
        The clock may rest after this cycle, until the cycle in which a line enters. With attention
        only.
    """

    def __init__(self, *, depth, attention):
        self.depth = depth
        self.attention = attention
        members = {"kind": In(kind_layout()), "in_order": Out(1), "enter": In(1),
                   "line": In(LINE_BITS), "slot": In(range(depth)), "old": In(LINE_BITS),
                   "leave": Out(1), "o": Out(LINE_BITS), "o_slot": Out(range(depth))}
        if attention:
            members |= {"factor": In(LINE_BITS), "inverse": In(LINE_BITS), "rests": In(1),
                        "needs_inverse": Out(1)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        # A stage is named for what is done in it to the line that stands there.
        stage = data.StructLayout({"valid": 1, "last": 1, "slot": range(self.depth)})
        scaling, pairing, adding, finishing = (
            Signal(stage, name=name) for name in ("scaling", "pairing", "adding", "finishing"))
        waiting = Signal(LINE_BITS)     # a new line waits for the earlier one
        kind = self.kind
        entering = Cat(self.enter, kind.last, self.slot)
        pairs = self.enter & kind.accumulate & ~kind.moved
        m.d.sync += [pairing.eq(entering), pairing.valid.eq(pairs), adding.eq(pairing)]
        with m.If(pairs):
            m.d.sync += waiting.eq(self.line)
        old = self._scale(m, scaling, pairing, waiting, entering) if self.attention else self.old

        gated_domain(m, name="adder", enable=ResetSignal("sync") | pairing.valid)
        m.submodules.adder = adder = Place(LineAdder(), domain="adder")
        m.d.comb += [adder.line.eq(waiting), adder.old.eq(old)]

        done, line = Signal(stage), Signal(LINE_BITS)   # all but times inverse
        m.d.comb += [done.eq(entering), done.valid.eq(self.enter & ~kind.accumulate),
                     line.eq(self.line)]
        with m.If(adding.valid):
            m.d.comb += [done.eq(adding), line.eq(adder.o)]
        if self.attention:
            self._finish(m, done, line, scaling, pairing, finishing)
        else:
            m.d.comb += [self.leave.eq(done.valid), self.o_slot.eq(done.slot), self.o.eq(line)]

        # A line of a last block is one stage longer under way: the next must not leave beside it.
        # Another job's line is never one stage behind, so some stages need no look.
        with m.If(~kind.accumulate):
            m.d.comb += self.in_order.eq(
                ~(pairing.valid | adding.valid | (finishing.valid & ~kind.last)))
        with m.Elif(~kind.moved):
            m.d.comb += self.in_order.eq(~(pairing.valid & pairing.last & ~kind.last))
        with m.Else():
            m.d.comb += self.in_order.eq(1)
        return m

    def _scale(self, m, scaling, pairing, waiting, entering):
        """Earlier lines times factor, in front of the adder; gives the adder's earlier line."""
        line = Signal(LINE_BITS)
        scaled = Signal()           # the product is there
        moves = self.enter & self.kind.moved
        m.d.sync += [scaling.eq(entering), scaling.valid.eq(moves), scaled.eq(scaling.valid)]
        with m.If(moves):
            m.d.sync += line.eq(self.line)
        with m.If(scaling.valid):
            m.d.sync += [pairing.eq(scaling), waiting.eq(line)]
        gated_domain(m, name="factors", enable=ResetSignal("sync") | scaling.valid)
        m.submodules.scaler = scaler = Place(LineMultiplier(), domain="factors")
        m.d.comb += [scaler.line.eq(self.old), scaler.factor.eq(self.factor)]
        return Mux(scaled, scaler.o, self.old)

    def _finish(self, m, done, line, scaling, pairing, finishing):
        """Lines of a last block times inverse, behind all else; drives what leaves."""
        finishes = done.valid & done.last
        m.d.sync += [finishing.eq(done), finishing.valid.eq(finishes)]
        # A line that does not accumulate gets here in the cycle in which it enters. If the clock of
        # the path rested until then, this gate samples nothing in that cycle: it was left open.
        gated_domain(m, name="inverses", enable=ResetSignal("sync") | finishes | self.rests)
        m.submodules.finisher = finisher = Place(LineMultiplier(), domain="inverses")
        m.d.comb += [
            finisher.line.eq(line), finisher.factor.eq(self.inverse),
            self.needs_inverse.eq((scaling.valid & scaling.last) | (pairing.valid & pairing.last)),
            self.leave.eq(finishing.valid | (done.valid & ~done.last)),
            self.o_slot.eq(Mux(finishing.valid, finishing.slot, done.slot)),
            self.o.eq(Mux(finishing.valid, finisher.o, line)),
        ]
