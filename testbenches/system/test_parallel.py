"""A transformer layer split over two packages, each of them and its network chiplets in RTL."""
import json

import numpy as np
import pytest

from host.bench import tp
from host.cli import main
from host.models.parallel import Sizes
from host.outcome import Options
from host.parallel import Job

pytestmark = pytest.mark.system
SMALL = Sizes(sentences=3, tokens=12, width=128, heads=4, inner=256)


def test_two_packages_have_the_bits_of_one():
    report = tp.job(Options(threads=2), Job(SMALL, ranks=2))
    metrics, checks = report.outcome.metrics, report.outcome.checks
    assert checks == dict.fromkeys(
        ("bit_exact", "same_as_one_package", "all_reduces_between_their_stages"), True)
    assert metrics["elements_compared"] == 2 * 36 * 128
    assert len(report.lanes) == 4 and metrics["min_cosine"] > 0.99
    for rank, (compute, communication, both, neither) in enumerate(report.parts):
        assert 0 < both < min(compute, communication), rank
        assert compute + communication - both + neither == metrics["cycles"]
    # The die with one sentence has nothing to do beside an all-reduce, the other one has.
    first, last = (tp.parts(report.lanes[die], report.window) for die in (0, 1))
    assert (first[2] > 0) != (last[2] > 0)
    # PEs went through the barrier of their second stage while the engine was in an all-reduce.
    lane = report.lanes[0 if first[2] else 1]
    start, end = min(lane.communication)
    assert any(start < last < end for _, last in tp.union(lane.compute))


def test_other_bits_are_noticed(monkeypatch, capsys, tmp_path):
    """A golden model that adds in another way: the command says so, and its status is 1."""
    right = Job.golden
    monkeypatch.setattr(Job, "golden", lambda job, unit: right(job, unit) ^ np.uint32(1))
    monkeypatch.setattr("sys.argv", [
        "mxlet", "run", "tp", "--ranks", "2", "--sentences", "2", "--tokens", "4", "--width",
        "64", "--heads", "2", "--inner", "64", "--pieces", "1", "--sums", "fp32", "--json",
        str(tmp_path / "tp.json"), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main()
    written = json.loads((tmp_path / "tp.json").read_text())
    assert caught.value.code == 1 and (tmp_path / "ranks.png").exists()
    assert written["checks"] == {"bit_exact": False, "same_as_one_package": True,
                                 "all_reduces_between_their_stages": True}
    assert written["metrics"]["overlapped_cycles"] == 0
    assert "bit-exact on every rank: NO" in capsys.readouterr().out
