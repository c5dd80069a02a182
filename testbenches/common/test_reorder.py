"""Tests of rtl/common/reorder.py."""
import random

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge

from rtl.common.reorder import Reorder
from testbenches import sim

PLACES, CYCLES = 8, 4000


@cocotb.test()
@cocotb.parametrize(percent=[20, 60, 100], late=[0, 30])
async def answers_come_out_in_the_order_of_their_requests(dut, percent, late):
    """Requests whenever there is room, answers after any time; what stalls holds."""
    await sim.reset(dut, dut.asked, dut.answer, dut.o__ready)
    under_way, wanted, got, stalled = [], [], 0, None
    for cycle in range(CYCLES):
        await FallingEdge(dut.clk)      # all registers have settled
        assert bool(dut.active.value) or got == len(wanted)
        asks = bool(dut.room.value) and random.randrange(100) < 90
        place, value = int(dut.place.value), random.getrandbits(16)
        due = [item for item in under_way if item[0] <= cycle]
        _, there, what = answer = random.choice(due) if due else (0, 0, 0)
        if due:
            under_way.remove(answer)
        dut.answer.value = bool(due) | there << 1 | what << 4
        dut.asked.value = asks
        dut.o__ready.value = random.randrange(100) < percent
        await RisingEdge(dut.clk)
        if stalled is not None:
            assert dut.o__valid.value and dut.o__payload.value == stalled
        stalled = None
        if dut.o__valid.value and dut.o__ready.value:
            assert dut.o__payload.value == wanted[got]
            got += 1
        elif dut.o__valid.value:
            stalled = int(dut.o__payload.value)
        if asks:
            assert place not in [item[1] for item in under_way]
            under_way.append((cycle + 1 + random.randint(0, late), place, value))
            wanted.append(value)
        assert len(wanted) - got <= PLACES + 1      # one more at the output
    assert got > CYCLES * min(percent, 85) // 100 * (0.9 if not late else 0.2)


@sim.on_simulators
def test_reorder(tmp_path, simulator):
    sim.run(Reorder(16, places_log2=3), test_module=__name__, build_dir=tmp_path,
            simulator=simulator)
