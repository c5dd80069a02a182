"""Tests of rtl/memory/hbm_controller.py, Verilated, against the device model that judges it."""
import dataclasses
import functools
import os
import random
import subprocess
import tempfile
from pathlib import Path

import pytest

from chiplets import verilog
from cosim.build import compiler
from cosim.build.cache import cached, digest
from cosim.build.tools import verilator_environment
from rtl.memory.hbm_controller import HbmController
from rtl.memory.hbm_timing import BANKS, HbmTiming
from rtl.pe.interfaces import request_layout, response_layout
from testbenches.twins import Twins

HERE = Path(__file__).parent
DEVICES = HERE.parents[1] / "cosim" / "devices"
ROWS = 16
T = HbmTiming()
SMALL = HbmTiming(cl=7, cwl=3, rcdrd=9, rcdwr=5, rp=6, ras=12, rc=19, wr=8, rtp=3, faw=11, rrds=2,
                  rrdl=3, wtrs=3, wtrl=5, rtw=8, ccds=1, ccdl=3, rfc=60, rfcpb=25,
                  rrefd=4, refi=640)


def layout_header():
    """Bit positions of the payloads for the C++ side."""
    return "".join(f"constexpr int {prefix}_{name.upper()} = {field.offset};\n"
                   for prefix, layout in (("REQUEST", request_layout()),
                                          ("RESPONSE", response_layout()))
                   for name, field in layout)


@functools.cache
def build(timing, depth, patience):
    """Path of the bench's program for a controller."""
    native = [HERE / "native" / "hbm_bench.cpp", HERE / "native" / "hbm_timing.hpp",
              DEVICES / "hbm.hpp"]
    def make_controller():
        return HbmController(timing=timing, rows=ROWS, depth=depth, patience=patience)

    with tempfile.TemporaryDirectory() as scratch:
        component = Twins(make_controller) if depth <= 64 else make_controller()
        text = verilog.write(component, name="dut", path=Path(scratch) / "dut.v").read_text()
    key = digest("hbm_bench", compiler.identity(), text, layout_header(),
                 *(s.read_text() for s in native))

    def make(folder):
        (folder / "dut.v").write_text(text)
        (folder / "layout.hpp").write_text(layout_header())
        flags = f"-std=c++20 -O2 -I{DEVICES} -I{HERE / 'native'} -I{folder}"
        result = subprocess.run(
            ["verilator", "--cc", "--exe", "--build", "-O3", "--assert", "--x-assign", "unique",
             "--x-initial", "unique", "-Wno-fatal", "-Wno-WIDTH", "--top-module", "dut",
             "-CFLAGS", flags, "-o", "bench", "dut.v", native[0]],
            cwd=folder, env=verilator_environment(), text=True, capture_output=True, check=False)
        if result.returncode:
            raise compiler.BuildError(result.stdout[-3000:] + result.stderr[-3000:])
    return cached(f"hbm_bench_{key}", make)[0] / "obj_dir" / "bench"


def run(pattern, count, *, timing=None, depth=64, request=100, ready=100, quiet=0, gap=0, burst=64,
        victim=0, patience=1024, flight=10**9):
    """Run a pattern of requests; gives what the bench measured. Fails on anything it found."""
    timing = HbmTiming() if timing is None else timing
    seed = int(os.environ.get("MXLET_SEED", random.getrandbits(31)))
    values = dataclasses.asdict(timing) | {
        "rows": ROWS, "count": count, "seed": seed, "request": request, "ready": ready,
        "quiet": quiet, "gap": gap, "burst": burst, "victim": victim, "flight": flight,
        "pattern": pattern}
    arguments = [f"{name}={value}" for name, value in values.items()]
    print(f"seed {seed}: {' '.join(arguments)}")
    program = build(timing, depth, patience)
    result = subprocess.run([program, *arguments], text=True, capture_output=True, check=False)
    print(result.stdout, result.stderr)
    assert result.returncode == 0, result.stdout + result.stderr
    return {name: int(value) for name, value in
            (line.split("=") for line in result.stdout.splitlines())}


def efficiency(measured, timing=T):
    """Clocks in which the data pins moved data, as a part of those from first request to last."""
    return (measured["reads"] + measured["writes"]) * timing.bl / measured["window"]


def report(name, measured, timing=T):
    """Print what was reached and where the rest went; all clocks must be accounted for."""
    parts = {part: measured[f"at_{part}"] for part in
             ("data", "refresh", "turnaround", "row", "group", "idle")}
    assert parts["data"] == (measured["reads"] + measured["writes"]) * timing.bl
    assert all(0 <= clocks <= measured["clocks"] for clocks in parts.values())
    print(f"{name}: {100 * efficiency(measured, timing):.1f} per cent of the pin rate, at most "
          f"{measured['depth']} requests under way; latency of reads "
          f"{measured['mean_read']}, at most {measured['worst_read']}; clocks: {parts}")


def assert_refreshed(measured, late):
    """Over 20 intervals, all refreshes that came to be owed were given, but for the last few."""
    assert measured["window"] > 20 * T.refi
    owed = measured["window"] // (T.refi // BANKS)
    assert owed - late <= measured["window_refreshes"] <= owed + 1


@pytest.mark.parametrize("pattern", ["read", "write"])
def test_sequential_streams_reach_99_per_cent_of_the_pins(pattern):
    """Over 20 refresh intervals, with all their refreshes."""
    measured = run(pattern, 64000)
    report(f"sequential {pattern}", measured)
    assert_refreshed(measured, 2)
    assert 0.99 <= efficiency(measured) < 1


@pytest.mark.parametrize(("burst", "depth", "least"), [
    (1, 64, 0.88), (16, 64, 0.88), (64, 64, 0.88), (100, 64, 0.80), (1, 128, 0.9),
    (100, 128, 0.9)])
def test_a_copy_reaches_88_per_cent_of_the_pins(burst, depth, least):
    """A stream is read and another one written, ``burst`` lines at a time of each."""
    measured = run("copy", 64000, burst=burst, depth=depth)
    report(f"copy, {burst} lines at a time, {depth} reads and {depth} writes queued", measured)
    assert_refreshed(measured, 16)
    assert least <= efficiency(measured) < 1


@pytest.mark.parametrize(("pattern", "burst", "least"), [
    ("read", 1, 0.98), ("copy", 1, 0.8), ("copy", 16, 0.8), ("copy", 64, 0.8)])
@pytest.mark.parametrize("flight", [64, 128])
def test_few_requests_under_way_cost_little(pattern, burst, least, flight):
    """The chip's network keeps a bounded number of requests under way for a channel."""
    measured = run(pattern, 64000, burst=burst, flight=flight)
    report(f"{pattern} by {burst} with at most {flight} requests under way", measured)
    assert measured["depth"] == flight
    assert_refreshed(measured, 16)
    assert least <= efficiency(measured) < 1


@pytest.mark.parametrize(("pattern", "least", "most"), [
    ("random", 0.3, 0.45), ("update", 0.25, 0.45), ("streams", 0.5, 0.9), ("strided", 0.85, 1)])
def test_other_patterns_are_measured(pattern, least, most):
    """Random lines are bound by FAW; without a hash, every fourth line would be by CCDL, at 0.5."""
    measured = run(pattern, 20000)
    report(pattern, measured)
    assert least < efficiency(measured) < most


@pytest.mark.parametrize("rate", [2, 5, 10, 15, 100])
def test_latency_of_random_reads_under_load_is_measured(rate):
    measured = run("random", 6000, request=rate)
    report(f"random reads, a request in {rate} per cent of the clocks", measured)
    assert T.cl + 4 < measured["mean_read"] < measured["worst_read"] < 64 * T.rc
    if rate <= 5:
        assert measured["mean_read"] < 3 * T.rc


def test_unloaded_reads_take_the_documented_time():
    """Closed bank, other row of the open bank, open row: one read after the other."""
    measured = run("conflict", 3, gap=T.ras)
    closed = T.rcdrd + T.cl + 4
    assert [measured[f"latency{n}"] for n in range(3)] == [closed, T.rp + closed, T.cl + 4]
    assert run("read", 1)["first_to_last"] == closed


def test_counters_say_where_the_time_went():
    """Rows opened one after the other; hits in one bank; lines written and then read."""
    rows = run("conflict", 3, gap=T.ras)
    assert rows["at_row"] == T.rcdrd + T.rp + T.rcdrd
    hits = run("starve", 300)
    assert hits["at_group"] == 299 * (T.ccdl - T.bl)
    turns = run("echo", 200)
    assert turns["at_turnaround"] >= T.rtw - T.bl + T.write_to_read_s - T.bl
    for measured, causes in ((rows, {"row"}), (hits, {"row", "group"}),
                             (turns, {"row", "turnaround"})):
        for cause in ("turnaround", "group", "refresh", "row"):
            assert (measured[f"at_{cause}"] != 0) == (cause in causes)


def test_one_bank_alone_is_bound_by_its_row_cycle():
    measured = run("bank", 3000)
    assert measured["clocks"] > measured["activates"] * T.rc


@pytest.mark.parametrize("victim", range(4))
def test_the_oldest_request_is_served_in_time(victim):
    """All others hit the open row of its bank, and would for ever: ``patience`` ends that."""
    measured = run("starve", 4000, victim=victim, depth=16, patience=200)
    older = 16 * T.ccdl
    once = T.rtw + T.write_to_precharge + T.rp + T.rcdrd + T.rfcpb
    print(f"served after {measured['victim']} clocks")
    assert 0 < measured["victim"] <= older + 200 + 2 * once
    if victim == 1:     # nothing but the patience ends the wait of a write
        assert 1024 < run("starve", 4000, victim=victim)["victim"] <= 4 * older + 1024 + 2 * once


@pytest.mark.parametrize("request_rate", [5, 50, 100])
@pytest.mark.parametrize("ready", [10, 50, 100])
def test_every_answer_is_right_with_gaps_on_both_sides(request_rate, ready):
    """Reads, whole and partial writes, conflicts, addresses past the end; then all of memory."""
    measured = run("mixed", 6000, request=request_rate, ready=ready)
    assert measured["refreshes"] > 2


@pytest.mark.parametrize("depth", [4, 16])
def test_other_timings_and_depths_obey_their_own_rules(depth):
    for pattern in ("mixed", "read", "write", "copy", "random", "bank", "update"):
        for rate in (20, 100):
            run(pattern, 4000, timing=SMALL, depth=depth, request=rate)


@pytest.mark.parametrize("pattern", ["update", "starve"])
def test_busy_banks_are_refreshed_before_they_are_overdue(pattern):
    """No bank is ever without requests; the device says when one is overdue."""
    measured = run(pattern, 30000 if pattern == "update" else 60000, timing=SMALL,
                   depth=16)
    assert measured["clocks"] > 40 * SMALL.refi
    owed = measured["clocks"] // (SMALL.refi // BANKS)
    assert owed - 8 * BANKS < measured["refreshes"] <= owed
    assert measured["at_refresh"] > 0


def test_banks_are_refreshed_while_nobody_asks():
    measured = run("mixed", 10, quiet=200000)
    assert measured["rested"] > 0.85 * measured["clocks"]
    assert 0 <= measured["clocks"] // (T.refi // BANKS) - measured["refreshes"] <= BANKS


@pytest.mark.parametrize(("timing", "rate"), [(SMALL, 4), (SMALL, 1), (None, 1)], ids=str)
def test_clock_stops_between_requests_and_starts_in_time(timing, rate):
    """Pauses of every length; :class:`Twins` compares with a free clock."""
    measured = run("mixed", 2000, timing=timing, request=rate, ready=50)
    assert measured["rested"] > 0.05 * measured["clocks"]
