"""Lines in banks of memory, with SECDED."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.clockgate import gated_domain
from rtl.common.select import one_of
from rtl.memory.secded import SecdedDecoder, encode
from rtl.memory.slice.interfaces import CHECK_BITS, WORD_BITS, WORDS
from rtl.pe.interfaces import LINE_BITS

POISON = (1 << CHECK_BITS) - 1      # syndrome of a word that is known to be wrong


def words_of(line):
    """The words of a line."""
    return [line[WORD_BITS * n:WORD_BITS * (n + 1)] for n in range(WORDS)]


class DataArray(wiring.Component):
    """Single-port banks of lines; each word of 64 bits has 8 check bits.

    A bank takes one access a cycle, all of them together one read and one write: a read and a
    write in the same cycle must go to different banks. Latency of a read is 1 cycle; if ``wrong``
    is high then, ``fix`` brings the corrected line 1 cycle later. The line stays until the next
    read. A word written as poisoned gets all of its check bits inverted, so that a read finds it
    uncorrectable; a further bit that turns leaves it so, but for 16 of the 72 (no other mark does
    better). Of the 2,556 pairs of wrong bits 8 look like the mark: they read as ``poisoned``, so
    poison they are, but nobody counts them. Reset leaves the contents as they are; a word of zeros
    has check bits of zero. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size [line], a power of two.
    banks : int
        Number of banks, a power of two; line n is in bank ``n % banks``.

    Members
    -------
    read, read_line : In(1), In(range(lines))
        Read a line.
    write, write_line, write_words : In(1), In(range(lines)), In(8)
        Write the words selected.
    write_data, write_poison : In(512), In(8)
        The line, and which of its words are poisoned.
    flip : In(72)
        Bits inverted in the lowest word that is written, 0 to 63 data, then the check bits.
    data : Out(512)
        What was read.
    wrong : Out(1)
        It has errors not looked at yet.
    fix : In(1)
        Look at them; only while ``wrong``.
    corrected, bad, poisoned : Out(8)
        After ``fix``, until the next read: words that were corrected, that could not be, and those
        of them that were written as poisoned. Before, zero.
    """

    def __init__(self, *, lines, banks):
        self.lines, self.banks = lines, banks
        super().__init__({
            "read": In(1), "read_line": In(range(lines)),
            "write": In(1), "write_line": In(range(lines)), "write_words": In(WORDS),
            "write_data": In(LINE_BITS), "write_poison": In(WORDS),
            "flip": In(WORD_BITS + CHECK_BITS),
            "data": Out(LINE_BITS), "wrong": Out(1), "fix": In(1),
            "corrected": Out(WORDS), "bad": Out(WORDS), "poisoned": Out(WORDS)})

    def elaborate(self, platform):
        m = Module()
        check_line = WORDS * CHECK_BITS
        data, checks, good = Signal(LINE_BITS), Signal(check_line), Signal(check_line)
        first = self.write_words & -self.write_words     # the lowest word
        m.d.comb += [
            good.eq(Cat(encode(word) ^ Mux(self.write_poison[n], POISON, 0)
                        for n, word in enumerate(words_of(self.write_data)))),
            data.eq(self.write_data), checks.eq(good)]
        with m.If(self.flip.any()):
            m.d.comb += [
                data.eq(self.write_data ^ Cat(
                    Mux(first[n], self.flip[:WORD_BITS], 0) for n in range(WORDS))),
                checks.eq(good ^ Cat(
                    Mux(first[n], self.flip[WORD_BITS:], 0) for n in range(WORDS)))]
        line, check = self._banks(m, data, checks)
        syndrome = Signal(check_line)
        fixed = Signal()
        m.d.comb += [
            syndrome.eq(check ^ Cat(encode(word) for word in words_of(line))),
            self.wrong.eq(syndrome.any() & ~fixed)]
        with m.If(self.fix | self.read):
            m.d.sync += fixed.eq(self.fix)
        # Behind a gate of its own: without an error nothing of it moves.
        gated_domain(m, name="fix", enable=ResetSignal("sync") | self.fix)
        taken, taken_check = Signal(LINE_BITS), Signal(check_line)
        m.d.fix += [taken.eq(line), taken_check.eq(check)]
        whole, corrected, bad, poisoned = [], [], [], []
        for n, word in enumerate(words_of(taken)):
            m.submodules[f"decoder{n}"] = decoder = SecdedDecoder(data_bits=WORD_BITS)
            mine = taken_check[CHECK_BITS * n:CHECK_BITS * (n + 1)]
            m.d.comb += [decoder.word.eq(word), decoder.check.eq(mine)]
            whole.append(decoder.o)
            corrected.append(decoder.corrected)
            bad.append(decoder.uncorrectable)
            poisoned.append((encode(word) ^ mine) == POISON)
        m.d.comb += self.data.eq(Mux(fixed, Cat(whole), line))
        with m.If(fixed):
            m.d.comb += [self.corrected.eq(Cat(corrected)), self.bad.eq(Cat(bad)),
                         self.poisoned.eq(Cat(poisoned))]
        return m

    def _banks(self, m, data, checks):
        """The memories; gives the line and the check bits that were read."""
        bits = exact_log2(self.banks)
        depth, chosen, lines, check_lines = self.lines // self.banks, [], [], []
        for bank in range(self.banks):
            here, there = Signal(name=f"read{bank}"), Signal(name=f"write{bank}")
            row = Signal(exact_log2(depth), name=f"row{bank}")
            last = Signal(init=bank == 0, name=f"last{bank}")
            m.d.comb += [
                here.eq(self.read & (self.read_line[:bits] == bank)),
                there.eq(self.write & (self.write_line[:bits] == bank)),
                row.eq(Mux(there, self.write_line[bits:], self.read_line[bits:]))]
            with m.If(self.read):
                m.d.sync += last.eq(here)
            chosen.append(last)
            for name, shape, part, value, kept in (
                    ("words", LINE_BITS, WORD_BITS, data, lines),
                    ("checks", len(checks), CHECK_BITS, checks, check_lines)):
                m.submodules[f"{name}{bank}"] = store = Memory(shape=shape, depth=depth, init=[])
                read, write = store.read_port(), store.write_port(granularity=part)
                m.d.comb += [read.addr.eq(row), read.en.eq(here), write.addr.eq(row),
                             write.data.eq(value)]
                with m.If(there):
                    m.d.comb += write.en.eq(self.write_words)
                kept.append(read.data)
        if self.banks == 1:
            return lines[0], check_lines[0]
        line, check = Signal(LINE_BITS), Signal(len(checks))
        m.d.comb += [line.eq(one_of(chosen, lines)), check.eq(one_of(chosen, check_lines))]
        return line, check
