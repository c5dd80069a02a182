"""Packages whose NICs talk over the fabric: bytes from the memory of one to that of another."""
import numpy as np
import pytest

from cosim.cluster import Cluster
from cosim.fabric import Fabric, Faults, mac_address
from host.driver import Device
from host.isa import LINE, Region, address
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
