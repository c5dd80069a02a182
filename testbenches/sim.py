"""Runs a cocotb test module against a component, on Icarus and on Verilator."""
import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

import cocotb
import pytest
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotb_tools.runner import Verilator, get_runner

from chiplets import verilog
from cosim.build.cache import locked
from cosim.build.tools import verilator_environment

CACHE = Path(os.environ.get("MXLET_BUILD", Path(__file__).parents[1] / "build")) / "blocks"
# Building takes longer than simulating: a cocotb test spends its time in Python. A long test of
# a large component is an exception.
QUICK_BUILD = " OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"
FAST_BUILD = " OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1"
ARGS = {
    "icarus": ["-g2012"],
    "verilator": ["--assert", "--x-assign", "fast", "--x-initial", "fast", "-Wno-fatal",
                  "-Wno-WIDTH", "-CFLAGS", "-std=c++20"],
}
# Icarus prints the place of a failed assert, behind its message without a new line, and goes on.
# At time 0 the clock starts, and no input has been driven.
FIRED = re.compile(r"ERROR: \S+\.v:\d+:\s+Time: (?!0\b)|Assertion failed")
# Of cocotb's generators, so that a run can be repeated; another one, or as many as there is time
# for, with COCOTB_RANDOM_SEED=... and `make soak`.
SEED = "1"
FAILURE = re.compile(r"^.*(?:WARNING|ERROR) .* failed$.*?(?=^ +[\d.]+ns |\Z)",
                     re.MULTILINE | re.DOTALL)
PORT = re.compile(r"^( *(?:input|output) .*);$", re.MULTILINE)


class PortsOnly(Verilator):
    """Verilator of a design of which tests see the ports alone: all else may be optimised.

    With every net public, as cocotb asks for, a build takes up to twice as long and a
    simulation up to ten times.
    """

    def _build_command(self):
        return [[word for word in command if word != "--public-flat-rw"]
                for command in super()._build_command()]


def with_public_ports(text):
    """The Verilog with the ports of module ``dut`` public."""
    start = text.index("\nmodule dut(")
    end = text.index("\nendmodule", start)
    body = PORT.sub(r"\1 /*verilator public_flat_rw*/;", text[start:end])
    return text[:start] + body + text[end:]


async def reset(dut, *low, period_ns=2):
    """Start the clock, drive the given inputs to 0 and hold the reset for two cycles."""
    cocotb.start_soon(Clock(dut.clk, period_ns, unit="ns").start())
    for signal in low:
        signal.value = 0
    dut.rst.value = 1
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 1)


def failures(output):
    """What a log of cocotb says of the tests that failed: first their tracebacks, then the end."""
    return "\n".join([*FAILURE.findall(output)[:3], output[-4000:]])


def simulators():
    """Simulators to run on; Icarus only where it is installed."""
    return ["icarus", "verilator"] if shutil.which("iverilog") else ["verilator"]


def on_simulators(function):
    """Parametrise a pytest function over the simulators; without Icarus, skip it with a reason."""
    missing = pytest.mark.skipif(not shutil.which("iverilog"),
                                 reason="Icarus is not installed: apt-get install iverilog")
    return pytest.mark.parametrize(
        "simulator", [pytest.param("icarus", marks=missing), "verilator"])(function)


def run(component, *, test_module, build_dir, simulator="verilator", testcase=None, env=None,
        trace=False, fast=False):
    """Run the cocotb tests of ``test_module`` with ``component`` as ``dut``; fail if any fails.

    The build is kept under ``build/blocks`` by the hash of the Verilog, and shared by tests.
    ``env`` reaches the test through ``os.environ``. An ``Assert`` that fired, or whose condition
    was unknown, fails the run even where the simulator only prints it. ``fast``: build for speed of
    simulation, for long tests.
    """
    source = verilog.write(component, name="dut", path=Path(build_dir) / "dut.v")
    text = source.read_text()
    # what is built names files of this environment and of its own folder
    places = (sys.prefix, str(CACHE))
    identity = with_public_ports(text) + simulator + repr((ARGS, trace, fast, places))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    built = CACHE / f"{simulator}_{digest}"
    old_env = dict(os.environ)
    os.environ.update(verilator_environment())
    os.environ["MAKEFLAGS"] += FAST_BUILD if fast else QUICK_BUILD
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    try:
        runner = PortsOnly() if simulator == "verilator" else get_runner(simulator)
        CACHE.mkdir(parents=True, exist_ok=True)
        with locked(CACHE / f"{built.name}.lock"):
            if not (built / "done").exists():
                shutil.rmtree(built, ignore_errors=True)
                built.mkdir()
                (built / "dut.v").write_text(with_public_ports(text))
            # a finished build is only looked at: the test step needs what build() was told
            runner.build(sources=[built / "dut.v"], hdl_toplevel="dut", build_dir=built,
                         build_args=ARGS[simulator], timescale=("1ns", "1ps"), waves=trace,
                         log_file=built / "build.log")
            (built / "done").touch()
        log = Path(build_dir) / "test.log"
        os.environ.setdefault("COCOTB_RANDOM_SEED", SEED)
        results = runner.test(hdl_toplevel="dut", test_module=test_module, build_dir=built,
                              test_dir=build_dir, testcase=testcase, extra_env=env or {},
                              results_xml=str(Path(build_dir) / "results.xml"), log_file=log)
    except SystemExit:      # how the runner says that a test failed
        pytest.fail(f"cocotb tests failed, see {log}:\n{failures(log.read_text())}")
    finally:
        os.environ.clear()
        os.environ.update(old_env)
    output = log.read_text()
    if FIRED.search(output):
        pytest.fail(f"an assertion of the design fired, see {log}:\n{output[-2000:]}")
    xml = Path(results).read_text()
    if "<testcase" not in xml:
        pytest.fail(f"no test ran, see {log}:\n{output[-2000:]}")
    if "<failure" in xml or "<error" in xml:
        pytest.fail(f"cocotb tests failed, see {log}:\n{output[-4000:]}")
