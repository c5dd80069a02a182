# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/noc and rtl/common/arbiter.py are refused."""
import pytest

from rtl.common.arbiter import RoundRobin
from rtl.noc.address import AddressMap
from rtl.noc.endpoints import Requester, Target
from rtl.noc.mesh import Mesh
from rtl.noc.packets import MeshLayout, Node, request_packet_layout
from rtl.noc.peer import PeerBridge, link_tags
from rtl.noc.router import Router

PACKET = request_packet_layout()
ADDRESSES = AddressMap(MeshLayout.standard(2, 2), bank_lines=16)


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
    (lambda: MeshLayout.standard(2, 3, hbm_channels=3, peers=2),
     "HBM channels must be at most 2, not 3"),
    (lambda: MeshLayout.standard(2, 3, peers=3), "Peers must be an integer in 0 to 2, not 3"),
    (lambda: AddressMap(MeshLayout.standard(2, 2), bank_lines=16, grid=(1, 3)),
     "Grid of dies must have 1 or 2 rows and 1 or 2 columns, not \\(1, 3\\)"),
    (lambda: AddressMap(MeshLayout.standard(2, 2, peers=1), bank_lines=16, grid=(2, 2)),
     "Peers must be 2 for a grid of \\(2, 2\\), not 1"),
    (lambda: Requester(ADDRESSES, ways=("Z",)), "Way must be X or Y, not 'Z'"),
    (lambda: Requester(ADDRESSES, window=-1), "Window must be a natural number, not -1"),
    (lambda: PeerBridge(capacity=0, tags=8), "Capacity must be a positive integer, not 0"),
    (lambda: PeerBridge(capacity=1, tags=2), "Tags must be a power of two in 4 to 256, not 2"),
    (lambda: PeerBridge(capacity=1, tags=12), "Tags must be a power of two in 4 to 256, not 12"),
    (lambda: PeerBridge(capacity=1, tags=512), "Tags must be a power of two in 4 to 256, not 512"),
    (lambda: PeerBridge(capacity=1, tags=8, patience_cycles=0),
     "Patience must be a positive integer, not 0"),
    (lambda: Target(depth=0), "Depth must be a positive integer, not 0"),
    (lambda: Target(interleave=3), "Interleave must be a power of two, not 3"),
    (lambda: Router(PACKET, inputs=("UP",), outputs=(), links=()), "Port must be one of"),
    (lambda: Router(PACKET, inputs=("EAST",), outputs=(), links=(), depth=1),
     "Depth must be an integer of at least 2, not 1"),
    (lambda: Mesh(PACKET, MeshLayout.standard(2, 2), sources=("pe9",), targets=()),
     "Node must be one of .*, not 'pe9'"),
])
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_addresses_must_be_an_address_map():
    with pytest.raises(TypeError, match="Addresses must be an AddressMap, not 3"):
        Requester(3)


def test_peers_are_in_the_south_and_hbm_beside_them():
    layout = MeshLayout.standard(2, 3, hbm_channels=2, peers=1)
    assert layout.group("peer") == [Node(1, 0, "SOUTH")]
    assert layout.group("hbm") == [Node(1, 2, "SOUTH"), Node(1, 1, "SOUTH")]
    layout = MeshLayout.standard(2, 3, hbm_channels=2, peers=2)
    assert layout.group("peer") == [Node(1, 0, "SOUTH"), Node(1, 1, "SOUTH")]
    assert AddressMap(layout, bank_lines=16, grid=(2, 2)).ways == {
        "X": Node(1, 0, "SOUTH"), "Y": Node(1, 1, "SOUTH")}


@pytest.mark.parametrize("latency, far, tags", [
    (16, 64, 128), (4, 64, 128), (16, 8, 64), (1, 1, 32), (100, 64, 256), (1000, 64, 256)])
def test_tags_fill_the_link(latency, far, tags):
    assert link_tags(latency, far) == tags
    assert tags == 256 or tags >= 0.75 * (2 * (latency + 12) + far) > tags / 2


def test_hbm_channels_spread_along_the_south_edge_first():
    layout = MeshLayout.standard(2, 3, hbm_channels=4)
    assert layout.group("hbm") == [Node(1, 0, "SOUTH"), Node(1, 2, "SOUTH"), Node(1, 1, "SOUTH"),
                                   Node(0, 2, "NORTH")]
