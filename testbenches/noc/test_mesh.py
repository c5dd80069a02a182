"""Tests of rtl/noc/mesh.py and router.py: the cocotb tests, then the pytest function."""
import os
import random
from collections import defaultdict, deque

import cocotb
import pytest
from amaranth.lib import data
from cocotb.triggers import RisingEdge

from rtl.noc.mesh import Mesh
from rtl.noc.packets import MeshLayout, Port, members_layout, node_layout
from rtl.noc.router import counters_layout
from testbenches import sim
from testbenches.noc.traffic import Sink, Source
from testbenches.twins import Twins

LAYOUTS = {     # name: layout, multicast
    "plain": (MeshLayout.standard(2, 3), False),
    "multicast": (MeshLayout.standard(3, 3), True),
    "clusters": (MeshLayout.standard(4, 4, cluster=(2, 2)), True),
}
LAYOUT, MULTICAST = LAYOUTS[os.environ.get("MESH", "plain")]
SHAPE = data.StructLayout({"target": node_layout(), "body": 24}
                          | ({"members": members_layout(LAYOUT)} if MULTICAST else {}))
NODES = [name for name in LAYOUT.nodes if name != "bridge"]  # one node that only sends
SENDERS = [*NODES, "bridge"]
PES = [name for name in NODES if name.startswith("pe")]


def hops(a, b):
    a, b = LAYOUT.nodes[a], LAYOUT.nodes[b]
    return abs(a.row - b.row) + abs(a.column - b.column)


def tree(sender, rows, columns):
    """PEs of a multicast, and the links that its X-then-Y tree has: paths laid over each other."""
    found, links = [], set()
    start = LAYOUT.nodes[sender]
    for row in range(LAYOUT.rows):
        for column in range(LAYOUT.columns):
            if rows >> row & 1 and columns >> column & 1:
                found.append(f"pe{row * LAYOUT.columns + column}")
                end = LAYOUT.nodes[found[-1]]
                at = (start.row, start.column)
                while at != (end.row, end.column):
                    if at[1] != end.column:
                        to = (at[0], at[1] + (1 if end.column > at[1] else -1))
                    else:
                        to = (at[0] + (1 if end.row > at[0] else -1), at[1])
                    links.add((at, to))
                    at = to
    return found, links


class Bench:
    """All nodes of the mesh; bodies are a sender and the number that it gave the packet."""

    def __init__(self, dut, *, send=1.0, take=1.0):
        self.dut = dut
        self.sources = {name: Source(dut, f"i_{name}", rate=send) for name in SENDERS}
        self.sinks = {name: Sink(dut, f"o_{name}", rate=take) for name in NODES}
        self.next, self.expected = defaultdict(int), defaultdict(deque)
        self.received = defaultdict(int)
        self.sent, self.got = 0, 0

    def queue(self, sender, target=None, members=None):
        """Queue a packet for a node, or for the PEs of some rows and columns (masks)."""
        number = self.next[sender]
        self.next[sender] += 1
        fields = {"target": LAYOUT.nodes[target or "control"].const(),
                  "body": SENDERS.index(sender) << 16 | number}
        targets = [target]
        if members:
            targets, _ = tree(sender, *members)
            fields["members"] = {"multicast": 1, "rows": members[0], "columns": members[1]}
        elif MULTICAST:     # masks mean nothing without the bit
            fields["members"] = {"multicast": 0, "rows": random.getrandbits(LAYOUT.rows),
                                 "columns": random.getrandbits(LAYOUT.columns)}
        self.sources[sender].queue.append(SHAPE.const(fields).as_value().value)
        for name in targets:
            self.expected[sender, name].append(number)
        self.sent += len(targets)

    async def step(self):
        await RisingEdge(self.dut.clk)
        arrived = []
        for name, sink in self.sinks.items():
            if (payload := sink.edge()) is not None:
                body = payload >> SHAPE["body"].offset & 0xFFFFFF
                sender = SENDERS[body >> 16]
                wanted = self.expected[sender, name]
                assert wanted, f"a packet from {sender} came to {name} that was not for it"
                assert wanted.popleft() == body & 0xFFFF, "packets of a pair out of order"
                self.received[sender, name] += 1
                self.got += 1
                arrived.append(name)
        for source in self.sources.values():
            source.edge()
        return arrived

    async def drain(self, limit):
        for _ in range(limit):
            await self.step()
            if self.got == self.sent:
                return
        raise AssertionError(f"{self.sent - self.got} of {self.sent} packets are still under way")

    async def counters(self):
        await self.step()
        value = counters_layout().from_bits(int(self.dut.counters.value))
        return {name: value[name] for name in counters_layout().members}


async def start(dut, **rates):
    bench = Bench(dut, **rates)
    await sim.reset(dut)
    return bench


def some(bits):
    return random.randrange(1, 1 << bits)


def queue_any(bench, sender):
    """A packet for any node, or now and then for many."""
    if MULTICAST and random.random() < 0.3:
        bench.queue(sender, members=(some(LAYOUT.rows), some(LAYOUT.columns)))
    else:
        bench.queue(sender, random.choice(NODES))


@cocotb.test()
@cocotb.parametrize(send=[0.3, 1.0], take=[0.3, 1.0])
async def every_packet_arrives_once_in_order_at_its_target(dut, send, take):
    bench = await start(dut, send=send, take=take)
    for sender in SENDERS:
        for _ in range(60):
            queue_any(bench, sender)
    await bench.drain(20000)
    for _ in range(20):
        assert not await bench.step()


@cocotb.test()
@cocotb.parametrize(target=["pe4", "tile1", "control"])
async def all_to_one_shares_the_target_and_fills_it(dut, target):
    bench = await start(dut)
    for sender in SENDERS:
        for _ in range(60):
            bench.queue(sender, target)
    taken = 0
    for cycle in range(500):
        taken += len(await bench.step())
        assert cycle < 20 or taken >= cycle - 20  # one a cycle, once the mesh has filled
    received = [bench.received[sender, target] for sender in SENDERS]
    assert min(received) >= 500 // len(SENDERS) - 16, f"somebody starves: {received}"
    await bench.drain(4000)


@cocotb.test()
async def a_blocked_node_stops_only_what_waits_for_it(dut):
    bench = await start(dut)
    blocked = bench.sinks["tile0"]
    blocked.rate = 0
    for _ in range(50):
        bench.queue("pe0", "tile0")
        bench.queue("pe5", "pe4")
    for _ in range(200):
        await bench.step()
    assert bench.received["pe5", "pe4"] == 50 and bench.received["pe0", "tile0"] == 0
    blocked.rate = 1
    await bench.drain(200)


@cocotb.test()
async def packets_for_other_outputs_pass_those_that_wait(dut):
    """Both come over the same link; as many for the blocked node as its queues hold."""
    bench = await start(dut)
    far, near = "tile1", "pe2"
    bench.sinks[far].rate = 0
    for _ in range(4):
        bench.queue("pe0", far)
    for _ in range(40):
        await bench.step()
    for _ in range(50):
        bench.queue("pe0", near)
    for _ in range(120):
        await bench.step()
    assert bench.received["pe0", near] == 50 and bench.received["pe0", far] == 0
    bench.sinks[far].rate = 1
    await bench.drain(200)


@cocotb.test()
async def the_oldest_packet_goes_first(dut):
    """Three nodes send to a blocked one in turns; it then gets all in the order of time."""
    bench = await start(dut)
    bench.sinks["pe0"].rate = 0
    order = []
    for _ in range(3):
        for sender in random.sample(["tile1", "control", "pe0"], 3):
            bench.queue(sender, "pe0")
            order.append(sender)
            for _ in range(8):      # longer than the way
                await bench.step()
    bench.sinks["pe0"].rate = 1
    came, before = [], dict(bench.received)
    while bench.got < bench.sent:
        await bench.step()
        for sender in ("tile1", "control", "pe0"):
            if bench.received[sender, "pe0"] != before.get((sender, "pe0"), 0):
                before[sender, "pe0"] = bench.received[sender, "pe0"]
                came.append(sender)
    assert came == order


@cocotb.test()
async def latency_is_the_routers_on_the_way(dut):
    bench = await start(dut)
    for _ in range(3):
        await bench.step()
    for sender in SENDERS:
        for target in NODES:
            bench.queue(sender, target)
            await bench.step()  # offers the packet
            waited = 0
            while not await bench.step():
                waited += 1
                assert waited < 50, f"nothing came from {sender} to {target}"
            assert waited == hops(sender, target) + 1


@cocotb.test()
async def clocks_stop_between_packets_and_start_in_time(dut):
    """Few packets after pauses of every length; :class:`Twins` compares with a free clock."""
    bench = await start(dut)
    stopped = 0
    for _ in range(150):
        for sender in random.sample(SENDERS, random.randint(1, 3)):
            queue_any(bench, sender)
        for sink in bench.sinks.values():
            sink.rate = random.choice([0.2, 1.0])
        for _ in range(random.randint(0, 40)):
            await bench.step()
        stopped += not dut.awake.value
    assert stopped > 5
    await bench.drain(1000)
    await bench.step()
    assert not dut.awake.value


@cocotb.test()
@cocotb.parametrize(way=["requests", "responses"], order=["streaming", "random"])
async def banks_and_processing_elements_get_their_bandwidth(dut, way, order):
    """PEs ask the banks, or banks send to PEs, as fast as they can: 0.8 of what the banks can."""
    bench = await start(dut)
    banks = [name for name in NODES if name.startswith("tile")]
    senders, takers = (PES, banks) if way == "requests" else (banks, PES)
    for i in range(400):
        for place, sender in enumerate(senders):
            streaming = takers[(i + place) % len(takers)]
            bench.queue(sender, streaming if order == "streaming" else random.choice(takers))
    got = 0
    for cycle in range(300):
        arrived = await bench.step()
        got += len(arrived) if cycle >= 100 else 0
    dut._log.info(f"{way}, {order}: {got / 200:.2f} lines a cycle")
    assert got / 200 > 0.8 * len(banks)
    await bench.drain(3000)


@cocotb.test()
async def counters_count_what_went_over_links_and_ports(dut):
    bench = await start(dut)
    ways = 0
    for sender in SENDERS:
        for _ in range(20):
            target = random.choice(NODES)
            bench.queue(sender, target)
            ways += hops(sender, target)
    await bench.drain(3000)
    counters = await bench.counters()
    assert counters["hops"] == ways and counters["delivered"] == bench.sent
    assert counters["lost"] == 0
    before = counters["busiest"]
    for _ in range(200):
        bench.queue("pe0", "tile1")
    await bench.drain(3000)
    carried = await bench.counters()
    assert 200 <= carried["busiest"] <= 200 + before
    assert carried["blocked"] == counters["blocked"]    # one stream waits for nobody
    assert carried["conflicts"] == counters["conflicts"]


@cocotb.test()
async def counters_tell_a_full_queue_from_a_lost_turn(dut):
    bench = await start(dut)
    for sender in ("tile1", "control", "pe0"):
        for _ in range(30):
            bench.queue(sender, "pe0")
    await bench.drain(300)
    turns = await bench.counters()
    assert turns["conflicts"] >= 60     # 3 want the port, of which one goes, in most cycles
    bench.sinks["pe0"].rate = 0
    for _ in range(2):
        await bench.step()
    for _ in range(20):
        bench.queue("tile1", "pe0")
    for _ in range(100):
        await bench.step()
    full = await bench.counters()
    assert full["conflicts"] == turns["conflicts"]
    path = hops("tile1", "pe0") + 1     # each output of it waits
    assert (full["blocked"] - turns["blocked"]) >= 60 * path
    bench.sinks["pe0"].rate = 1
    await bench.drain(300)


@cocotb.test()
async def a_packet_for_no_node_is_dropped_and_counted(dut):
    bench = await start(dut)
    for sender in ("pe0", "tile1"):
        place = {"row": LAYOUT.router_rows - 1, "column": 0}
        fields = {"target": {"place": place, "port": Port.LOCAL11}, "body": 0}
        bench.sources[sender].queue.append(SHAPE.const(fields).as_value().value)
    for _ in range(30):
        assert not await bench.step()
    assert (await bench.counters())["lost"] == 2
    bench.queue("pe0", "pe1")
    await bench.drain(20)


@cocotb.test(skip=not MULTICAST)
async def a_multicast_goes_over_each_link_of_its_tree_once(dut):
    bench = await start(dut)
    before = await bench.counters()
    for sender in SENDERS:
        for rows, columns in [((1 << LAYOUT.rows) - 1, 1 << LAYOUT.columns - 1), (1, 1),
                              (1 << LAYOUT.rows - 1, (1 << LAYOUT.columns) - 1),
                              *((some(LAYOUT.rows), some(LAYOUT.columns)) for _ in range(6))]:
            members, links = tree(sender, rows, columns)
            bench.queue(sender, members=(rows, columns))
            await bench.drain(60)
            after = await bench.counters()
            assert after["hops"] - before["hops"] == len(links)
            assert after["delivered"] - before["delivered"] == len(members)
            before = after
    assert before["lost"] == 0


@cocotb.test(skip=not MULTICAST)
async def multicasts_and_their_neighbours_do_not_starve_each_other(dut):
    """All banks send to all PEs, PEs to PEs: everybody gets on."""
    bench = await start(dut)
    banks = [name for name in NODES if name.startswith("tile")]
    everybody = ((1 << LAYOUT.rows) - 1, (1 << LAYOUT.columns) - 1)
    for _ in range(100):
        for bank in banks:
            bench.queue(bank, members=everybody)
        for pe in PES:
            for _ in range(4):
                bench.queue(pe, random.choice(PES))
    for _ in range(400):
        await bench.step()
    shares = [bench.received[bank, pe] for bank in banks for pe in PES]
    own = [sum(bench.received[pe, to] for to in PES) for pe in PES]
    assert min(shares) >= 20 and min(own) >= 20, (shares, own)
    await bench.drain(8000)


@sim.on_simulators
@pytest.mark.parametrize("mesh", LAYOUTS)
def test_mesh(tmp_path, simulator, mesh):
    os.environ["MESH"] = mesh
    layout, multicast = LAYOUTS[mesh]
    shape = {"target": node_layout(), "body": 24} \
        | ({"members": members_layout(layout)} if multicast else {})
    nodes = list(layout.nodes)
    sim.run(Twins(lambda: Mesh(data.StructLayout(shape), layout, sources=nodes,
                               targets=[n for n in nodes if n != "bridge"],
                               multicast=multicast)),
            test_module=__name__, build_dir=tmp_path, simulator=simulator, env={"MESH": mesh})
