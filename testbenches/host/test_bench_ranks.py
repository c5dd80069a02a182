"""The measurements of several packages, on packages without time: what they check can fail."""
import numpy as np
import pytest

from cosim import fabric as cables
from cosim.golden import collectives as golden
from host.bench import allreduce, collectives, faults, overlap
from host.bench.ranks import numbers, put, same
from host.collectives import Group, Port, Rail, System, rails_of, system
from host.isa import Format
from host.outcome import Outcome
from testbenches.network_fake import World


def systems(ranks, seed=0):
    world = World(ranks, seed=seed)
    return world, System(world.devices, [Rail(0, (Port(0, 0, 0),)), Rail(1, (Port(0, 0, 1),))])


class Cables:
    """A fabric that notes its orders."""

    def __init__(self):
        self.orders = []

    def set_faults(self, *order):
        self.orders.append(order)

    def link_down(self, *order, **when):
        self.orders.append((*order, when))

    def link_up(self, *order):
        self.orders.append(order)

    def restart(self, *order, **when):
        self.orders.append((*order, when))

    @property
    def switches(self):
        return ["one"]

    def totals(self):
        return {"lost": len(self.orders)}


def test_stations_are_those_of_the_fabric():
    for rank, nic in ((0, 0), (3, 1), (71, 5), (300, 11)):
        assert system.mac_address(rank, nic) == cables.mac_address(rank, nic)


def test_rails_of_packages():
    from cosim.build.dies import describe
    one = rails_of(describe("mtia300", "sim"))
    assert one == [Rail(0, (Port(0, 0, 0), Port(1, 0, 1)))]
    four = rails_of(describe("mtia500", "sim"))
    assert [rail.die for rail in four] == [0, 1, 2, 3]
    assert [rail.ports[0].number for rail in four] == [0, 0, 1, 1]
    full = rails_of(describe("mtia300", "full"))
    assert [p.number for p in full[0].ports] == list(range(12))


def test_collectives_are_compared_bit_for_bit(monkeypatch):
    monkeypatch.setattr(collectives, "SIZES", {Format.BF16: (1, 37), Format.E4M3: (96,)})
    _, made = systems(3)
    outcome = Outcome("collectives", "none")
    collectives.measure(made, 3, outcome, np.random.default_rng(0))
    assert all(outcome.checks.values()) and len(outcome.checks) == 7
    assert outcome.metrics["elements_all_reduce_3"] == 4 * 3 * (1 + 37 + 96)
    monkeypatch.setattr(golden, "all_reduce", lambda x, algorithm: x[0])
    collectives.measure(made, 3, outcome, np.random.default_rng(0))
    assert not outcome.checks["bit_exact_all_reduce_3"]


def test_all_reduce_on_all_rails(monkeypatch):
    _, made = systems(8)
    rng = np.random.default_rng(1)
    assert allreduce.large(Group(made), 3000, rng)[1]
    outcome = Outcome("allreduce", "none")
    topology = allreduce.measure_small(made, outcome, rng, 1e9)
    assert all(outcome.checks.values()) and topology.alpha == 0      # no time passes
    assert {"latency_small_us_2", "latency_small_us_8", "latency_message_us"} <= set(
        outcome.metrics)
    # 8 ranks, 64 KiB, at the pace of one NIC: 1.75 times the bytes.
    cycles = 1.75 * 65536 / 16 * 4160 / 4096
    assert allreduce.busbw_fraction(8, 65536, cycles, 1) == pytest.approx(1)


def test_faults_end_with_right_bits_or_an_error(monkeypatch):
    monkeypatch.setattr(faults, "COUNT", 2001)
    monkeypatch.setattr(faults, "COUNTS", {})
    world, made = systems(3)
    cables_of = Cables()
    found = faults.measure(made, cables_of, np.random.default_rng(2))
    assert all(result == "right" for name, (result, *_) in found.items() if name != "stopped")
    assert "WATCHDOG" in found["stopped"][0] and "rank 2" in found["stopped"][0]
    assert len(cables_of.orders) == (len(faults.FAULTS) + 1) * 6 + 2 * 3 + 1
    assert found["flap"][2]["lost"] == 2        # orders that were given meanwhile
    group = Group(made)
    world.stopped.add(1)
    assert "WATCHDOG" in faults.attempt(group, np.random.default_rng(3), count=2001)[0]


def test_a_wrong_sum_is_found(monkeypatch):
    _, made = systems(3)
    monkeypatch.setattr(golden, "all_reduce", lambda x, algorithm: x[0])
    assert faults.attempt(Group(made), np.random.default_rng(3), count=100)[0] == "wrong"


def test_products_run_beside_an_all_reduce(monkeypatch):
    for name, value in (("ROWS", 32), ("COLUMNS", 96), ("DEPTH", 128), ("REDUCED_BYTES", 2048)):
        monkeypatch.setattr(overlap, name, value)
    _, made = systems(2)
    rng = np.random.default_rng(4)
    group = Group(made, stream=1)
    product = overlap.Product(group.devices, 0, rng)
    for first in (True, False):
        cycles, reduced, good = overlap.beside(product, group, rng, reduce_first=first,
                                               together=False)
        assert good and len(cycles) == 2 and reduced > 0
    assert not product.right()      # it was overwritten


def test_buffers_are_compared():
    world, _ = systems(1)
    vector = numbers(np.random.default_rng(5), Format.E5M2, 64)
    buffer = put(world.devices[0], 0, vector)
    assert same(world.devices[0], buffer, vector)
    vector.scales[1] ^= 1
    assert not same(world.devices[0], buffer, vector)
