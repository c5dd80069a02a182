"""Collectives between packages, each of them and its network chiplets in RTL."""
import numpy as np
import pytest

from cosim.fabric import Faults
from cosim.golden import collectives as golden
from host.bench.allreduce import large
from host.bench.collectives import exercise, exercise_runs
from host.bench.ranks import numbers, open_system, put, same
from host.collectives import ALGORITHMS, CollectiveError, Group
from host.isa import Format
from host.outcome import Options

pytestmark = pytest.mark.system
RANKS = 3
CASES = [(kind, algorithm) for kind, algorithms in ALGORITHMS.items()
         if kind not in ("send", "receive", "barrier", "all_to_all_v") for algorithm in algorithms]
LOST = Faults(loss=0.05, duplicate=0.05, corrupt=0.05, reorder=0.05)


@pytest.fixture(scope="module")
def several():
    """Packages that the tests share, and what joins them."""
    with open_system(Options(threads=2), RANKS) as (cluster, system):
        yield cluster, system


@pytest.mark.parametrize(("kind", "algorithm"), CASES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_collective_gives_the_bits_of_the_golden_model(several, kind, algorithm, ranks):
    group, rng = Group(several[1], range(ranks)), np.random.default_rng(ranks)
    for form, count in ((Format.BF16, 37), (Format.FP32, 259), (Format.E4M3, 96)):
        found, _ = exercise(group, kind, algorithm, form, count, rng)
        assert found, (form, count)


def test_runs_of_any_length(several):
    assert exercise_runs(Group(several[1]), np.random.default_rng(1))


def test_every_rail_at_once_also_while_the_network_fails(several):
    """The same bits; and the frames that were lost have been sent again."""
    cluster, system = several
    group, rng = Group(system), np.random.default_rng(2)
    quiet, good = large(group, 30_000, rng)
    assert good
    places = [(rank, nic) for rank in range(RANKS) for nic in range(2)]
    for place in places:
        cluster.fabric.set_faults(*place, LOST)
    slow, good = large(group, 30_000, rng)
    for place in places:
        cluster.fabric.set_faults(*place, Faults())
    totals = cluster.fabric.totals()
    assert good and slow > quiet and totals["lost"] and totals["corrupted"]


def test_rails_run_beside_each_other_and_the_stream_goes_on_after_both(several):
    """Together they take hardly longer than one; what follows in the stream sees all sums."""
    system = several[1]
    group, rng = Group(system), np.random.default_rng(4)
    clock, dies = group.devices[0].transport, [rail.die for rail in system.rails]
    x = [[numbers(rng, Format.BF16, 30_000) for _ in group.ranks] for _ in dies]
    buffers = [tuple(put(d, die, x[k][r]) for k, die in enumerate(dies))
               for r, d in enumerate(group.devices)]
    took = []
    for rails in (1, 1, 2):     # the first makes connections
        for device in group.devices:
            device.synchronize()
        start, given = clock.cycle, [own[:rails] for own in buffers]
        handles = group.all_reduce(given, algorithm="ring")
        x[:rails] = [[golden.all_reduce(v, "ring")] * RANKS for v in x[:rails]]
        assert all(same(d, own[k], v[r]) for k, v in enumerate(x)     # nothing was waited for
                   for r, (d, own) in enumerate(zip(group.devices, buffers, strict=True)))
        took.append(max(handle.wait() for handle in handles))
        assert took[-1] <= clock.cycle - start
    assert took[2] < 1.2 * took[1]


def test_a_rank_that_does_not_come_is_named_and_others_go_on(several):
    group, rng = Group(several[1]), np.random.default_rng(3)
    with pytest.raises(CollectiveError, match="rank 2|WATCHDOG"):
        group.barrier(absent={2}, watchdog=20_000).wait()
    assert exercise(group, "all_reduce", "ring", Format.BF16, 100, rng)[0]
