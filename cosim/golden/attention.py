"""Fused attention as the hardware does it: blocks of keys, online softmax in powers of two.

Keys come in blocks. With x = s c for each score s of a row (FP32; c is the scale times log2 e) and,
for keys that the row may not see, x = -infinity, a block does this for each row:

- m' = max(m, ceil(max x)): the running maximum is a whole number, so that rescaling by
  a = 2^(m - m') is exact (but for results below the smallest normal number);
- p = exp2(x - m'), rounded to the format of P: BF16; FP16 of p 2^15; E4M3 of p 2^8, with a block
  scale of one. The factor cancels in the end. x = -infinity gives 0, whatever m' is;
- b = sum of the rounded p in the order of the keys, l' = l a + b;
- O' = O a + P V, where P V is the dot-product engine's, from +0 for each block.

m starts at -infinity, l at 0; O starts with the P V of the first block. At the end O is multiplied
by 1 / l, or by 0 where l is 0: a row that sees no key, or only scores of -infinity, gives zeros. A
score that is NaN or +infinity and seen makes its row NaN. With two lanes (a DOT that takes two
rows of operand B at once) b is the sum over even keys plus that over odd keys. Every operation on
FP32 is rounded to nearest even, NaN comes out as 0x7FC00000.

Errors. exp2 is within 2^-23.3 of its result, reciprocal within 2^-23.7 (``functions.worst_error``,
over the whole range of inputs; the bench prints both): each is a parabola on one of 128 segments,
whose third-order remainder is at most 2^-25, plus the rounding of table, product and result. x has
an error of 2^-24 |x| from its scaling (as in any softmax in FP32), which exp2 makes 2^-24.5 |x| of
p: up to |x| = 2^12 less than half a unit of P in FP16 (2^-12 of p), the finest format. The
division is a product with 1 / l, so within 2^-23.7 + 2^-24 < 2^-22.8 of the quotient.

**Soft cap**: logits cap tanh(z / cap). In powers of two, x = B tanh(s scale / cap) with B = cap
log2 e, and tanh(y) = 1 - 2 / (1 + e^2y): x = B + C / (1 + exp2(s a)), a = 2 scale / cap log2 e,
C = -2B. Each of the six roundings (exp2 and the reciprocal 2^-23.3 of their result, the others
2^-24) moves x by 2B 2^-23 at most; the worst error found is below 3B 2^-23, that is 2.4e-5 for a
cap of 50 (:func:`worst_cap_error`), far below the rounding of any P. Small scores lose as much,
which is no loss: what counts for P is the absolute error of x. exp2(s a) = +infinity gives B, 0
gives -B.

**Sinks**: a sink is a key before all others, seen by its row whatever the mask, without a value:
its x (not scaled, not capped) counts for the maximum of the first block, its weight exp2(x - m')
2^SHIFT for the sum, where it comes first (with two lanes, of the even keys). This weight is not
rounded to the format of P; below 2^-126 (before 2^SHIFT) it is 0. x = -infinity is no sink.

Source: Dao, "FlashAttention-2", 2023, for the order of the work; Gemma Team, "Gemma 2", 2024, for
soft caps; Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023, and
OpenAI, "gpt-oss model card", 2025, for sinks. The whole maxima, the formats of P and all roundings
are this project's choice.
"""
from dataclasses import dataclass

import numpy as np

from cosim.golden import formats
from cosim.golden.dot import Operand, matmul
from cosim.golden.formats import BLOCK, SCALE_ONE, Format
from cosim.golden.function_tables import Function
from cosim.golden.functions import apply
from cosim.golden.quantise import round_elements
from cosim.golden.simd import NAN, Operation, binary, narrow, widen

LOG2_E = 1.4426950408889634
SHIFT = {Format.BF16: 0, Format.FP16: 15, Format.E4M3: 8}   # P is held times 2^SHIFT
MINUS_INFINITY = np.uint32(0xFF800000)
INFINITY = 0x7F800000
LOWEST = np.uint32(0xFE800000)      # -2^126: the maximum of a row that saw nothing, exported
SMALLEST = np.uint32(0x00800000)    # 2^-126: its sum, exported
LEAST_NORMAL = 1 << 23


@dataclass
class State:
    """Running maximum, sum and output of some rows: FP32 patterns [rows], [rows], [rows, head].

    ``moved`` says in which rows the last block moved the maximum, ``factor`` is its 2^(m - m').
    """

    maximum: np.ndarray
    total: np.ndarray
    output: np.ndarray | None = None
    factor: np.ndarray | None = None

    @classmethod
    def start(cls, rows):
        return cls(np.full(rows, MINUS_INFINITY), np.zeros(rows, np.uint32))


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def ceiling(x):
    """Smallest whole number at or above FP32 patterns; -0 and numbers in (-1, 0) give +0."""
    with np.errstate(invalid="ignore"):
        whole = np.ceil(x.view(np.float32)) + np.float32(0)
    return np.where(np.isnan(whole), NAN, bits(whole)).astype(np.uint32)


def rounded(p, format):
    """Codes of P in its format, and the FP32 patterns of their values, from FP32 patterns."""
    nan = (p & 0x7FFFFFFF) > INFINITY
    shifted = bits(np.ldexp(p.view(np.float32), SHIFT[format]))
    if format == Format.E4M3:
        codes = round_elements(np.where(nan, 0, shifted), np.full(p.shape, SCALE_ONE), format)
        codes = np.where(nan, 0x7F, codes).astype(np.uint8)
        values = bits(formats.decode(format, codes))
    else:
        codes = narrow(shifted, format)
        values = widen(codes, format)
    return codes, np.where(nan, NAN, values).astype(np.uint32)


def visible(count, low, high):
    """Which of ``count`` keys the rows see: from ``low[r]`` to ``high[r]``, both included."""
    keys = np.arange(count)
    return (keys >= np.asarray(low)[:, None]) & (keys <= np.asarray(high)[:, None])


@dataclass(frozen=True)
class Cap:
    """A soft cap as a SCORE command has it, FP32 patterns: x = offset + slope / (1 + 2^(s a))."""

    offset: int
    slope: int

    @classmethod
    def of(cls, cap):
        """That of logits within -``cap`` and ``cap``."""
        offset = np.float32(cap * LOG2_E)
        return cls(int(bits(offset)[0]), int(bits(-2 * offset)[0]))

    @staticmethod
    def factor(cap, scale):
        """a, in float64."""
        return 2 * scale / cap * LOG2_E


def soft_capped(scores, scale, cap):
    """Patterns of x from patterns of scores; ``scale`` is a, an FP32 number."""
    def constant(pattern):
        return np.full(scores.shape, pattern, np.uint32)
    power = apply(Function.EXP2, binary(Operation.MULTIPLY, scores, constant(bits(scale))))
    quotient = apply(Function.RECIPROCAL, binary(Operation.ADD, power, constant(bits(1.0))))
    return binary(Operation.ADD, binary(Operation.MULTIPLY, quotient, constant(cap.slope)),
                  constant(cap.offset))


def worst_cap_error(cap=50.0, scale=1 / 16, count=1 << 20):
    """Largest |x - B tanh(s scale / cap)| over ``count`` scores, and the score where it is.

    Half of the scores are evenly spread to 12 caps on both sides, the others in their exponent.
    """
    half, most = count // 4, 12 * cap / scale
    spread = np.concatenate([np.linspace(0, most, half), np.geomspace(1e-30, 1e30, half)])
    scores = np.float32(np.concatenate([spread, -spread]))
    with np.errstate(over="ignore"):
        got = soft_capped(bits(scores), np.float32(Cap.factor(cap, scale)), Cap.of(cap))
    exact = cap * LOG2_E * np.tanh(scores.astype(np.float64) * scale / cap)
    error = np.abs(got.view(np.float32) - exact)
    worst = int(np.argmax(error))
    return float(error[worst]), float(scores[worst])


def sink_weight(p, format):
    """What a sink adds to the sum: patterns of p 2^SHIFT, +0 for a subnormal p."""
    shifted = bits(np.ldexp(p.view(np.float32), SHIFT[format]))
    return np.where(p < LEAST_NORMAL, 0, np.where(p > INFINITY, NAN, shifted)).astype(np.uint32)


def softmax_block(scores, seen, state, *, scale, format, lanes=1, cap=None, sinks=None):
    """One block: patterns of scores [rows, keys] to codes of P; updates maximum, sum, factor.

    ``scale`` is c, or with a ``cap`` a, an FP32 number. ``sinks``: patterns [rows], only in a first
    block.
    """
    if cap is None:
        x = binary(Operation.MULTIPLY, scores, np.full_like(scores, bits(scale)))
    else:
        x = soft_capped(scores, scale, cap)
    x = np.where(seen, x, MINUS_INFINITY)
    peak = state.maximum
    if sinks is not None:
        sinks = binary(Operation.MULTIPLY, sinks, np.full_like(sinks, bits(1.0)))
        peak = binary(Operation.MAX, peak, ceiling(sinks))
    for key in range(x.shape[1]):
        peak = binary(Operation.MAX, peak, ceiling(np.ascontiguousarray(x[:, key])))
    moved = peak != state.maximum
    difference = binary(Operation.SUBTRACT, state.maximum, peak)
    state.factor = np.where(moved, apply(Function.EXP2, difference), bits(1.0)).astype(np.uint32)
    state.maximum = peak
    p = apply(Function.EXP2, binary(Operation.SUBTRACT, x, np.repeat(peak[:, None], x.shape[1], 1)))
    p = np.where(x == MINUS_INFINITY, 0, p).astype(np.uint32)
    codes, values = rounded(p, format)
    sums = []
    for lane in range(lanes):
        total = np.zeros(len(x), np.uint32)
        if sinks is not None and lane == 0:
            p = apply(Function.EXP2, binary(Operation.SUBTRACT, sinks, peak))
            total = sink_weight(np.where(sinks == MINUS_INFINITY, 0, p).astype(np.uint32), format)
        for key in range(lane, x.shape[1], lanes):
            total = binary(Operation.ADD, total, np.ascontiguousarray(values[:, key]))
        sums.append(total)
    total = sums[0] if lanes == 1 else binary(Operation.ADD, *sums)
    state.total = binary(Operation.ADD, binary(Operation.MULTIPLY, state.total, state.factor),
                         total)
    return codes


def accumulate(state, partial):
    """Add a block's P V, FP32 patterns [rows, head], to the output."""
    if state.output is None:
        state.output = partial
        return
    factor = np.repeat(state.factor[:, None], partial.shape[1], 1)
    state.output = binary(Operation.ADD, binary(Operation.MULTIPLY, state.output, factor), partial)


def inverse(state):
    """1 / l, or +0 where l is 0."""
    return np.where(state.total == 0, 0, apply(Function.RECIPROCAL, state.total)).astype(np.uint32)


def exported(state):
    """Sum and maximum as they leave the unit, so that states can be merged by plain arithmetic.

    A row that saw nothing has a sum of 2^-126, not 0, and a maximum of -2^126, not -infinity.
    """
    return (np.where(state.total == 0, SMALLEST, state.total).astype(np.uint32),
            np.where(state.maximum == MINUS_INFINITY, LOWEST, state.maximum).astype(np.uint32))


def merge(states):
    """Output of rows whose keys were shared out: FP32 patterns [rows, head].

    Each state's sum and output are multiplied by 2^(m - M), M the largest maximum, which is exact
    (but for results below the smallest normal number); they are added in the order of the states,
    and the output is multiplied by the reciprocal of the sum.
    """
    totals, maxima = zip(*(exported(state) for state in states), strict=True)
    top = maxima[0]
    for peak in maxima[1:]:
        top = binary(Operation.MAX, top, peak)
    joined = None
    for state, total, peak in zip(states, totals, maxima, strict=True):
        factor = apply(Function.EXP2, binary(Operation.SUBTRACT, peak, top))
        values = np.concatenate([state.output, total[:, None]], 1)
        scaled = binary(Operation.MULTIPLY, values, np.repeat(factor[:, None], values.shape[1], 1))
        joined = scaled if joined is None else binary(Operation.ADD, joined, scaled)
    inverse = apply(Function.RECIPROCAL, np.ascontiguousarray(joined[:, -1]))
    return binary(Operation.MULTIPLY, np.ascontiguousarray(joined[:, :-1]),
                  np.repeat(inverse[:, None], joined.shape[1] - 1, 1))


def weigh(codes, values, format):
    """P V of a block: codes of P [rows, keys] and V^T, an operand [head, keys padded]."""
    padded = np.zeros((codes.shape[0], values.codes.shape[1]), codes.dtype)
    padded[:, :codes.shape[1]] = codes
    p = Operand(format, padded)
    return np.ascontiguousarray(bits(matmul(p, values)).T)


def attend(q, keys, values, *, scale, low, high, format, lanes=1, cap=None, sinks=None):
    """Attention of some rows of queries to some keys: their :class:`State`.

    Parameters
    ----------
    q : Operand
        Queries [rows, head].
    keys : list of Operand
        Keys [keys, head], a block each.
    values : list of Operand
        V^T [head, keys padded to whole blocks], a block each.
    scale : float
        Factor of the scores, without log2 e; the product with log2 e is rounded to FP32.
    low, high : array of int
        First and last key that each row sees, counted over all blocks.
    format : Format
        Of P: BF16, FP16 or E4M3.
    lanes : int
        Rows of operand B that the engine takes at once, 1 or 2.
    cap : float
        Soft cap of the logits; none if None.
    sinks : array
        Logit of each row's sink, without log2 e; the product is rounded to FP32. None: no sinks.
    """
    state = State.start(q.codes.shape[0])
    factor = scale * LOG2_E if cap is None else Cap.factor(cap, scale)
    if sinks is not None:
        sinks = bits(np.float32(np.asarray(sinks, np.float64) * LOG2_E))
    first = 0
    for block, turned in zip(keys, values, strict=True):
        count = block.codes.shape[0]
        scores = np.ascontiguousarray(bits(matmul(q, block)).T)
        seen = visible(count, np.asarray(low) - first, np.asarray(high) - first)
        codes = softmax_block(scores, seen, state, scale=np.float32(factor), format=format,
                              lanes=lanes, cap=None if cap is None else Cap.of(cap),
                              sinks=None if first else sinks)
        accumulate(state, weigh(codes, turned, format))
        first += count
    return state


def attention(*operands, **options):
    """Attention of some rows of queries: FP32 patterns [rows, head]; as :func:`attend`."""
    state = attend(*operands, **options)
    factor = np.repeat(inverse(state)[:, None], state.output.shape[1], 1)
    return binary(Operation.MULTIPLY, state.output, factor)


def padded_keys(count, format):
    """Keys of a block as V^T has them: whole blocks of its format."""
    unit = BLOCK if format in formats.MX_FORMATS else 16
    return -(-count // unit) * unit
