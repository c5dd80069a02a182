"""Non-linear functions of the SIMD engine, on FP32 patterns, bit for bit as the hardware.

All share one form: a table entry (c0, c1, c2) and a residual T of 18 bits give

    s = c1 + round(c2 T / 2^18),  y = max(0, c0 + round(s T / 2^18)),  round half up,

and the result is M x G x 2^k, rounded once to FP32 (nearest even, subnormals kept). M is the
significand of x for GELU and SiLU, else one; G is y, or the gate made of it. Definitions:

- exp2: X = trunc(|x| 2^25) with the sign of x; G = 2^(fraction of X), k = floor of X;
- reciprocal: G = 2 / significand; of +-0: +-infinity;
- rsqrt: G = 2 / sqrt(significand, doubled if the exponent is odd); of +-0: +-infinity; of a
  negative number: NaN;
- gelu: x Phi(x) (the erf form); silu: x sigmoid(x). The gate at -a is y(a), at +a 1 - y(a), with
  trunc(a 2^22) or trunc(a 2^21); from |x| = 8 or 16 on it is exactly 0 or 1. -infinity gives -0.

Any NaN gives 0x7FC00000.
"""
import math

import numpy as np

from cosim.golden.function_tables import FRACTION_BITS, GATE_LIMIT_LOG2, Function, table

NAN = 0x7FC00000
INFINITY = 0x7F800000
ONE = 1 << FRACTION_BITS


def interpolate(function, index, residual):
    """Value of the table, 27 fractional bits."""
    c0, c1, c2 = np.moveaxis(table(function)[index], -1, 0)
    slope = c1 + ((c2 * residual + (1 << 17)) >> 18)
    return np.maximum(c0 + ((slope * residual + (1 << 17)) >> 18), 0)


def at(function, place):
    """Interpolated value at a place of 25 bits: 7 of the segment, 18 within it."""
    return interpolate(function, place >> 18, place & 0x3FFFF)


def unpack(bits):
    """Sign, normalised significand (bit 23 is one but for zero) and biased exponent."""
    sign, field, mantissa = bits >> 31, (bits >> 23) & 0xFF, bits & 0x7FFFFF
    significand = mantissa | (field != 0).astype(np.int64) << 23
    exponent = np.maximum(field, 1)
    for step in (16, 8, 4, 2, 1):
        low = significand < 1 << (24 - step)
        significand = np.where(low, significand << step, significand)
        exponent = np.where(low, exponent - step, exponent)
    return sign, significand, exponent


def scaled(significand, exponent, fraction_bits):
    """trunc(|x| 2^fraction_bits), for the |x| for which it has at most 33 bits."""
    up = np.minimum(exponent - 150 + fraction_bits, 9)
    return np.where(up >= 0, significand << np.maximum(up, 0),
                    significand >> np.minimum(np.maximum(-up, 0), 62))


def compose(sign, significand, gate, exponent):
    """FP32 pattern of significand x 2^-23 x gate x 2^-27 x 2^(exponent - 127)."""
    product = (significand * gate).astype(np.float64)  # exact: at most 53 bits
    power = np.clip(exponent - 127 - 50, -1100, 900).astype(np.int32)
    with np.errstate(over="ignore", under="ignore"):
        value = np.ldexp(product, power).astype(np.float32)
    return value.view(np.uint32).astype(np.int64) | sign << 31


def apply(function, bits):
    """Patterns of ``function`` at the FP32 patterns ``bits``."""
    function = Function(function)
    bits = np.asarray(bits, np.uint32).astype(np.int64)
    sign, significand, exponent = unpack(bits)
    magnitude = bits & 0x7FFFFFFF
    one = np.int64(1 << 23)
    zero = magnitude == 0
    nan = magnitude > INFINITY
    match function:
        case Function.NONE:
            return bits.astype(np.uint32)
        case Function.EXP2:
            fixed = scaled(significand, exponent, 25)
            fixed = np.where(sign, -fixed, fixed)
            result = compose(0, one, at(function, fixed & 0x1FFFFFF), (fixed >> 25) + 127)
            result = np.where(exponent >= 135, np.where(sign, 0, INFINITY), result)
        case Function.RECIPROCAL:
            gate = at(function, (significand & 0x7FFFFF) << 2)
            result = compose(sign, one, gate, 253 - exponent)
            result = np.where(zero, INFINITY | sign << 31, result)
            result = np.where(magnitude == INFINITY, sign << 31, result)
        case Function.RSQRT:
            odd = (exponent + 1) & 1
            gate = at(function, odd << 24 | (significand & 0x7FFFFF) << 1)
            result = compose(0, one, gate, 126 - ((exponent - 127 - odd) >> 1))
            result = np.where(magnitude == INFINITY, 0, result)
            result = np.where(zero, INFINITY | sign << 31, result)
            nan = nan | ((sign == 1) & ~zero)
        case Function.GELU | Function.SILU:
            limit = GATE_LIMIT_LOG2[function]
            tail = at(function, scaled(significand, exponent, 25 - limit) & 0x1FFFFFF)
            tail = np.where(exponent >= 127 + limit, 0, tail)
            gate = np.where(sign, tail, ONE - tail)
            result = compose(sign, significand, gate, exponent)
            result = np.where(magnitude == INFINITY, np.where(sign, 1 << 31, INFINITY), result)
    return np.where(nan, NAN, result).astype(np.uint32)


def reference(function, values):
    """The function in float64, as exact as numpy and ``math`` are."""
    x = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        match Function(function):
            case Function.EXP2:
                return np.exp2(x)
            case Function.RECIPROCAL:
                return 1 / x
            case Function.RSQRT:
                return 1 / np.sqrt(x)
            case Function.GELU:
                return x * np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2)(x)
            case Function.SILU:
                return x / (1 + np.exp(-x))
    return x


def samples(function, per_binade, seed=1):
    """FP32 patterns over the whole input range: every exponent, both signs where defined.

    Per exponent: the first, the last and random mantissas; for exp2, GELU and SiLU the binades
    from 2^-6 to 2^8, which hold all of the action, get 16 times as many.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for field in range(255):
        count = per_binade * (16 if function not in (Function.RECIPROCAL, Function.RSQRT)
                              and 121 <= field <= 135 else 1)
        mantissa = np.concatenate([[0, 1, 0x7FFFFF], rng.integers(0, 1 << 23, count)])
        parts.append(field << 23 | mantissa)
    bits = np.concatenate(parts)
    if function is not Function.RSQRT:
        bits = np.concatenate([bits, bits | 1 << 31])
    return bits.astype(np.uint32)


def worst_error(function, per_binade=400):
    """Worst error against float64, and the input where it is.

    exp2, reciprocal, rsqrt: relative, over normal results. GELU, SiLU: absolute, divided by |x|
    (that of the gate), where the result is normal.
    """
    function = Function(function)
    bits = samples(function, per_binade)
    bits = bits[(bits & 0x7FFFFFFF) != 0]
    x = bits.view(np.float32).astype(np.float64)
    exact = reference(function, x)
    got = apply(function, bits).view(np.float32).astype(np.float64)
    normal = (np.abs(exact) >= 2.0 ** -126) & (np.abs(exact) < 2.0 ** 127.99)
    gated = function in GATE_LIMIT_LOG2
    if gated:
        normal = np.abs(x) >= 2.0 ** -120
    with np.errstate(all="ignore"):
        error = np.abs(got - exact) / np.abs(x if gated else exact)
    error = np.where(normal, error, 0)
    worst = int(np.argmax(error))
    return float(error[worst]), float(x[worst])
