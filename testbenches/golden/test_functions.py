"""Tests of cosim/golden/functions.py: worst errors over the whole input range, special values."""
import math

import numpy as np
import pytest

from cosim.golden.function_tables import Function, table
from cosim.golden.functions import apply, worst_error

# exp2, reciprocal, rsqrt: relative; GELU and SiLU: error of the gate [log2]
BOUNDS = {Function.EXP2: -23.3, Function.RECIPROCAL: -23.7, Function.RSQRT: -23.3,
          Function.GELU: -20.5, Function.SILU: -19.4}


def values(function, *inputs):
    return apply(function, np.array(inputs, np.float32).view(np.uint32)).view(np.float32)


@pytest.mark.parametrize("function", list(BOUNDS), ids=lambda f: f.name)
def test_worst_error_is_within_its_bound(function):
    error, place = worst_error(function, per_binade=4000)
    print(f"{function.name}: worst error 2^{math.log2(error):.2f} at {place:g}")
    assert math.log2(error) <= BOUNDS[function]


@pytest.mark.parametrize("function", list(BOUNDS), ids=lambda f: f.name)
def test_tables_fit_the_hardware(function):
    c0, c1, c2 = table(function).T
    assert c0.min() >= 0 and c0.max() <= 1 << 28
    assert c1.min() >= -(1 << 23) and c1.max() < 1 << 23
    assert c2.min() >= 0 and c2.max() < 1 << 17


@pytest.mark.parametrize("function", list(BOUNDS), ids=lambda f: f.name)
def test_nan_gives_the_canonical_nan(function):
    got = apply(function, np.array([0x7F800001, 0xFFC00000, 0x7FC12345], np.uint32))
    assert (got == 0x7FC00000).all()


def test_exp2_of_integers_is_exact_down_to_subnormals_and_up_to_overflow():
    x = np.arange(-152, 131)
    with np.errstate(over="ignore", under="ignore"):
        want = np.exp2(x.astype(np.float64)).astype(np.float32)
    assert np.array_equal(values(Function.EXP2, *x), want)
    assert values(Function.EXP2, np.inf, -np.inf, 1e38, -1e38, 0.0, -0.0, 1e-40).tolist() == [
        np.inf, 0, np.inf, 0, 1, 1, 1]


def test_reciprocal_special_values():
    got = values(Function.RECIPROCAL, 0.0, -0.0, np.inf, -np.inf, 2.0 ** -149, 2.0 ** -127, 4, -2)
    assert got.tolist() == [np.inf, -np.inf, 0, 0, np.inf, 2.0 ** 127, 0.25, -0.5]
    assert np.signbit(got).tolist() == [False, True, False, True, False, False, False, True]


def test_reciprocal_of_large_numbers_is_subnormal():
    x = np.linspace(2.0 ** 126, 2.0 ** 127.9, 1000).astype(np.float32)
    exact = 1 / x.astype(np.float64)
    assert (np.abs(values(Function.RECIPROCAL, *x) - exact) <= 2.0 ** -149).all()


def test_rsqrt_special_values():
    got = values(Function.RSQRT, 0.0, -0.0, np.inf, 2.0 ** -148, 4, 2.0 ** -126)
    assert got.tolist() == [np.inf, -np.inf, 0, 2.0 ** 74, 0.5, 2.0 ** 63]
    assert np.isnan(values(Function.RSQRT, -1, -np.inf, -1e-40)).all()


@pytest.mark.parametrize("function", [Function.GELU, Function.SILU], ids=lambda f: f.name)
def test_gates_are_open_far_right_and_shut_far_left(function):
    got = values(function, np.inf, 1e30, 16.0, -np.inf, -16.0, -1e30, 0.0, -0.0)
    assert got[:3].tolist() == [np.inf, np.float32(1e30), 16.0]
    assert not got[3:].any()
    assert np.signbit(got).tolist() == [False] * 3 + [True] * 3 + [False, True]


@pytest.mark.parametrize("function", [Function.GELU, Function.SILU], ids=lambda f: f.name)
def test_gated_functions_halve_small_numbers(function):
    assert np.allclose(values(function, 1e-40, -1e-40, 1e-20), [5e-41, -5e-41, 5e-21], rtol=1e-4)
