"""SIMD engine: element-wise operations, row reductions and quantisation, with the hardware's bits.

Everything is FP32 between source and destination, rounded to nearest even after every operation.
A NaN that an operation makes or meets becomes 0x7FC00000; max and min give NaN if either side is
NaN, and put -0 below +0.
"""
from enum import IntEnum
from functools import partial

import numpy as np

from cosim.golden import norm as norms
from cosim.golden.formats import BLOCK, SPECS, Format
from cosim.golden.function_tables import Function
from cosim.golden.functions import apply
from cosim.golden.norm import Norm
from cosim.golden.quantise import Rule, quantise

LANES = 16
NAN = np.uint32(0x7FC00000)


class Operation(IntEnum):
    """Binary operations, as coded in the SIMD command."""

    NONE = 0
    ADD = 1
    SUBTRACT = 2
    MULTIPLY = 3
    MAX = 4
    MIN = 5
    ROTATE = 6      # pairs of columns by pairs of (cosine, sine), see cosim/golden/norm.py


class Reduce(IntEnum):
    """Row reductions."""

    NONE = 0
    SUM = 1
    MAX = 2


class Source1(IntEnum):
    """What source 1 is."""

    FULL = 0        # an array like source 0
    ROW = 1         # one row, for all rows
    SCALAR = 2      # one FP32 number a row


def widen(codes, format):
    """FP32 patterns of FP32, BF16 or FP16 codes; exact."""
    codes = np.asarray(codes)
    match Format(format):
        case Format.FP32:
            return codes.astype(np.uint32)
        case Format.BF16:
            bits = codes.astype(np.uint32) << 16
        case Format.FP16:
            bits = codes.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
        case _:
            raise ValueError(f"Source format must be FP32, BF16 or FP16, not {format!r}")
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, NAN, bits)


def narrow(bits, format):
    """FP32, BF16 or FP16 codes of FP32 patterns: nearest even, overflow gives infinity."""
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    match Format(format):
        case Format.FP32:
            return bits
        case Format.BF16:
            wide = bits.astype(np.uint64)
            codes = (wide + 0x7FFF + ((wide >> 16) & 1)) >> 16
            return np.where(nan, 0x7FC0, codes).astype(np.uint16)
        case Format.FP16:
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                codes = bits.view(np.float32).astype(np.float16).view(np.uint16)
            return np.where(nan, 0x7E00, codes).astype(np.uint16)
    raise ValueError(f"Format must be FP32, BF16 or FP16, not {format!r}")


def binary(operation, a, b):
    """``a operation b`` on FP32 patterns; not ROTATE, which takes pairs."""
    x, y = (np.ascontiguousarray(v, np.uint32).view(np.float32) for v in (a, b))
    nan = np.isnan(x) | np.isnan(y)
    with np.errstate(all="ignore"):
        match Operation(operation):
            case Operation.NONE:
                return a
            case Operation.ADD:
                result = x + y
            case Operation.SUBTRACT:
                result = x - y
            case Operation.MULTIPLY:
                result = x * y
            case _:
                # sign and magnitude as an ordered integer: -0 below +0
                keys = [np.where(v >> 31, -1 - (v & 0x7FFFFFFF).astype(np.int64), v)
                        for v in (a, b)]
                first = keys[0] >= keys[1] if operation == Operation.MAX else keys[0] <= keys[1]
                return np.where(nan, NAN, np.where(first, a, b)).astype(np.uint32)
    return np.where(np.isnan(result), NAN, result.view(np.uint32))


ARITHMETIC = {name.lower(): partial(binary, Operation[name])
              for name in ("ADD", "SUBTRACT", "MULTIPLY")}


def reduce_rows(reduce, bits):
    """One FP32 pattern per row of ``bits``, in the order of docs/programming-model.md.

    Lane l takes elements l, l + 16, ... in turn; then lanes l and l + d are joined for d = 8, 4, 2
    and 1. A lane without elements takes no part.
    """
    operation = {Reduce.SUM: Operation.ADD, Reduce.MAX: Operation.MAX}[Reduce(reduce)]
    lanes = bits[:, :LANES].copy()
    for start in range(LANES, bits.shape[1], LANES):
        chunk = bits[:, start:start + LANES]
        width = chunk.shape[1]
        lanes[:, :width] = binary(operation, lanes[:, :width], chunk)
    for distance in (8, 4, 2, 1):
        width = max(lanes.shape[1] - distance, 0)
        if width:
            lanes[:, :width] = binary(operation, lanes[:, :width], lanes[:, distance:])
        lanes = lanes[:, :distance]
    return lanes[:, 0]


def simd(source0, source1=None, *, format0=Format.FP32, format1=Format.FP32,
         destination=Format.FP32, operation=Operation.NONE, function=Function.NONE,
         reduce=Reduce.NONE, mode=Source1.FULL, rule=Rule.FLOOR, stochastic=False, affine=None,
         seed=0, norm=Norm.NONE, epsilon=0.0):
    """One ``SIMD`` command on codes.

    ``source0`` is [rows, columns] in ``format0``; ``source1`` is [rows, columns], [columns] or
    [rows] by ``mode``; ``affine`` is None or (multiplier, addend). With ``norm``, ``source1`` is
    [1, columns] or [2, columns] (gamma and, for LayerNorm, beta), ``affine`` is None or
    (1 / columns, epsilon), and nothing else is done to an element. Returns, by destination: codes
    [rows, columns] of FP32, BF16 or FP16; codes [rows, columns padded to 32] and scale bytes
    [rows, blocks] of an MX format; with ``reduce`` FP32 patterns [rows].
    """
    x = widen(np.atleast_2d(source0), format0)
    rows, columns = x.shape
    if norm != Norm.NONE:
        factors = (1 / columns, epsilon) if affine is None else affine
        affine = None
        reciprocal, addend = np.array(factors, np.float32).view(np.uint32)
        x = norms.normalise(norm, x, np.atleast_2d(widen(source1, format1)), reciprocal, addend,
                            total=partial(reduce_rows, Reduce.SUM), **ARITHMETIC)
    elif operation != Operation.NONE:
        mode = Source1(mode)
        y = widen(source1, Format.FP32 if mode == Source1.SCALAR else format1)
        y = y.reshape({Source1.FULL: (rows, columns), Source1.ROW: (1, columns),
                       Source1.SCALAR: (rows, 1)}[mode])
        y = np.broadcast_to(y, x.shape)
        x = (norms.rotate(x, y, **ARITHMETIC) if operation == Operation.ROTATE
             else binary(operation, x, y))
    if affine is not None:
        multiplier, addend = np.array(affine, np.float32).view(np.uint32)
        x = binary(Operation.MULTIPLY, x, np.full_like(x, multiplier))
        x = binary(Operation.ADD, x, np.full_like(x, addend))
    x = apply(function, x)
    if reduce != Reduce.NONE:
        return reduce_rows(reduce, x)
    if SPECS[Format(destination)].block == 0:
        return narrow(x, destination)
    padded = np.zeros((rows, -(-columns // BLOCK) * BLOCK), np.uint32)
    padded[:, :columns] = x
    return quantise(padded.view(np.float32), destination, rule, stochastic=stochastic, seed=seed)
