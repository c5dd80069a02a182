"""Tests of cosim/golden/secded.py from what any SECDED code must do."""
from itertools import combinations

import numpy as np
import pytest

from cosim.golden.secded import Verdict, decode, encode, parity_check

SIZES = {8: 5, 64: 8, 128: 9, 256: 10}      # data bits: check bits, as Hsiao's codes have them


@pytest.mark.parametrize("bits", SIZES)
def test_distance_is_four(bits):
    """No column is zero, no two are equal, no three add up to zero: each weight is odd."""
    matrix = parity_check(bits)
    assert matrix.shape == (SIZES[bits], bits + SIZES[bits])
    assert len({tuple(column) for column in matrix.T}) == matrix.shape[1]
    assert (matrix.sum(0) % 2 == 1).all()
    if bits <= 64:
        numbers = [int(n) for n in (1 << np.arange(len(matrix))) @ matrix]
        pairs = {a ^ b for a, b in combinations(numbers, 2)}
        assert 0 not in pairs and not pairs & set(numbers)


@pytest.mark.parametrize("bits", SIZES)
def test_rows_are_even(bits):
    """Hsiao's point: the least ones in all, and as many in each row, so the least depth."""
    ones = parity_check(bits)[:, :bits].sum(1)
    assert ones.max() - ones.min() <= 1


def test_zero_has_check_bits_of_zero():
    assert not encode(np.zeros((3, 256), int)).any()


@pytest.mark.parametrize("bits", SIZES)
def test_every_single_error_is_corrected(bits):
    rng = np.random.default_rng(bits)
    words = rng.integers(0, 2, (bits + SIZES[bits], bits))
    stored = np.concatenate([words, encode(words)], 1)
    read, verdicts = decode(stored[:, :bits], stored[:, bits:])
    assert (read == words).all() and (verdicts == Verdict.GOOD).all()
    wrong = stored ^ np.eye(stored.shape[1], dtype=int)
    read, verdicts = decode(wrong[:, :bits], wrong[:, bits:])
    assert (read == words).all() and (verdicts == Verdict.CORRECTED).all()


@pytest.mark.parametrize("bits", [8, 64])
def test_every_double_error_is_detected(bits):
    rng = np.random.default_rng(bits)
    total = bits + SIZES[bits]
    word = rng.integers(0, 2, bits)
    stored = np.concatenate([word, encode(word)])
    flips = np.array([[a == n or b == n for n in range(total)]
                      for a, b in combinations(range(total), 2)])
    wrong = stored ^ flips
    read, verdicts = decode(wrong[:, :bits], wrong[:, bits:])
    assert (verdicts == Verdict.UNCORRECTABLE).all()
    assert (read == wrong[:, :bits]).all()


def test_double_errors_of_a_wide_word_are_detected():
    """Every pair of columns of 256 bits gives a syndrome that is no column's and not zero."""
    matrix = parity_check(256)
    numbers = (1 << np.arange(len(matrix))) @ matrix
    sums = numbers[:, None] ^ numbers
    sums = sums[~np.eye(len(numbers), dtype=bool)]
    assert sums.all() and not np.isin(sums, numbers).any()
