"""Byte shift between lines of a source and lines of a target."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import LINE_BITS, LINE_BYTES

OFFSET_BITS = 6
LINES_BITS = 27


def lines_of(offset, count):
    """Lines that ``count`` bytes (32 bits, not zero) touch from byte ``offset`` of a line on."""
    return ((offset + count - 1) >> OFFSET_BITS)[:LINES_BITS] + 1


class Realigner(wiring.Component):
    """Takes the lines that hold a run of bytes, gives the lines of the same bytes elsewhere.

    Latency is 1 cycle, and 1 more if the target offset is not above the source's. Throughput is
    one line a cycle. An error on a source line holds for all target lines from the first that
    has bytes of it.

    Members
    -------
    start : In(stream.Signature(struct))
        A run: ``source`` and ``target`` offset of its first byte in a line, ``count`` of bytes,
        not zero. Ready between runs.
    i : In(stream.Signature(struct))
        Source lines: ``data``, ``error``.
    o : Out(stream.Signature(struct))
        Target lines: ``data``, ``mask`` of bytes that belong to the run, ``last``, ``error``.
    """

    start: In(stream.Signature(data.StructLayout({
        "source": OFFSET_BITS, "target": OFFSET_BITS, "count": 32})))
    i: In(stream.Signature(data.StructLayout({"data": LINE_BITS, "error": 1})))
    o: Out(stream.Signature(data.StructLayout({
        "data": LINE_BITS, "mask": LINE_BYTES, "last": 1, "error": 1})))

    def elaborate(self, platform):
        m = Module()
        active, priming, first, failed = Signal(), Signal(), Signal(), Signal()
        beats, lines = Signal(LINES_BITS + 1), Signal(LINES_BITS + 1)
        back, head, tail = Signal(OFFSET_BITS), Signal(OFFSET_BITS), Signal(OFFSET_BITS)
        before = Signal(LINE_BITS)      # the source line before the one at the input

        run = self.start.payload
        m.d.comb += self.start.ready.eq(~active)
        with m.If(self.start.valid & ~active):
            m.d.sync += [
                active.eq(1), priming.eq(run.target <= run.source), first.eq(1), failed.eq(0),
                beats.eq(lines_of(run.source, run.count)),
                lines.eq(lines_of(run.target, run.count)), back.eq(run.source - run.target),
                head.eq(run.target), tail.eq(run.target + run.count - 1)]

        needed = beats != 0
        room = priming | ~self.o.valid | self.o.ready
        moving = active & room & (~needed | self.i.valid)
        bad = needed & self.i.payload.error
        error = failed | bad & (back != 0)      # without a shift, only `before` is in the line
        last = lines == 1
        m.d.comb += self.i.ready.eq(active & needed & room)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(moving):
            m.d.sync += [before.eq(self.i.payload.data), priming.eq(0), failed.eq(failed | bad)]
            with m.If(needed):
                m.d.sync += beats.eq(beats - 1)
            with m.If(~priming):
                m.d.sync += [
                    lines.eq(lines - 1), first.eq(0), active.eq(~last), self.o.valid.eq(1),
                    self.o.payload.data.eq(Cat(before, self.i.payload.data) >> (back << 3)),
                    self.o.payload.mask.eq(
                        (Const((1 << LINE_BYTES) - 1, LINE_BYTES) << Mux(first, head, 0))
                        & (Const((1 << LINE_BYTES) - 1, LINE_BYTES) >> Mux(last, ~tail, 0))),
                    self.o.payload.last.eq(last), self.o.payload.error.eq(error)]
        return m
