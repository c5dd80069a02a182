"""Plans: what is refused, what is chosen, how entries overlap in time."""
import sys

import numpy as np
import pytest

from host import collectives
from host.collectives import Binding, Place, Topology, choose, plan, predict, table
from host.collectives.lane import RENEW, Lane
from host.collectives.spans import Elements, Span, chunks, pieces
from host.isa import Format
from host.network_isa import ENTRY, MAX_BACK, SUBGRAPHS, EngineKind, field
from testbenches.collective_case import plans_of
from testbenches.collective_timing import Run, Timing

planning = sys.modules[plan.__module__]     # hidden by the function of its name
GOOD = {"count": 100, "ranks": 4, "rank": 1}


@pytest.mark.parametrize("kind, wrong, words", [
    ("scatter", {}, "Collective must be one of all_reduce"),
    ("all_reduce", {"rank": 4}, "Rank must be 0 to 3, not 4"),
    ("all_reduce", {"count": 0}, "Elements must be at least 1, not 0"),
    ("all_reduce", {"format": Format.E4M3}, "whole blocks of 32 E4M3, not 100"),
    ("all_reduce", {"format": Format.E2M1}, "Format must be FP32, BF16, FP16, E4M3 or E5M2"),
    ("all_reduce", {"algorithm": "star"}, "Algorithm of all_reduce must be one of ring"),
    ("all_reduce", {"lanes": 8}, "Lanes must be 1 to 7, not 8"),
    ("broadcast", {"root": 4}, "Root must be 0 to 3, not 4"),
    ("send", {}, "Peer must be another rank of 0 to 3, not None"),
    ("receive", {"peer": 1}, "Peer must be another rank of 0 to 3, not 1"),
    ("all_to_all_v", {"sent": [(0, 1)] * 4}, "received must be given for each of 4 ranks"),
    ("all_to_all_v", {"sent": [(0, 1)] * 4, "received": [(0, 2), (1, 1), (2, 1), (3, 1)]},
     "must not overlap, as 0 to 2 and 1"),
    ("all_to_all_v", {"sent": [(0, 1)] * 4, "received": [(n, 1) for n in range(4)],
                      "in_place": True}, "sent and received must be the same"),
])
def test_what_cannot_be_is_refused(kind, wrong, words):
    with pytest.raises(ValueError, match=words):
        plan(kind, **GOOD | wrong)


def test_places_are_checked():
    made = plan("all_reduce", **GOOD, algorithm="ring")
    bells = {pair: (0, 64) for pair in made.queue_pairs}
    places = {"input": Place(0), "output": Place(1024), "staging": Place(4096)}
    assert len(Binding(made, places, bells).entries()) == len(made.lanes)
    for change, missing, words in (
            ({"input": Place(32)}, None, "input must start on a line, not at 0x20"),
            ({}, "output", "Rank 1 needs the place of 'output'"),):
        given = {k: v for k, v in (places | change).items() if k != missing}
        with pytest.raises(ValueError, match=words):
            Binding(made, given, bells).entries()
    with pytest.raises(ValueError, match="Rank 1 needs a queue pair with rank"):
        Binding(made, places, {}).entries()
    made = plan("all_reduce", **GOOD | {"count": 96}, format=Format.E4M3, algorithm="direct")
    places |= {"input scales": Place(128), "output scales": Place(512)}
    with pytest.raises(ValueError, match="Scales of output must be above its elements"):
        Binding(made, places, {pair: (0, 64) for pair in made.queue_pairs}).entries()


@pytest.mark.parametrize("format", [Format.FP32, Format.BF16, Format.E4M3])
@pytest.mark.parametrize("ranks", [1, 3, 8, 72])
def test_chunks_have_borders_at_lines_and_miss_nothing(format, ranks):
    elements = Elements(format)
    for count in (1, 33, 4096, 100_000, 72 * 2048 * 3 + 32):
        found = chunks(count, ranks, elements)
        assert len(found) == ranks and sum(size for _, size in found) == count
        at = 0
        for first, size in found:
            assert first == at and (first % elements.grain == 0 or not size)
            at += size
        sizes = [size for _, size in found]
        assert max(sizes) - min(sizes[:-1] or sizes) <= 2 * elements.grain or ranks == 1
    assert pieces(5, 10, 4) == [(5, 4), (9, 4), (13, 2)]


@pytest.mark.parametrize("kind", collectives.ALGORITHMS)
@pytest.mark.parametrize("ranks", [2, 8, 72])
def test_the_predicted_best_is_chosen(kind, ranks):
    for size in (4, 4096, 1 << 24):
        times = {a: predict(kind, a, size, ranks) for a in collectives.ALGORITHMS[kind]}
        assert choose(kind, size, ranks) == min(times, key=times.get)
        assert all(time > 0 for time in times.values())
    assert len(table(kind, ranks)) == 14
    with pytest.raises(ValueError, match=f"Algorithm of {kind} must be one of"):
        predict(kind, "star", 1, ranks)


def test_costs_are_those_of_the_formulas():
    t = Topology(alpha=1000, beta=0.5, gamma=0.25, each=10, hop=100)
    assert predict("all_reduce", "ring", 8000, 8, t) == 14 * (1010 + 500) + 7 * 250
    assert predict("all_reduce", "doubling", 8000, 8, t) == 3 * (1010 + 4000) + 3 * 2000
    assert predict("all_reduce", "direct", 800, 8, t) == 1000 + 7 * (10 + 400) + 7 * 200
    assert predict("barrier", "doubling", 0, 5, t) == 3 * 1010
    ring = Topology(alpha=1000, beta=0.5, gamma=0.25, each=10, hop=100, shape="ring")
    assert predict("all_gather", "direct", 800, 4, ring) == 1000 + 100 + 30 + 200 * 4 * 0.5
    with pytest.raises(ValueError, match="Shape must be 'switch' or 'ring'"):
        Topology(shape="torus")
    assert choose("all_reduce", 64, 8) != "ring" and choose("all_reduce", 1 << 26, 8) == "ring"
    assert predict("all_reduce", "ring", 1 << 20, 1) == 0


@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", ["all_reduce", "reduce_scatter", "all_gather"])
def test_a_large_ring_keeps_the_link_busy(n, in_place, kind):
    """Bytes of frames to bytes the link could have carried; headers take another 1.6 %."""
    count = (1 << 20) // (1 if kind == "all_reduce" else n)
    plans = plans_of(kind, n, count=count, format=Format.BF16, algorithm="ring",
                     in_place=in_place)
    for timing, least in ((Timing(), 0.96), (Timing(wire=800, answer=800), 0.935),
                          (Timing(sums=20.0), 0.95)):
        run = Run(plans, timing)
        assert run.ended and run.early == 0     # every receive was there before its message
        assert run.ranks[0].sent / timing.link / run.cycles > least
    one = Run(plans_of("all_reduce", 8, count=1 << 20, format=Format.BF16, algorithm="ring",
                       lanes=1)) if n == 8 and kind == "all_reduce" else None
    assert one is None or one.ranks[0].sent / 16 / one.cycles < 0.8     # the lanes do it


@pytest.mark.parametrize("algorithm", ["ring", "doubling", "tree", "direct"])
@pytest.mark.parametrize("n", [3, 8, 72])
def test_entries_are_what_hardware_can_hold(algorithm, n):
    """Also of many ranks; and no ring waits for all entries before, or fills its list."""
    count = 1 << 20 if algorithm != "direct" else 1 << 15
    made = plan("all_reduce", count=count, format=Format.BF16, ranks=n, rank=n // 2,
                algorithm=algorithm, in_place=True)
    assert 1 <= len(made.lanes) <= SUBGRAPHS
    places = {"output": Place(0), "staging": Place(1 << 30)}
    for entries in Binding(made, places, {p: (0, 64) for p in made.queue_pairs}).entries():
        assert entries.dtype == ENTRY and len(entries) <= 65535
        kinds = entries["kind"]
        assert set(kinds.tolist()) <= {EngineKind.SEND, EngineKind.RECV, EngineKind.REDUCE,
                                       EngineKind.SET}
        assert np.all(entries["back"] <= np.arange(len(entries)))
        assert not np.any(entries["local"][kinds == EngineKind.REDUCE] % 64)
        assert np.all(field(entries, "format")[kinds == EngineKind.REDUCE] == Format.BF16)
        if algorithm == "ring":
            assert not np.any(field(entries, "sync") | field(entries, "rx_sync"))
            assert np.mean(kinds == EngineKind.SET) < 0.02


def test_a_list_of_entries_has_an_end(monkeypatch):
    monkeypatch.setattr(planning, "ENTRIES", 300)
    options = {"count": 1 << 16, "ranks": 8, "rank": 0, "algorithm": "ring", "lanes": 1}
    with pytest.raises(ValueError, match="Entries of a subgraph must be at most 300, not"):
        plan("all_reduce", **options, piece_bytes=128)
    # Pieces are larger, if nobody says how large.
    made = plan("all_reduce", **options)
    assert made.descriptor.piece > 1024 and made.entries <= 300


def test_an_entry_waits_for_what_it_needs_and_no_more():
    lane = Lane(0, Elements(Format.FP32))
    a, b, s = (("staging 0", n * 1024, 64) for n in range(3))
    lane.receive(1, a)
    lane.receive(1, b)
    lane.add(Span("output", 0, 16), Span("staging 0", 0, 16), Span("staging 0", 256, 16))
    assert lane.steps[2].back == 1      # the second receive: the first has ended too
    lane.send(2, s)
    lane.receive(1, s)
    assert [lane.steps[n].back for n in (3, 4)] == [0, 1]
    lane.receive(1, a)
    assert lane.steps[5].back == 3      # the sum
    lane.send(3, ("output", 0, 64))
    assert lane.steps[6].back == 0      # it has ended
    assert not any(step.sync or step.rx_sync for step in lane.steps)
    with pytest.raises(ValueError, match="Sums must start on lines"):
        lane.add(Span("output", 1, 16), Span("output", 1, 16), Span("input", 0, 16))


def test_an_old_entry_is_waited_for_before_it_is_out_of_reach():
    lane = Lane(0, Elements(Format.FP32))
    for n in range(3 * RENEW):
        lane.send(1, ("input", 64 * n, 64))
    lane.receive(2, ("input", 0, 64))
    fills = [n for n, step in enumerate(lane.steps) if step.kind == EngineKind.SET]
    assert 2 <= len(fills) <= 6 and all(lane.steps[n].back <= RENEW <= MAX_BACK for n in fills)
    assert lane.steps[-1].back == 0     # known to have ended
