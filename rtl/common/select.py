"""Multiplexers with one select line for each input."""
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
