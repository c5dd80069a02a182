# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/noc and rtl/common/arbiter.py are refused."""
import pytest

from rtl.common.arbiter import RoundRobin
from rtl.noc.address import AddressMap
from rtl.noc.endpoints import Requester, Target
from rtl.noc.mesh import Mesh
from rtl.noc.packets import MeshLayout, Node, request_packet_layout
from rtl.noc.router import Router
from rtl.noc.routes import Ports

LAYOUT = MeshLayout.standard(2, 2)
PACKET = request_packet_layout(LAYOUT)
PORTS = Ports(inputs=("EAST",), outputs=(), links=())


@pytest.mark.parametrize("make, message", [
    (lambda: RoundRobin(0), "Width must be a positive integer, not 0"),
    (lambda: MeshLayout(0, 3, ()), "Rows must be an integer in 1 to 15, not 0"),
    (lambda: MeshLayout(2, 16, ()), "Columns must be an integer in 1 to 15, not 16"),
    (lambda: MeshLayout(2, 2, (("x", Node(0, 0, "SOUTH")),)), "must be at an edge"),
    (lambda: MeshLayout(2, 2, (("x", Node(2, 0, "SOUTH")),)), "must be at an edge"),
    (lambda: MeshLayout(2, 2, (("x", Node(0, 0, "WEST")), ("y", Node(0, 0, "WEST")))),
     "must have a place of its own"),
    (lambda: MeshLayout.standard(2, 1), "Columns must be an integer of at least 2, not 1"),
    (lambda: MeshLayout.standard(2, 3, hbm_channels=5), "HBM channels must be at most 4, not 5"),
    (lambda: AddressMap(MeshLayout.standard(3, 2), bank_lines=16),
     "SRAM banks must be a power of two, not 6"),
    (lambda: Target(LAYOUT, depth=0), "Depth must be a positive integer, not 0"),
    (lambda: Target(LAYOUT, interleave=3), "Interleave must be a power of two, not 3"),
    (lambda: Ports(inputs=("UP",), outputs=(), links=()), "Port must be one of .*, not 'UP'"),
    (lambda: Router(PACKET, layout=LAYOUT, ports=PORTS, ahead=(), depth=1),
     "Depth must be an integer of at least 2, not 1"),
    (lambda: MeshLayout(2, 3, (), (1, 2)), "Columns must be a multiple of the cluster's 2, not 3"),
    (lambda: MeshLayout(3, 4, (), (2, 2)), "Rows must be a multiple of the cluster's 2, not 3"),
    (lambda: MeshLayout(32, 4, (), (2, 2)), "Rows must be an integer in 1 to 30, not 32"),
    (lambda: MeshLayout(4, 13, (), (1, 13)), r"at most 12 PEs, not \(1, 13\)"),
    (lambda: MeshLayout(4, 4, (), (0, 2)), r"at most 12 PEs, not \(0, 2\)"),
    (lambda: MeshLayout.standard(2, 2, cluster=(1, 2)),
     "Columns must be an integer of at least 4, not 2"),
    (lambda: Mesh(PACKET, MeshLayout.standard(2, 2), sources=("pe9",), targets=()),
     "Node must be one of .*, not 'pe9'"),
])
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_addresses_must_be_an_address_map():
    with pytest.raises(TypeError, match="Addresses must be an AddressMap, not 3"):
        Requester(3)


@pytest.mark.parametrize("make", [
    lambda: Target(3), lambda: Router(PACKET, layout=3, ports=PORTS, ahead=())])
def test_layout_must_be_a_mesh_layout(make):
    with pytest.raises(TypeError, match="Layout must be a MeshLayout, not 3"):
        make()


def test_pes_of_a_cluster_are_numbered_over_the_whole_grid():
    layout = MeshLayout.standard(4, 6, cluster=(2, 3))
    assert (layout.router_rows, layout.router_columns) == (2, 2)
    assert layout.nodes["pe0"] == Node(0, 0, "LOCAL0")
    assert layout.nodes["pe3"] == Node(0, 1, "LOCAL0")
    assert layout.nodes["pe8"] == Node(0, 0, "LOCAL5")
    assert layout.nodes["pe23"] == Node(1, 1, "LOCAL5")
    assert len(layout.group("pe")) == 24 and len(layout.group("sram")) == 4


def test_hbm_channels_spread_along_the_south_edge_first():
    layout = MeshLayout.standard(2, 3, hbm_channels=4)
    assert layout.group("hbm") == [Node(1, 0, "SOUTH"), Node(1, 2, "SOUTH"), Node(1, 1, "SOUTH"),
                                   Node(0, 2, "NORTH")]
