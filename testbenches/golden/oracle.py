"""FP32 addition from exact fractions: the oracle of the golden models and of the accumulators."""
from fractions import Fraction
from math import inf, isinf, isnan

import numpy as np


def round_once(exact):
    """Nearest FP32 of a nonzero Fraction, ties to even, overflow to infinity."""
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent = exponent if size >= Fraction(2) ** exponent else exponent - 1
    lsb = Fraction(2) ** max(exponent - 23, -149)
    rounded = round(size / lsb) * lsb  # Python rounds a tie to even
    value = inf if rounded >= Fraction(2) ** 128 else float(rounded)
    return -value if exact < 0 else value


def add(acc, total):
    """FP32 ``acc`` plus a Fraction, infinity or NaN, rounded once; as a float."""
    if isinstance(total, float) or isnan(acc) or isinf(acc):
        return acc + (total if isinstance(total, float) else 0.0)
    exact = Fraction(acc) + total
    return round_once(exact) if exact else 0.0


def bits(value):
    """FP32 code of a float that is one; the canonical code of a NaN."""
    return 0x7FC00000 if isnan(value) else int(np.float32(value).view(np.uint32))
