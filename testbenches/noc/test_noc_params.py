# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/noc and rtl/common/arbiter.py are refused."""
import pytest

from rtl.common.arbiter import RoundRobin
from rtl.noc.address import AddressMap, control_lines
from rtl.noc.combine import Combiner
from rtl.noc.endpoints import Requester, Target
from rtl.noc.mesh import Mesh
from rtl.noc.packets import MeshLayout, Node, request_packet_layout
from rtl.noc.peer import PeerBridge, link_tags
from rtl.noc.router import Router
from rtl.noc.routes import Ports

LAYOUT = MeshLayout.standard(2, 2)
PACKET = request_packet_layout(LAYOUT)
PORTS = Ports(inputs=("EAST",), outputs=(), links=())
ADDRESSES = AddressMap(LAYOUT, bank_lines=16)


@pytest.mark.parametrize("make, message", [
    (lambda: RoundRobin(0), "Width must be a positive integer, not 0"),
    (lambda: MeshLayout(0, 3, ()), "Rows must be an integer in 1 to 15, not 0"),
    (lambda: MeshLayout(2, 16, ()), "Columns must be an integer in 1 to 15, not 16"),
    (lambda: MeshLayout(2, 2, (("x", Node(0, 0, "SOUTH")),)), "must be at an edge"),
    (lambda: MeshLayout(2, 2, (("x", Node(2, 0, "SOUTH")),)), "must be at an edge"),
    (lambda: MeshLayout(2, 2, (("x", Node(0, 0, "WEST")), ("y", Node(0, 0, "WEST")))),
     "must have a place of its own"),
    (lambda: MeshLayout(2, 2, (("x", Node(0, 0, "LOCAL0")),)), "or at a local port that no PE"),
    (lambda: MeshLayout(2, 4, (("x", Node(0, 0, "LOCAL3")),), (2, 2)), "port that no PE has"),
    (lambda: MeshLayout(2, 2, (("x", Node(0, 2, "LOCAL1")),)), "must be at an edge"),
    (lambda: MeshLayout(2, 2, (("x", Node(0, 1, "LOCAL1")), ("y", Node(0, 1, "LOCAL1")))),
     "must have a place of its own"),
    (lambda: MeshLayout.standard(2, 1), "Columns must be an integer of at least 2, not 1"),
    (lambda: AddressMap(MeshLayout.standard(5, 2), bank_lines=16),
     "Memory tiles must be a power of two or three times one, not 10"),
    (lambda: AddressMap(MeshLayout.standard(1, 2), bank_lines=16, hbm_tiles=3, tile_channels=1,
                        channel_lines=1),
     "Memory tiles with HBM must be at most 2, the tiles of the mesh, not 3"),
    (lambda: AddressMap(MeshLayout.standard(1, 2), bank_lines=16, hbm_tiles=1, tile_channels=5,
                        channel_lines=1),
     "Pseudo-channels of a tile must be a power of two or three times one, not 5"),
    (lambda: AddressMap(MeshLayout.standard(1, 2), bank_lines=16, hbm_tiles=2, tile_channels=4,
                        channel_lines=1 << 32),
     "HBM of a die must be at most 1099511627776 bytes, not 2199023255552"),
    (lambda: MeshLayout.standard(2, 3, peers=3), "Peers must be an integer in 0 to 2, not 3"),
    (lambda: MeshLayout.standard(2, 3, engines=2), "Engines must be an integer in 0 to 1, not 2"),
    (lambda: MeshLayout.standard(2, 3, networks=3), "Networks must be an integer in 0 to 2, not 3"),
    (lambda: MeshLayout.standard(1, 22, engines=1, cluster=(1, 11)),
     r"at most 10 PEs beside message engines and links to network chiplets, not \(1, 11\)"),
    (lambda: AddressMap(MeshLayout.standard(2, 2), bank_lines=16, grid=(1, 3)),
     "Grid of dies must have 1 or 2 rows and 1 or 2 columns, not \\(1, 3\\)"),
    (lambda: AddressMap(MeshLayout.standard(2, 2, peers=1), bank_lines=16, grid=(2, 2)),
     "Peers must be 2 for a grid of \\(2, 2\\), not 1"),
    (lambda: Requester(ADDRESSES, ways=("Z",)), "Way must be X or Y, not 'Z'"),
    (lambda: Requester(ADDRESSES, window=-1), "Window must be a natural number, not -1"),
    (lambda: PeerBridge(LAYOUT, capacity=0, tags=8), "Capacity must be a positive integer, not 0"),
    (lambda: PeerBridge(LAYOUT, capacity=1, tags=2),
     "Tags must be a power of two in 4 to 256, not 2"),
    (lambda: PeerBridge(LAYOUT, capacity=1, tags=12),
     "Tags must be a power of two in 4 to 256, not 12"),
    (lambda: PeerBridge(LAYOUT, capacity=1, tags=512),
     "Tags must be a power of two in 4 to 256, not 512"),
    (lambda: PeerBridge(LAYOUT, capacity=1, tags=8, patience_cycles=0),
     "Patience must be a positive integer, not 0"),
    (lambda: Target(LAYOUT, depth=0), "Depth must be a positive integer, not 0"),
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
    with pytest.raises(TypeError, match="Addresses must have a layout and decode, not 3"):
        Requester(3)


def test_memory_tiles_stand_at_both_ends_of_the_rows():
    layout = MeshLayout.standard(2, 3)
    assert layout.group("tile") == [Node(0, 0, "WEST"), Node(0, 2, "EAST"), Node(1, 0, "WEST"),
                                    Node(1, 2, "EAST")]


def test_peers_are_in_the_south():
    assert MeshLayout.standard(2, 3, peers=1).group("peer") == [Node(1, 0, "SOUTH")]
    layout = MeshLayout.standard(2, 3, peers=2)
    assert layout.group("peer") == [Node(1, 0, "SOUTH"), Node(1, 1, "SOUTH")]
    assert AddressMap(layout, bank_lines=16, grid=(2, 2)).ways == {
        "X": Node(1, 0, "SOUTH"), "Y": Node(1, 1, "SOUTH")}


def test_engines_and_networks_have_local_ports_past_those_of_the_pes():
    """And nobody else stands elsewhere because of them."""
    for rows, columns, cluster, peers, networks, places in (
            (1, 2, (1, 1), 0, 2, [Node(0, 0, "LOCAL1"), Node(0, 1, "LOCAL1"),
                                  Node(0, 0, "LOCAL2")]),
            (1, 5, (1, 1), 1, 1, [Node(0, 2, "LOCAL1"), Node(0, 4, "LOCAL1")]),
            (2, 2, (1, 1), 2, 1, [Node(0, 0, "LOCAL1"), Node(1, 1, "LOCAL1")]),
            (8, 6, (2, 3), 1, 1, [Node(0, 0, "LOCAL6"), Node(3, 1, "LOCAL6")])):
        layout = MeshLayout.standard(rows, columns, peers=peers, engines=1, networks=networks,
                                     cluster=cluster)
        before = MeshLayout.standard(rows, columns, peers=peers, cluster=cluster)
        assert [layout.nodes["engine"], *layout.group("net")] == places
        assert {name: node for name, node in layout.nodes.items() if node not in places} == \
            before.nodes
        addresses = AddressMap(layout, bank_lines=16, grid=((1, 1), (1, 2), (2, 2))[peers])
        assert (addresses.engines, addresses.networks) == (1, networks)


@pytest.mark.parametrize("pes, tiles, networks, lines", [
    (16, 8, 0, 16), (16, 6, 2, 16), (16, 7, 1, 16), (16, 7, 2, 32), (17, 2, 0, 32), (4, 9, 0, 32)])
def test_there_are_lines_for_all_links_behind_those_of_the_tiles(pes, tiles, networks, lines):
    assert control_lines(pes=pes, tiles=tiles, networks=networks) == lines


@pytest.mark.parametrize("latency, far, tags", [
    (16, 64, 128), (4, 64, 128), (16, 8, 64), (1, 1, 32), (100, 64, 256), (1000, 64, 256)])
def test_tags_fill_the_link(latency, far, tags):
    assert link_tags(latency, far) == tags
    assert tags == 256 or tags >= 0.75 * (2 * (latency + 12) + far) > tags / 2


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
    assert len(layout.group("pe")) == 24 and len(layout.group("tile")) == 4


def test_combiner_without_a_mesh_or_patience_is_refused():
    with pytest.raises(TypeError, match="Layout must be a MeshLayout"):
        Combiner(None)
    with pytest.raises(ValueError, match="Patience must be more than 512 cycles"):
        Combiner(MeshLayout.standard(2, 3), patience_log2=9)
