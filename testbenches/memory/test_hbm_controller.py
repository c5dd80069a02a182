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
from rtl.memory.hbm_timing import HbmTiming
from rtl.pe.interfaces import request_layout, response_layout
from testbenches.twins import Twins

HERE = Path(__file__).parent
DEVICES = HERE.parents[1] / "cosim" / "devices"
ROWS = 16
SMALL = HbmTiming(cl=7, cwl=3, rcdrd=9, rcdwr=5, rp=6, ras=12, rc=19, wr=8, rtp=3, faw=11, rrds=2,
                  rrdl=3, wtrs=3, wtrl=5, rtw=8, ccds=1, ccdl=3, rfc=60, refi=400)


def layout_header():
    """Bit positions of the payloads for the C++ side."""
    return "".join(f"constexpr int {prefix}_{name.upper()} = {field.offset};\n"
                   for prefix, layout in (("REQUEST", request_layout()),
                                          ("RESPONSE", response_layout()))
                   for name, field in layout)


@functools.cache
def build(timing, depth):
    """Path of the bench's program for a controller."""
    native = [HERE / "native" / "hbm_bench.cpp", HERE / "native" / "hbm_timing.hpp",
              DEVICES / "hbm.hpp"]
    with tempfile.TemporaryDirectory() as scratch:
        text = verilog.write(
            Twins(lambda: HbmController(timing=timing, rows=ROWS, depth=depth)), name="dut",
            path=Path(scratch) / "dut.v").read_text()
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


def run(pattern, count, *, timing=None, depth=32, request=100, ready=100, quiet=0):
    """Run a pattern of requests; gives what the bench measured. Fails on anything it found."""
    timing = HbmTiming() if timing is None else timing
    seed = int(os.environ.get("MXLET_SEED", random.getrandbits(31)))
    values = dataclasses.asdict(timing) | {
        "rows": ROWS, "count": count, "seed": seed, "request": request, "ready": ready,
        "quiet": quiet, "pattern": pattern}
    arguments = [f"{name}={value}" for name, value in values.items()]
    print(f"seed {seed}: {' '.join(arguments)}")
    result = subprocess.run([build(timing, depth), *arguments], text=True, capture_output=True,
                            check=False)
    print(result.stdout, result.stderr)
    assert result.returncode == 0, result.stdout + result.stderr
    return {name: int(value) for name, value in
            (line.split("=") for line in result.stdout.splitlines())}


def efficiency(measured, timing):
    """Clocks in which the data pins moved data, as a part of all clocks of the run."""
    return (measured["reads"] + measured["writes"]) * timing.bl / measured["first_to_last"]


@pytest.mark.parametrize("pattern", ["read", "write"])
def test_sequential_streams_reach_85_per_cent_of_the_pins(pattern):
    """Over 20 refresh intervals; refresh alone leaves 88.5 per cent at 16 Gbit a channel."""
    measured = run(pattern, 56000)
    print(f"{pattern}: {100 * efficiency(measured, HbmTiming()):.1f} per cent of the pin rate")
    assert measured["clocks"] > 20 * HbmTiming().refi
    assert measured["clocks"] // HbmTiming().refi - measured["refreshes"] in (0, 1)
    assert 0.85 < efficiency(measured, HbmTiming()) < 0.885


@pytest.mark.parametrize(("pattern", "least"), [("random", 0.1), ("streams", 0.1), ("copy", 0.5)])
def test_other_patterns_reach_what_strict_order_allows(pattern, least):
    """Measured and printed; far below what a reordering controller would reach."""
    measured = run(pattern, 6000)
    print(f"{pattern}: {100 * efficiency(measured, HbmTiming()):.1f} per cent of the pin rate")
    assert least < efficiency(measured, HbmTiming())


def test_one_bank_alone_is_bound_by_its_row_cycle():
    measured = run("bank", 3000)
    assert measured["clocks"] > measured["activates"] * HbmTiming().rc


@pytest.mark.parametrize("request_rate", [5, 50, 100])
@pytest.mark.parametrize("ready", [10, 50, 100])
def test_every_answer_is_right_with_gaps_on_both_sides(request_rate, ready):
    """Reads, whole and partial writes, conflicts, addresses past the end; then all of memory."""
    measured = run("mixed", 6000, request=request_rate, ready=ready)
    assert measured["refreshes"] > 2


@pytest.mark.parametrize("depth", [4, 16])
def test_other_timings_and_depths_obey_their_own_rules(depth):
    for pattern in ("mixed", "read", "write", "copy", "random", "bank"):
        for rate in (20, 100):
            run(pattern, 4000, timing=SMALL, depth=depth, request=rate)


def test_banks_are_refreshed_while_nobody_asks():
    measured = run("mixed", 10, quiet=200000)
    assert measured["rested"] > 0.85 * measured["clocks"]
    assert measured["clocks"] // HbmTiming().refi - measured["refreshes"] in (0, 1)


@pytest.mark.parametrize(("timing", "rate"), [(SMALL, 4), (SMALL, 1), (None, 1)], ids=str)
def test_clock_stops_between_requests_and_starts_in_time(timing, rate):
    """Pauses of every length; :class:`Twins` compares with a free clock."""
    measured = run("mixed", 2000, timing=timing, request=rate, ready=50)
    assert measured["rested"] > 0.05 * measured["clocks"]


def test_first_read_takes_the_documented_time():
    timing = HbmTiming()
    assert run("read", 1)["first_to_last"] == timing.rcdrd + timing.cl + 4
