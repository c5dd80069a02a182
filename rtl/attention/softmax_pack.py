"""Packs the codes of P into words of the rows of a P buffer."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.attention.interfaces import PFill
from rtl.attention.softmax_command import LANES, block_layout
from rtl.common.clockgate import gated_domain
from rtl.mx.formats import Format

HALF = LANES // 2
WORD_BYTES = 8


class WeightPack(wiring.Component):
    """Collects the codes of each row into words, pads them to whole groups, hands over P.

    A word is offered 1 cycle after its last code. Throughput is 1 line of codes a cycle. After the
    last line of a block the words of zeros that its groups lack follow, 1 a cycle; ``p.full``
    comes 1 cycle after the last word was accepted. Idle after reset.

    Parameters
    ----------
    rows : int
        Rows of a P buffer.

    Members
    -------
    block : In(block_layout())
        The block, from its first line until ``p.full``.
    advance : Out(1)
        A line can be taken.
    valid, final : In(1)
        There is a line, taken if ``advance``; it is the last one of the block.
    codes : In(16).array(16)
        Codes of the lanes, an E4M3 code in both halves.
    p : Out(PFill(rows=rows))
        Words, in the order of the keys; ``free`` is not looked at.
    """

    def __init__(self, *, rows):
        self.rows = rows
        super().__init__({"block": In(block_layout()), "advance": Out(1), "valid": In(1),
                          "final": In(1), "codes": In(16).array(LANES),
                          "p": Out(PFill(rows=rows))})

    def elaborate(self, platform):
        m = Module()
        word, block = self.p.word, self.block
        short = block.format == Format.E4M3
        take = self.valid & self.advance
        position, size = Signal(range(WORD_BYTES)), Signal(range(WORD_BYTES))
        ended = Signal()        # all lines of the block are there
        last = word.payload.index + 1 == Mux(short, block.groups << 2, block.groups << 3)
        empty = ended & word.valid & ~last      # a word of zeros follows
        ready = take & ((position + size == WORD_BYTES) | self.final)
        m.d.comb += [
            self.advance.eq(~word.valid | word.ready),
            size.eq(Mux(short, 1, 2) << block.pair),
            self.p.content.format.eq(block.format), self.p.content.groups.eq(block.groups),
        ]
        m.d.sync += self.p.full.eq(word.valid & word.ready & last)
        with m.If(self.advance):
            m.d.sync += word.valid.eq(ready | empty)
            with m.If(word.valid):
                m.d.sync += word.payload.index.eq(Mux(last, 0, word.payload.index + 1))
                with m.If(last):
                    m.d.sync += ended.eq(0)
        with m.If(take):
            m.d.sync += position.eq(Mux(ready, 0, position + size))
            with m.If(self.final):
                m.d.sync += ended.eq(1)

        gated_domain(m, name="words", enable=self.advance & (self.valid | empty))
        filled = Signal(WORD_BYTES)
        m.d.comb += filled.eq(((1 << size) - 1) << position)
        mask = Mux(self.valid, Cat(bit.replicate(8) for bit in filled), 0)
        for r in range(self.rows):
            even, odd = self.codes[r % HALF], self.codes[r % HALF + HALF]
            both = Mux(short, Cat(even[:8], odd[:8], even[:8], odd[:8]), Cat(even, odd))
            part = Mux(block.pair, both, self.codes[r].replicate(2))
            row = Signal(8 * WORD_BYTES, name=f"row{r}", reset_less=True)
            m.d.words += row.eq(Mux(position == 0, 0, row) | (part.replicate(2) & mask))
            m.d.comb += word.payload.data[r].eq(row)
        return m
