"""Matrix products with the hardware's numerics, bit for bit."""
from dataclasses import dataclass

import numpy as np

from cosim.golden import formats
from cosim.golden.formats import BLOCK, MX_FORMATS, SCALE_BIAS, SCALE_NAN, SCALE_ONE, SPECS, Format

QUIET_NAN = np.uint32(0x7FC00000)
GROUP = 16         # elements per step of the 16-bit path
WINDOW = 48        # bits kept of an aligned product, from the largest exponent's top bit down
PRODUCT = 22       # bits of a product of two 11-bit significands
ZERO_EXPONENT = -512  # exponent of a zero in the 16-bit path: below any sum of real exponents


@dataclass(frozen=True)
class Operand:
    """A matrix of rows of K codes, with a scale byte per 32 of them for block formats.

    ``codes`` is [rows, K], one code per entry; ``scales`` is uint8 [rows, K / 32 rounded up], or
    None, which stands for scales of one where the format has scales.
    """

    format: Format
    codes: np.ndarray
    scales: np.ndarray | None = None

    def __post_init__(self):
        if self.codes.ndim != 2 or self.codes.shape[1] % GROUP:
            raise ValueError(f"Codes must be [rows, multiple of {GROUP}], not {self.codes.shape!r}")
        if self.format not in SPECS or self.format == Format.FP32:
            raise ValueError(f"Format must be a 4-, 8- or 16-bit one, not {self.format!r}")
        blocks = (self.codes.shape[0], -(-self.codes.shape[1] // BLOCK))
        if self.scales is not None and self.scales.shape != blocks:
            raise ValueError(f"Scales must be {blocks!r}, not {self.scales.shape!r}")

    def scale_bytes(self):
        blocks = (self.codes.shape[0], -(-self.codes.shape[1] // BLOCK))
        return np.full(blocks, SCALE_ONE) if self.scales is None else self.scales.astype(np.int64)


def matmul(a, b):
    """Product of two operands: float32 [rows of b, rows of a], ``out[j, i] = sum_k a[i,k] b[j,k]``.

    Both operands of a block format: the dot product of 32 elements is exact, and is added, times
    both scales, to the FP32 accumulator with one rounding to nearest even, in ascending k, from
    +0. Subnormals are kept, overflow gives an infinity, an exact zero sum is +0. A NaN scale or
    element gives NaN, E5M2 infinity times zero too, infinities of both signs too; NaN comes out
    as 0x7FC00000.

    Either operand BF16 or FP16: groups of 16 elements. An element of a block format is converted to
    FP16, exactly, and its scale added to the exponent. A BF16 significand is left-justified in 11
    bits; subnormals are not normalised. So a product is a 22-bit integer times a power of two. The
    products of a group are aligned to the largest exponent among them, with 26 more bits below;
    what a shift pushes below that window is cut off (toward zero). A zero operand takes exponent
    -512, below every real sum. The sum of the 16 is exact and is added to the accumulator as above.
    """
    if a.codes.shape[1] != b.codes.shape[1]:
        raise ValueError(f"Operands must have the same K, not {a.codes.shape[1]!r} "
                         f"and {b.codes.shape[1]!r}")
    narrow = a.format in MX_FORMATS and b.format in MX_FORMATS
    if narrow and a.codes.shape[1] % BLOCK:
        raise ValueError(f"K of two block formats must be a multiple of {BLOCK}, "
                         f"not {a.codes.shape[1]!r}")
    size = BLOCK if narrow else GROUP
    totals = _block_totals if narrow else _group_totals
    acc = np.zeros((b.codes.shape[0], a.codes.shape[0]), np.float32)
    # One finite operand alone does not help: infinity times its zeros is NaN.
    finite = all(_finite(o).all() and not (o.scale_bytes() == SCALE_NAN).any() for o in (a, b))
    kinds = None if finite else (_kinds(a, size), _kinds(b, size))
    for step, (total, error) in enumerate(totals(a, b)):
        new = add_once(acc, total, error)
        special = None if kinds is None else _special(kinds[0], kinds[1], step)
        if special is not None:
            with np.errstate(invalid="ignore"):
                new = np.where(special == 0, new, acc + special)
        acc = new
    acc.view(np.uint32)[np.isnan(acc)] = QUIET_NAN
    return acc


def _block_totals(a, b):
    """Exact dot product of each block as an unevaluated sum of two float64."""
    parts_a, parts_b = _parts(a), _parts(b)
    for k in range(0, a.codes.shape[1], BLOCK):
        terms = [y[:, k:k + BLOCK] @ x[:, k:k + BLOCK].T for y in parts_b for x in parts_a]
        if len(terms) == 4:  # middle two: 42 bits of one scale, exact
            terms = [terms[0], terms[1] + terms[2], terms[3]]
        total, error = terms[0], 0.0
        if len(terms) > 1:
            total, error = _two_sum(total, terms[1])
        if len(terms) > 2:  # the error and the last are multiples of one unit and below 2**53 of it
            total, error = _two_sum(total, error + terms[2])
        yield total + 0.0, error


def _parts(operand):
    """Scaled values as a sum of arrays, of which any two have dot products exact in float64."""
    plain = formats.decode(operand.format, operand.codes)
    scales = np.repeat(operand.scale_bytes(), BLOCK, 1)[:, :plain.shape[1]] - SCALE_BIAS
    value = np.ldexp(np.where(np.isfinite(plain), plain, 0.0), scales.astype(np.int32))
    if operand.format != Format.E5M2:
        return [value]
    _, _, exponent = formats.split(operand.format, operand.codes)
    upper = exponent >= 0
    return [np.where(upper, value, 0.0), np.where(upper, 0.0, value)]


def _finite(operand):
    return np.isfinite(formats.decode(operand.format, operand.codes))


def _group_totals(a, b):
    """Aligned and truncated sum of each group of 16, exact in float64."""
    (sign_a, significand_a, exponent_a), (sign_b, significand_b, exponent_b) = wide(a), wide(b)
    value_a = np.ldexp(np.where(sign_a, -1.0, 1.0) * significand_a, exponent_a.astype(np.int32))
    value_b = np.ldexp(np.where(sign_b, -1.0, 1.0) * significand_b, exponent_b.astype(np.int32))
    for k in range(0, a.codes.shape[1], GROUP):
        ks = slice(k, k + GROUP)
        total = value_b[:, ks] @ value_a[:, ks].T
        spread = _spread(exponent_b[:, ks])[:, None] + _spread(exponent_a[:, ks])
        j, i = np.nonzero(spread > WINDOW - PRODUCT)  # only there may a shift cut bits off
        if len(i):
            exponents = exponent_a[i, ks] + exponent_b[j, ks]
            largest = exponents.max(1, keepdims=True)
            product = significand_a[i, ks] * significand_b[j, ks] << (WINDOW - PRODUCT)
            product >>= np.minimum(largest - exponents, 63)
            signed = np.where(sign_a[i, ks] ^ sign_b[j, ks], -product, product).sum(1)
            lsb = (largest[:, 0] - (WINDOW - PRODUCT)).astype(np.int32)
            total[j, i] = np.ldexp(signed.astype(np.float64), lsb)
        yield total + 0.0, 0.0


def _spread(exponents):
    real = exponents != ZERO_EXPONENT
    most = np.where(real, exponents, -10_000).max(-1)
    return np.maximum(most - np.where(real, exponents, 10_000).min(-1), 0)


def wide(operand):
    """Sign, 11-bit significand and exponent of its last bit, as the 16-bit path takes them."""
    codes, format = operand.codes, operand.format
    if SPECS[format].block:
        with np.errstate(invalid="ignore"):
            codes = formats.decode(format, codes).astype(np.float16).view(np.uint16)
        format = Format.FP16
    justify = 10 - SPECS[format].mantissa_bits
    sign, significand, exponent = formats.split(format, codes)
    significand = np.where(_finite(operand), significand, 0) << justify
    exponent = exponent - justify
    if SPECS[operand.format].block:
        scales = np.repeat(operand.scale_bytes(), BLOCK, 1)[:, :exponent.shape[1]]
        exponent = exponent + scales - SCALE_BIAS
    return sign, significand, np.where(significand == 0, ZERO_EXPONENT, exponent)


def _kinds(operand, size):
    """Per step, what matters for NaN and infinities; None where a step has neither."""
    nan = formats.is_nan(operand.format, operand.codes)
    if SPECS[operand.format].block:
        nan |= np.repeat(operand.scale_bytes() == SCALE_NAN, BLOCK, 1)[:, :nan.shape[1]]
    inf = formats.is_inf(operand.format, operand.codes) & ~nan
    sign, significand, _ = formats.split(operand.format, operand.codes)
    negative, zero = sign == 1, (significand == 0) & ~inf
    kinds = []
    for k in range(0, operand.codes.shape[1], size):
        ks = slice(k, k + size)
        any_ = bool(nan[:, ks].any() or inf[:, ks].any())
        parts = (inf[:, ks] & ~negative[:, ks], inf[:, ks] & negative[:, ks], zero[:, ks],
                 ~zero[:, ks] & ~negative[:, ks], ~zero[:, ks] & negative[:, ks])
        kinds.append((any_, nan[:, ks].any(1), [p.astype(np.float32) for p in parts]))
    return kinds


def _special(kinds_a, kinds_b, step):
    """NaN or infinity that a step adds, 0 where it adds a number; None if it adds numbers only."""
    (any_a, nan_a, a), (any_b, nan_b, b) = kinds_a[step], kinds_b[step]
    if not any_a and not any_b:
        return None
    pinf_a, ninf_a, zero_a, above_a, below_a = (x.T for x in a)
    pinf_b, ninf_b, zero_b, above_b, below_b = b
    nan = nan_b[:, None] | nan_a | (zero_b @ (pinf_a + ninf_a) + (pinf_b + ninf_b) @ zero_a > 0)
    up = pinf_b @ above_a + ninf_b @ below_a + above_b @ pinf_a + below_b @ ninf_a > 0
    down = pinf_b @ below_a + ninf_b @ above_a + above_b @ ninf_a + below_b @ pinf_a > 0
    special = np.where(up, np.float32(np.inf), np.where(down, np.float32(-np.inf), 0))
    return np.where(nan | (up & down), np.float32(np.nan), special).astype(np.float32)


def add_once(acc, total, error=0.0):
    """FP32 ``acc`` plus the exact ``total + error``, rounded once to nearest even.

    ``total`` is float64, ``error`` at most half of its last place. The sum is first rounded to odd
    in 53 bits, from which rounding to 24 bits is the same as from the exact sum.
    Source: Boldo, Melquiond, "Emulation of a FMA and correctly rounded sums", 2008.
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        high, low = _two_sum(acc.astype(np.float64), total)
        low = np.where(np.isfinite(high), low, 0.0)
        if np.any(error):
            low = _to_odd(*_two_sum(low, np.where(np.isfinite(high), error, 0.0)))
            high, low = _two_sum(high, low)
            low = np.where(np.isfinite(high), low, 0.0)
        return _to_odd(high, low).astype(np.float32)


def _two_sum(a, b):
    """Rounded sum and its exact error."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _to_odd(high, low):
    """Round to odd of ``high + low``, where ``high`` is that sum rounded to nearest."""
    step = (low != 0) & ((high.view(np.int64) & 1) == 0)
    # the next float64 up in magnitude is the next integer up
    return (high.view(np.int64) + np.where(step, np.where((low > 0) == (high > 0), 1, -1), 0)
            ).view(np.float64)


def worst_error(a, b):
    """Largest distance of :func:`matmul` from the exact result, in units of ``sum |a| |b|``."""
    value_a, value_b = (formats.decode(o.format, o.codes)
                        * (np.repeat(formats.scale_value(o.scale_bytes()), BLOCK, 1)
                           if SPECS[o.format].block else 1.0) for o in (a, b))
    error = np.abs(matmul(a, b) - value_b @ value_a.T)
    return float(np.max(error / np.maximum(np.abs(value_b) @ np.abs(value_a).T, 1e-300)))
