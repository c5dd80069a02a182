"""SECDED code of memories: what is stored beside a word, and what is read back.

The parity-check matrix H has a column for each data bit and then one for each check bit; the
columns of the check bits are the unit vectors. Those of the data bits are different vectors of odd
weight: all of weight 3 first, then those of weight 5, and so on, until there are enough. Among
vectors of the same weight the next is the one that keeps the rows even: with the smallest sum, over
its ones, of the ones that the rows have so far; of equals the smallest number (row 0 is bit 0).
Stored words are those whose product with H is zero. Three columns of odd weight never add up to
zero, two different ones neither, so the least distance is 4. Source: Hsiao 1970; the order of the
columns is this project's choice.
"""
from enum import IntEnum
from functools import cache

import numpy as np


class Verdict(IntEnum):
    """What was found in a word that was read."""

    GOOD = 0
    CORRECTED = 1
    UNCORRECTABLE = 2


@cache
def parity_check(data_bits: int) -> np.ndarray:
    """H, of shape (check bits, data bits + check bits), of 0 and 1."""
    rows = 4
    while 2 ** (rows - 1) - rows < data_bits:   # vectors of odd weight but for the unit vectors
        rows += 1
    numbers = np.arange(2 ** rows)
    vectors = (numbers[:, None] >> np.arange(rows)) & 1
    chosen, ones = [], np.zeros(rows, int)
    for weight in range(3, rows + 1, 2):
        left = list(numbers[vectors.sum(1) == weight])
        while left and len(chosen) < data_bits:
            sums = vectors[left] @ ones
            number = left.pop(int(np.argmin(sums)))     # the first, so the smallest, of the least
            chosen.append(number)
            ones += vectors[number]
    return np.concatenate([vectors[chosen].T, np.eye(rows, dtype=int)], 1)


def encode(words: np.ndarray) -> np.ndarray:
    """Check bits of words: (..., data bits) of 0 and 1 become (..., check bits)."""
    words = np.asarray(words)
    return words @ parity_check(words.shape[-1])[:, :words.shape[-1]].T % 2


def decode(words: np.ndarray, checks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corrected words, and a :class:`Verdict` for each."""
    words, checks = np.array(words), np.asarray(checks)
    matrix = parity_check(words.shape[-1])
    syndromes = np.concatenate([words, checks], -1) @ matrix.T % 2
    blamed = (syndromes[..., None, :] == matrix.T).all(-1)      # (..., bits of H)
    words ^= blamed[..., :words.shape[-1]]
    verdicts = np.where(blamed.any(-1), Verdict.CORRECTED, np.where(
        syndromes.any(-1), Verdict.UNCORRECTABLE, Verdict.GOOD))
    return words, verdicts
