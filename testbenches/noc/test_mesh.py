"""Tests of rtl/noc/mesh.py and router.py: the cocotb tests, then the pytest function."""
import random
from collections import defaultdict

import cocotb
from amaranth.lib import data
from cocotb.triggers import RisingEdge

from rtl.noc.mesh import Mesh
from rtl.noc.packets import MeshLayout, node_layout
from testbenches import sim
from testbenches.noc.traffic import Sink, Source
from testbenches.twins import Twins

LAYOUT = MeshLayout.standard(2, 3)
SHAPE = data.StructLayout({"target": node_layout(), "body": 24})
NODES = [name for name in LAYOUT.nodes if name != "bridge"]  # one node that only sends
SENDERS = [*NODES, "bridge"]


def packet(target, body):
    return SHAPE.const({"target": LAYOUT.nodes[target].const(), "body": body}).as_value().value


def body(payload):
    return payload >> SHAPE["body"].offset


class Bench:
    """All nodes of the mesh; bodies are (sender, target, sequence number)."""

    def __init__(self, dut, *, send=1.0, take=1.0):
        self.dut = dut
        self.sources = {name: Source(dut, f"i_{name}", rate=send) for name in SENDERS}
        self.sinks = {name: Sink(dut, f"o_{name}", rate=take) for name in NODES}
        self.next, self.expected = defaultdict(int), defaultdict(int)
        self.sent, self.got = 0, 0

    def queue(self, sender, target):
        """Queue one packet that says where it comes from, where it goes and its number."""
        number = self.next[sender, target]
        self.next[sender, target] += 1
        self.sources[sender].queue.append(packet(
            target, SENDERS.index(sender) << 20 | SENDERS.index(target) << 16 | number))
        self.sent += 1

    async def step(self):
        await RisingEdge(self.dut.clk)
        arrived = []
        for name, sink in self.sinks.items():
            if (payload := sink.edge()) is not None:
                sender, target = body(payload) >> 20, body(payload) >> 16 & 15
                assert SENDERS[target] == name, f"{SENDERS[target]}'s packet came to {name}"
                number = self.expected[SENDERS[sender], name]
                assert body(payload) & 0xFFFF == number, "packets of a pair out of order"
                self.expected[SENDERS[sender], name] += 1
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


async def start(dut, **rates):
    bench = Bench(dut, **rates)
    await sim.reset(dut)
    return bench


@cocotb.test()
@cocotb.parametrize(send=[0.3, 1.0], take=[0.3, 1.0])
async def every_packet_arrives_once_in_order_at_its_target(dut, send, take):
    bench = await start(dut, send=send, take=take)
    for sender in SENDERS:
        for _ in range(100):
            bench.queue(sender, random.choice(NODES))
    await bench.drain(4000)
    for _ in range(20):
        assert not await bench.step()


@cocotb.test()
@cocotb.parametrize(target=["pe4", "tile1", "control"])
async def all_to_one_shares_the_target_and_fills_it(dut, target):
    bench = await start(dut)
    for sender in SENDERS:
        for _ in range(200):
            bench.queue(sender, target)
    taken = 0
    for cycle in range(500):
        taken += len(await bench.step())
        assert cycle < 20 or taken >= cycle - 20  # one a cycle, once the mesh has filled
    received = [bench.expected[sender, target] for sender in SENDERS]
    assert min(received) >= 3, f"somebody starves: {received}"
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
    assert bench.expected["pe5", "pe4"] == 50 and bench.expected["pe0", "tile0"] == 0
    blocked.rate = 1
    await bench.drain(200)


@cocotb.test()
async def latency_is_the_routers_on_the_way(dut):
    bench = await start(dut)
    for _ in range(3):
        await bench.step()
    for sender in SENDERS:
        for target in NODES:
            a, b = LAYOUT.nodes[sender], LAYOUT.nodes[target]
            bench.queue(sender, target)
            await bench.step()  # offers the packet
            waited = 0
            while not await bench.step():
                waited += 1
                assert waited < 50, f"nothing came from {sender} to {target}"
            assert waited == abs(a.row - b.row) + abs(a.column - b.column) + 1


@cocotb.test()
async def clocks_stop_between_packets_and_start_in_time(dut):
    """Few packets after pauses of every length; :class:`Twins` compares with a free clock."""
    bench = await start(dut)
    stopped = 0
    for _ in range(200):
        for sender in random.sample(SENDERS, random.randint(1, 3)):
            bench.queue(sender, random.choice(NODES))
        for sink in bench.sinks.values():
            sink.rate = random.choice([0.2, 1.0])
        for _ in range(random.randint(0, 30)):
            await bench.step()
        stopped += not dut.awake.value
    assert stopped > 20
    await bench.drain(200)
    await bench.step()
    assert not dut.awake.value


@cocotb.test()
@cocotb.parametrize(way=["requests", "responses"], order=["streaming", "random"])
async def banks_and_processing_elements_get_their_bandwidth(dut, way, order):
    """6 PEs ask 4 banks, or 4 banks send to 6 PEs, as fast as they can: at least 2.7 a cycle."""
    bench = await start(dut)
    pes = [name for name in NODES if name.startswith("pe")]
    banks = [name for name in NODES if name.startswith("tile")]
    senders, takers = (pes, banks) if way == "requests" else (banks, pes)
    for i in range(600):
        for place, sender in enumerate(senders):
            streaming = takers[(i + place) % len(takers)]
            bench.queue(sender, streaming if order == "streaming" else random.choice(takers))
    got = 0
    for cycle in range(500):
        arrived = await bench.step()
        got += len(arrived) if cycle >= 100 else 0
    dut._log.info(f"{way}, {order}: {got / 400:.2f} lines a cycle")
    assert got / 400 > 2.7
    await bench.drain(2000)


@sim.on_simulators
def test_mesh(tmp_path, simulator):
    sim.run(Twins(lambda: Mesh(SHAPE, LAYOUT, sources=SENDERS, targets=NODES)),
            test_module=__name__, build_dir=tmp_path, simulator=simulator)
