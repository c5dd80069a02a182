"""Normalisation of rows and rotary embedding in the SIMD engine, with the hardware's bits.

FP32 patterns in and out; every operation rounds to nearest even. For a row x of n columns:

    LayerNorm: mean = (sum x) r
               variance = (sum (x - mean)^2) r
               y = ((x - mean) s) gamma + beta      s = rsqrt(variance + epsilon)
    RMSNorm:   y = (x s) gamma                      s = rsqrt((sum x^2) r + epsilon)

with r = 1 / n as the command has it. Sums are taken in the order of a reduction, ``rsqrt`` is the
engine's function. Rotation of the pairs (x[2i], x[2i + 1]) by (c, s) = (y[2i], y[2i + 1]):

    z[2i] = x[2i] c - x[2i + 1] s       z[2i + 1] = x[2i + 1] c + x[2i] s
"""
from enum import IntEnum

import numpy as np

from cosim.golden.function_tables import Function
from cosim.golden.functions import apply


class Norm(IntEnum):
    """What a row is divided by, as coded in the SIMD command."""

    NONE = 0
    RMS = 1         # the root of the mean of its squares
    LAYER = 2       # its standard deviation, its mean subtracted before


def normalise(norm, x, parameters, reciprocal, epsilon, *, add, subtract, multiply, total):
    """Normalised rows of the patterns ``x`` [rows, columns].

    ``parameters``: patterns [1 or 2, columns], gamma and for LayerNorm beta. ``reciprocal`` and
    ``epsilon``: patterns. The other arguments are the arithmetic: three operations on arrays, and
    the sum of each row.
    """
    def everywhere(pattern, like):
        return np.full_like(like, pattern)

    def each(scalars):
        return np.broadcast_to(scalars[:, None], x.shape)

    if norm == Norm.LAYER:
        sums = total(x)
        x = subtract(x, each(multiply(sums, everywhere(reciprocal, sums))))
    squares = total(multiply(x, x))
    variance = multiply(squares, everywhere(reciprocal, squares))
    scale = apply(Function.RSQRT, add(variance, everywhere(epsilon, variance)))
    x = multiply(multiply(x, each(scale)), np.broadcast_to(parameters[0], x.shape))
    if norm == Norm.LAYER:
        x = add(x, np.broadcast_to(parameters[1], x.shape))
    return x


def rotate(x, y, *, add, subtract, multiply):
    """The pairs of ``x`` rotated by the (cosine, sine) pairs of ``y``; both [rows, columns]."""
    if x.shape[1] % 2:
        raise ValueError(f"Columns must be an even number, not {x.shape[1]}")
    cosine, sine = np.repeat(y[:, 0::2], 2, axis=1), np.repeat(y[:, 1::2], 2, axis=1)
    swapped = x.reshape(len(x), -1, 2)[:, :, ::-1].reshape(x.shape)
    along, across = multiply(x, cosine), multiply(swapped, sine)
    result = add(along, across)
    result[:, 0::2] = subtract(along[:, 0::2], across[:, 0::2])
    return result
