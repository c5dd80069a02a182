"""Tables of the non-linear functions, derived from the functions' definitions.

Each function has 128 segments. On a segment it is c0 + c1 u + c2 u^2 with u in [0, 1): the
parabola through the function at the three Chebyshev nodes of the segment (of segment 0 of the
first three: at its ends and its middle, so that powers of two are exact), its coefficients
rounded to 27 fractional bits. Values come from ``decimal`` with 40 digits, so that every machine
gets the same table. The method is this project's choice; tables of parabolas for such units are
described in Pineiro et al., "High-Speed Function Approximation Using a Minimax Quadratic
Interpolator", IEEE Trans. Computers 54(3), 2005.
"""
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from enum import IntEnum
from functools import cache

import numpy as np

SEGMENTS = 128
FRACTION_BITS = 27   # of the coefficients and of the value
RESIDUAL_BITS = 18   # of u
PRECISION = 40


class Function(IntEnum):
    """Function codes of the SIMD command."""

    NONE = 0
    EXP2 = 1
    RECIPROCAL = 2
    RSQRT = 3
    GELU = 4
    SILU = 5


GATE_LIMIT_LOG2 = {Function.GELU: 3, Function.SILU: 4}  # from here on the gate is 0 or 1


def normal_tail(a):
    """Probability that a standard normal variable is below ``-a``, for ``a`` from 0 to 8."""
    term = total = a
    k = 1
    while term and term.adjusted() > -PRECISION - 5:
        k += 2
        term = term * a * a / k
        total += term
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582")
    density = (-a * a / 2).exp() / (2 * pi).sqrt()
    return Decimal(1) / 2 - density * total


def value(function, place):
    """What the table of ``function`` stands for at ``place``, counted in segments (0 to 128)."""
    match function:
        case Function.EXP2:         # 2^f, f in [0, 1)
            return (place / SEGMENTS * Decimal(2).ln()).exp()
        case Function.RECIPROCAL:   # 2 / m, m in [1, 2)
            return 2 / (1 + place / SEGMENTS)
        case Function.RSQRT:        # 2 / sqrt(m), m in [1, 2), then m in [2, 4)
            half = SEGMENTS // 2
            m = 1 + place / half if place < half else 2 * (place / half)
            return 2 / m.sqrt()
        case Function.GELU:         # 1 - Phi(a), a in [0, 8)
            return normal_tail(place * (1 << GATE_LIMIT_LOG2[function]) / SEGMENTS)
        case Function.SILU:         # 1 - sigmoid(a), a in [0, 16)
            return 1 / (1 + (place * (1 << GATE_LIMIT_LOG2[function]) / SEGMENTS).exp())
    raise ValueError(f"Function must have a table, not {function!r}")


def segment(function, index):
    """Coefficients c0, c1, c2 of one segment, as integers."""
    root = Decimal(3).sqrt() / 2
    nodes = [(1 - root) / 2, Decimal(1) / 2, (1 + root) / 2]
    if index == 0 and function not in GATE_LIMIT_LOG2:
        nodes = [Decimal(0), Decimal(1) / 2, Decimal(1)]
    y0, y1, y2 = (value(function, index + node) for node in nodes)
    first = (y1 - y0) / (nodes[1] - nodes[0])
    second = ((y2 - y1) / (nodes[2] - nodes[1]) - first) / (nodes[2] - nodes[0])
    c2 = second
    c1 = first - second * (nodes[0] + nodes[1])
    c0 = y0 - first * nodes[0] + second * nodes[0] * nodes[1]
    return [int((c * (1 << FRACTION_BITS)).to_integral_value(ROUND_HALF_EVEN))
            for c in (c0, c1, c2)]


@cache
def table(function):
    """Table of ``function``: an int64 array [128, 3]."""
    with localcontext() as context:
        context.prec = PRECISION
        return np.array([segment(Function(function), index) for index in range(SEGMENTS)])
