"""Tests of the dot-product engine and the A loader of a PE that has no MX4."""
import os
import random

import cocotb
import pytest

from cosim.golden.formats import Format
from rtl.pe.a_loader import ALoader
from rtl.pe.dot_engine import DotEngine
from rtl.pe.interfaces import ErrorCode
from testbenches import sim
from testbenches.pe import test_a_loader as loader
from testbenches.pe import test_dot_engine as engine
from testbenches.pe.dot_bench import dot_command
from testbenches.pe.unit_bench import error_of

PART = os.environ.get("PART")
OTHERS = [form for form in engine.FORMATS if form != Format.E2M1]


@cocotb.test(skip=PART != "engine")
async def other_formats_are_exact_and_mx4_is_refused(dut):
    bench = await engine.new_bench(dut, ready=0.9)
    for a in OTHERS:
        for b in OTHERS:
            await engine.settle(bench, engine.run(bench, a, b, rows=random.randint(1, 4),
                                                  columns=3, blocks=random.randint(1, 9)))
    for a, b in ((5, 5), (5, 3), (1, 5)):
        bench.commands.append(dot_command(a, b, 1, 2, 1, 2) | 9 << 16)
        assert await bench.fail() == (ErrorCode.BAD_FIELD.value, 1, 9)
        await bench.clear()
        await engine.settle(bench, engine.run(bench, 3, 3, rows=2, columns=2, blocks=1))
        assert not error_of(dut)[0]


@cocotb.test(skip=PART != "loader")
async def a_load_of_mx4_is_refused(dut):
    bench, _ = await loader.new_bench(dut, ready=1.0)
    bench.commands += [loader.load(3, 1, 2, 1, 2, tag=4), loader.load(5, 1, 2, 1, 2) | 5 << 16]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, 1, 5)


@pytest.mark.parametrize("part", ["engine", "loader"])
def test_without_mx4(tmp_path, part):
    made = {"engine": lambda: DotEngine(lines=engine.LINES, rows=4, lanes=0),
            "loader": lambda: ALoader(lines=loader.LINES, rows=loader.ROWS, mx4=False)}
    sim.run(made[part](), test_module=__name__, build_dir=tmp_path, simulator="icarus",
            env={"PART": part})
