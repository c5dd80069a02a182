"""Packages whose NICs talk over the fabric: bytes from the memory of one to that of another."""
import numpy as np
import pytest

from cosim.cluster import Cluster
from cosim.fabric import Fabric, Faults, mac_address
from host.collectives.program import EngineProgram
from host.driver import Device
from host.isa import LINE, Op, Region, address
from host.network_isa import ENTRY, Compare, EngineKind
from host.network_isa import line as entry
from host.program import Program, use
from rtl.net.interfaces import (
    Opcode,
    QpState,
    Status,
    completion_layout,
    qp_layout,
    region_layout,
    work_layout,
)
from testbenches.cosim.test_network_package import NETWORKED
from testbenches.cosim.test_package import pattern

pytestmark = pytest.mark.system
QPS, REGIONS, DOORBELL = 0x10000, 0x20000, 0x40000
KEY, DOMAIN, COUNT = 0x4D580001, 3, 20_003
FABRIC = Fabric(latency_cycles=100)


def line(layout, **fields):
    return np.frombuffer(layout.const(fields).as_bits().to_bytes(LINE, "little"), np.uint8)


class Rank:
    """A package whose NIC behind die 0 has queue pair 0 with the other package."""

    def __init__(self, cluster, rank):
        self.device = device = Device(cluster.members[rank])
        self.window = address(0, Region.NETWORK)
        self.source, self.target = (device.alloc(0, COUNT, Region.HBM) for _ in range(2))
        self.completion = device.alloc(0, LINE)
        device.write(self.completion, np.zeros(LINE, np.uint8))
        self.content = pattern(COUNT, rank)
        device.write(self.source, self.content)
        own = mac_address(rank, 0).to_bytes(6, "little")
        device.write(self.window, np.frombuffer(own.ljust(LINE, b"\0"), np.uint8))
        device.write(self.window + REGIONS + LINE, line(
            region_layout(), key=KEY, domain=DOMAIN, remote_read=1, remote_write=1,
            base=address(0, Region.HBM), length=1 << 20))
        device.write(self.window + QPS, line(
            qp_layout(), state=QpState.READY, domain=DOMAIN, peer_mac=mac_address(1 - rank, 0),
            completions=self.completion, timeout_log2=12, tries=7, window=8))
        device.synchronize()

    def write(self, peer, key=KEY):
        """Post a write of all to the memory of the peer."""
        self.device.write(self.window + DOORBELL, line(
            work_layout(), opcode=Opcode.WRITE, cookie=7, length=COUNT, local=self.source,
            remote=peer.target, local_key=KEY, remote_key=key)).wait()

    def status(self):
        """Wait for the completion."""
        for _ in range(1000):
            words = self.device.read(self.completion, LINE).tobytes()
            found = completion_layout().from_bits(int.from_bytes(words, "little"))
            if found.opcode != Opcode.NONE:
                assert found.cookie == 7 and found.qp == 0
                return found.status
        raise AssertionError("no completion came")

    def received(self):
        return self.device.read(self.target, COUNT)


def exchange(fabric, orders=lambda cluster: None, **options):
    """Both packages write to each other; returns how it went."""
    with Cluster([NETWORKED] * 2, fabric=fabric, **options) as cluster:
        ranks = [Rank(cluster, rank) for rank in range(2)]
        orders(cluster)
        ranks[0].write(ranks[1])
        ranks[1].write(ranks[0])
        found = [rank.status() for rank in ranks]
        arrived = [np.array_equal(ranks[1 - r].received(), ranks[r].content) for r in range(2)]
        return (found, arrived, cluster.fabric.totals(), cluster.cycle,
                cluster.engine.statistics()["hashes"])


@pytest.mark.parametrize("flow", ["drop", "pause"])
def test_packages_write_to_each_other(flow):
    found, arrived, totals, _, _ = exchange(Fabric(latency_cycles=100, flow=flow))
    assert found == [Status.OK] * 2 and arrived == [True] * 2
    assert totals["in_frames"] == totals["out_frames"] >= 2 * 6
    assert not any(totals[name] for name in ("lost", "overflowed", "unknown", "wrong"))


def test_what_the_fabric_spoils_is_sent_again():
    faults = Faults(loss=0.05, duplicate=0.05, corrupt=0.05, reorder=0.05, reorder_cycles=2000)
    results = [exchange(Fabric(latency_cycles=100, faults=faults, seed=3), **options)
               for options in ({}, {"threads": 3}, {"processes": 3})]
    found, arrived, totals, _, _ = results[0]
    assert found == [Status.OK] * 2 and arrived == [True] * 2
    assert totals["lost"] + totals["corrupted"] > 0
    assert results[1:] == [results[0]] * 2


def test_a_flap_in_the_middle_is_got_over():
    found, arrived, totals, _, _ = exchange(
        FABRIC, orders=lambda cluster: cluster.fabric.link_down(
            1, 0, at=cluster.cycle + 500, cycles=3000))
    assert found == [Status.OK] * 2 and arrived == [True] * 2
    assert totals["link_down"] > 0


def test_a_switch_that_stays_away_is_named():
    found, arrived, totals, _, _ = exchange(
        FABRIC, orders=lambda cluster: cluster.fabric.restart("switch0", cycles=10**9))
    assert found == [Status.UNREACHABLE] * 2 and arrived == [False] * 2
    assert totals["restarted"] > 0 and totals["out_frames"] == 0


def test_a_wrong_key_reaches_the_sender():
    with Cluster([NETWORKED] * 2, fabric=FABRIC) as cluster:
        ranks = [Rank(cluster, rank) for rank in range(2)]
        before = ranks[1].received()
        ranks[0].write(ranks[1], KEY + 0x100)
        assert ranks[0].status() == Status.REMOTE_PROTECTION
        np.testing.assert_array_equal(ranks[1].received(), before)


FLAG = 0x1234_5678


def write_from_a_pe(rank, peer, flag, source):
    """A program: bring data from ``source`` to where the NIC reads, write them and a flag."""
    lines, device = -(-COUNT // LINE), rank.device
    value = device.alloc(0, LINE, Region.HBM)
    device.write(value, np.full(16, FLAG, "<u4"))
    requests = [line(work_layout(), opcode=Opcode.WRITE, cookie=n, length=length, local=local,
                     remote=remote, local_key=KEY, remote_key=KEY)
                for n, (length, local, remote) in enumerate((
                    (COUNT, rank.source, peer.target), (4, value, flag)))]
    bells = device.alloc(0, LINE * len(requests))
    device.write(bells, np.concatenate(requests))
    program = Program(local_lines=256)
    data, request = program.buffer(64), program.buffer(1)
    for at in range(0, lines, 32):
        count = min(32, lines - at)
        program.dma_in(use(data, wait=count, release=count), source + at * LINE,
                       row_bytes=count * LINE)
        program.dma_out(use(data, wait=count, release=count), rank.source + at * LINE,
                        row_bytes=count * LINE)
    for number in range(len(requests)):
        program.add(Op.FENCE)       # all before is in memory
        program.dma_in(use(request, wait=1, release=1), bells + number * LINE, row_bytes=LINE)
        program.dma_out(use(request, wait=1, release=1), rank.window + DOORBELL, row_bytes=LINE)
    return program


def wait_in_a_pe(rank, flag, target):
    """Programs of a PE and of the engine: once the flag has come, bring the data to ``target``."""
    program = Program(local_lines=256)
    data, lines = program.buffer(64), -(-COUNT // LINE)
    program.add(Op.BARRIER)
    for at in range(0, lines, 32):
        count = min(32, lines - at)
        program.dma_in(use(data, wait=count, release=count), rank.target + at * LINE,
                       row_bytes=count * LINE)
        program.dma_out(use(data, wait=count, release=count), target + at * LINE,
                        row_bytes=count * LINE)
    waits = np.array([entry(ENTRY, kind=EngineKind.WAIT, local=flag, immediate=FLAG,
                            local_key=0xFFFF_FFFF, compare=Compare.EQUAL, fence=1),
                      entry(ENTRY, kind=EngineKind.ARRIVE)])
    return {0: program, rank.device.configuration.pes: EngineProgram([waits])}


def test_pes_start_one_sided_writes_and_wait_for_them():
    """No host between: a PE of one package rings the doorbell, a PE of the other goes on."""
    with Cluster([NETWORKED] * 2, fabric=FABRIC) as cluster:
        ranks = [Rank(cluster, rank) for rank in range(2)]
        here, there = ranks[0].device, ranks[1].device
        flag, result = (there.alloc(0, size, Region.HBM) for size in (LINE, COUNT + LINE))
        content = pattern(COUNT, 5)
        source = here.alloc(0, COUNT + LINE, Region.HBM)
        here.write(source, np.pad(content, (0, LINE)))
        there.write(flag, np.zeros(LINE, np.uint8))
        sends = here.prepare(0, {0: write_from_a_pe(ranks[0], ranks[1], flag, source)})
        waits = there.prepare(0, wait_in_a_pe(ranks[1], flag, result))
        for rank in ranks:
            rank.device.synchronize()
        event = there.start(waits)
        there.transport.run_until_interrupt(10_000)
        there.run_until(lambda: True, 1)
        assert not event.done       # nobody has rung yet
        here.start(sends).wait()
        event.wait()
        np.testing.assert_array_equal(there.read(result, COUNT), content)
