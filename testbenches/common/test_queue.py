"""Tests of rtl/common/queue.py."""
import random

import cocotb
from cocotb.triggers import RisingEdge

from rtl.common.queue import Queue
from testbenches import sim

CYCLES = 6000   # at 30 per cent on both sides 0.77 of the items pass, with a deviation of 0.014


@cocotb.test()
@cocotb.parametrize(percent_in=[30, 100], percent_out=[30, 100])
async def items_pass_in_order_and_hold_while_stalled(dut, percent_in, percent_out):
    await sim.reset(dut, dut.i__valid, dut.o__ready)
    sent, got, held = [], [], None
    for _ in range(CYCLES):
        await RisingEdge(dut.clk)
        if dut.i__valid.value and dut.i__ready.value:
            sent.append(int(dut.i__payload.value))
        if dut.o__valid.value:
            assert held is None or held == int(dut.o__payload.value)
            held = None if dut.o__ready.value else int(dut.o__payload.value)
            if dut.o__ready.value:
                got.append(int(dut.o__payload.value))
        else:
            assert held is None
        assert got == sent[:len(got)] and len(sent) - len(got) <= 2
        if dut.i__ready.value or not dut.i__valid.value:
            dut.i__valid.value = random.randrange(100) < percent_in
            dut.i__payload.value = random.getrandbits(8)
        dut.o__ready.value = random.randrange(100) < percent_out
    assert len(got) > CYCLES * min(percent_in, percent_out) // 100 * 0.7
    if percent_in == percent_out == 100:
        assert len(got) >= CYCLES - 4  # one item a cycle


@sim.on_simulators
def test_queue(tmp_path, simulator):
    sim.run(Queue(8), test_module=__name__, build_dir=tmp_path, simulator=simulator)
