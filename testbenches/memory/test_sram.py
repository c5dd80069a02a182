"""Tests of rtl/memory/sram.py: the cocotb tests, then the pytest function that runs them."""
import random
from collections import deque

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from rtl.memory.interfaces import memory_response_layout, slice_request_layout
from rtl.memory.sram import SramBank
from rtl.pe.interfaces import AccessError
from testbenches import sim
from testbenches.noc.traffic import Sink, Source
from testbenches.twins import Twins

LINES, NAME_BITS = 16, 11
REQUEST, RESPONSE = slice_request_layout(NAME_BITS), memory_response_layout(NAME_BITS)


class Memory:
    """The same bank in plain Python: gives the response that each request must get."""

    def __init__(self):
        self.lines = [bytearray(64) for _ in range(LINES)]

    def serve(self, request):
        if request["line"] >= LINES:
            return request["name"], request["write"], AccessError.ADDRESS, None
        line = self.lines[request["line"]]
        if not request["write"]:
            return request["name"], 0, AccessError.NONE, bytes(line)
        for i in range(64):
            if request["mask"] >> i & 1:
                line[i] = request["data"] >> 8 * i & 0xFF
        return request["name"], 1, AccessError.NONE, None


def random_request(*, write):
    mask = random.choice([0, (1 << 64) - 1, random.getrandbits(64), 1 << random.randrange(64)])
    line = random.randrange(LINES) | (random.random() < 0.1) << random.randrange(4, 34)
    return {"line": line, "name": random.getrandbits(NAME_BITS), "write": write,
            "data": random.getrandbits(512), "mask": mask}


@cocotb.test()
@cocotb.parametrize(send=[0.1, 0.4, 1.0], take=[0.4, 1.0])
async def answers_are_those_of_a_plain_memory_in_order(dut, send, take):
    source, sink = Source(dut, "request", rate=send), Sink(dut, "response", rate=take)
    await sim.reset(dut)
    model, expected = Memory(), deque()
    for line in range(LINES):  # nothing is known before it was written
        whole = random_request(write=1) | {"line": line, "mask": (1 << 64) - 1}
        requests = [whole] + [random_request(write=random.getrandbits(1))
                              for _ in range(40 if line == LINES - 1 else 0)]
        for request in requests:
            expected.append(model.serve(request))
            source.queue.append(REQUEST.const(request).as_value().value)
    stopped = 0
    for _ in range(2000):
        await RisingEdge(dut.clk)
        source.edge()
        if (payload := sink.edge()) is not None:
            response = RESPONSE.from_bits(payload)
            name, write, error, data = expected.popleft()
            assert (response.name, response.write, response.error) == (name, write, error)
            assert data is None or response.data == int.from_bytes(data, "little")
        stopped += not dut.awake.value
        if not expected:
            break
    assert not expected and (send == 1.0 or stopped > 10)
    await ClockCycles(dut.clk, 2)
    assert not dut.awake.value


@cocotb.test()
async def one_access_a_cycle(dut):
    source, sink = Source(dut, "request"), Sink(dut, "response")
    await sim.reset(dut)
    source.queue = [REQUEST.const(random_request(write=i % 3 == 0)).as_value().value
                    for i in range(60)]
    got = 0
    for _ in range(64):
        await RisingEdge(dut.clk)
        source.edge()
        got += sink.edge() is not None
    assert got == 60


@sim.on_simulators
def test_sram(tmp_path, simulator):
    sim.run(Twins(lambda: SramBank(lines=LINES, name_bits=NAME_BITS)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
