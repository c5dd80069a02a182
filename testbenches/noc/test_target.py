"""Tests of Target in rtl/noc/endpoints.py: the cocotb tests, then the pytest function."""
import random
from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from rtl.noc.endpoints import Target
from rtl.noc.packets import MeshLayout, request_packet_layout, response_packet_layout
from rtl.pe.interfaces import request_layout
from testbenches import sim
from testbenches.noc.traffic import Sink, Source
from testbenches.twins import Twins

LAYOUT = MeshLayout.standard(2, 3)
REQUEST, RESPONSE = request_packet_layout(LAYOUT), response_packet_layout(LAYOUT)
NODES = list(LAYOUT.nodes.values())
DEPTH = 3


def value(view):
    return view.as_value().value


def wish():
    """Members of a response: none, some, or a multicast for nobody."""
    rows = random.choice([0, random.getrandbits(2)])
    return {"multicast": random.getrandbits(1), "rows": rows, "columns": random.getrandbits(3)}


@cocotb.test()
@cocotb.parametrize(rate=[0.4, 1.0])
async def responses_go_in_order_to_those_who_want_them(dut, rate):
    """A memory that keeps every request for some cycles; never more than ``DEPTH`` at once."""
    packets, requests = Source(dut, "i_packets", rate=rate), Sink(dut, "request", rate=rate)
    responses, answers = Source(dut, "response", rate=rate / 2), Sink(dut, "o_packets", rate=rate)
    await sim.reset(dut)
    sent, wanted, under_way = deque(), deque(), 0
    for i in range(120):
        source, members = random.choice(NODES), wish()
        body = {"address": random.getrandbits(48) << 6, "tag": i, "write": i & 1,
                "data": random.getrandbits(512), "mask": random.getrandbits(64)}
        packets.queue.append(value(REQUEST.const({
            "target": NODES[0].const(), "source": source.const(), "members": members,
            "body": body})))
        sent.append(body)
        somebody = members["rows"] and members["columns"]
        wanted.append((value(source.const()), members | {
            "multicast": int(bool(members["multicast"] and somebody))}))
    fullest = 0
    for _ in range(4000):
        await RisingEdge(dut.clk)
        answer = answers.edge()
        if (request := requests.edge()) is not None:
            assert request == value(request_layout().const(sent.popleft()))
            tag = request_layout().from_bits(request).tag
            responses.queue.append(tag | random.getrandbits(512) << 11)
            under_way += 1
        if answer is not None:
            got, (source, members) = RESPONSE.from_bits(answer), wanted.popleft()
            assert value(got.target) == source
            assert {name: got.members[name] for name in members} == members
            assert got.body.tag == 119 - len(wanted)
            under_way -= 1
        fullest = max(fullest, under_way)
        packets.edge()
        responses.edge()
        if not wanted:
            assert fullest == DEPTH
            return
    raise AssertionError(f"{len(wanted)} requests were never answered")


@sim.on_simulators
def test_target(tmp_path, simulator):
    sim.run(Twins(lambda: Target(LAYOUT, depth=DEPTH)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
