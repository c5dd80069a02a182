"""Tests of rtl/common/crossing.py."""
import random

import cocotb
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout

from rtl.common.clockgate import ClockGate, gated_domain
from rtl.common.crossing import Crossing
from testbenches import sim

DEPTH = 4


class Bench(wiring.Component):
    """A crossing from ``clk`` to ``r_clk`` whose clocks stop as its docstring allows."""

    i: In(stream.Signature(16))
    o: Out(stream.Signature(16))
    r_clk: In(1)
    level: Out(range(DEPTH + 1))

    def elaborate(self, platform):
        m = Module()
        m.domains.free = free = ClockDomain("free", local=True)
        m.domains.far = far = ClockDomain("far", local=True)
        m.submodules.reset = ResetSynchronizer(ResetSignal("sync"), domain="free")
        m.submodules.crossing = c = Crossing(16, depth=DEPTH, w="near", w_free="sync", r="far",
                                             r_free="free")
        m.submodules.gate = gate = DomainRenamer("free")(ClockGate())
        gated_domain(m, name="near", enable=ResetSignal("sync") | self.i.valid)
        m.d.comb += [
            free.clk.eq(self.r_clk), far.clk.eq(gate.clk), far.rst.eq(ResetSignal("free")),
            gate.enable.eq(ResetSignal("free") | c.pending | c.o.valid),
            c.i.valid.eq(self.i.valid), c.i.payload.eq(self.i.payload),
            self.i.ready.eq(c.i.ready), self.o.valid.eq(c.o.valid),
            self.o.payload.eq(c.o.payload), c.o.ready.eq(self.o.ready), self.level.eq(c.level)]
        return m


async def start(dut, period):
    """Both clocks run; nothing is in the queue."""
    cocotb.start_soon(Clock(dut.r_clk, period, unit="ns").start())
    await sim.reset(dut, dut.i__valid, dut.o__ready, period_ns=10)
    await ClockCycles(dut.clk, 3)


async def send(dut, items, rate):
    await RisingEdge(dut.clk)   # not at an edge of the other clock
    for item in items:
        while random.random() > rate:
            await RisingEdge(dut.clk)
        dut.i__valid.value, dut.i__payload.value = 1, item
        await RisingEdge(dut.clk)
        while not dut.i__ready.value:
            await RisingEdge(dut.clk)
        dut.i__valid.value = 0


async def receive(dut, count, rate):
    got, held = [], None
    while len(got) < count:
        await RisingEdge(dut.r_clk)
        if held is not None:
            assert dut.o__valid.value and dut.o__payload.value == held  # what stalls stays
        held = None
        if dut.o__valid.value and dut.o__ready.value:
            got.append(int(dut.o__payload.value))
        elif dut.o__valid.value:
            held = int(dut.o__payload.value)
        dut.o__ready.value = random.random() < rate
    return got


@cocotb.test()
@cocotb.parametrize(period=[4, 10, 26], rates=[(1, 1), (0.3, 1), (1, 0.3)])
async def items_arrive_once_and_in_order(dut, period, rates):
    await start(dut, period)
    items = [random.getrandbits(16) for _ in range(200)]
    cocotb.start_soon(send(dut, items, rates[0]))
    assert await with_timeout(receive(dut, len(items), rates[1]), 200, "us") == items


@cocotb.test()
async def a_full_queue_takes_no_more(dut):
    """One item more than the depth, as that one stands at the output."""
    await start(dut, 14)
    sender = cocotb.start_soon(send(dut, range(10), 1))
    await ClockCycles(dut.clk, 60)
    assert not dut.i__ready.value and dut.level.value == DEPTH
    got = await with_timeout(receive(dut, 10, 1), 20, "us")
    assert got == list(range(10))
    await sender


@cocotb.test()
@cocotb.parametrize(period=[6, 22])
async def reset_empties_both_sides(dut, period):
    await start(dut, period)
    for count in range(1, 2 * DEPTH + 2):
        for n in range(min(count, DEPTH)):
            await send(dut, [0xDEAD + n], 1)
        dut.o__ready.value = count % 2
        await ClockCycles(dut.clk, count)
        dut.rst.value, dut.o__ready.value = 1, 0
        await ClockCycles(dut.clk, 6)
        dut.rst.value = 0
        for _ in range(12):
            await RisingEdge(dut.r_clk)
            assert not dut.o__valid.value
        cocotb.start_soon(send(dut, [7, 8, 9], 1))
        assert await with_timeout(receive(dut, 3, 1), 20, "us") == [7, 8, 9]
        dut.o__ready.value = 0


@sim.on_simulators
def test_crossing(tmp_path, simulator):
    sim.run(Bench(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
