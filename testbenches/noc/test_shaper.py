"""Tests of rtl/noc/shaper.py: the cocotb tests, then the pytest function."""
import random

import cocotb
from cocotb.triggers import FallingEdge

from rtl.noc.shaper import LeakyBucket
from testbenches import sim

CASES = [(1, 1), (100, 1), (37, 3), (128, 8), (255, 2), (256, 0), (77, 255)]   # rate, burst


async def start(dut, rate, burst):
    dut.rate.value, dut.burst.value = rate, burst
    await sim.reset(dut, dut.spend)


async def requests(dut, cycles, wish=1.0):
    """Cycles in which a request went; a permit stays until one does."""
    times, waits = [], False
    for cycle in range(cycles):
        await FallingEdge(dut.clk)
        permit = bool(dut.permit.value)
        assert permit or not waits, "a permit was withdrawn"
        going = permit and random.random() < wish
        waits = permit and not going
        dut.spend.value = int(going)
        if going:
            times.append(cycle)
    await FallingEdge(dut.clk)
    dut.spend.value = 0
    return times


def keeps_to(times, rate, burst):
    """No T cycles have more than burst + ceil(rate x (T - 1) / 256) requests."""
    for i, first in enumerate(times):
        for j in range(i, len(times)):
            limit = max(burst, 1) + -(-rate * (times[j] - first) // 256)
            assert j - i + 1 <= limit, f"{j - i + 1} requests in {times[j] - first + 1} cycles"


@cocotb.test()
@cocotb.parametrize(case=CASES)
async def long_run_rate_is_exact(dut, case):
    rate, burst = case
    await start(dut, rate, burst)
    times = await requests(dut, 1024 + 2048)    # first the burst ends
    for start_at in (1024, 1024 + 256, 1024 + 1000):
        assert sum(start_at <= t < start_at + 1024 for t in times) == 4 * rate


@cocotb.test()
@cocotb.parametrize(case=CASES)
async def bursts_are_bounded_and_as_long_as_allowed(dut, case):
    rate, burst = case
    await start(dut, rate, burst)
    for _ in range(2):
        for _ in range(-(-256 * (burst + 1) // rate) + 2):  # fills
            await FallingEdge(dut.clk)
        times = await requests(dut, 2 * burst + 40)
        keeps_to(times, rate, burst)
        assert times[:max(burst, 1)] == list(range(max(burst, 1)))
        keeps_to(await requests(dut, 200, wish=random.random()), rate, burst)


@cocotb.test()
async def rate_zero_is_off(dut):
    await start(dut, 0, 3)
    await FallingEdge(dut.clk)
    assert dut.rests.value
    assert len(await requests(dut, 300)) == 300
    dut.rate.value = 2      # what went before does not count
    times = await requests(dut, 1000)
    keeps_to(times, 2, 1)
    assert times[0] == 0


@cocotb.test()
async def it_rests_once_it_is_full(dut):
    await start(dut, 64, 2)
    cycles = 0
    while not dut.rests.value:
        await FallingEdge(dut.clk)
        cycles += 1
    assert cycles == 8      # (2 x 256 + 255 - 256) / 64, rounded up
    await requests(dut, 1)
    assert not dut.rests.value


@sim.on_simulators
def test_shaper(tmp_path, simulator):
    sim.run(LeakyBucket(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
