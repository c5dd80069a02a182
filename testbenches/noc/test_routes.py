"""X-then-Y routing as the router's tables have it: it arrives, and it cannot deadlock.

The graph has a vertex for each queue of each router, and an edge from a queue to every queue that
its packet may need next. As the graph has no cycle, the queues have an order in which each waits
for later ones alone; the last ones wait for nodes, which take what arrives. See
docs/decisions/0010-noc.md.
"""
import itertools
from graphlib import CycleError, TopologicalSorter
from types import SimpleNamespace

import pytest

from rtl.noc import routes
from rtl.noc.packets import MeshLayout, Port
from rtl.noc.routes import OPPOSITE, STEP, Ports, ports_of

SIZES = list(itertools.product(range(1, 5), range(1, 5)))
LAYOUTS = {f"{r}x{c}": MeshLayout(r, c, ()) for r, c in SIZES}
LAYOUTS |= {f"{r}x{c} chiplet": MeshLayout.standard(r, c) for r, c in SIZES if c > 1}
LAYOUTS |= {"1x5 package": MeshLayout.standard(1, 5, peers=1),
            "2x3 package": MeshLayout.standard(2, 3, peers=1),
            "2x2 package": MeshLayout.standard(2, 2, peers=2),
            "2x6 with peers": MeshLayout.standard(2, 6, peers=2),
            "4x4 with peers": MeshLayout.standard(4, 4, peers=2),
            "12x6 in clusters of six": MeshLayout.standard(12, 6, cluster=(2, 3)),
            "4x4 in clusters of four": MeshLayout.standard(4, 4, cluster=(2, 2)),
            "1x2 with networks": MeshLayout.standard(1, 2, engines=1, networks=2),
            "3x2 with networks": MeshLayout.standard(3, 2, peers=2, engines=1, networks=1),
            "4x4 in clusters with networks": MeshLayout.standard(
                4, 4, peers=2, engines=1, networks=1, cluster=(2, 2))}
WITH_NETWORKS = ["1x2 with networks", "3x2 with networks", "4x4 in clusters with networks"]


class Grid:
    """Routers of a mesh on which every node sends and takes."""

    def __init__(self, layout, ports=Ports):
        self.layout, nodes = layout, tuple(layout.nodes)
        self.ports = {}
        for at in itertools.product(range(layout.router_rows), range(layout.router_columns)):
            found = ports_of(layout, *at, sources=nodes, targets=nodes)
            self.ports[at] = ports(found.inputs, found.outputs, found.links)

    def ahead(self, at, output):
        """Router and input at the other end of a link."""
        down, right = STEP[output]
        return (at[0] + down, at[1] + right), OPPOSITE[output]

    def dependencies(self):
        """For each queue (router, input, output) the queues that its packets may need next."""
        graph = {}
        for at, ports in self.ports.items():
            for source in ports.inputs:
                for output in ports.ways(source):
                    graph[at, source, output] = set()
                    if output in ports.links:
                        there, entry = self.ahead(at, output)
                        graph[at, source, output] = {
                            (there, entry, way) for way in self.ports[there].ways(entry)}
        return graph

    def walk(self, node, leads):
        """Queues that a packet of ``node`` fills, with those that it fills next, and its exits."""
        edges, exits, pending = {}, [], [((node.row, node.column), node.port)]
        while pending:
            at, source = pending.pop()
            ports = self.ports[at]
            place = routes.place(*at, layout=self.layout)
            for output in ports.ways(source):
                if not leads(place, output, ports.links):
                    continue
                queue = at, source, output
                assert queue not in edges, "a packet comes to one queue twice"
                edges[queue] = set()
                if output in ports.links:
                    pending.append(self.ahead(at, output))
                else:
                    exits.append((*at, output))
        return edges, exits


def unicast(target):
    packet = SimpleNamespace(place=SimpleNamespace(row=target.row, column=target.column),
                             port=Port[target.port].value)

    def leads(place, output, links):
        at = SimpleNamespace(place=packet.place, port=Port(packet.port))
        return routes.unicast(at, place, output, links=links)
    return leads


def multicast(layout, rows, columns):
    members = SimpleNamespace(rows=rows, columns=columns)

    def leads(place, output, links):
        return routes.multicast(members, place, output, links=links, cluster=layout.cluster)
    return leads


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_queue_waits_for_itself(name):
    order = list(TopologicalSorter(Grid(LAYOUTS[name]).dependencies()).static_order())
    assert order


def test_the_graph_finds_a_cycle_if_packets_may_turn_as_they_like():
    class Any(Ports):
        def turns(self, output):
            return tuple(source for source in self.inputs if source != output)

    with pytest.raises(CycleError):
        list(TopologicalSorter(Grid(LAYOUTS["2x2"], Any).dependencies()).static_order())


@pytest.mark.parametrize("name", ["1x4", "3x3", "2x3 package", "2x2 package",
                                  "4x4 in clusters of four", *WITH_NETWORKS])
def test_a_packet_leaves_at_its_target_alone_over_as_few_routers_as_there_are(name):
    layout = LAYOUTS[name]
    grid = Grid(layout)
    for source, target in itertools.product(layout.nodes.values(), repeat=2):
        edges, exits = grid.walk(source, unicast(target))
        assert exits == [(target.row, target.column, target.port)]
        assert len(edges) == abs(source.row - target.row) + abs(source.column - target.column) + 1


@pytest.mark.parametrize("name", ["1x4", "3x3", "2x3 package", "2x2 package",
                                  "4x4 in clusters of four", *WITH_NETWORKS])
def test_a_multicast_leaves_at_each_member_once(name):
    layout = LAYOUTS[name]
    grid, known = Grid(layout), set(Grid(layout).dependencies())
    pes = layout.group("pe")
    for rows in range(1 << layout.rows):
        for columns in range(1 << layout.columns):
            wanted = sorted((pe.row, pe.column, pe.port) for n, pe in enumerate(pes)
                            if rows >> n // layout.columns & 1
                            and columns >> n % layout.columns & 1)
            for source in list(layout.nodes.values())[::-3]:
                edges, exits = grid.walk(source, multicast(layout, rows, columns))
                if wanted:
                    assert sorted(exits) == wanted
                assert set(edges) <= known


@pytest.mark.parametrize("name", ["3x3", "4x4 in clusters of four"])
def test_a_multicast_takes_the_way_of_a_packet_for_one_node(name):
    """So it passes the same queues, and what one node sends to another stays in order."""
    layout = LAYOUTS[name]
    grid = Grid(layout)
    everybody = (1 << layout.rows) - 1, (1 << layout.columns) - 1
    for source in layout.nodes.values():
        tree, _ = grid.walk(source, multicast(layout, *everybody))
        for target in layout.group("pe"):
            path, _ = grid.walk(source, unicast(target))
            assert set(path) <= set(tree)
