"""Tests of rtl/net/nic: how fast it is, and its MAC side beside a bus model nobody here wrote."""
import itertools
import random

import cocotb
from cocotbext.axi import AxiStreamBus, AxiStreamSink, AxiStreamSource

from cosim.golden.frames import BEAT, HEADER, MTU, parse
from rtl.net.interfaces import Opcode, Status
from testbenches import sim
from testbenches.net.nic_bench import Bench, NicPair

MESSAGE, COUNT = 12 * MTU, 4


async def messages(bench):
    """Sends large messages from the first side to the second."""
    for cookie in range(COUNT):
        bench.post(1, Opcode.RECV, cookie=cookie, length=MESSAGE, local=0x10003)
    await bench.rest(200)
    for cookie in range(COUNT):
        bench.post(0, Opcode.SEND, cookie=cookie, length=MESSAGE, local=0x11)
    sent, received = await bench.completions((COUNT, COUNT), limit=100000)
    assert {c.status for c in sent + received} == {Status.OK}
    a, b = bench.sides
    assert b.memory[0x10003:0x10003 + MESSAGE] == a.memory[0x11:0x11 + MESSAGE]


@cocotb.test()
async def frames_follow_each_other_without_a_gap(dut):
    """The wire carries a beat in each cycle but for the first and the last frame's latency."""
    bench = Bench(dut, latency=1)
    await bench.start(window=16)
    busy = 0
    gaps, last = [], None
    step = bench.step

    async def watched():
        nonlocal busy, last
        await step()
        pins = bench.sides[0].pins
        if pins["mac__tx_tvalid"].value:
            busy += 1
            if last is not None:
                gaps.append(bench.cycle - last - 1)
            last = bench.cycle

    bench.step = watched
    await messages(bench)
    beats = COUNT * MESSAGE // MTU * (HEADER + MTU + BEAT) // BEAT
    assert busy == beats
    assert sum(gaps) <= 0.005 * beats, (sum(gaps), beats)


@cocotb.test()
async def another_bus_model_carries_the_frames(dut):
    """AXI-Stream sources and sinks of cocotbext-axi, with pauses, between the two NICs."""
    bench = Bench(dut)
    await bench.start(timeout_log2=14)
    ends = [(AxiStreamSource(AxiStreamBus.from_prefix(dut, f"{side}_mac__rx"), dut.clk),
             AxiStreamSink(AxiStreamBus.from_prefix(dut, f"{side}_mac__tx"), dut.clk))
            for side in "ab"]
    seen = []

    async def carry(sink, source):
        while True:
            frame = await sink.recv()
            assert all(frame.tkeep or [1]) and not frame.tuser
            seen.append(parse(bytes(frame.tdata)))
            await source.send(bytes(frame.tdata))

    for n in range(2):
        ends[n][0].set_pause_generator(random.random() < 0.1 for _ in itertools.count())
        ends[n][1].set_pause_generator(random.random() < 0.1 for _ in itertools.count())
        cocotb.start_soon(carry(ends[n][1], ends[1 - n][0]))
    for side in bench.sides:
        side.plays_mac = False
    await messages(bench)
    assert len(seen) >= COUNT * MESSAGE // MTU


@sim.on_simulators
def test_nic_stream(tmp_path, simulator):
    sim.run(NicPair(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
