"""Builds and runs the native bench of an HBM pseudo-channel."""
import dataclasses
import functools
import os
import random
import subprocess
import tempfile
from pathlib import Path

from chiplets import verilog
from cosim.build import compiler
from cosim.build.cache import cached, digest
from cosim.build.model import clock_once
from cosim.build.tools import verilator_environment
from rtl.memory.hbm.channel import (
    HbmChannel,
    channel_request_layout,
    channel_response_layout,
)
from rtl.memory.hbm.counters import counters_layout
from rtl.memory.hbm.timing import HbmTiming
from testbenches.twins import Twins

HERE = Path(__file__).parent
DEVICES = HERE.parents[1] / "cosim" / "devices"
ROWS, NAME_BITS = 16, 20
T = HbmTiming()
SMALL = HbmTiming(bl=1, cl=7, cwl=3, rcdrd=9, rcdwr=5, rp=6, ras=12, rc=19, wr=8, rtp=3, faw=11,
                  rrds=2, rrdl=3, wtrs=3, wtrl=5, rtw=8, ccds=1, ccdl=3, rfc=60, rfcpb=25,
                  rrefd=4, refi=640)
OPTIONS = {"request": 100, "ready": 100, "quiet": 0, "gap": 0, "burst": 64, "victim": 0,
           "agents": 1, "under_way": 1 << 20, "far": 0, "stride": 4, "skip": 0, "noise": 1,
           "fill": 1, "flips": 0, "stuck": 0,
           "doubled": 0, "failed": 0, "clk_period": 1600, "hbm_period": 1847, "phase": 100}


def layout_header():
    """Bit positions of the payloads for the C++ side."""
    lines = [f"constexpr int {prefix}_{name.upper()} = {field.offset};"
             for prefix, layout in (("REQUEST", channel_request_layout(name_bits=NAME_BITS)),
                                    ("RESPONSE", channel_response_layout(name_bits=NAME_BITS)))
             for name, field in layout]
    names = ", ".join(f'"{name}"' for name, _ in counters_layout())
    return "\n".join([*lines, f"constexpr int NAME_BITS = {NAME_BITS};",
                      f"const char* const COUNTERS[] = {{{names}}};", ""])


@functools.cache
def build(timing, depth, patience, all_banks, twins, rows):
    """Path of the bench's program for a channel; with ``twins`` beside one whose clocks run."""
    native = [HERE / "native" / name for name in (
        "pseudo_bench.cpp", "pseudo_traffic.hpp", "pseudo_options.hpp")]
    native += [DEVICES / name for name in ("hbm_pseudo.hpp", "hbm_faults.hpp", "hbm_code.hpp")]

    def make_channel():
        return HbmChannel(timing=timing, rows=rows, depth=depth, patience=patience,
                          all_banks=all_banks)

    with tempfile.TemporaryDirectory() as scratch:
        component = Twins(make_channel) if twins else make_channel()
        text = verilog.write(component, name="dut", path=Path(scratch) / "dut.v").read_text()
    text, evaluations = clock_once(text)
    assert evaluations == 1
    key = digest("pseudo_bench", compiler.identity(), text, layout_header(),
                 *(s.read_text() for s in native))

    def make(folder):
        (folder / "dut.v").write_text(text)
        (folder / "layout.hpp").write_text(layout_header())
        level = "-O1" if twins else "-O2 -march=native"
        flags = f"-std=c++20 {level} -I{DEVICES} -I{HERE / 'native'} -I{folder}"
        result = subprocess.run(
            ["verilator", "--cc", "--exe", "--build", "-O3", "--assert" if twins else "--no-assert",
             "--x-assign", "fast", "--x-initial", "fast", "-Wno-fatal", "-Wno-WIDTH",
             "--top-module", "dut", "-CFLAGS", flags, "-o", "bench", "dut.v", native[0]],
            cwd=folder, env=verilator_environment(), text=True, capture_output=True, check=False)
        if result.returncode:
            raise compiler.BuildError(result.stdout[-3000:] + result.stderr[-3000:])
    return cached(f"pseudo_bench_{key}", make)[0] / "obj_dir" / "bench"


def run(pattern, count, *, timing=T, depth=64, patience=1024, all_banks=False, twins=False,
        rows=ROWS,
        **options):
    """Run a pattern of requests; gives what the bench measured. Fails on anything it found."""
    seed = int(os.environ.get("MXLET_SEED", random.getrandbits(31)))
    values = dataclasses.asdict(timing) | {"rows": rows, "count": count, "seed": seed,
                                           "pattern": pattern} | OPTIONS | options
    arguments = [f"{name}={value}" for name, value in values.items()]
    print(f"seed {seed}: {' '.join(arguments)}")
    program = build(timing, depth, patience, all_banks, twins, rows)
    result = subprocess.run([program, *arguments], text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return {name: int(value) for name, value in
            (line.split("=") for line in result.stdout.splitlines())}


def efficiency(measured, timing=T):
    """Clocks with data on the pins, of those from the first command to the last."""
    return (measured["reads"] + measured["writes"]) * timing.bl / measured["window"]


def report(name, measured, timing=T):
    """Print what was reached and where the rest went; all clocks must be accounted for."""
    parts = {part: measured[f"at_{part}"] for part in (
        "reading", "writing", "ecc", "refresh", "turnaround", "row", "group", "idle")}
    assert sum(parts.values()) == measured["at_clocks"]
    assert all(0 <= clocks <= measured["at_clocks"] for clocks in parts.values())
    print(f"{name}: {100 * efficiency(measured, timing):.1f} per cent of the pin rate, at most "
          f"{measured['most_under_way']} requests under way; latency of reads "
          f"{measured['mean_read']}, at most {measured['worst_read']} clk; hbm clocks: {parts}; "
          f"{measured['ns_per_active_clock']} ns per active clock")
