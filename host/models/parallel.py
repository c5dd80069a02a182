"""A transformer layer of any size, in float64, and split over ranks in the device's arithmetic.

Split as in Shoeybi et al., "Megatron-LM", 2019: a rank has some heads and some columns inside the
feed-forward network, hence rows of their first matrices and columns of their second ones. The
second products give partial sums; over the ranks they are added in the order of the ranks, each
sum rounded to one format. What follows is done with the sum on every rank.
"""
import math
from dataclasses import dataclass, replace

import numpy as np

from cosim.golden import collectives
from cosim.golden import transformer as golden
from cosim.golden.dot import Operand
from cosim.golden.formats import BLOCK, Format
from cosim.golden.function_tables import Function
from cosim.golden.simd import Operation, narrow, simd, widen
from host.models.minilm import EPSILON, Layer


@dataclass(frozen=True)
class Sizes:
    """Of a layer and its input: sentences of so many tokens each, widths in elements."""

    sentences: int = 8
    tokens: int = 32
    width: int = 1024
    heads: int = 32
    inner: int = 4096

    @property
    def head(self):
        return self.width // self.heads

    @property
    def macs(self):
        """Useful MACs of the layer: matrices, scores, weighted sums."""
        rows = self.sentences * self.tokens
        return rows * self.width * (4 * self.width + 2 * self.inner + 2 * self.tokens)


def random_layer(sizes, seed=0):
    """FP32 parameters of a layer: products of numbers of size 1 have size 1."""
    rng, width, inner = np.random.default_rng(seed), sizes.width, sizes.inner

    def matrix(rows, columns):
        return (rng.normal(size=(rows, columns)) / math.sqrt(columns)).astype(np.float32)

    def row(count, middle=0.0):
        return (middle + 0.1 * rng.normal(size=count)).astype(np.float32)
    return Layer(matrix(3 * width, width), row(3 * width), matrix(width, width), row(width),
                 (row(width, 1.0), row(width)), matrix(inner, width), row(inner),
                 matrix(width, inner), row(width), (row(width, 1.0), row(width)))


def random_input(sizes, seed=1):
    """FP32 rows of all tokens, sentence after sentence."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(sizes.sentences * sizes.tokens, sizes.width)).astype(np.float32)


def share(layer, heads, ranks, rank):
    """A rank's parameters of an FP32 layer: Q, K, V of its heads one after another.

    Biases and norms that follow a sum are those of the layer.
    """
    width, inner = layer.out.shape[0], layer.up.shape[0]
    size, part = width // ranks, inner // ranks
    mine, own = slice(rank * size, (rank + 1) * size), slice(rank * part, (rank + 1) * part)
    rows = np.concatenate([np.arange(width)[mine] + p * width for p in range(3)])
    return replace(layer, qkv=layer.qkv[rows], qkv_bias=layer.qkv_bias[rows],
                   out=layer.out[:, mine], up=layer.up[own], up_bias=layer.up_bias[own],
                   down=layer.down[:, own])


def columns(operand, part, ranks):
    """A rank's columns of a coded matrix; whole blocks."""
    size = operand.codes.shape[1] // ranks
    at = part * size
    return Operand(operand.format, operand.codes[:, at:at + size],
                   operand.scales[:, at // BLOCK:(at + size) // BLOCK])


def ordered_sum(parts, form):
    """FP32 patterns of the sum of FP32 patterns in the order of the ranks, rounded to a format."""
    vectors = [collectives.Vector(form, narrow(p, form).reshape(-1)) for p in parts]
    total = collectives.all_reduce(vectors, "direct")
    return widen(total.codes, form).reshape(parts[0].shape)


def split_layer(x, coded, sentences, heads, arithmetic, ranks, form=Format.FP32):
    """FP32 patterns [tokens, width] after a layer split over ranks.

    ``x``: FP32 patterns; ``coded``: a ``Layer`` with matrices as codes and scales; ``sentences``:
    (first, past last) rows; ``form``: of the partial sums.
    """
    mix = golden.coded(golden.mixed(x, coded, sentences, heads, arithmetic), arithmetic)
    x = after(x, mix, coded.out, coded.out_bias, coded.norm1, ranks, form)
    inner = Operand(arithmetic.activations, *golden.add_row(
        golden.product(golden.coded(x, arithmetic), coded.up), coded.up_bias,
        function=Function.GELU, destination=arithmetic.activations, rule=arithmetic.rule))
    return after(x, inner, coded.down, coded.down_bias, coded.norm2, ranks, form)


def after(x, source, matrix, bias, norm, ranks, form):
    """The sum of the ranks' products of their columns, bias, residual and norm."""
    parts = [golden.product(columns(source, r, ranks), columns(matrix, r, ranks))
             for r in range(ranks)]
    total = golden.add_row(ordered_sum(parts, form), bias)
    return golden.layer_norm(simd(total, x, operation=Operation.ADD), *norm, EPSILON)


def reference(x, layer, sentences, heads):
    """The layer in float64."""
    x = np.asarray(x, np.float64)
    width = x.shape[1]
    head = width // heads
    qkv = x @ layer.qkv.T.astype(np.float64) + layer.qkv_bias
    mix = np.zeros_like(x)
    for first, last in sentences:
        q, k, v = (qkv[first:last, p * width:(p + 1) * width].reshape(-1, heads, head)
                   .transpose(1, 0, 2) for p in range(3))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(head)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mix[first:last] = (weights @ v).transpose(1, 0, 2).reshape(-1, width)
    x = _norm(mix @ layer.out.T + layer.out_bias + x, layer.norm1)
    inner = x @ layer.up.T + layer.up_bias
    inner *= 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return _norm(inner @ layer.down.T + layer.down_bias + x, layer.norm2)


def _norm(x, norm):
    x = x - x.mean(1, keepdims=True)
    return x / np.sqrt((x * x).mean(1, keepdims=True) + EPSILON) * norm[0] + norm[1]
