"""Keys and values of a head as a cache holds them: projections, quantised on the way out.

The sums of a product are made by chunks of its inner dimension, each from +0 and added to those
before it in FP32. K is quantised along the head, V along the keys: V^T by pages of 128 keys, blocks
of 32 from the start of a page, keys past the end zero up to the next whole block.
"""
import numpy as np

from cosim.golden.dot import Operand, matmul
from cosim.golden.formats import BLOCK, MX_FORMATS
from cosim.golden.simd import Operation, Source1, simd

PAGE = 128      # keys of a page


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def product(a, b, chunk):
    """FP32 patterns of B A^T, inner dimension in chunks of ``chunk`` columns."""
    total = None
    for at in range(0, b.codes.shape[1], chunk):
        part = matmul(*(columns(x, at, at + chunk) for x in (a, b)))
        with np.errstate(all="ignore"):
            total = part if total is None else total + part
    return bits(total)


def columns(operand, first, last):
    """Columns of an operand, whole blocks."""
    scales = None if operand.scales is None else operand.scales[:, first // BLOCK:-(-last // BLOCK)]
    return Operand(operand.format, operand.codes[:, first:last], scales)


def keys(x, wk, bias, *, chunk, format, rule):
    """K [tokens, head]: codes, and scales (None if the format has none)."""
    return stored(product(wk, x, chunk), bias, Source1.ROW, format, rule)


def values(x, wv, bias, *, chunk, format, rule):
    """V^T by pages: a list of codes [head, keys in whole blocks] and scales."""
    turned = product(x, wv, chunk)
    return [stored(np.ascontiguousarray(turned[:, at:at + PAGE]), bias, Source1.SCALAR, format,
                   rule) for at in range(0, turned.shape[1], PAGE)]


def stored(sums, bias, mode, format, rule):
    """Bias added if there is one, then the format of the cache."""
    options = {"destination": format, "rule": rule}
    if bias is not None:
        options |= {"operation": Operation.ADD, "mode": mode}
    result = simd(sums, None if bias is None else bits(bias), **options)
    if format in MX_FORMATS:
        return result
    padded = np.zeros((len(result), -(-result.shape[1] // BLOCK) * BLOCK), result.dtype)
    padded[:, :result.shape[1]] = result
    return padded, None
