"""Tests of rtl/pe/functions.py against cosim/golden/functions.py."""
import os
import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from cosim.golden import functions as golden
from cosim.golden.function_tables import Function, table
from rtl.pe import function_rom
from rtl.pe.functions import LATENCY, FunctionUnit
from rtl.pe.functions import Function as HardwareFunction
from testbenches import sim

FUNCTIONS = [int(digit) for digit in os.environ.get("FUNCTIONS", "12345")]
EDGES = [0, 1, 2, 0x7FFFFF, 0x800000, 0x800001, 0x3F800000, 0x3F7FFFFF, 0x3F800001, 0x7F7FFFFF,
         0x7F800000, 0x7F800001, 0x7FC00000, 0x00400000, 0x40FFFFFF, 0x41000000, 0x417FFFFF,
         0x41800000, 0x42FFFFFF, 0x43000000, 0x437FFFFF, 0x43800000, 0x43150000, 0x43168000,
         0x33000000, 0x7E800000, 0x7E800001, 0x7F000000, 0x00200000, 0x00200001]


async def check(dut, function, words):
    """Feed one number a cycle and compare what comes out ``LATENCY`` cycles later."""
    want = golden.apply(function, np.array(words, np.uint32)).tolist()
    await sim.reset(dut, dut.x)
    dut.function.value = function
    for index in range(len(words) + LATENCY):
        dut.x.value = words[min(index, len(words) - 1)]
        await RisingEdge(dut.clk)   # the values read below are those before this edge
        if index >= LATENCY:
            got, place = int(dut.o.value), index - LATENCY
            assert got == want[place], \
                f"{words[place]:08x}: {got:08x}, not {want[place]:08x}"


@cocotb.test()
@cocotb.parametrize(function=FUNCTIONS)
async def edge_values(dut, function):
    await check(dut, function, EDGES + [value | 1 << 31 for value in EDGES])


@cocotb.test()
@cocotb.parametrize(function=FUNCTIONS)
async def every_exponent(dut, function):
    await check(dut, function, [sign << 31 | e << 23 | random.getrandbits(23)
                                for sign in (0, 1) for e in range(256) for _ in range(3)])


@cocotb.test()
@cocotb.parametrize(function=FUNCTIONS)
async def every_segment_of_the_table(dut, function):
    """Exponents in which the table is walked through, both signs."""
    exponents = {1: range(118, 136), 4: range(118, 132), 5: range(118, 133)}.get(
        function, [126, 127, 128, 3])
    words = [random.getrandbits(1) << 31 | random.choice(exponents) << 23 | random.getrandbits(23)
             for _ in range(2500)]
    if function == Function.RSQRT:
        words = [word & 0x7FFFFFFF for word in words]
    await check(dut, function, words)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_rom_holds_the_golden_table(function):
    entries = [(word >> 41, ((word >> 17 & 0xFFFFFF) ^ 0x800000) - 0x800000, word & 0x1FFFF)
               for word in function_rom.words(Function(function).name)]
    assert entries == [tuple(row) for row in table(function).tolist()]


@sim.on_simulators
def test_functions(tmp_path, simulator):
    sim.run(FunctionUnit(), test_module=__name__, build_dir=tmp_path, simulator=simulator)


@pytest.mark.parametrize("some", ["1", "2", "12", "35"])
def test_some_functions(tmp_path, some):
    """On one simulator; the same unit without the tables of the others."""
    unit = FunctionUnit([HardwareFunction(int(digit)) for digit in some])
    sim.run(unit, test_module=__name__, build_dir=tmp_path, simulator=sim.simulators()[0],
            env={"FUNCTIONS": some})
