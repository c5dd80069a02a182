"""A 2D mesh of routers for one kind of packet."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.place import Place
from rtl.noc.packets import Node
from rtl.noc.router import OPPOSITE, Router

STEP = {"NORTH": (-1, 0), "SOUTH": (1, 0), "EAST": (0, 1), "WEST": (0, -1)}


class Mesh(wiring.Component):
    """One physical network of a chiplet: packets from nodes that send to nodes that take.

    Latency is 1 cycle for each router on the way (rows apart + columns apart + 1), throughput one
    packet a cycle at each port. Packets between the same two nodes keep their order. No
    combinational path leads from an input to an output. The mesh never blocks for ever as long as
    each node goes on taking what arrives.

    Parameters
    ----------
    shape : data.StructLayout
        A packet, see :class:`rtl.noc.router.Router`.
    layout : rtl.noc.packets.MeshLayout
        Size and nodes.
    sources, targets : tuple of str
        Names of the nodes that send and that take. :exc:`ValueError` if not in the layout.
    depth : int
        Slots of each input queue of a router [packet].

    Members
    -------
    i_<source> : In(stream.Signature(shape))
        Packets from a node.
    o_<target> : Out(stream.Signature(shape))
        Packets for a node.
    awake : Out(1)
        The clock of some router runs: a packet is here or at an input.
    """

    def __init__(self, shape, layout, *, sources, targets, depth=2):
        for name in (*sources, *targets):
            if name not in layout.nodes:
                raise ValueError(f"Node must be one of {list(layout.nodes)}, not {name!r}")
        self.shape, self.layout, self.depth = shape, layout, depth
        self.sources, self.targets = tuple(sources), tuple(targets)
        packets = stream.Signature(shape)
        super().__init__({**{f"i_{name}": In(packets) for name in sources},
                          **{f"o_{name}": Out(packets) for name in targets}, "awake": Out(1)})

    def elaborate(self, platform):
        m = Module()
        layout, routers = self.layout, {}
        names = {node: name for name, node in layout.nodes.items()}
        for row in range(layout.rows):
            for column in range(layout.columns):
                links = tuple(port for port, (down, right) in STEP.items()
                              if 0 <= row + down < layout.rows
                              and 0 <= column + right < layout.columns)
                ports = ("LOCAL", *STEP)
                inputs, outputs = (
                    tuple(port for port in ports
                          if port in links or names.get(Node(row, column, port)) in nodes)
                    for nodes in (self.sources, self.targets))
                routers[row, column] = router = Place(Router(
                    self.shape, inputs=inputs, outputs=outputs, links=links, depth=self.depth))
                m.submodules[f"router_{row}_{column}"] = router
                m.d.comb += [router.here.row.eq(row), router.here.column.eq(column)]
        m.d.comb += self.awake.eq(Cat(router.awake for router in routers.values()).any())
        for (row, column), router in routers.items():
            for port, (down, right) in STEP.items():
                if neighbour := routers.get((row + down, column + right)):
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
        return m
