"""Tests of cosim/noc: traffic on a mesh alone."""
import pytest

from cosim import noc
from cosim.noc import ALWAYS, Flow, bisection_bound, build_mesh, routing_bound
from host.bench.noc import uniform


@pytest.fixture(scope="module")
def mesh():
    return build_mesh(2, 2, multicast=True)


def test_light_traffic_arrives(mesh):
    """Every packet once, at its own PE and in order: else the run itself fails."""
    result = noc.run(mesh, uniform(mesh, 0.2), cycles=2000)
    assert 0.99 * result.sent <= result.arrived and result.sent > 0.9 * 0.2 * 4 * 2000
    assert 0 < result.least <= result.arrived / 4


def test_a_full_mesh_stays_below_its_bounds(mesh):
    flows = uniform(mesh, ALWAYS)
    result = noc.run(mesh, flows, cycles=2000)
    rate = result.arrived / 2000 / 4
    assert 0.8 * bisection_bound(2, 2) < rate <= bisection_bound(2, 2)
    assert result.counters["blocked"] > 0 and routing_bound(mesh, flows) <= 1


def test_a_multicast_takes_each_link_once(mesh):
    one = noc.run(mesh, [Flow(0, (1, 2, 3))], cycles=1000)
    all_ = noc.run(mesh, [Flow(0, ((3, 3),))], cycles=1000)
    assert all_.counters["hops"] / all_.arrived * 4 == pytest.approx(3, rel=0.02)
    assert one.counters["hops"] / one.arrived == pytest.approx(4 / 3, rel=0.02)


def test_a_slow_receiver_loses_nothing(mesh):
    result = noc.run(mesh, [Flow(0, (3,), ALWAYS)], cycles=1000, takes={3: 64})
    assert result.arrived == pytest.approx(250, rel=0.1)
