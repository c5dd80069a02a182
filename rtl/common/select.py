"""Multiplexers: with one select line for each input, and of the parts of a word; picks of bits."""
from amaranth import *
from amaranth.utils import ceil_log2


def one_of(select, values):
    """The value whose bit of the one-hot ``select`` is high, as bits; the first if none is.

    A chain of two-way multiplexers: an AND with a replicated bit comes out of Verilog generation
    as a concatenation of single bits, which simulators take apart one by one.
    """
    chosen = Value.cast(values[0])
    for bit, value in zip(list(select)[1:], values[1:], strict=True):
        chosen = Mux(bit, Value.cast(value), chosen)
    return chosen


def part_of(value, index):
    """Part number ``index`` of a value of ``2**len(index)`` equal parts, as bits.

    A tree of two-way multiplexers: a shift by a variable, which is what ``word_select`` becomes,
    costs a simulator the whole width for each part.
    """
    value, index = Value.cast(value), Value.cast(index)
    if len(value) % (1 << len(index)):
        raise ValueError(f"{len(value)} bits have no {1 << len(index)} equal parts")
    for bit in reversed(index):
        half = len(value) // 2
        value = Mux(bit, value[half:], value[:half])
    return value


def lowest(mask):
    """The lowest bit that is set, one-hot."""
    return (mask & -mask)[:len(mask)]


def number_of(one_hot):
    """Which bit is set; 0 if none is."""
    width = len(one_hot)
    return Cat((one_hot & sum(1 << n for n in range(width) if n >> bit & 1)).any()
               for bit in range(max(1, ceil_log2(width))))


def next_of(mask, behind):
    """One-hot: the lowest bit of ``mask`` within ``behind``, or of all of it if there is none."""
    later = mask & behind
    return lowest(Mux(later.any(), later, mask))
