"""Tests of rtl/noc/address.py, in a Requester: cocotb tests, then the pytest functions.

Where each address of a die leads, of regions at their ends and past them.
"""
import os
import random

import cocotb

from rtl.noc.address import ENGINE_WINDOW_BITS, AddressMap
from rtl.noc.endpoints import Requester
from rtl.noc.packets import MeshLayout, request_packet_layout, response_packet_layout
from rtl.pe.interfaces import AccessError, response_layout
from testbenches import sim
from testbenches.noc.test_requester import Bench, value
from testbenches.twins import Twins

GRID = (1, 2)
LAYOUT = MeshLayout.standard(1, 2, peers=1, engines=1, networks=2)
BARE = MeshLayout.standard(1, 2, peers=1)
BANK_LINES, CHANNELS, CHANNEL_LINES = 16, 3, 8
DIE, WINDOW, TAGS = 1, 4, 16
NODES = LAYOUT.nodes
KINDS = {   # options of the requester
    "pe": {"ways": ("X",), "networks": True, "window": WINDOW}, "peer": {"networks": True},
    "net": {}}


def addresses(layout):
    return AddressMap(layout, bank_lines=BANK_LINES, hbm_tiles=1, tile_channels=CHANNELS,
                      channel_lines=CHANNEL_LINES, grid=GRID)


def ends():
    """Nodes by first and last byte of what they answer: (die, region, first, last)."""
    sram, hbm = 2 * BANK_LINES * 64, CHANNELS * CHANNEL_LINES * 64
    found = {(DIE, 0, line * 64, line * 64 + 63): f"tile{line % 2}" for line in (0, 1, 2, 31)}
    assert (sram, hbm) == (32 * 64, 24 * 64)
    found |= {(DIE, 1, 0, hbm - 1): "tile0", (DIE, 4, 0, CHANNELS * 64 - 1): "tile0",
              (DIE, 2, 0, 0xFFFF): "pe0", (DIE, 2, 1 << 16, 0x1FFFF): "pe1",
              (DIE, 3, 0, 16 * 64 - 1): "control"}
    if os.environ["NETWORKS"]:
        found |= {(DIE, 6, 0, (1 << ENGINE_WINDOW_BITS) - 1): "engine",
                  (DIE, 6, 0x1000, 0x103F): "engine", (DIE, 5, 0, (1 << 24) - 1): "net0",
                  (DIE, 5, 1 << 24, (2 << 24) - 1): "net1",
                  (DIE, 5, 1 << 24 | 3 << 20 | 0x40000, 1 << 24 | 3 << 20 | 0x4003F): "net1"}
    return found


def refused():
    """Addresses that no node has, of regions that there are or not."""
    past = [(0, 32 * 64), (1, 24 * 64), (2, 2 << 16), (3, 16 * 64), (4, CHANNELS * 64),
            (5, 2 << 24), (5, 1 << 39), (6, 1 << ENGINE_WINDOW_BITS), (6, 1 << 39), (7, 0),
            (15, 0)]
    if not os.environ["NETWORKS"]:
        past += [(5, 0), (5, 1 << 24), (6, 0), (6, 0x1000)]
    return [DIE << 44 | region << 40 | offset for region, offset in past] + [
        die << 44 | region << 40 for die in (2, 15) for region in (0, 5, 6)]


async def start(dut):
    bench = Bench(dut)
    dut.die.value, dut.node.value, dut.members.value = DIE, value(NODES["pe0"].const()), 0
    dut.rate.value = dut.burst.value = 0
    await sim.reset(dut)
    return bench


async def lead(bench, places):
    """What becomes of requests: a node's bits, or None for those that are refused; by place."""
    layout = request_packet_layout(LAYOUT if os.environ["NETWORKS"] else BARE)
    found, inside = {}, {}
    pending = list(dict.fromkeys(places))
    for _ in range(40 * len(pending) + 100):
        free = [tag for tag in range(TAGS) if tag not in inside]
        if pending and free:
            inside[free[0]] = pending.pop(0)
            bench.queue(inside[free[0]], tag=free[0])
        packet, response, _ = await bench.step()
        if packet is not None:
            got = layout.from_bits(packet)
            found[inside[got.body.tag]] = value(got.target)
            bench.answers.queue.append(answer(got.body.tag, far=far(value(got.target))))
        if response is not None:
            got = response_layout().from_bits(response)
            place = inside.pop(got.tag)
            assert (place in found) == (got.error == AccessError.NONE), f"{place:#x}"
            found.setdefault(place, None)
        if not pending and not inside:
            return found
    raise AssertionError(f"no answer to {[hex(place) for place in inside.values()]}")


def far(target):
    return any(target == value(NODES[name].const()) for name in ("peer0", "net0", "net1"))


def answer(tag, *, far):
    layout = response_packet_layout(LAYOUT if os.environ["NETWORKS"] else BARE)
    return value(layout.const({"far": far, "body": {"tag": tag, "error": AccessError.NONE}}))


@cocotb.test()
async def every_address_leads_to_its_node_and_no_other_anywhere(dut):
    """Of whole windows their first and last byte; network chiplets only to those who may."""
    bench, kind, wanted = await start(dut), os.environ["KIND"], {}
    for (die, region, first, last), name in ends().items():
        allowed = region != 5 or KINDS[kind].get("networks")
        node = value(NODES[name].const()) if allowed else None
        wanted |= {die << 44 | region << 40 | offset: node for offset in (first, last)}
    wanted |= dict.fromkeys(refused())
    way = value(NODES["peer0"].const()) if KINDS[kind].get("ways") else None
    for region in (0, 1, 5, 6, 9):      # what the other die has is known there
        wanted[(DIE ^ 1) << 44 | region << 40 | 1 << 30] = way
    places = list(wanted)
    random.shuffle(places)
    assert await lead(bench, places) == wanted


@cocotb.test(skip=not (os.environ.get("KIND") == "pe" and os.environ["NETWORKS"]))
async def requests_to_network_chiplets_and_to_other_dies_share_the_window(dut):
    """While so many are under way, not even a request to memory is taken."""
    bench = await start(dut)
    network, peer, near = DIE << 44 | 5 << 40, (DIE ^ 1) << 44, DIE << 44
    for tag in range(40):
        bench.queue((network, peer, network | 1 << 24)[tag % 3], tag=tag)
    bench.queue(near, tag=200)
    went, answered = [], []

    async def pause():
        for _ in range(20):
            packet, _, _ = await bench.step()
            if packet is not None:
                went.append(request_packet_layout(LAYOUT).from_bits(packet).body.tag)
    await pause()
    while len(answered) < 41:
        far_tags = [tag for tag in went if tag not in answered and tag != 200]
        assert len(went) - len(answered) == min(WINDOW, 41 - len(answered))
        tag = random.choice(far_tags or [200])
        bench.answers.queue.append(answer(tag, far=tag != 200))
        answered.append(tag)
        await pause()
    assert went == [*range(40), 200]


def run(tmp_path, simulator, kind, layout):
    sim.run(Twins(lambda: Requester(addresses(layout), **KINDS[kind])), test_module=__name__,
            build_dir=tmp_path, simulator=simulator,
            env={"KIND": kind, "NETWORKS": "1" if layout is LAYOUT else ""})


@sim.on_simulators
def test_a_pe_reaches_everything(tmp_path, simulator):
    run(tmp_path, simulator, "pe", LAYOUT)


def test_what_comes_from_another_die_reaches_all_of_this_one(tmp_path):
    run(tmp_path, "verilator", "peer", LAYOUT)


def test_what_comes_from_a_network_chiplet_does_not_go_to_one(tmp_path):
    run(tmp_path, "verilator", "net", LAYOUT)


def test_a_die_without_them_has_no_engine_and_no_network_chiplet(tmp_path):
    run(tmp_path, "verilator", "pe", BARE)
