"""Tests of cosim/golden/norm.py against float64 and plain Python."""
import numpy as np
import pytest

from cosim.golden.formats import Format, decode, scale_value
from cosim.golden.function_tables import Function
from cosim.golden.functions import apply
from cosim.golden.machine import Machine, Refused
from cosim.golden.norm import Norm
from cosim.golden.simd import Operation, Source1, simd

EPSILON = 1e-5


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def floats(patterns):
    return np.ascontiguousarray(patterns, np.uint32).view(np.float32)


def exact(norm, x, gamma, beta):
    """The norm of rows in float64."""
    x, gamma, beta = (np.asarray(v, np.float64) for v in (x, gamma, beta))
    if norm == Norm.LAYER:
        x = x - x.mean(1, keepdims=True)
    y = x / np.sqrt((x * x).mean(1, keepdims=True) + EPSILON) * gamma
    return y + beta if norm == Norm.LAYER else y


def sample(columns, *, rows=64, mean=0.0, scale=1.0, seed=1):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, columns)) * scale + mean).astype(np.float32)
    return x, *rng.standard_normal((2, columns)).astype(np.float32)


@pytest.mark.parametrize("mean, scale", [(0, 1), (0, 1e-2), (0, 1e6), (3, 1), (100, 1), (1e4, 1)])
@pytest.mark.parametrize("norm", [Norm.RMS, Norm.LAYER])
def test_error_against_float64(norm, mean, scale):
    """Relative to the largest result of a row, and for LayerNorm to its mean over its deviation:
    an error of half an ulp of the mean cannot be undone when the mean is subtracted.
    """
    worst = 0
    for columns in (2, 17, 128, 384, 1000, 4096):
        x, gamma, beta = sample(columns, mean=mean, scale=scale, seed=columns)
        parameters = bits([gamma, beta][:norm])
        got = floats(simd(bits(x), parameters, norm=norm, epsilon=EPSILON))
        wanted = exact(norm, x, gamma, beta)
        size = np.abs(exact(norm, x, gamma, 0)).max(1) + np.abs(beta).max() * (norm == Norm.LAYER)
        if norm == Norm.LAYER:
            wide = x.astype(np.float64)
            size = size * (1 + np.abs(wide.mean(1)) / np.sqrt(wide.var(1) + EPSILON))
        worst = max(worst, (np.abs(got - wanted).max(1) / size).max())
    print(f"{norm.name} of mean {mean}, deviation {scale}: worst error {worst:.2e}")
    assert worst < 8 * 2.0 ** -24


@pytest.mark.parametrize("columns", [1, 5, 16, 40])
def test_order_and_roundings_are_those_stated(columns):
    """Scalars of numpy, one rounding an operation; sums of 16 lanes, then by the tree."""
    x, gamma, beta = sample(columns, rows=3, mean=0.7)
    x[0, 0] = -0.0
    r, epsilon = np.float32(1 / columns), np.float32(EPSILON)

    def total(values):
        lanes = []
        for lane in range(min(16, columns)):
            sums = values[lane]
            for value in values[lane + 16::16]:
                sums = np.float32(sums + value)
            lanes.append(sums)
        for distance in (8, 4, 2, 1):
            lanes = [np.float32(lanes[i] + lanes[i + distance]) if i + distance < len(lanes)
                     else lanes[i] for i in range(min(distance, len(lanes)))]
        return lanes[0]

    def scale(values):
        variance = np.float32(total([np.float32(v * v) for v in values]) * r)
        return floats(apply(Function.RSQRT, bits([np.float32(variance + epsilon)])))[0]

    got = [floats(simd(bits(x), bits([gamma, beta][:norm]), norm=norm, epsilon=EPSILON))
           for norm in (Norm.RMS, Norm.LAYER)]
    for i, row in enumerate(x):
        s = scale(row)
        assert [np.float32(np.float32(v * s) * g) for v, g in zip(row, gamma, strict=True)] \
            == list(got[0][i])
        mean = np.float32(total(row) * r)
        centred = [np.float32(v - mean) for v in row]
        s = scale(centred)
        wanted = [np.float32(np.float32(np.float32(v * s) * g) + b)
                  for v, g, b in zip(centred, gamma, beta, strict=True)]
        assert bits(wanted).tolist() == bits(got[1][i]).tolist()


def test_a_constant_row_becomes_beta():
    x = np.full((2, 33), 7.25, np.float32)
    _, gamma, beta = sample(33)
    got = floats(simd(bits(x), bits([gamma, beta]), norm=Norm.LAYER, affine=(1 / 33, 1e-12)))
    assert np.abs(got - beta).max() < 1e-1 and np.isfinite(got).all()
    x[:] = 8.0      # sums and mean are exact
    got = floats(simd(bits(x[:, :32]), bits([gamma, beta])[:, :32], norm=Norm.LAYER,
                      affine=(1 / 32, 1e-12)))
    assert np.array_equal(got, np.broadcast_to(beta[:32], (2, 32)))


@pytest.mark.parametrize("norm", [Norm.RMS, Norm.LAYER])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_rows_with_nan_or_infinity_spoil_themselves_alone(norm, odd):
    x, gamma, beta = sample(40, rows=3)
    clean = simd(bits(x), bits([gamma, beta][:norm]), norm=norm, epsilon=EPSILON)
    x[1, 3] = odd
    got = simd(bits(x), bits([gamma, beta][:norm]), norm=norm, epsilon=EPSILON)
    assert np.array_equal(got[[0, 2]], clean[[0, 2]])
    if norm == Norm.LAYER or np.isnan(odd):
        assert (got[1] == 0x7FC00000).all()
    else:   # the root is infinite: all else becomes zero
        assert got[1, 3] == 0x7FC00000 and not (np.delete(got[1], 3) & 0x7FFFFFFF).any()


@pytest.mark.parametrize("format", [Format.E4M3, Format.E5M2, Format.E2M1, Format.BF16])
def test_results_are_converted_as_any_other(format):
    x, gamma, beta = sample(70, rows=5)
    options = {"norm": Norm.LAYER, "epsilon": EPSILON}
    wide = simd(bits(x), bits([gamma, beta]), **options)
    direct = simd(bits(x), bits([gamma, beta]), destination=format, **options)
    twice = simd(wide, destination=format)
    for a, b in zip(direct, twice, strict=True):
        assert np.array_equal(a, b)


def rotation(rows, columns, seed=1):
    """Numbers, and (cosine, sine) pairs of positions 0, 1, ... as the original embedding has."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    angle = np.arange(rows)[:, None] * 10000.0 ** (-np.arange(0, columns, 2) / columns)
    table = np.stack([np.cos(angle), np.sin(angle)], -1).reshape(rows, columns)
    return x, table.astype(np.float32)


def test_rotation_is_that_of_complex_numbers():
    x, table = rotation(200, 64)
    got = floats(simd(bits(x), bits(table), operation=Operation.ROTATE)).astype(np.float64)
    turned = (x.astype(np.float64).view(np.complex128)
              * table.astype(np.float64).view(np.complex128)).view(np.float64)
    error = np.abs(got - turned).max() / np.abs(x).max()
    print(f"ROTATE: worst error {error:.2e} of the largest element")
    assert error < 1.2e-7
    for i in (0, 31):       # and rounds every product and the sum
        a, b, c, s = (np.float32(v) for v in (*x[9, 2 * i:2 * i + 2], *table[9, 2 * i:2 * i + 2]))
        assert got[9, 2 * i] == np.float32(a * c) - np.float32(b * s)
        assert got[9, 2 * i + 1] == np.float32(np.float32(b * c) + np.float32(a * s))


def test_rotation_keeps_products_of_equal_distances():
    """Scores of rotated rows depend on the difference of their positions alone."""
    x, table = rotation(50, 32)
    x[:] = x[0]
    turned = floats(simd(bits(x), bits(table), operation=Operation.ROTATE)).astype(np.float64)
    scores = turned @ turned.T
    for distance in (0, 1, 7):
        diagonal = np.diagonal(scores, distance)
        assert np.ptp(diagonal) < 2e-5


def test_one_row_of_pairs_rotates_every_row():
    x, table = rotation(4, 6)
    got = simd(bits(x), bits(table[3]), operation=Operation.ROTATE, mode=Source1.ROW,
               destination=Format.E4M3)
    full = simd(bits(x), bits(np.broadcast_to(table[3], x.shape)), operation=Operation.ROTATE)
    values = decode(Format.E4M3, got[0][:, :6]) * scale_value(got[1])
    assert np.abs(values - floats(full)).max() < 0.15


def test_an_odd_number_of_columns_makes_no_pairs():
    with pytest.raises(ValueError, match="Columns must be an even number, not 5"):
        simd(bits(np.ones((1, 5))), bits(np.ones((1, 5))), operation=Operation.ROTATE)


@pytest.mark.parametrize("field, word1, columns", [
    (1, 3 << 29 | 1 << 22, 32), (1, 1 << 29, 32), (1, 1 << 29 | 1 << 22 | 1 << 12, 32),
    (1, 2 << 29 | 1 << 22 | 1 << 28, 32), (1, 2 << 29 | 1 << 22 | 1 << 20, 32),
    (1, 1 << 29 | 1 << 22 | 3 << 16, 32), (1, 6 << 12 | 1 << 28, 32), (1, 6 << 12 | 2 << 22, 32),
    (4, 1 << 29 | 1 << 22, 32), (4, 6 << 12, 32), (8, 6 << 12, 31)])
def test_the_golden_machine_refuses_what_the_engine_refuses(field, word1, columns):
    machine = Machine(None, lines=64)
    for cb in range(3):
        machine.execute(0x01, [1, cb, 16 * cb, 16])
    machine.buffers[0].filled = machine.buffers[1].filled = 4
    w = [0x30, word1, 0, 4 | 4 << 16, 1, 2, 2, 4 | 4 << 16, 2 | columns << 16, 2 | 2 << 16, 2,
         0, 0, 0, 0, 0]
    if field == 4:
        w[4:6] = 0, 0
    with pytest.raises(Refused) as caught:
        machine.execute(0x30, w)
    assert (caught.value.code, caught.value.field) == (2, field)
