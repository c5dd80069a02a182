"""A mesh alone as a model, and how its packets look: for measurements of the network."""
from dataclasses import dataclass

from amaranth.lib import data

from cosim.build.dies import sources
from cosim.build.model import Model, Recipe
from rtl.noc.mesh import Mesh
from rtl.noc.packets import MeshLayout, members_layout, node_layout, response_packet_layout
from rtl.noc.router import counters_layout

COUNTERS = tuple(counters_layout().members)
STAMP_BITS = 64     # body of a narrow packet: what the traffic program writes into it


@dataclass(frozen=True)
class MeshModel:
    """A mesh of PEs whose model is built.

    ``places``: row and column of the router of each PE, by number. ``bits``, ``body``: size of a
    packet, and the first bit of its body. ``depth``: slots of a queue.
    """

    model: Model
    layout: MeshLayout
    shape: data.StructLayout
    depth: int

    @property
    def places(self):
        return [(n.row, n.column) for n in self.layout.group("pe")]

    @property
    def bits(self):
        return self.shape.size

    @property
    def body(self):
        return self.shape["body"].offset

    def packet(self, target):
        """A packet for a PE, its body 0."""
        return self.shape.const({"target": self.layout.group("pe")[target].const()}) \
            .as_value().value

    def packet_for(self, rows, columns):
        """A packet for the PEs of some rows and columns (masks), its body 0."""
        return self.shape.const({"members": {"multicast": 1, "rows": rows, "columns": columns}}) \
            .as_value().value


def build_mesh(rows, columns, *, depth=4, cluster=(1, 1), multicast=False, lines=False):
    """Build a mesh of PEs without nodes at its edges; ``lines``: with packets of 64-byte lines."""
    layout = MeshLayout(rows, columns, (), cluster)
    if lines:
        shape = response_packet_layout(layout)
    else:
        shape = data.StructLayout({"target": node_layout()} | (
            {"members": members_layout(layout)} if multicast else {}) | {"body": STAMP_BITS})
    names = tuple(layout.nodes)
    model = Recipe(
        lambda: Mesh(shape, layout, sources=names, targets=names, depth=depth,
                     multicast=multicast),
        (sources(), "mesh", layout, depth, multicast, lines), "Mesh").model()
    return MeshModel(model, layout, shape, depth)
