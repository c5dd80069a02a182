"""A 2D mesh of routers for one kind of packet."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.noc.router import AGE_BITS, Router, counters_layout, greatest
from rtl.noc.routes import OPPOSITE, STEP, ports_of


class Mesh(wiring.Component):
    """One physical network of a chiplet: packets from nodes that send to nodes that take.

    Latency is 1 cycle for each router on the way (rows apart + columns apart + 1), throughput one
    packet a cycle at each port. Packets between the same two nodes keep their order, multicasts
    among them. No combinational path leads from an input to an output. The mesh never blocks for
    ever as long as each node goes on taking what arrives. The oldest packet goes first, see
    :class:`rtl.noc.router.Router`.

    Parameters
    ----------
    shape : data.StructLayout
        A packet, see :class:`rtl.noc.router.Router`.
    layout : rtl.noc.packets.MeshLayout
        Size and nodes.
    sources, targets : tuple of str
        Names of the nodes that send and that take. :exc:`ValueError` if not in the layout.
    depth : int
        Slots of each queue of a router [packet].
    multicast : bool
        A packet whose ``members.multicast`` is high goes to every PE of its rows and columns, on
        each link of the tree once. It must have at least one row and one column.

    Members
    -------
    i_<source> : In(stream.Signature(shape))
        Packets from a node.
    o_<target> : Out(stream.Signature(shape))
        Packets for a node.
    awake : Out(1)
        The clock of some router runs: a packet is here or at an input.
    counters : Out(counters_layout())
        Sums over all routers; ``busiest`` is the greatest.
    """

    def __init__(self, shape, layout, *, sources, targets, depth=4, multicast=False):
        for name in (*sources, *targets):
            if name not in layout.nodes:
                raise ValueError(f"Node must be one of {list(layout.nodes)}, not {name!r}")
        self.shape, self.layout, self.depth = shape, layout, depth
        self.sources, self.targets = tuple(sources), tuple(targets)
        self.multicast = multicast
        packets = stream.Signature(shape)
        super().__init__({**{f"i_{name}": In(packets) for name in sources},
                          **{f"o_{name}": Out(packets) for name in targets}, "awake": Out(1),
                          "counters": Out(counters_layout())})

    @property
    def links(self):
        """How many links there are between routers, each of one direction."""
        rows, columns = self.layout.router_rows, self.layout.router_columns
        return 2 * (rows * (columns - 1) + columns * (rows - 1))

    @property
    def outputs(self):
        """How many outputs its routers have: links, and ports to nodes."""
        return self.links + len(self.targets)

    def elaborate(self, platform):
        m = Module()
        layout, now = self.layout, Signal(AGE_BITS)
        grid = [(row, column) for row in range(layout.router_rows)
                for column in range(layout.router_columns)]
        ports = {at: ports_of(layout, *at, sources=self.sources, targets=self.targets)
                 for at in grid}
        routers = {}
        for row, column in grid:
            ahead = []
            for port in ports[row, column].links:
                next_ports = ports[row + STEP[port][0], column + STEP[port][1]]
                ways = next_ports.ways(OPPOSITE[port])
                ahead.append((port, ways, tuple(w for w in ways if w in next_ports.links)))
            routers[row, column] = router = Place(Router(
                self.shape, layout=layout, ports=ports[row, column], ahead=tuple(ahead),
                depth=self.depth, multicast=self.multicast))
            m.submodules[f"router_{row}_{column}"] = router
            m.d.comb += [router.here.row.eq(row), router.here.column.eq(column),
                         router.now.eq(now)]
        gated_domain(m, name="time", enable=ResetSignal("sync") | self.awake)
        m.d.time += now.eq(now + 1)
        for (row, column), router in routers.items():
            for port in ports[row, column].links:
                neighbour = routers[row + STEP[port][0], column + STEP[port][1]]
                connect(m, getattr(router, f"o_{port.lower()}"),
                        getattr(neighbour, f"i_{OPPOSITE[port].lower()}"))
        for name in self.sources:
            node = layout.nodes[name]
            connect(m, flipped(getattr(self, f"i_{name}")),
                    getattr(routers[node.row, node.column], f"i_{node.port.lower()}"))
        for name in self.targets:
            node = layout.nodes[name]
            connect(m, getattr(routers[node.row, node.column], f"o_{node.port.lower()}"),
                    flipped(getattr(self, f"o_{name}")))
        m.d.comb += self.awake.eq(Cat(router.awake for router in routers.values()).any())
        for field in counters_layout().members:
            parts = [getattr(router.counters, field) for router in routers.values()]
            total = greatest(m, parts) if field == "busiest" else sum(parts)
            m.d.comb += getattr(self.counters, field).eq(total)
        return m
