"""Multiplexers with one select line for each input."""
from functools import reduce
from operator import or_

from amaranth import *


def one_of(select, values):
    """The value whose bit of the one-hot ``select`` is high, as bits; zero if none is."""
    parts = [Value.cast(value) & bit.replicate(len(Value.cast(value)))
             for bit, value in zip(select, values, strict=True)]
    return reduce(or_, parts)
