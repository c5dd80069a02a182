"""Collectives that only move bytes, barriers, and what a program waits for and tells."""
import numpy as np
import pytest

from cosim.golden import collectives as golden
from cosim.golden.message_system import WATCHDOG
from host.collectives import Order
from host.collectives.order import clock
from host.isa import Format, Region, address
from host.network_isa import Compare, EngineKind
from testbenches.collective_case import plans_of, random_vector, set_up, start
from testbenches.host.test_collectives import run, runs, staging

RANKS = [1, 2, 3, 5, 8]
FORMS = [(Format.FP32, 1), (Format.BF16, 33), (Format.BF16, 256), (Format.E4M3, 96),
         (Format.FP16, 700)]
IDS = [f"{f.name}-{count}" for f, count in FORMS]


@pytest.mark.parametrize("format, count", FORMS, ids=IDS)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("algorithm", ["ring", "doubling", "direct"])
@pytest.mark.parametrize("n", RANKS)
def test_all_gather(n, algorithm, in_place, format, count):
    """Chunks may start anywhere in a line."""
    rng = np.random.default_rng(count + n)
    x = [random_vector(rng, format, count) for _ in range(n)]
    plans = plans_of("all_gather", n, count=count, format=format, algorithm=algorithm,
                     in_place=in_place, piece_bytes=128)
    buffers = {"output": n * count} | ({} if in_place else {"input": count})
    ranks = run("all_gather", plans, x, format, name="output" if in_place else "input", seed=n,
                buffers=buffers, first=[r * count * in_place for r in range(n)])
    for number, rank in enumerate(ranks):
        assert rank.get("output", 0, n * count, format).same(golden.join(x))
        assert not rank.changed(*runs(format, "output", 0, n * count), *staging(plans, number))


@pytest.mark.parametrize("format, count", FORMS, ids=IDS)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("algorithm", ["ring", "tree", "direct"])
@pytest.mark.parametrize("n", RANKS)
def test_broadcast(n, algorithm, in_place, format, count):
    root = n - 1
    rng = np.random.default_rng(count + n)
    x = [random_vector(rng, format, count) for _ in range(n)]
    plans = plans_of("broadcast", n, count=count, format=format, algorithm=algorithm, root=root,
                     in_place=in_place, piece_bytes=128)
    name = "output" if in_place else "input"
    ranks = run("broadcast", plans, x, format, name=name, seed=n,
                buffers=dict.fromkeys({name, "output"}, count))
    for number, rank in enumerate(ranks):
        assert rank.get("output", 0, count, format).same(x[root])
        assert not rank.changed(*runs(format, "output", 0, count), *staging(plans, number))


@pytest.mark.parametrize("format, count", FORMS, ids=IDS)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("n", RANKS)
def test_all_to_all(n, in_place, format, count):
    rng = np.random.default_rng(count + n)
    x = [random_vector(rng, format, n * count) for _ in range(n)]
    plans = plans_of("all_to_all", n, count=count, format=format, in_place=in_place, lanes=3)
    name = "output" if in_place else "input"
    ranks = run("all_to_all", plans, x, format, name=name, seed=n,
                buffers=dict.fromkeys({name, "output"}, n * count))
    for number, (rank, want) in enumerate(zip(ranks, golden.all_to_all(x), strict=True)):
        assert rank.get("output", 0, n * count, format).same(want)
        assert not rank.changed(*runs(format, "output", 0, n * count), *staging(plans, number))


@pytest.mark.parametrize("format", [Format.FP32, Format.BF16, Format.E5M2])
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("seed", range(3))
def test_all_to_all_v(n, format, seed):
    """Runs of any length, some without elements, at any place, with gaps that nobody touches."""
    rng = np.random.default_rng(seed)
    unit = 32 if format.is_mx else 1
    counts = rng.integers(0, 60, (n, n)) * (rng.random((n, n)) < 0.7) * unit

    def spread(sizes):
        found, at = [], 0
        for size in sizes:
            at += int(rng.integers(0, 20)) * unit
            found.append((at, int(size)))
            at += int(size)
        return found

    sent, received = [spread(row) for row in counts], [spread(row) for row in counts.T]
    x = [random_vector(rng, format, 80 * n * unit) for _ in range(n)]
    plans = plans_of("all_to_all_v", n, count=None, format=format, sent=sent, received=received,
                     check=seed == 1)
    ranks = run("all_to_all_v", plans, x, format, name="input", seed=seed,
                buffers={"input": 80 * n * unit, "output": 80 * n * unit})
    for number, rank in enumerate(ranks):
        allowed = []
        for peer, (first, count) in enumerate(received[number]):
            if count:
                start_at = sent[peer][number][0]
                assert rank.get("output", first, count, format).same(
                    x[peer][start_at:start_at + count])
                allowed += runs(format, "output", first, count)
        assert not rank.changed(*allowed, *staging(plans, number))


@pytest.mark.parametrize("format, count", FORMS, ids=IDS)
def test_send_and_receive(format, count):
    x = [random_vector(np.random.default_rng(r), format, count) for r in range(2)]
    plans = [plans_of("send", 2, count=count, format=format, peer=[1, 0])[0],
             plans_of("receive", 2, count=count, format=format, peer=[1, 0])[1]]
    ranks = run("send", plans, x, format, name="input", seed=count,
                buffers={"input": count, "output": count})
    assert ranks[1].get("output", 0, count, format).same(x[0])
    assert not ranks[0].changed()
    assert not ranks[1].changed(*runs(format, "output", 0, count))


@pytest.mark.parametrize("algorithm", ["doubling", "direct"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_nobody_passes_a_barrier_before_all_have_come(n, algorithm):
    plans = plans_of("barrier", n, count=1, algorithm=algorithm)
    system, ranks, bells = set_up(plans, {}, Format.FP32, seed=n)
    start(ranks, plans, bells)
    assert all(r.code == 0 for r in system.run().values())
    for missing in range(n if n > 1 else 0):
        system, ranks, bells = set_up(plans, {}, Format.FP32, seed=missing)
        some = [r for r in range(n) if r != missing]
        start([ranks[r] for r in some], [plans[r] for r in some], [bells[r] for r in some])
        reports = system.run()
        assert len(reports) == n - 1 and all(r.code == WATCHDOG for r in reports.values())
        assert any(f"rank {missing}" in r.text for r in reports.values())


def test_collectives_on_the_same_queue_pairs_follow_each_other():
    """Ranks may be in different ones at a time."""
    n, count, format = 3, 200, Format.BF16
    rng = np.random.default_rng(5)
    x = [random_vector(rng, format, count) for _ in range(n)]
    plans = plans_of("all_reduce", n, count=count, format=format, algorithm="ring", in_place=True,
                     piece_bytes=64)
    system, ranks, bells = set_up(plans, {"output": count}, format, seed=3)
    for rank, vector in zip(ranks, x, strict=True):
        rank.put("output", 0, vector)
    want = x
    for _ in range(3):
        start(ranks, plans, bells)
        assert all(r.code == 0 for r in system.run().values()) and not system.races
        want = [golden.all_reduce(want, "ring")] * n
    assert all(rank.get("output", 0, count, format).same(want[0]) for rank in ranks)


def ordered(order, arrived=True, words=(), stops=False):
    """An all_reduce of two ranks with an order; reports and ranks.

    ``stops``: rank 1 does not send the last message of any lane.
    """
    plans = plans_of("all_reduce", 2, count=512, format=Format.BF16, algorithm="ring",
                     in_place=True, piece_bytes=64, order=order, sequence=77)
    assert len(plans[0].lanes) > 1
    system, ranks, bells = set_up(plans, {"output": 512}, Format.BF16, seed=2)
    pieces = {}
    for number, rank in enumerate(ranks):
        pieces[number] = rank.node.memory.pieces[0x1000] = np.zeros(128, np.uint8)
        rank.node.arrived = lambda: arrived
        for at, value in words:
            pieces[number][at - 0x1000:][:4] = np.array([value], "<u4").view(np.uint8)
    if stops:
        for lane in plans[1].lanes:
            last = max(n for n, step in enumerate(lane.steps) if step.kind == EngineKind.SEND)
            del lane.steps[last:]
    start(ranks, plans, bells)
    return system.run(), ranks, pieces


def test_a_collective_that_has_not_ended_is_not_told_to_have():
    reports, ranks, memory = ordered(Order(signal=((0x1040, 9),)), stops=True)
    assert reports["rank 0"].code == WATCHDOG and not memory[0][0x40]


def test_a_collective_starts_when_the_engines_packet_has_arrived():
    reports, ranks, _ = ordered(Order(arrive=True))
    assert all(r.code == 0 for r in reports.values())
    reports, ranks, _ = ordered(Order(arrive=True), arrived=False)
    assert all(r.code == WATCHDOG and "ARRIVE" in r.text for r in reports.values())
    moved = EngineKind.SEND, EngineKind.RECV, EngineKind.REDUCE
    assert not any(rank.node.starts[kind] for rank in ranks for kind in moved)


def test_semaphores_order_a_collective_among_others():
    order = Order(wait=((0x1000, 5, Compare.AT_LEAST),), signal=((0x1040, 9),))
    reports, ranks, memory = ordered(order, words=((0x1000, 6),))
    assert all(r.code == 0 for r in reports.values())
    assert all(memory[r][0x40] == 9 for r in range(2))
    reports, ranks, memory = ordered(order, words=((0x1000, 4),))
    assert all(r.code == WATCHDOG and "WAIT" in r.text for r in reports.values())
    assert not any(memory[r][0x40] for r in range(2))
    assert not any(rank.node.starts[EngineKind.SEND] for rank in ranks)


def test_an_engine_goes_through_barriers_beside_its_collective():
    """It arrives as often as it is told; the collective does not wait for that."""
    reports, ranks, _ = ordered(Order(join=3))
    assert all(r.code == 0 for r in reports.values())
    assert all(rank.node.starts[EngineKind.ARRIVE] == 3 for rank in ranks)
    reports, ranks, _ = ordered(Order(join=3), arrived=False)
    assert all(r.code == WATCHDOG and "ARRIVE" in r.text for r in reports.values())
    assert all(rank.node.starts[EngineKind.ARRIVE] == 1 for rank in ranks)
    want = 2 * 4 * 2    # four lanes, messages of both halves of the ring
    assert sum(rank.node.starts[EngineKind.SEND] for rank in ranks) >= want


def test_stamps_are_copied_at_the_start_and_when_all_has_ended():
    """They are copies of the clock of the line's die; the second one waits for all lanes."""
    order = Order(stamps=(0x1000, 0x1040))
    plans = plans_of("all_reduce", 2, count=512, format=Format.BF16, algorithm="ring",
                     in_place=True, piece_bytes=64, order=order, sequence=3)
    first, last = plans[0].lanes[0].steps[0], plans[0].lanes[0].steps[-1]
    assert first.kind == last.kind == EngineKind.COPY and last.sync and not first.sync
    assert (first.local[1], last.local[1], first.length) == (0x1000, 0x1040, 4)
    assert first.a == last.a == ("memory", clock(0x1000))
    assert clock(3 << 44 | 0x1000) == address(3, Region.CONTROL, 6 * 64)
    waits = [step for step in plans[0].lanes[0].steps if step.kind == EngineKind.WAIT]
    assert len(waits) == len(plans[0].lanes) - 1
