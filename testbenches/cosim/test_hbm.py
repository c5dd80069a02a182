"""Tests of cosim/hbm and of the bench that uses it, in short runs."""
import pytest

from cosim import hbm
from host.bench import hbm as bench
from host.outcome import Options

SHORT = bench.Sizes(intervals=4, clocks=40_000, phases=3, touched=1 << 24, pieces=4, copied=1 << 12)
CHANNEL = bench.Channel("mtia450")


def test_streams_are_measured():
    metrics = {}
    bench.measure_streams(CHANNEL, SHORT, metrics)
    assert 0.95 < metrics["read_efficiency"] <= 1 and 0.95 < metrics["write_efficiency"] <= 1
    assert 0.85 < metrics["copy_efficiency"] <= 1
    assert 0.6 < metrics["random_64B_efficiency"] < 0.7
    assert 64 < metrics["copy_depth"] <= 128
    assert metrics["refreshes_missing"] <= bench.LATE
    assert metrics["read_refreshes_owed"] >= SHORT.intervals * hbm.BANKS
    assert metrics["copy_turnaround_share"] > metrics["read_turnaround_share"]


def test_latency_is_the_formula():
    metrics = {}
    assert bench.measure_latency(CHANNEL, SHORT.phases, metrics)
    for row in bench.NAMES.values():
        measured = metrics[f"unloaded_latency_ns_{row}"]
        assert measured == pytest.approx(metrics[f"formula_latency_ns_{row}"], abs=1.25)


def test_latency_grows_with_the_load():
    metrics = {}
    bench.measure_loads(CHANNEL, SHORT.clocks, metrics)
    times = [metrics[f"latency_ns_at_{load}_percent"] for load in bench.LOADS]
    assert times == sorted(times) and times[0] < 2 * hbm.HbmTiming().rc


def test_latency_counts_from_the_arrival_of_a_request():
    """They come twice as fast as they are served: the last one waits for half of the run."""
    often = {"request": 30, "of": 100}
    late = CHANNEL.run("random", 4000, open=1, **often)
    assert late["worst_read"] > 0.3 * late["clks"]
    assert CHANNEL.run("random", 4000, **often)["worst_read"] < 0.3 * late["worst_read"]


@pytest.mark.parametrize("depth", [1, 8])
def test_no_more_lines_are_queued_than_asked_for(depth):
    measured = CHANNEL.run("copy", 500, burst=8, queued=depth)
    assert measured["queued_reads"] == measured["queued_writes"] == depth


@pytest.mark.parametrize(("device", "message"), [
    ({"rcdrd": 40}, "rule RCDRD broken"), ({"cl": 21}, "is wrong")])
def test_a_device_that_is_slower_than_the_channel_thinks_is_an_error(device, message):
    with pytest.raises(RuntimeError, match=message):
        CHANNEL.run("read", 500, **device)


@pytest.mark.system
def test_memory_of_512_gigabytes_is_sparse():
    metrics = {}
    assert bench.measure_memory(Options(), SHORT, metrics)
    assert metrics["package_hbm_gb"] >= 512 and metrics["touched_mb"] > 16
    assert metrics["peak_memory_mb"] < 1000
