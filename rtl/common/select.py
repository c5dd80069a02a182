"""Multiplexers: with one select line for each input, and of the parts of a word."""
from amaranth import *


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
