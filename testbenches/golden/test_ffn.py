"""Golden model of the feed-forward network, against float64."""
import numpy as np
import pytest

from cosim.golden import ffn as golden
from cosim.golden.dot import Operand, matmul
from cosim.golden.ffn import Kind
from cosim.golden.formats import Format, decode
from cosim.golden.quantise import quantise

SQRT_2 = 2 ** 0.5


def coded(values, format):
    """Operand of float values, padded to whole blocks, and the values it holds."""
    padded = np.zeros((len(values), -(-values.shape[1] // 32) * 32), np.float32)
    padded[:, :values.shape[1]] = values
    codes, scales = quantise(padded, format)
    plain = decode(format, codes) * np.repeat(np.ldexp(1.0, scales.astype(np.int32) - 127), 32, 1)
    return Operand(format, codes, scales), plain[:, :values.shape[1]]


def case(rng, tokens, width, inner, weights):
    x = coded(rng.standard_normal((tokens, width)), Format.E4M3)
    return x, *(coded(rng.standard_normal(shape) / shape[1] ** 0.5, weights)
                for shape in ((inner, width), (inner, width), (width, inner)))


def reference(kind, x, gate, up):
    erf = np.vectorize(__import__("math").erf)
    g, u = x @ gate.T, x @ up.T
    return {Kind.SWIGLU: lambda: g / (1 + np.exp(-g)) * u,
            Kind.GEGLU: lambda: g * (1 + erf(g / SQRT_2)) / 2 * u,
            Kind.GELU: lambda: u * (1 + erf(u / SQRT_2)) / 2,
            Kind.RELU: lambda: np.maximum(u, 0)}[kind]()


@pytest.mark.parametrize("kind", list(Kind), ids=lambda k: k.name)
@pytest.mark.parametrize("weights", [Format.E4M3, Format.E2M1], ids=lambda f: f.name)
def test_close_to_float64(kind, weights):
    x, gate, up, down = case(np.random.default_rng(kind), 6, 96, 100, weights)
    wanted = reference(kind, x[1], gate[1], up[1])
    middle = golden.inner(x[0], gate[0], up[0], kind)
    scales = np.ldexp(1.0, middle.scales.astype(np.int32) - 127)
    plain = decode(Format.E4M3, middle.codes) * np.repeat(scales, 32, 1)
    assert not plain[:, 100:].any()
    assert np.abs(plain[:, :100] - wanted).max() <= 2 ** -3 * np.abs(wanted).max()
    got = golden.ffn(x[0], gate[0], up[0], down[0], kind).view(np.float32)
    exact = plain[:, :100] @ down[1].T     # the down product of what was coded is FP32-exact
    assert np.abs(got - exact).max() < 1e-5 * np.abs(exact).max()


def test_chunks_of_k_are_summed_in_order():
    rng = np.random.default_rng(4)
    (x, plain_x), (w, plain_w) = (coded(rng.standard_normal((3, 4200)), Format.E4M3)
                                  for _ in range(2))
    got = golden.product(x, w).view(np.float32)
    parts = [matmul(*(Operand(o.format, o.codes[:, a:b], o.scales[:, a // 32:b // 32])
                      for o in (w, x))) for a, b in ((0, 2048), (2048, 4096), (4096, 4224))]
    assert np.array_equal(got, parts[0] + parts[1] + parts[2])
    assert np.abs(got - plain_x @ plain_w.T).max() < 1e-3


def test_negative_sums_become_zero_with_relu():
    x = coded(np.ones((1, 32)), Format.E4M3)[0]
    up = coded(np.stack([-np.ones(32), np.ones(32)]), Format.E4M3)[0]
    middle = golden.inner(x, None, up, Kind.RELU)
    assert middle.codes[0, 0] == 0 and middle.codes[0, 1] != 0
