"""Spreading consecutive lines over memories whose number need not be a power of two."""
from amaranth import *


def third(value):
    """An unsigned value divided by 3, rounded down: a product with a constant, exact."""
    bits = len(value)
    shift = bits + 1
    return (value * ((1 << shift) // 3 + 1))[shift:shift + bits]


def check_ways(name, ways):
    """Raise :exc:`ValueError` unless ``ways`` is 1, 2, 4, ... or three times one of these."""
    part = ways // 3 if isinstance(ways, int) and ways % 3 == 0 else ways
    if not isinstance(ways, int) or ways < 1 or part & (part - 1):
        raise ValueError(f"{name} must be a power of two or three times one, not {ways!r}")


def spread(value, ways):
    """``(value % ways, value // ways)`` of an unsigned value, for ways as in :func:`check_ways`.

    A division by 3 is needed for three times a power of two; the rest is wiring.
    """
    check_ways("Ways", ways)
    odd = 3 if ways % 3 == 0 else 1
    low_bits = (ways // odd).bit_length() - 1
    low, high = value[:low_bits], value[low_bits:]
    if odd == 1 or not len(high):
        return low, high
    quotient = third(high)
    rest = (high - (quotient << 1) - quotient)[:2]
    return Cat(low, rest), quotient
