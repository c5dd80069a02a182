"""Tests of cosim/golden/simd.py against plain Python and float64."""
import itertools

import ml_dtypes
import numpy as np
import pytest

from cosim.golden.formats import Format, decode, scale_value
from cosim.golden.function_tables import Function
from cosim.golden.quantise import quantise
from cosim.golden.simd import (
    Operation,
    Reduce,
    Source1,
    narrow,
    reduce_rows,
    simd,
    widen,
)


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def floats(patterns):
    return np.ascontiguousarray(patterns, np.uint32).view(np.float32)


def test_every_16_bit_code_widens_and_narrows_back():
    codes = np.arange(65536, dtype=np.uint16)
    for format, dtype in ((Format.BF16, ml_dtypes.bfloat16), (Format.FP16, np.float16)):
        values = codes.view(dtype).astype(np.float32)
        wide = widen(codes, format)
        finite = ~np.isnan(values)
        assert np.array_equal(wide[finite], values[finite].view(np.uint32))
        assert (wide[~finite] == 0x7FC00000).all()
        assert np.array_equal(narrow(wide, format)[finite], codes[finite])


def test_narrowing_rounds_as_ml_dtypes():
    rng = np.random.default_rng(1)
    patterns = rng.integers(0, 1 << 32, 100000, dtype=np.uint64).astype(np.uint32)
    values = patterns.view(np.float32)
    keep = ~np.isnan(values)
    with np.errstate(all="ignore"):
        want = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert np.array_equal(narrow(patterns, Format.BF16)[keep], want[keep])
    assert (narrow(patterns, Format.BF16)[~keep] == 0x7FC0).all()


@pytest.mark.parametrize("columns", [1, 7, 15, 16, 17, 40, 100])
def test_sums_are_taken_in_the_stated_order(columns):
    values = np.random.default_rng(columns).standard_normal((3, columns)).astype(np.float32) * 1e3
    got = floats(reduce_rows(Reduce.SUM, bits(values)))
    for row, total in zip(values, got, strict=True):
        lanes = []
        for lane in range(min(columns, 16)):
            acc = row[lane]
            for value in row[lane + 16::16]:
                acc = np.float32(acc + value)
            lanes.append(acc)
        for distance in (8, 4, 2, 1):
            lanes = [np.float32(lanes[i] + lanes[i + distance]) if i + distance < len(lanes)
                     else lanes[i] for i in range(min(distance, len(lanes)))]
        assert total == lanes[0]


def test_a_sum_of_minus_zeros_is_minus_zero():
    assert reduce_rows(Reduce.SUM, bits(np.full((1, 5), -0.0)))[0] == 1 << 31


def test_max_finds_the_largest_and_any_nan():
    values = np.random.default_rng(1).standard_normal((4, 37)).astype(np.float32)
    values[3, 20] = np.nan
    got = floats(reduce_rows(Reduce.MAX, bits(values)))
    assert np.array_equal(got[:3], values[:3].max(-1)) and np.isnan(got[3])


def test_source_1_modes_broadcast():
    rng = np.random.default_rng(2)
    x, full = (rng.standard_normal((3, 20)).astype(np.float32) for _ in range(2))
    row, scalar = rng.standard_normal(20).astype(np.float32), np.float32([1, 2, 3])
    for mode, y, shaped in ((Source1.FULL, full, full), (Source1.ROW, row, row[None]),
                            (Source1.SCALAR, scalar, scalar[:, None])):
        got = simd(bits(x), bits(y), operation=Operation.SUBTRACT, mode=mode)
        assert np.array_equal(floats(got), x - shaped)


def test_affine_rounds_twice():
    x = np.float32([[1 + 2.0 ** -12]])
    got = floats(simd(bits(x), affine=(x[0, 0], -1.0)))
    assert got[0, 0] == np.float32(np.float32(x * x) - 1) != float(x[0, 0]) ** 2 - 1


def test_softmax_of_four_commands_sums_to_one():
    x = np.random.default_rng(3).standard_normal((8, 50)).astype(np.float32) * 4
    top = simd(bits(x), reduce=Reduce.MAX)
    e = simd(bits(x), top, operation=Operation.SUBTRACT, mode=Source1.SCALAR,
             affine=(np.log2(np.e), 0.0), function=Function.EXP2)
    total = simd(e, reduce=Reduce.SUM)
    inverse = simd(total[None], function=Function.RECIPROCAL)[0]
    got = floats(simd(e, inverse, operation=Operation.MULTIPLY, mode=Source1.SCALAR))
    exact = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    exact /= exact.sum(-1, keepdims=True)
    assert np.abs(got - exact).max() < 1e-6 and np.abs(got.sum(-1) - 1).max() < 1e-6


@pytest.mark.parametrize("format", [Format.E4M3, Format.E5M2, Format.E2M1], ids=lambda f: f.name)
def test_quantised_rows_are_padded_with_zeros(format):
    x = np.random.default_rng(4).standard_normal((3, 40)).astype(np.float32)
    codes, scales = simd(bits(x), destination=format)
    assert codes.shape == (3, 64) and scales.shape == (3, 2) and not codes[:, 40:].any()
    alone, scale = quantise(x[:, :32], format)
    assert np.array_equal(codes[:, :32], alone) and np.array_equal(scales[:, :1], scale)
    values = decode(format, codes[:, :40]) * np.repeat(scale_value(scales), 32, -1)[:, :40]
    assert np.abs(values - x).max() < 0.6


def test_stochastic_rounding_depends_on_row_column_and_seed():
    x = bits(np.full((4, 64), 2.3) + np.where(np.arange(64) % 32 == 0, 3.0, 0))
    runs = [simd(x, destination=Format.E2M1, stochastic=True, seed=s)[0] for s in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])
    for a, b in itertools.combinations(runs[0], 2):
        assert not np.array_equal(a, b)
