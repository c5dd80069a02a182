"""An encoder of BERT shape in the device's arithmetic: what every bit of its results must be.

It states the arithmetic only (formats, order of operations, roundings), not how work is cut up.
All FP32 values are handled as uint32 patterns. Used with the MiniLM sentence transformer.
"""
from dataclasses import dataclass

import numpy as np

from cosim.golden import attention as fused_attention
from cosim.golden.dot import Operand, matmul
from cosim.golden.formats import BLOCK, Format
from cosim.golden.function_tables import Function
from cosim.golden.norm import Norm
from cosim.golden.quantise import Rule, quantise
from cosim.golden.simd import Operation, Reduce, Source1, simd

LOG2_E = 1.4426950408889634
KEYS = 128      # keys of a block of fused attention


@dataclass(frozen=True)
class Arithmetic:
    """Formats and rounding rules of a run.

    ``p``: format of the probabilities of fused attention (E4M3, BF16, FP16); None for scores and
    softmax one operation after another, with probabilities in the format of the activations.
    """

    weights: Format = Format.E4M3
    activations: Format = Format.E4M3
    weight_rule: Rule = Rule.FLOOR
    rule: Rule = Rule.FLOOR
    p: Format | None = Format.E4M3


def bits(values):
    """FP32 patterns of numbers."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def coded(x, arithmetic):
    """Quantise FP32 patterns [rows, columns] to the activation format."""
    return Operand(arithmetic.activations, *simd(x, destination=arithmetic.activations,
                                                 rule=arithmetic.rule))


def weight(w, arithmetic):
    """Quantise an FP32 matrix [out, in] as the host does before it is sent to the device."""
    return Operand(arithmetic.weights, *quantise(np.asarray(w, np.float32), arithmetic.weights,
                                                 arithmetic.weight_rule))


def product(x, w):
    """FP32 patterns of X W^T."""
    return bits(matmul(w, x))


def layer_norm(x, gamma, beta, epsilon):
    """LayerNorm of rows, one command; its order and roundings are those of cosim/golden/norm.py."""
    return simd(x, np.stack([bits(gamma), bits(beta)]), norm=Norm.LAYER, epsilon=epsilon)


def softmax(x, scale=1.0, **destination):
    """Softmax of scale x over each row, by powers of two of differences to the row's maximum."""
    peak = simd(x, reduce=Reduce.MAX)
    powers = simd(x, peak, operation=Operation.SUBTRACT, mode=Source1.SCALAR,
                  affine=(scale * LOG2_E, 0.0), function=Function.EXP2)
    total = simd(powers, reduce=Reduce.SUM)
    inverse = simd(total[None], function=Function.RECIPROCAL)[0]
    return simd(powers, inverse, operation=Operation.MULTIPLY, mode=Source1.SCALAR, **destination)


def attention(q, k, v, v_bias, arithmetic):
    """One head over one sentence: coded q and k, FP32 v without its bias; FP32 result.

    V^T is quantised in blocks of 32 keys from the first key of the sentence on, in both ways.
    """
    head = v.shape[1]
    form, rule = arithmetic.activations, arithmetic.rule
    codes, scales = simd(np.ascontiguousarray(v.T), v_bias, operation=Operation.ADD,
                         mode=Source1.SCALAR, destination=form, rule=rule)
    if arithmetic.p is not None:
        return _fused(q, k, Operand(form, codes, scales), head, arithmetic.p)
    scores = product(q, k)
    probabilities = Operand(form, *softmax(scores, head ** -0.5, destination=form, rule=rule))
    return product(probabilities, Operand(form, codes, scales))


def _fused(q, k, turned, head, p):
    """The same by the attention unit: blocks of 128 keys, every row sees every key."""
    rows = q.codes.shape[0]
    cuts = [(at, min(at + KEYS, rows)) for at in range(0, rows, KEYS)]
    keys = [Operand(k.format, k.codes[a:b], k.scales[a:b]) for a, b in cuts]
    values = []
    for a, b in cuts:
        width = fused_attention.padded_keys(b - a, turned.format)
        values.append(Operand(turned.format, turned.codes[:, a:a + width],
                              turned.scales[:, a // BLOCK:(a + width) // BLOCK]))
    return fused_attention.attention(q, keys, values, scale=head ** -0.5,
                                     low=np.zeros(rows, int), high=np.full(rows, rows - 1),
                                     format=p)


def add_row(x, row, **options):
    """Add ``row`` to each row of ``x``."""
    return simd(x, bits(row), operation=Operation.ADD, mode=Source1.ROW, **options)


def mixed(x, weights, sentences, heads, arithmetic):
    """FP32 patterns [tokens, width]: projections and attention of all heads."""
    form, rule = arithmetic.activations, arithmetic.rule
    width = x.shape[1]
    head = width // heads
    qkv = product(coded(x, arithmetic), weights.qkv)
    result = np.zeros_like(x)
    for first, last in sentences:
        for h in range(heads):
            own = [slice(p * width + h * head, p * width + (h + 1) * head) for p in range(3)]
            q, k = (Operand(form, *add_row(np.ascontiguousarray(qkv[first:last, s]),
                                           weights.qkv_bias[s], destination=form, rule=rule))
                    for s in own[:2])
            result[first:last, own[0]] = attention(
                q, k, qkv[first:last, own[2]], bits(weights.qkv_bias[own[2]]), arithmetic)
    return result


def encoder_layer(x, weights, sentences, heads, epsilon, arithmetic):
    """FP32 patterns [tokens, width] after one layer; ``weights`` as in host.models, coded."""
    form, rule = arithmetic.activations, arithmetic.rule
    mix = mixed(x, weights, sentences, heads, arithmetic)
    out = add_row(product(coded(mix, arithmetic), weights.out), weights.out_bias)
    x = layer_norm(simd(out, x, operation=Operation.ADD), *weights.norm1, epsilon)
    inner = Operand(form, *add_row(product(coded(x, arithmetic), weights.up), weights.up_bias,
                                   function=Function.GELU, destination=form, rule=rule))
    down = add_row(product(inner, weights.down), weights.down_bias)
    return layer_norm(simd(down, x, operation=Operation.ADD), *weights.norm2, epsilon)


def embed(words, positions, norm, epsilon):
    """FP32 patterns of the first hidden state: token rows plus position rows, LayerNorm."""
    x = simd(bits(words), bits(positions), operation=Operation.ADD)
    return layer_norm(x, *norm, epsilon)


def pool(x, sentences):
    """FP32 patterns of one vector a sentence: mean over its tokens, over its length."""
    result = []
    for first, last in sentences:
        rows = last - first
        mean = simd(np.ascontiguousarray(x[first:last].T), affine=(1 / rows, 0.0),
                    reduce=Reduce.SUM)[None]
        square = simd(mean, mean, operation=Operation.MULTIPLY, reduce=Reduce.SUM)
        inverse = simd(square[None], function=Function.RSQRT)[0]
        result.append(simd(mean, inverse, operation=Operation.MULTIPLY, mode=Source1.SCALAR)[0])
    return np.stack(result)
