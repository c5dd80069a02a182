"""Tests of cosim/golden/cache.py: small cases by hand, and LRU beside it."""
import random

import pytest

from cosim.golden.cache import DUEL_START, WHOLE, Cache, Contents, Hint, LruCache

SETS, WAYS = 64, 8
SIZE = SETS * WAYS


def traces():
    """Traces by name: line numbers, against a cache of ``SIZE`` lines."""
    chosen = random.Random(1)
    weights = list(range(SIZE // 2))
    phases = []
    for n in range(12):
        phases += weights + weights + list(range(10 ** 6 + n * SIZE, 10 ** 6 + (n + 1) * SIZE))
    return {
        "stream": list(range(8 * SIZE)),
        "loop 0.9": list(range(SIZE * 9 // 10)) * 10,
        "loop 1.1": list(range(SIZE * 11 // 10)) * 10,
        "loop 1.25": list(range(SIZE * 5 // 4)) * 10,
        "loop 2": list(range(2 * SIZE)) * 10,
        "reuse and stream": [chosen.randrange(SIZE // 2) if chosen.random() < 0.5 else 10 ** 6 + n
                             for n in range(30 * SIZE)],
        "reuse, then stream": phases}


@pytest.mark.parametrize(("name", "least"), [
    ("stream", 0), ("loop 0.9", 0), ("loop 1.1", 0.4), ("loop 1.25", 0.4), ("loop 2", 0.25),
    ("reuse and stream", 0.05), ("reuse, then stream", 0.15)])
def test_hits_are_at_least_those_of_lru(name, least):
    trace = traces()[name]
    ours = Cache(sets=SETS, ways=WAYS).hit_rate(trace)
    lru = LruCache(sets=SETS, ways=WAYS).hit_rate(trace)
    print(f"{name}: {ours:.3f}, LRU {lru:.3f}")
    assert ours >= lru + least


def test_free_ways_first_then_the_lowest_of_the_oldest():
    cache = Cache(sets=1, ways=3)
    for line in (10, 11, 12):
        assert cache.access(line).memory == [("read", line)]
    cache.access(10)
    cache.access(13)
    assert [way.line for way in cache.lines[0]] == [10, 13, 12]
    assert [way.r for way in cache.lines[0]] == [1, 2, 3]


def test_changed_lines_are_written_back_and_whole_writes_fetch_nothing():
    cache = Cache(sets=1, ways=1)
    assert cache.access(1, write=True).memory == []
    assert cache.access(2, write=True, mask=1).memory == [("read", 2), ("write", 1)]
    assert cache.access(3).memory == [("read", 3), ("write", 2)]
    assert cache.access(4).memory == [("read", 4)]
    assert cache.flush() == []


def test_hints():
    cache = Cache(sets=1, ways=2)
    assert cache.access(1, hint=Hint.NO_ALLOCATE).memory == [("read", 1)]
    assert cache.access(1, write=True, hint=Hint.NO_ALLOCATE).memory == [("write", 1)]
    assert not cache.access(1, write=True).hit
    effect = cache.access(1, hint=Hint.NO_WRITE_BACK)
    assert effect.hit and effect.dropped and not effect.memory
    assert not cache.access(1, hint=Hint.PREFETCH).hit and cache.access(1).hit
    assert cache.access(2, write=True, mask=3, hint=Hint.NO_ALLOCATE).memory == [("read", 2)]
    assert cache.access(2).hit


def test_the_policies_duel():
    cache = Cache(sets=64, ways=1)
    for line in range(0, 640, 64):      # set 0 misses: SRRIP loses
        cache.access(line)
    assert cache.duel == DUEL_START + 10
    for line in range(16, 640 + 16, 64):
        cache.access(line)
    assert cache.duel == DUEL_START


def test_ways_come_and_go():
    cache = Cache(sets=2, ways=2)
    for line in range(4):
        cache.access(line, write=True)
    assert cache.flush(keep=1) == [0, 1]
    assert cache.access(2).hit and not cache.access(0).hit
    cache.grow(3)
    assert cache.count == 4 and cache.access(0).hit


def test_contents_know_what_is_known():
    contents = Contents()
    contents.write(3, bytes(range(64)), 0b110)
    assert contents.read(3) == (bytes([0, 1, 2]) + bytes(61), WHOLE)
    contents.forget(3)
    assert contents.read(3)[1] == 0
    contents.write(3, bytes(64), 0b1)
    assert contents.read(3)[1] == 1
