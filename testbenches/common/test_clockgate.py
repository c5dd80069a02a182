"""Tests of rtl/common/clockgate.py: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from rtl.common.clockgate import gated_domain
from testbenches import sim


class Pipeline(wiring.Component):
    """Registers before, behind and after the gate; the same by clock enable."""

    i: In(8)
    enable: In(1)
    gated: Out(8)
    after: Out(8)
    expected: Out(8)
    expected_after: Out(8)
    clk_gated: Out(1)

    def elaborate(self, platform):
        m = Module()
        busy = gated_domain(m, name="busy", enable=self.enable)
        before = Signal(8)
        m.d.comb += self.clk_gated.eq(busy.clk)
        m.d.sync += before.eq(self.i)
        m.d.busy += self.gated.eq(before + self.gated)
        with m.If(self.enable):
            m.d.sync += self.expected.eq(before + self.expected)
        m.d.sync += [self.after.eq(self.gated), self.expected_after.eq(self.expected)]
        return m


@cocotb.test()
async def gated_register_acts_as_one_with_a_clock_enable(dut):
    dut.enable.value = 1
    await sim.reset(dut, dut.i)
    changed = 0
    for _ in range(3000):
        await RisingEdge(dut.clk)
        assert dut.gated.value == dut.expected.value
        assert dut.after.value == dut.expected_after.value
        changed += dut.after.value != dut.gated.value
        await Timer(200, unit="ps")  # inputs settle after the edge, before the middle of the cycle
        dut.enable.value, dut.i.value = random.getrandbits(1), random.getrandbits(8)
    assert changed > 1000


@cocotb.test()
async def clock_rests_while_disabled(dut):
    dut.enable.value = 1
    await sim.reset(dut, dut.i)
    for enable in [0, 0, 1, 1, 0, 1, 0, 0, 0, 1]:
        await Timer(200, unit="ps")
        dut.enable.value = enable
        await FallingEdge(dut.clk)
        await Timer(200, unit="ps")
        assert not dut.clk_gated.value
        dut.enable.value = not enable  # too late for this edge: must not matter
        await Timer(200, unit="ps")
        dut.enable.value = enable
        await RisingEdge(dut.clk)
        await Timer(200, unit="ps")
        assert dut.clk_gated.value == enable
        dut.enable.value = not enable  # while the clock is high: must not make a glitch
        await Timer(200, unit="ps")
        assert dut.clk_gated.value == enable


@sim.on_simulators
def test_clockgate(tmp_path, simulator):
    sim.run(Pipeline(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
