"""Tests of cosim/golden/collectives.py against sums written out in plain float arithmetic."""
import ml_dtypes
import numpy as np
import pytest

from cosim.golden import collectives as golden
from cosim.golden.formats import Format

WIDE = {Format.FP32: np.float32, Format.BF16: ml_dtypes.bfloat16, Format.FP16: np.float16}
SMALL = {Format.E4M3: (ml_dtypes.float8_e4m3fn, 8, 448), Format.E5M2: (
    ml_dtypes.float8_e5m2, 15, 57344)}
# In which order ranks are added, written out. Of reduce_scatter and the ring: for each chunk.
ORDERS = {
    ("ring", 1): ["0"], ("ring", 2): ["10", "01"],
    ("ring", 3): ["120", "201", "012"],
    ("ring", 5): ["12340", "23401", "34012", "40123", "01234"],
}
TREES = {   # (ranks, root)
    (1, 0): "0", (2, 0): "(0 1)", (2, 1): "(1 0)", (3, 0): "((0 1) 2)", (3, 2): "((2 0) 1)",
    (5, 0): "(((0 1) (2 3)) 4)", (5, 3): "(((3 4) (0 1)) 2)",
    (8, 0): "(((0 1) (2 3)) ((4 5) (6 7)))",
}
DOUBLING = {
    1: "0", 2: "(0 1)", 3: "((0 1) 2)", 4: "((0 1) (2 3))", 5: "(((0 1) 2) (3 4))",
    6: "(((0 1) (2 3)) (4 5))", 8: "(((0 1) (2 3)) ((4 5) (6 7)))",
}


def plain_add(a, b):
    """Sum of two arrays of a small float type, in float32, rounded once more."""
    return (a.astype(np.float32) + b.astype(np.float32)).astype(a.dtype)


def nested(text, values, add=plain_add):
    """Value of an expression such as ((0 1) 2)."""
    stack = [[]]
    for token in text.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            stack.append([])
        elif token == ")":
            left, right = stack.pop()
            stack[-1].append(add(left, right))
        else:
            stack[-1].append(values[int(token)])
    (value,), = stack
    return value


def chain(digits):
    text = digits[0]
    for digit in digits[1:]:
        text = f"({text} {digit})"
    return text


def vectors(format, ranks, count, seed=0):
    """Random numbers of a type, and the same as the golden model takes them."""
    rng = np.random.default_rng(seed)
    kind = WIDE[format]
    values = [(rng.normal(size=count) * 2.0 ** rng.integers(-8, 8, count)).astype(kind)
              for _ in range(ranks)]
    codes = np.dtype(f"u{np.dtype(kind).itemsize}")
    return values, [golden.Vector(format, v.view(codes)) for v in values]


def bits(values):
    return values.view(np.dtype(f"u{values.dtype.itemsize}"))


@pytest.mark.parametrize("format", WIDE)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_a_ring_adds_each_chunk_from_the_next_rank_on(format, ranks):
    line = 64 // np.dtype(WIDE[format]).itemsize
    count = 7 * line + 3        # 8 lines: the first chunks have one more
    values, given = vectors(format, ranks, count)
    sizes = {1: [8], 2: [4, 4], 3: [3, 3, 2], 5: [2, 2, 2, 1, 1]}[ranks]
    want, at = [], 0
    for order, size in zip(ORDERS["ring", ranks], sizes, strict=True):
        run = slice(at, min(at + size * line, count))
        want.append(nested(chain(order), [v[run] for v in values]))
        at += size * line
    found = golden.all_reduce(given, "ring")
    assert np.array_equal(found.codes, bits(np.concatenate(want)))
    equal = [v[:ranks * 7] for v in values]
    for rank, got in enumerate(golden.reduce_scatter([v[0:ranks * 7] for v in given], "ring")):
        run = slice(rank * 7, rank * 7 + 7)
        assert np.array_equal(got.codes, bits(nested(chain(ORDERS["ring", ranks][rank]),
                                                     [v[run] for v in equal])))
        whole = golden.reduce(given, "ring", rank)
        assert np.array_equal(whole.codes, bits(nested(chain(ORDERS["ring", ranks][rank]),
                                                       values)))


@pytest.mark.parametrize("format", WIDE)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 6, 8])
def test_direct_and_doubling_follow_the_ranks(format, ranks):
    values, given = vectors(format, ranks, 100, seed=1)
    want = bits(nested(chain("01234567"[:ranks]), values))
    assert np.array_equal(golden.all_reduce(given, "direct").codes, want)
    assert np.array_equal(golden.reduce(given, "direct", ranks - 1).codes, want)
    if ranks in DOUBLING:
        assert np.array_equal(golden.all_reduce(given, "doubling").codes,
                              bits(nested(DOUBLING[ranks], values)))
    small = [v[0:ranks * 5] for v in given]
    for rank, got in enumerate(golden.reduce_scatter(small, "direct")):
        assert np.array_equal(got.codes, want[rank * 5:rank * 5 + 5])


@pytest.mark.parametrize("ranks, root", TREES)
def test_a_tree_adds_the_nearest_children_first(ranks, root):
    values, given = vectors(Format.BF16, ranks, 200, seed=2)
    want = bits(nested(TREES[ranks, root], values))
    assert np.array_equal(golden.reduce(given, "tree", root).codes, want)
    if root == 0:
        assert np.array_equal(golden.all_reduce(given, "tree").codes, want)


def test_the_orders_give_different_bits():
    """Otherwise the tests above would show nothing."""
    _, given = vectors(Format.BF16, 5, 2000, seed=3)
    found = [golden.all_reduce(given, a).codes.tobytes() for a in (
        "ring", "direct", "tree", "doubling")]
    assert len(set(found)) == 4


def mx_add(kind, emax, largest):
    """Sum of (values, scales) of MX blocks in float64, quantised again by the rule FLOOR."""
    def add(a, b):
        terms = [v.astype(np.float64).reshape(-1, 32) * s[:, None] for v, s in (a, b)]
        total = (terms[0] + terms[1]).astype(np.float32).astype(np.float64)
        peak = np.abs(total).max(1)
        scales = 2.0 ** (np.floor(np.log2(peak)) - emax)
        scaled = np.clip(total / scales[:, None], -largest, largest)
        return scaled.astype(kind).reshape(-1), scales
    return add


@pytest.mark.parametrize("format", SMALL)
def test_mx_sums_are_quantised_at_every_step(format):
    kind, emax, largest = SMALL[format]
    rng, count = np.random.default_rng(4), 5 * 2048 + 96
    codes = [rng.integers(0, 0x70, count).astype(np.uint8) | 0x80 * rng.integers(
        0, 2, count).astype(np.uint8) for _ in range(3)]
    scales = [rng.integers(120, 134, count // 32).astype(np.uint8) for _ in range(3)]
    given = [golden.Vector(format, c, s) for c, s in zip(codes, scales, strict=True)]
    plain = [(c.view(kind), 2.0 ** (s.astype(float) - 127)) for c, s in zip(
        codes, scales, strict=True)]
    add = mx_add(kind, emax, largest)
    values, powers = nested("((0 1) 2)", plain, add)
    found = golden.all_reduce(given, "direct")
    assert np.array_equal(found.codes.view(kind).astype(float), values.astype(float))
    assert np.array_equal(2.0 ** (found.scales.astype(float) - 127), powers)
    # Of the ring: 6 grains of 2048 elements, two for each rank.
    parts = []
    for order, (low, high) in zip(ORDERS["ring", 3], ((0, 4096), (4096, 8192), (8192, count)),
                                  strict=True):
        parts.append(nested(chain(order), [(v[low:high], s[low // 32:high // 32])
                                           for v, s in plain], add))
    found = golden.all_reduce(given, "ring")
    assert np.array_equal(found.codes.view(kind).astype(float),
                          np.concatenate([v for v, _ in parts]).astype(float))
    assert np.array_equal(2.0 ** (found.scales.astype(float) - 127),
                          np.concatenate([s for _, s in parts]))


def test_chunks_move_in_an_all_to_all():
    given = [golden.Vector(Format.FP32, np.arange(6, dtype=np.uint32) + 10 * r) for r in range(3)]
    found = golden.all_to_all(given)
    assert [f.codes.tolist() for f in found] == [
        [0, 1, 10, 11, 20, 21], [2, 3, 12, 13, 22, 23], [4, 5, 14, 15, 24, 25]]


def test_unknown_algorithms_are_refused():
    _, given = vectors(Format.FP32, 2, 4)
    for call in (lambda: golden.all_reduce(given, "star"),
                 lambda: golden.reduce(given, "doubling", 0),
                 lambda: golden.reduce_scatter(given, "tree")):
        with pytest.raises(ValueError, match="Algorithm must be ring"):
            call()
