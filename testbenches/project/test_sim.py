"""Tests of testbenches/sim.py: the cocotb test, then the pytest functions that run it."""
import os

import cocotb
import pytest
from amaranth import *
from amaranth.hdl import Assert
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from cocotb.triggers import ClockCycles

from testbenches import sim


class Claim(wiring.Component):
    """Claims that ``i`` is low: in every moment, or at the edges of the clock."""

    i: In(1)

    def __init__(self, domain):
        self.domain = domain
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        held = Signal()
        m.d.sync += held.eq(self.i)
        m.d[self.domain] += Assert(~held, "the input was high")
        return m


@cocotb.test()
async def the_input_is_high_for_a_cycle(dut):
    await sim.reset(dut, dut.i)
    dut.i.value = int(os.environ["HIGH"])
    await ClockCycles(dut.clk, 2)
    dut.i.value = 0
    await ClockCycles(dut.clk, 5)


@sim.on_simulators
@pytest.mark.parametrize("domain", ["comb", "sync"])
def test_an_assert_that_fires_fails_the_run(tmp_path, simulator, domain):
    """Icarus only prints it, and the cocotb test passes; Verilator ends the simulation."""
    def run(high):
        sim.run(Claim(domain), test_module=__name__, build_dir=tmp_path, simulator=simulator,
                env={"HIGH": str(high)})
    run(0)
    with pytest.raises((pytest.fail.Exception, SystemExit, RuntimeError)) as raised:
        run(1)
    if simulator == "icarus":
        assert "an assertion of the design fired" in str(raised.value)
