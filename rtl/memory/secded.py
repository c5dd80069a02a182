"""SECDED code of memories: corrects one wrong bit of a word, detects two."""
from functools import cache
from itertools import combinations

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out


def check_bits(data_bits):
    """Check bits of a word: the least r with 2**(r - 1) - r >= ``data_bits``; 8 for 64, 10 for 256.

    :exc:`ValueError` unless a positive integer.
    """
    if not isinstance(data_bits, int) or data_bits < 1:
        raise ValueError(f"Data bits must be a positive integer, not {data_bits!r}")
    return next(r for r in range(4, data_bits + 5) if (1 << (r - 1)) - r >= data_bits)


@cache
def columns(data_bits):
    """Columns of the parity-check matrix, one for each data bit; bit r is of check bit r.

    Different numbers of odd weight, 3 first, then 5, and so on; within a weight, the one whose
    check bits cover the fewest data bits so far (in sum), of equals the smallest. The columns of
    the check bits themselves have weight 1. Source: Hsiao, "A class of optimal minimum
    odd-weight-column SEC-DED codes", 1970; the order is this project's choice.
    """
    rows, chosen, weight = check_bits(data_bits), [], 3
    load = [0] * rows
    while len(chosen) < data_bits:
        left = sorted(sum(1 << r for r in c) for c in combinations(range(rows), weight))
        while left and len(chosen) < data_bits:
            best = min(left, key=lambda c: (sum(load[r] for r in range(rows) if c >> r & 1), c))
            left.remove(best)
            chosen.append(best)
            for row in range(rows):
                load[row] += best >> row & 1
        weight += 2
    return tuple(chosen)


def encode(word):
    """Check bits of a word; those of zero are zero."""
    word = Value.cast(word)
    chosen = columns(len(word))
    masks = [sum(1 << n for n, c in enumerate(chosen) if c >> row & 1)
             for row in range(check_bits(len(word)))]
    return Cat((word & mask).xor() for mask in masks)


class SecdedDecoder(wiring.Component):
    """Corrects a word that was stored with the check bits of :func:`encode`.

    Any one wrong bit of the word or of the check bits is corrected, any two are detected. Latency
    0 cycles. A table says which bit a syndrome blames: simulated, a look-up costs far less than
    a comparison for each bit.

    Parameters
    ----------
    data_bits : int
        Width of a word. :exc:`ValueError` unless a positive integer.

    Members
    -------
    word, check : In(data_bits), In(check_bits(data_bits))
        As they were read.
    o : Out(data_bits)
        The word, corrected; as it was read if it cannot be.
    corrected, uncorrectable : Out(1)
        One bit was wrong; more were. Both low: none was.
    """

    def __init__(self, *, data_bits):
        self.data_bits, self.check_bits = data_bits, check_bits(data_bits)
        super().__init__({"word": In(data_bits), "check": In(self.check_bits),
                          "o": Out(data_bits), "corrected": Out(1), "uncorrectable": Out(1)})

    def elaborate(self, platform):
        m = Module()
        blame = data.StructLayout({"bit": range(self.data_bits), "in_word": 1, "in_check": 1})
        table = [{"bit": 0, "in_word": 0, "in_check": 0} for _ in range(1 << self.check_bits)]
        for bit, column in enumerate(columns(self.data_bits)):
            table[column] = {"bit": bit, "in_word": 1, "in_check": 0}
        for row in range(self.check_bits):
            table[1 << row] = {"bit": 0, "in_word": 0, "in_check": 1}
        m.submodules.table = rom = memory.Memory(shape=blame, depth=len(table), init=table)
        found = rom.read_port(domain="comb")
        syndrome = Signal(self.check_bits)
        m.d.comb += [
            syndrome.eq(encode(self.word) ^ self.check), found.addr.eq(syndrome),
            self.corrected.eq(found.data.in_word | found.data.in_check),
            self.uncorrectable.eq((syndrome != 0) & ~self.corrected),
            self.o.eq(self.word ^ (found.data.in_word << found.data.bit)[:self.data_bits])]
        return m
