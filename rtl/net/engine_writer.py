"""Writes the lines of a move's result, and tells when they are in memory."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.net.engine_interfaces import LABEL_BITS, LINE_NUMBER_BITS, Tags, write_layout
from rtl.net.engine_operand import SCALED_LINES
from rtl.net.near_memory import BLOCKS, LANES, sums_layout
from rtl.pe.interfaces import LINE_BITS, LINE_BYTES

MOVES = 2               # whose writes may be under way
WRITES_LOG2 = 5         # of each of them; this project's choice


def result_layout():
    """``length`` bytes, not zero, to ``line`` and after; for ``mx`` the line of their scales.

    ``copy``: the lines come from ``copied``, else from ``sums``.
    """
    return data.StructLayout({"copy": 1, "mx": 1, "length": 32, "line": LINE_NUMBER_BITS,
                              "scales": LINE_NUMBER_BITS, "label": LABEL_BITS})


def first_bytes(count):
    """Mask of the first ``count`` bytes of a line, 64 or more are all."""
    return Mux(count[6:].any(), (1 << LINE_BYTES) - 1, (1 << count[:6]) - 1)[:LINE_BYTES]


class ResultWriter(wiring.Component):
    """Takes the lines of one result after another and writes them; the end of the last by mask.

    Passes a line a cycle, without delay; after each 32 lines of an MX format, and after the last,
    one of their scales. The writes of two results are under way at most, 32 of each.

    Members
    -------
    start : In(stream.Signature(result_layout()))
        Results.
    copied, sums : In(stream.Signature(sums_layout()))
        Their lines.
    request : Out(stream.Signature(write_layout()))
        Writes, with the tags of ``Tags.RESULTS``.
    answered : In(data.StructLayout({"valid": 1, "tag": 6}))
        A write is in memory.
    end : Out(stream.Signature(16))
        Label of a result that is in memory. A function of registers.
    """

    start: In(stream.Signature(result_layout()))
    copied: In(stream.Signature(sums_layout()))
    sums: In(stream.Signature(sums_layout()))
    request: Out(stream.Signature(write_layout()))
    answered: In(data.StructLayout({"valid": 1, "tag": WRITES_LOG2 + 1}))
    end: Out(stream.Signature(LABEL_BITS))

    def elaborate(self, platform):
        m = Module()
        writing, scaling, run = Signal(), Signal(), Signal(result_layout())
        slot, busy = Signal(), Signal(MOVES << WRITES_LOG2)
        place, number = Signal(range(SCALED_LINES)), Signal(WRITES_LOG2)
        scales, blocks = Signal(LINE_BITS), Signal(7)
        tag = Cat(number, slot)
        line = Mux(run.copy, self.copied.payload, self.sums.payload)
        line = data.View(sums_layout(), line)
        offered = Mux(run.copy, self.copied.valid, self.sums.valid)
        room = writing & ~busy.bit_select(tag, 1)
        request, written, taken = self.request.payload, Signal(), Signal()
        m.d.comb += [
            self.request.valid.eq(room & (scaling | offered)),
            request.line.eq(Mux(scaling, run.scales, run.line)), request.label.eq(run.label),
            request.tag.eq(Tags.RESULTS | tag), request.data.eq(Mux(scaling, scales, line.line)),
            request.mask.eq(first_bytes(Mux(scaling, blocks, run.length))),
            written.eq(self.request.valid & self.request.ready), taken.eq(written & ~scaling),
            self.copied.ready.eq(taken & run.copy), self.sums.ready.eq(taken & ~run.copy)]

        last = ~run.length[6:].any() | (run.length == LINE_BYTES)
        closes = written & Mux(scaling, run.length == 0, last & ~run.mx)
        with m.If(written):
            m.d.sync += number.eq(number + 1)
        with m.If(taken):
            m.d.sync += [run.line.eq(run.line + 1),
                         run.length.eq(Mux(last, 0, run.length - LINE_BYTES)),
                         scaling.eq(run.mx & (last | (place == SCALED_LINES - 1))),
                         place.eq(place + 1),
                         blocks.eq(blocks + Mux(run.length <= LANES, 1, BLOCKS))]
            for n in range(SCALED_LINES):
                with m.If(place == n):
                    m.d.sync += scales[8 * BLOCKS * n:8 * BLOCKS * (n + 1)].eq(line.scales)
        with m.If(written & scaling):
            m.d.sync += [scaling.eq(0), run.scales.eq(run.scales + 1), place.eq(0), blocks.eq(0)]
        with m.If(closes):
            m.d.sync += [writing.eq(0), slot.eq(~slot)]
        open_ = self._follow(m, slot, written, closes, run.label)
        m.d.comb += self.start.ready.eq(~writing & ~open_.bit_select(slot, 1))
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [writing.eq(1), run.eq(self.start.payload), number.eq(0), place.eq(0),
                         blocks.eq(0)]
        m.d.sync += busy.eq((busy | (written << tag)) & ~(self.answered.valid << self.answered.tag))
        return m

    def _follow(self, m, slot, written, closes, entry):
        """Counts the writes under way. Gives the slots of results that have not ended."""
        entries = [Signal(LABEL_BITS, name=f"entry{n}") for n in range(MOVES)]
        open_, done = Signal(MOVES), Signal(MOVES)
        for n in range(MOVES):
            under_way = Signal(WRITES_LOG2 + 1, name=f"under_way{n}")
            closed = Signal(name=f"closed{n}")
            here = slot == n
            answered = self.answered.valid & (self.answered.tag[WRITES_LOG2] == n)
            m.d.comb += done[n].eq(closed & (under_way == 0))
            m.d.sync += under_way.eq(under_way + (written & here) - answered)
            with m.If(written & here):
                m.d.sync += [open_[n].eq(1), entries[n].eq(entry)]
            with m.If(closes & here):
                m.d.sync += closed.eq(1)
            with m.If(self.end.ready & done[n] & ((n == 0) | ~done[0])):
                m.d.sync += [closed.eq(0), open_[n].eq(0)]
        m.d.comb += [self.end.valid.eq(done.any()),
                     self.end.payload.eq(Mux(done[0], entries[0], entries[1]))]
        return open_
