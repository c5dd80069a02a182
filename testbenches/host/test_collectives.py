"""Sums over ranks: programs of host/collectives run in random orders, bit for bit."""
import numpy as np
import pytest

from cosim.golden import collectives as golden
from cosim.golden.formats import SPECS
from host.isa import Format
from host.network_isa import EngineKind
from testbenches.collective_case import (
    plans_of,
    random_vector,
    set_up,
    start,
)

RANKS = [1, 2, 3, 4, 5, 8]
SIZES = {   # of odd counts, some not a multiple of ranks or lines, some of several pieces
    Format.FP32: [1, 17, 333], Format.BF16: [1, 37, 1001], Format.FP16: [3, 290],
    Format.E4M3: [32, 3 * 2048 + 64], Format.E5M2: [5 * 2048 + 32],
}
CASES = [(f, count) for f, counts in SIZES.items() for count in counts]
NAMES = [f"{f.name}-{count}" for f, count in CASES]


def run(kind, plans, vectors, format, *, name, buffers, seed, first=0):
    """Run a collective on all ranks; returns them, checked for races and changes elsewhere."""
    system, ranks, bells = set_up(plans, buffers, format, seed=seed)
    for number, (rank, vector) in enumerate(zip(ranks, vectors, strict=True)):
        rank.put(name, first[number] if isinstance(first, list) else first, vector)
    start(ranks, plans, bells)
    reports = system.run()
    assert all(r.code == 0 for r in reports.values()), [r.text for r in reports.values()]
    assert not system.races, system.races[:3]
    return ranks


def runs(format, name, first, count):
    """Bytes of elements and scales of a run."""
    size = SPECS[format].bits // 8
    return [(name, first * size, count * size)] + [
        (name + " scales", first // 32, count // 32)] * format.is_mx


def staging(plans, rank):
    return [("staging", 0, plans[rank].staging_bytes)]


@pytest.mark.parametrize("format, count", CASES, ids=NAMES)
@pytest.mark.parametrize("algorithm", ["ring", "direct", "tree", "doubling"])
@pytest.mark.parametrize("n", RANKS)
def test_all_reduce(n, algorithm, format, count):
    rng = np.random.default_rng(count + n)
    x = [random_vector(rng, format, count) for _ in range(n)]
    want = golden.all_reduce(x, algorithm)
    in_place = (n + count) % 2 == 0
    name = "output" if in_place else "input"
    plans = plans_of("all_reduce", n, count=count, format=format, algorithm=algorithm,
                     in_place=in_place, piece_bytes=256)
    ranks = run("all_reduce", plans, x, format, name=name, seed=n * count,
                buffers=dict.fromkeys({name, "output"}, count))
    for number, rank in enumerate(ranks):
        assert rank.get("output", 0, count, format).same(want)
        assert not rank.changed(*runs(format, "output", 0, count), *staging(plans, number))


@pytest.mark.parametrize("format, count", CASES, ids=NAMES)
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("pieces", [256, 1 << 20])
def test_a_direct_sum_in_halves_has_the_same_bits(n, pieces, format, count):
    """With fewer bytes sent, as soon as there is more than a line for each rank."""
    rng = np.random.default_rng(count + n)
    x = [random_vector(rng, format, count) for _ in range(n)]
    in_place = (n + count) % 2 == 0
    name = "output" if in_place else "input"
    plans, whole = (plans_of("all_reduce", n, count=count, format=format, algorithm="direct",
                             in_place=in_place, piece_bytes=pieces, lanes=1, halves=halves)
                    for halves in (True, False))
    for seed in range(3):
        ranks = run("all_reduce", plans, x, format, name=name, seed=seed,
                    buffers=dict.fromkeys({name, "output"}, count))
        for number, rank in enumerate(ranks):
            assert rank.get("output", 0, count, format).same(golden.all_reduce(x, "direct"))
            assert not rank.changed(*runs(format, "output", 0, count), *staging(plans, number))
    if n > 2 and count >= 290 and not format.is_mx:
        sent, more = (sum(step.length for made in which for lane in made.lanes
                          for step in lane.steps if step.kind == EngineKind.SEND)
                      for which in (plans, whole))
        assert sent * n == 2 * more     # 2 (n - 1) / n and n - 1 times the vector


@pytest.mark.parametrize("format, count", [(Format.BF16, 64), (Format.E4M3, 2048)])
@pytest.mark.parametrize("n", [12, 17, 24])
def test_halves_leave_room_to_send_with_many_ranks(n, format, count):
    """More peers than entries that are under way at a time."""
    rng = np.random.default_rng(n)
    x = [random_vector(rng, format, n * count) for _ in range(n)]
    plans = plans_of("all_reduce", n, count=n * count, format=format, algorithm="direct",
                     in_place=True, lanes=1, halves=True)
    want = golden.all_reduce(x, "direct")
    for rank in run("all_reduce", plans, x, format, name="output", seed=n,
                    buffers={"output": n * count}):
        assert rank.get("output", 0, n * count, format).same(want)


@pytest.mark.parametrize("kind, algorithm", [("all_reduce", "ring"), ("reduce_scatter", "direct")])
def test_halves_are_of_a_direct_sum(kind, algorithm):
    with pytest.raises(ValueError, match=f"direct all_reduce, not of {kind} by {algorithm}"):
        plans_of(kind, 2, count=64, algorithm=algorithm, halves=True)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("algorithm", ["ring", "direct", "tree", "doubling"])
def test_every_order_gives_the_same_bits(algorithm, in_place, lanes):
    n, count, format = 4, 500, Format.BF16
    rng = np.random.default_rng(9)
    x = [random_vector(rng, format, count) for _ in range(n)]
    want = golden.all_reduce(x, algorithm)
    name = "output" if in_place else "input"
    plans = plans_of("all_reduce", n, count=count, format=format, algorithm=algorithm,
                     in_place=in_place, piece_bytes=64, lanes=lanes)
    assert len(plans[0].lanes) == lanes
    for seed in range(6):
        for rank in run("all_reduce", plans, x, format, name=name, seed=seed,
                        buffers=dict.fromkeys({name, "output"}, count)):
            assert rank.get("output", 0, count, format).same(want)


@pytest.mark.parametrize("format, count", [
    (Format.FP32, 1), (Format.FP32, 33), (Format.BF16, 160), (Format.BF16, 257), (Format.FP16, 7),
    (Format.E4M3, 2048), (Format.E5M2, 96)])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("algorithm", ["ring", "direct"])
@pytest.mark.parametrize("n", RANKS)
def test_reduce_scatter(n, algorithm, in_place, format, count):
    """Also where chunks start inside a line, in place too."""
    rng = np.random.default_rng(count + n)
    x = [random_vector(rng, format, n * count) for _ in range(n)]
    plans = plans_of("reduce_scatter", n, count=count, format=format, algorithm=algorithm,
                     in_place=in_place, piece_bytes=128)
    buffers = {"input": n * count} | ({} if in_place else {"output": count})
    ranks = run("reduce_scatter", plans, x, format, name="input", buffers=buffers, seed=n)
    for number, (rank, want) in enumerate(zip(ranks, golden.reduce_scatter(x, algorithm),
                                              strict=True)):
        where = ("input", number * count) if in_place else ("output", 0)
        assert rank.get(*where, count, format).same(want)
        assert not rank.changed(*runs(format, *where, count), *staging(plans, number))


@pytest.mark.parametrize("format, count", [
    (Format.FP32, 1), (Format.BF16, 555), (Format.E5M2, 2048 + 32)])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("algorithm", ["ring", "tree", "direct"])
@pytest.mark.parametrize("n", RANKS)
def test_reduce(n, algorithm, in_place, format, count):
    rng, root = np.random.default_rng(count + n), n // 2
    x = [random_vector(rng, format, count) for _ in range(n)]
    name = "output" if in_place else "input"
    plans = plans_of("reduce", n, count=count, format=format, algorithm=algorithm, root=root,
                     in_place=in_place, piece_bytes=128)
    ranks = run("reduce", plans, x, format, name=name, seed=n,
                buffers=dict.fromkeys({name, "output"}, count))
    assert ranks[root].get("output", 0, count, format).same(golden.reduce(x, algorithm, root))
    for number, rank in enumerate(ranks):
        own = runs(format, "output", 0, count) if number == root else []
        assert not rank.changed(*own, *staging(plans, number))


@pytest.mark.parametrize("algorithm, n", [("ring", 72), ("tree", 72), ("doubling", 72),
                                          ("direct", 24)])
def test_many_ranks(algorithm, n):
    count, format = 33, Format.FP32     # three lines: most chunks of the ring are empty
    rng = np.random.default_rng(72)
    x = [random_vector(rng, format, count) for _ in range(n)]
    plans = plans_of("all_reduce", n, count=count, format=format, algorithm=algorithm,
                     in_place=True, lanes=1)
    want = golden.all_reduce(x, algorithm)
    for rank in run("all_reduce", plans, x, format, name="output", buffers={"output": count},
                    seed=1):
        assert rank.get("output", 0, count, format).same(want)
