"""Tests of Requester in rtl/noc/endpoints.py: the cocotb tests, then the pytest function."""
import random
from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from rtl.noc.address import AddressMap
from rtl.noc.endpoints import Requester
from rtl.noc.packets import MeshLayout, request_packet_layout, response_packet_layout
from rtl.pe.interfaces import AccessError, request_layout, response_layout
from testbenches import sim
from testbenches.noc.traffic import Sink, Source
from testbenches.twins import Twins

LAYOUT = MeshLayout.standard(2, 2)
ADDRESSES = AddressMap(LAYOUT, bank_lines=16)
REQUEST, RESPONSE = request_packet_layout(LAYOUT), response_packet_layout(LAYOUT)
BANKS = LAYOUT.group("tile")
HERE = LAYOUT.nodes["pe2"]
DIE = 5


def value(view):
    return view.as_value().value


def members(multicast, rows, columns):
    return multicast | rows << 1 | columns << 1 + LAYOUT.rows


class Bench:
    """A requester: requests in, packets out; packets in, responses out."""

    def __init__(self, dut, *, rate=1.0):
        self.dut = dut
        self.requests = Source(dut, "request", rate=rate)
        self.packets = Sink(dut, "o_packets", rate=rate)
        self.answers = Source(dut, "i_packets", rate=rate)
        self.responses = Sink(dut, "response", rate=rate)
        self.wishes, self.offered = deque(), None

    def queue(self, address, *, tag=0, write=0, wish=0):
        """Queue a request whose response goes to ``wish``, as ``members`` has it."""
        data = random.getrandbits(512)
        self.requests.queue.append(value(request_layout().const({
            "address": address, "tag": tag, "write": write, "data": data,
            "mask": random.getrandbits(64)})))
        self.wishes.append(wish)

    async def step(self):
        """Packet and response that went, and whether the response was a multicast."""
        await RisingEdge(self.dut.clk)
        many = str(self.dut.multicast.value) == "1"
        packet, response = self.packets.edge(), self.responses.edge()
        before = len(self.requests.queue)
        self.requests.edge()
        if len(self.requests.queue) < before:   # a new one stands, and its members with it
            self.dut.members.value = self.wishes.popleft()
        self.answers.edge()
        return packet, response, many


async def start(dut, *, rate=1.0, shape=0, burst=0):
    bench = Bench(dut, rate=rate)
    dut.die.value, dut.node.value, dut.members.value = DIE, value(HERE.const()), 0
    dut.rate.value, dut.burst.value = shape, burst
    await sim.reset(dut)
    return bench


def line(bank, number=0):
    """Address of a line of an SRAM bank."""
    return DIE << 44 | (number * len(BANKS) + bank) * 64


@cocotb.test()
@cocotb.parametrize(rate=[0.4, 1.0])
async def packets_say_where_to_and_who_wants_the_answer(dut, rate):
    bench = await start(dut, rate=rate)
    wanted = deque()
    for i in range(100):
        bank, wish = random.randrange(len(BANKS)), random.choice([0, random.getrandbits(5)])
        bench.queue(line(bank, random.randrange(16)), tag=i, write=i & 1, wish=wish)
        wanted.append((value(BANKS[bank].const()), wish, bench.requests.queue[-1]))
    for _ in range(2000):
        packet, response, _ = await bench.step()
        assert response is None
        if packet is not None:
            got = REQUEST.from_bits(packet)
            target, wish, body = wanted.popleft()
            assert (value(got.target), value(got.members), value(got.body)) == (target, wish, body)
            assert value(got.source) == value(HERE.const())
        if not wanted:
            return
    raise AssertionError(f"{len(wanted)} requests never left")


@cocotb.test()
@cocotb.parametrize(rate=[0.4, 1.0])
async def responses_keep_their_tag_and_say_if_they_are_multicasts(dut, rate):
    bench = await start(dut, rate=rate)
    wanted = deque()
    for i in range(60):
        many = random.getrandbits(1)
        body = response_layout().const({"tag": i, "write": 0, "error": AccessError.NONE,
                                        "data": random.getrandbits(512)})
        bench.answers.queue.append(value(RESPONSE.const({
            "target": {"place": {"row": 0, "column": 0}, "port": 4},
            "members": {"multicast": many, "rows": 3, "columns": 1},
            "body": response_layout().from_bits(value(body))})))
        wanted.append((value(body), bool(many)))
    for _ in range(1500):
        _, response, many = await bench.step()
        if response is not None:
            assert (response, many) == wanted.popleft()
        if not wanted:
            return
    raise AssertionError(f"{len(wanted)} responses never came")


@cocotb.test()
@cocotb.parametrize(rate=[0.4, 1.0])
async def a_request_that_no_node_answers_is_refused_to_this_node_alone(dut, rate):
    bench = await start(dut, rate=rate)
    faults, refused, answered = 0, [], []
    wrong = [line(0, 1 << 12), (DIE ^ 1) << 44, DIE << 44 | 1 << 40]    # too far, other die, no HBM
    for i in range(30):
        bench.queue(random.choice(wrong), tag=i, write=i & 1, wish=members(1, 3, 3))
    for _ in range(10):
        bench.answers.queue.append(value(RESPONSE.const({
            "members": {"multicast": 1, "rows": 1, "columns": 1},
            "target": {"place": {"row": 0, "column": 0}, "port": 4},
            "body": {"tag": 200, "write": 0, "error": AccessError.NONE, "data": 1}})))
    for _ in range(600):
        packet, response, many = await bench.step()
        assert packet is None
        faults += int(dut.fault.value)
        if response is not None:
            got = response_layout().from_bits(response)
            if got.tag == 200:
                assert many and got.error == AccessError.NONE
                answered.append(got.tag)
            else:
                assert not many and got.error == AccessError.ADDRESS and got.data == 0
                assert got.write == got.tag & 1
                refused.append(got.tag)
    assert refused == list(range(30)) and faults == 30 and len(answered) == 10


@cocotb.test()
async def requests_are_shaped_and_a_pause_fills_the_bucket(dut):
    """The clock of the requester stops in pauses; the bucket must not notice."""
    rate, burst = 32, 4
    bench = await start(dut, shape=rate, burst=burst)
    for _ in range(5):
        for _ in range(60):
            await bench.step()
        for i in range(12):
            bench.queue(line(0, i))
        times = []
        for cycle in range(120):
            packet, _, _ = await bench.step()
            if packet is not None:
                times.append(cycle)
        assert [t - times[0] for t in times[:burst]] == list(range(burst))
        for i in range(burst, len(times)):
            n = times[i] - times[0]
            assert i + 1 <= burst + -(-rate * n // 256)
        assert len(times) == 12 and times[-1] - times[0] >= (11 - burst) * 256 // rate - 8


@cocotb.test()
async def requests_are_not_shaped_at_rate_0(dut):
    bench = await start(dut)
    for i in range(50):
        bench.queue(line(1, i % 16))
    went = 0
    for _ in range(54):
        packet, _, _ = await bench.step()
        went += packet is not None
    assert went == 50


@sim.on_simulators
def test_requester(tmp_path, simulator):
    sim.run(Twins(lambda: Requester(ADDRESSES)), test_module=__name__, build_dir=tmp_path,
            simulator=simulator)
