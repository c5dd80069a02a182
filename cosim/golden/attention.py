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
Source: Dao, "FlashAttention-2", 2023, for the order of the work; the whole maxima, the formats of P
and all roundings are this project's choice.
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


def softmax_block(scores, seen, state, *, scale, format, lanes=1):
    """One block: patterns of scores [rows, keys] to codes of P; updates maximum, sum, factor.

    ``scale`` is c, an FP32 number.
    """
    x = binary(Operation.MULTIPLY, scores, np.full_like(scores, bits(scale)))
    x = np.where(seen, x, MINUS_INFINITY)
    peak = state.maximum
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


def attend(q, keys, values, *, scale, low, high, format, lanes=1):
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
    """
    state = State.start(q.codes.shape[0])
    first = 0
    for block, turned in zip(keys, values, strict=True):
        count = block.codes.shape[0]
        scores = np.ascontiguousarray(bits(matmul(q, block)).T)
        seen = visible(count, np.asarray(low) - first, np.asarray(high) - first)
        codes = softmax_block(scores, seen, state, scale=np.float32(scale * LOG2_E),
                              format=format, lanes=lanes)
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
