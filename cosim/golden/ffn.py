"""Feed-forward network of a transformer in the device's arithmetic, bit for bit.

Y = act(X, gate, up) down^T. All FP32 values are handled as uint32 patterns.
"""
from enum import IntEnum

import numpy as np

from cosim.golden.dot import Operand, matmul
from cosim.golden.formats import Format
from cosim.golden.function_tables import Function
from cosim.golden.quantise import Rule
from cosim.golden.simd import Operation, Source1, simd

CHUNK = 2048    # columns of K that a buffer of operand A holds of an MX format


class Kind(IntEnum):
    """What happens between the products."""

    SWIGLU = 0      # silu(gate) * up
    GEGLU = 1       # gelu(gate) * up
    GELU = 2        # gelu(up)
    RELU = 3        # max(up, 0)

    @property
    def gated(self):
        return self in (Kind.SWIGLU, Kind.GEGLU)

    @property
    def function(self):
        return {Kind.SWIGLU: Function.SILU, Kind.RELU: Function.NONE}.get(self, Function.GELU)


def product(x, w):
    """FP32 patterns of X W^T of MX operands.

    Chunks of 2,048 columns of K, each a sum from +0 as in :func:`cosim.golden.dot.matmul`, are
    added in FP32, nearest even, in ascending order.
    """
    total = None
    for at in range(0, x.codes.shape[1], CHUNK):
        sums = matmul(*(Operand(o.format, o.codes[:, at:at + CHUNK],
                                None if o.scales is None
                                else o.scales[:, at // 32:(at + CHUNK) // 32]) for o in (w, x)))
        with np.errstate(all="ignore"):
            total = sums if total is None else total + sums
    return np.ascontiguousarray(total, np.float32).view(np.uint32)


def inner(x, gate, up, kind, *, form=Format.E4M3, rule=Rule.FLOOR):
    """Operand of the down product: activation of the first products, in blocks of ``form``.

    The activation function is rounded to FP32, the product with ``up`` too; then each run of 32
    columns is quantised; columns past the end count as zero.
    """
    raised, out = product(x, up), {"destination": form, "rule": rule}
    if kind.gated:
        active = simd(product(x, gate), function=kind.function)
        coded = simd(active, raised, operation=Operation.MULTIPLY, **out)
    elif kind == Kind.RELU:
        coded = simd(raised, np.zeros(raised.shape[1], np.uint32), operation=Operation.MAX,
                     mode=Source1.ROW, **out)
    else:
        coded = simd(raised, function=kind.function, **out)
    return Operand(form, *coded)


def ffn(x, gate, up, down, kind, *, form=Format.E4M3, rule=Rule.FLOOR):
    """FP32 patterns [tokens, width]; operands [tokens, K], [inner, K], [inner, K], [width, inner].

    ``gate`` is None where the kind has none.
    """
    return product(inner(x, gate, up, kind, form=form, rule=rule), down)
