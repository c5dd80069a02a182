"""Tests of rtl/memory/hbm, Verilated, against the device model that judges it."""
import os

import pytest

from cosim.hbm import efficiency, refreshes_missing, unloaded_latency
from rtl.memory.hbm.refresh import FORCED
from rtl.memory.hbm.timing import BANKS
from testbenches.memory.pseudo_bench import SMALL, T, report, run

LINE_CLOCKS = 2 * T.bl      # of the data pins
INTERVALS = 20 * T.refi // LINE_CLOCKS + 2000       # lines that take more than 20 intervals


def assert_refreshed(measured):
    """Over 20 intervals, all refreshes that came to be owed were given, but for the last ones.

    No bank with requests is taken before ``FORCED`` are owed, then one with each that comes to be
    owed, of which one may be under way. Before the window at most one of each bank was owed.
    """
    assert measured["window"] > 20 * T.refi
    assert -BANKS - 1 <= refreshes_missing(measured) <= FORCED + 1


@pytest.mark.parametrize("pattern", ["read", "write"])
def test_sequential_streams_reach_97_per_cent_of_the_pins(pattern):
    """Over 20 refresh intervals, with all their refreshes."""
    measured = run(pattern, INTERVALS)
    report(f"sequential {pattern}", measured)
    assert_refreshed(measured)
    assert 0.97 <= efficiency(measured) <= 1


@pytest.mark.parametrize("burst", [1, 16, 64, 100])
def test_a_copy_reaches_88_per_cent_of_the_pins(burst):
    """A stream is read and another one written, ``burst`` lines at a time; 64 of each queued."""
    measured = run("copy", INTERVALS, burst=burst)
    report(f"copy, {burst} lines at a time", measured)
    assert_refreshed(measured)
    assert measured["most_under_way"] <= 64 + 8 + 16    # reads queued, between clocks, in flight
    assert 0.88 <= efficiency(measured) <= 1


@pytest.mark.parametrize(("pattern", "least", "most"), [
    ("random", 0.6, 0.7), ("update", 0.4, 0.67), ("strided", 0.9, 1)])
def test_other_patterns_are_measured(pattern, least, most):
    """Random lines are bound by FAW, at 0.67 but for rows that are hit by chance."""
    measured = run(pattern, 12000, rows=256)
    report(pattern, measured)
    assert least < efficiency(measured) < most


@pytest.mark.parametrize(("agents", "each", "least"), [
    (1, 8, 0.85), (1, 16, 0.8), (1, 32, 0.85), (2, 4, 0.5), (2, 16, 0.7), (4, 8, 0.6),
    (6, 5, 0.5)])
def test_readers_are_bound_by_their_requests(agents, each, least):
    """Each has few requests under way; ``far`` clocks are added to every answer."""
    measured = run("readers", 4000, rows=256, agents=agents, under_way=each, far=60)
    report(f"{agents} readers with {each} requests each", measured)
    hbm, core = unloaded_latency("open")
    unloaded = hbm + (core + 60) * 1600 / 1847
    assert efficiency(measured) > least * min(1, agents * each * LINE_CLOCKS / unloaded)


@pytest.mark.parametrize(("agents", "each", "least"), [
    (1, 16, 0.45), (2, 16, 0.6), (4, 8, 0.5), (4, 16, 0.7), (6, 10, 0.6)])
def test_copiers_do_not_collapse(agents, each, least):
    """Each reads a line and then writes it elsewhere."""
    measured = run("copiers", 8000, rows=256, agents=agents, under_way=each, far=60)
    report(f"{agents} copiers with {each} requests each", measured)
    assert efficiency(measured) > least


@pytest.mark.parametrize("rate", [2, 5, 10, 15, 100])
def test_latency_of_random_reads_under_load_is_measured(rate):
    measured = run("random", 4000, request=rate, rows=256)
    report(f"random reads, a request in {rate} per cent of the clocks", measured)
    assert T.cl < measured["mean_read"] < measured["worst_read"] < 64 * T.rc
    if rate <= 5:
        assert measured["mean_read"] < 3 * T.rc


def test_unloaded_reads_take_the_documented_time():
    """Closed bank, other row of the open bank, open row, one after the other; equal clocks."""
    equal = {"clk_period": 1000, "hbm_period": 1000, "phase": 500}
    measured = run("conflict", 3, gap=T.rc, quiet=20, **equal)      # not at once after the reset
    times = [measured[f"latency{n}"] for n in range(3)]
    print("closed, conflict, hit:", times)
    assert times == [sum(unloaded_latency(row)) for row in ("closed", "other", "open")]
    measured = run("conflict", 3, gap=T.rc, quiet=20)
    for n, clocks in enumerate(times):
        assert abs(measured[f"hbm_latency{n}"] - clocks) <= 2


def test_counters_say_where_the_time_went():
    """Rows opened one after the other; hits in one bank; lines written and then read."""
    rows = run("conflict", 3, gap=T.rc)
    assert rows["at_row"] == T.rcdrd + T.rp + T.rcdrd and rows["at_conflicts"] == 1
    hits = run("starve", 300)
    assert hits["at_group"] >= 299 * 2 * (T.ccdl - T.bl)
    turns = run("echo", 200)
    assert turns["at_turnaround"] >= T.rtw - T.bl + T.write_to_read_s - T.bl
    merges = run("partial", 100)
    assert merges["at_ecc"] == 100 * LINE_CLOCKS == merges["at_writing"]
    for measured, causes in ((rows, {"row"}), (hits, {"row", "group"})):
        for cause in ("turnaround", "group", "row", "ecc"):
            assert (measured[f"at_{cause}"] != 0) == (cause in causes)
    for measured in (rows, hits, turns, merges):
        report("counters", measured)
        for name in ("activates", "precharges"):    # idle banks may be closed after the counters
            assert 0 <= measured[name] - measured[f"at_{name}"] <= BANKS
        lines = measured["at_reading"] + measured["at_writing"] + measured["at_ecc"]
        assert lines == (measured["reads"] + measured["writes"]) * T.bl


@pytest.mark.parametrize("victim", range(4))
def test_the_oldest_request_is_served_in_time(victim):
    """All others hit the open row of its bank, and would for ever."""
    measured = run("starve", 4000, victim=victim, depth=16, patience=200)
    print(f"served after {measured['victim']} clocks")
    once = T.rtw + T.write_to_precharge + T.rp + T.rcdrd + T.rfcpb
    assert 0 < measured["victim"] <= 32 * 2 * T.ccdl + 4 * 200 + 4 * once


@pytest.mark.parametrize("request_rate", [5, 100])
@pytest.mark.parametrize("ready", [10, 100])
def test_every_answer_is_right_with_gaps_on_both_sides(request_rate, ready):
    """Reads, whole and partial writes, conflicts, addresses past the end; then all of memory."""
    measured = run("mixed", 4000, request=request_rate, ready=ready)
    assert measured["bank_refreshes"] > 2


@pytest.mark.parametrize("depth", [4, 16])
def test_other_timings_and_depths_obey_their_own_rules(depth):
    """The gated channel beside one whose clocks always run: they must not differ."""
    for pattern in ("mixed", "read", "write", "copy", "random", "bank", "update", "echo"):
        for rate in (20, 100):
            run(pattern, 2000, timing=SMALL, depth=depth, request=rate, twins=depth == 16)


@pytest.mark.parametrize(("clk", "hbm"), [(1000, 1000), (1000, 3001), (3001, 1000), (1847, 1600)])
def test_the_clocks_may_have_any_ratio(clk, hbm):
    for phase in (0, 300):
        run("mixed", 1500, clk_period=clk, hbm_period=hbm, phase=phase, timing=SMALL, depth=4)


@pytest.mark.parametrize("all_banks", [False, True])
@pytest.mark.parametrize("pattern", ["update", "starve"])
def test_busy_banks_are_refreshed_before_they_are_overdue(pattern, all_banks):
    """No bank is ever without requests; the device says when one is overdue."""
    measured = run(pattern, 12000, timing=SMALL, depth=16, all_banks=all_banks)
    intervals = measured["hbms"] // SMALL.refi
    assert intervals > 20
    given = measured["refreshes"] if all_banks else measured["bank_refreshes"] / BANKS
    assert intervals - 8 < given <= intervals + 1
    if all_banks or pattern == "starve":
        assert measured["at_refresh"] > 0
    for name in ("bank_refreshes", "refreshes"):    # what is owed in the end comes afterwards
        assert 0 <= measured[name] - measured[f"at_{name}"] <= FORCED + BANKS


def test_refresh_of_all_banks_costs_what_it_must():
    measured = run("read", INTERVALS, all_banks=True)
    report("sequential read, all banks refreshed at once", measured)
    assert measured["bank_refreshes"] == 0 and measured["refreshes"] >= 14
    assert 0.85 < efficiency(measured) < 1 - (T.rfc / T.refi) * 14 / 20


def test_banks_are_refreshed_while_nobody_asks():
    measured = run("mixed", 10, quiet=200000)
    assert measured["active"] < 0.15 * measured["hbms"]
    assert 0 <= measured["hbms"] // (T.refi // BANKS) - measured["bank_refreshes"] <= BANKS + 1


@pytest.mark.parametrize("rate", [1, 4])
def test_clocks_may_be_left_out_while_nothing_happens(rate, monkeypatch):
    """Every command and every answer comes when it does without that."""
    monkeypatch.setenv("MXLET_SEED", str(os.getpid()))
    plain, skipped = (run("mixed", 1000, request=rate, ready=50, skip=skip, noise=0)
                      for skip in (0, 1))   # noise would draw other numbers
    assert skipped["edges"] < plain["edges"]
    for name in ("hash", "clks", "hbms", "worst_read", "bank_refreshes", "at_idle", "at_clocks"):
        assert plain[name] == skipped[name]


@pytest.mark.parametrize(("timing", "rate"), [(SMALL, 4), (SMALL, 1)], ids=str)
def test_clocks_stop_between_requests_and_start_in_time(timing, rate):
    """Pauses of every length; the twin's clocks always run."""
    measured = run("mixed", 1000, timing=timing, depth=16, request=rate, ready=50, twins=True)
    if rate == 1:
        assert measured["active"] < 0.97 * measured["hbms"]


@pytest.mark.parametrize("pattern", ["echo", "bank", "update"])
def test_pauses_do_not_change_how_long_a_run_may_wait(pattern):
    """Banks become urgent all the time; the twin's clocks always run."""
    for rate in (4, 20, 100):
        run(pattern, 2000, timing=SMALL, depth=16, patience=60, request=rate, twins=True)


def test_single_errors_are_corrected_and_counted():
    """A bit of each of the 272, flipped once; then bits that are stuck."""
    measured = run("read", 4096, flips=272)
    assert measured["at_corrected"] == 272 and measured["at_uncorrectable"] == 0
    measured = run("update", 3000, stuck=300)
    assert measured["at_corrected"] > 0 and measured["at_uncorrectable"] == 0


def test_double_errors_are_poison():
    measured = run("read", 4096, doubled=100)
    assert measured["at_uncorrectable"] == 100 and measured["at_corrected"] == 0


def test_partial_writes_keep_poison_and_whole_ones_end_it():
    """Whole and partial writes and reads over memory with faults of every kind."""
    measured = run("mixed", 6000, flips=272, stuck=50, doubled=200)
    assert measured["at_uncorrectable"] > 0
    run("mixed", 2000, flips=50, stuck=50, doubled=200, timing=SMALL, depth=4)


def test_a_failed_row_is_poison():
    measured = run("read", 4096, failed=2)
    assert measured["at_uncorrectable"] == 2 * 32
