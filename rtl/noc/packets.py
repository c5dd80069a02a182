"""What travels on the mesh, and where the nodes are."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data, enum

from rtl.pe.interfaces import request_layout, response_layout

COORDINATE_BITS = 4


class Port(enum.Enum, shape=3):
    """Ports of a router; a packet leaves the mesh by one of them."""

    LOCAL = 0   # the PE
    NORTH = 1   # row - 1
    EAST = 2    # column + 1
    SOUTH = 3   # row + 1
    WEST = 4    # column - 1


def place_layout():
    """Which router: its row and column."""
    return data.StructLayout({"row": COORDINATE_BITS, "column": COORDINATE_BITS})


def node_layout():
    """Where a node is: its router, and the port of it by which a packet leaves the mesh."""
    return data.StructLayout({"place": place_layout(), "port": Port})


def request_packet_layout():
    """A packet of the request network: one flit."""
    return data.StructLayout({"target": node_layout(), "source": node_layout(),
                              "body": request_layout()})


def response_packet_layout():
    """A packet of the response network: one flit; ``far``: the answer is that of another die."""
    return data.StructLayout({"target": node_layout(), "body": response_layout(), "far": 1})


@dataclass(frozen=True)
class Node:
    """Place of a node: a row, a column, and the name of a member of :class:`Port`."""

    row: int
    column: int
    port: str = "LOCAL"

    def const(self):
        """The node as a constant of :func:`node_layout`."""
        return node_layout().const({"place": {"row": self.row, "column": self.column},
                                    "port": Port[self.port]})


@dataclass(frozen=True)
class MeshLayout:
    """Size of a mesh, and the nodes at its edges. PEs are the local nodes, numbered row-major.

    Parameters
    ----------
    rows, columns : int
        Size of the mesh [router]. :exc:`ValueError` unless in 1 to 15.
    edges : tuple of (str, Node)
        Names and places of the nodes at the edges. :exc:`ValueError` if two are at one place, or
        one is not at an edge.
    """

    rows: int
    columns: int
    edges: tuple

    def __post_init__(self):
        for name, value in (("Rows", self.rows), ("Columns", self.columns)):
            if not isinstance(value, int) or not 1 <= value < 1 << COORDINATE_BITS:
                raise ValueError(f"{name} must be an integer in 1 to 15, not {value!r}")
        places = [node for _, node in self.edges]
        for name, node in self.edges:
            outward = {"NORTH": node.row == 0, "SOUTH": node.row == self.rows - 1,
                       "WEST": node.column == 0, "EAST": node.column == self.columns - 1}
            inside = 0 <= node.row < self.rows and 0 <= node.column < self.columns
            if not inside or not outward.get(node.port, False):
                raise ValueError(f"Node {name!r} must be at an edge of the mesh, not {node!r}")
            if places.count(node) > 1:
                raise ValueError(f"Node {name!r} must have a place of its own, not {node!r}")

    @classmethod
    def standard(cls, rows, columns, *, peers=0):
        """Memory tiles west and east of each row, control and bridge in the north, peers south.

        ``peers``: links to other compute dies, at most 2 (:exc:`ValueError`), at columns 0 and 1.
        """
        if columns < 2:
            raise ValueError(f"Columns must be an integer of at least 2, not {columns!r}")
        if not isinstance(peers, int) or not 0 <= peers <= 2:
            raise ValueError(f"Peers must be an integer in 0 to 2, not {peers!r}")
        tiles = [Node(row, column, port) for row in range(rows)
                 for column, port in ((0, "WEST"), (columns - 1, "EAST"))]
        edges = [(f"tile{i}", node) for i, node in enumerate(tiles)]
        edges += [("control", Node(0, 0, "NORTH")), ("bridge", Node(0, 1, "NORTH"))]
        edges += [(f"peer{i}", Node(rows - 1, i, "SOUTH")) for i in range(peers)]
        return cls(rows, columns, tuple(edges))

    @property
    def nodes(self):
        """Every node by name, the PEs first: ``pe0``, ``pe1``, ..."""
        pes = {f"pe{row * self.columns + column}": Node(row, column)
               for row in range(self.rows) for column in range(self.columns)}
        return pes | dict(self.edges)

    def group(self, prefix):
        """Places of the nodes ``<prefix>0``, ``<prefix>1``, ..., in the order of the numbers."""
        nodes, found = self.nodes, []
        while f"{prefix}{len(found)}" in nodes:
            found.append(nodes[f"{prefix}{len(found)}"])
        return found
