"""What travels on the mesh, and where the nodes are."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data, enum

from rtl.pe.interfaces import request_layout, response_layout

COORDINATE_BITS = 4
CLUSTER_PES = 12    # PEs that a router can serve: ports left beside the four sides


class Port(enum.Enum, shape=4):
    """Ports of a router; a packet leaves the mesh by one of them."""

    NORTH = 0   # row - 1
    EAST = 1    # column + 1
    SOUTH = 2   # row + 1
    WEST = 3    # column - 1
    LOCAL0 = 4  # the PEs of the router, row-major
    LOCAL1 = 5
    LOCAL2 = 6
    LOCAL3 = 7
    LOCAL4 = 8
    LOCAL5 = 9
    LOCAL6 = 10
    LOCAL7 = 11
    LOCAL8 = 12
    LOCAL9 = 13
    LOCAL10 = 14
    LOCAL11 = 15


def place_layout():
    """Which router: its row and column."""
    return data.StructLayout({"row": COORDINATE_BITS, "column": COORDINATE_BITS})


def node_layout():
    """Where a node is: its router, and the port of it by which a packet leaves the mesh."""
    return data.StructLayout({"place": place_layout(), "port": Port})


def members_layout(layout):
    """Who gets a response: with ``multicast`` every PE in one of ``rows`` and one of ``columns``.

    Bit n of a mask is row or column n of the PEs of the :class:`MeshLayout`. Without ``multicast``
    the masks mean nothing.
    """
    return data.StructLayout({"multicast": 1, "rows": layout.rows, "columns": layout.columns})


def request_packet_layout(layout):
    """A packet of the request network: one flit. ``members`` are those of its response."""
    return data.StructLayout({"target": node_layout(), "source": node_layout(),
                              "members": members_layout(layout), "body": request_layout()})


def response_packet_layout(layout):
    """A packet of the response network: one flit. For a multicast ``target`` means nothing.

    ``far``: the answer is that of another die.
    """
    return data.StructLayout({"target": node_layout(), "members": members_layout(layout),
                              "body": response_layout(), "far": 1})


@dataclass(frozen=True)
class Node:
    """Place of a node: a row and a column of routers, and the name of a :class:`Port`."""

    row: int
    column: int
    port: str = "LOCAL0"

    def const(self):
        """The node as a constant of :func:`node_layout`."""
        return node_layout().const({"place": {"row": self.row, "column": self.column},
                                    "port": Port[self.port]})


@dataclass(frozen=True)
class MeshLayout:
    """Size of a mesh, and the nodes beside its PEs, which are local nodes, numbered row-major.

    Parameters
    ----------
    rows, columns : int
        Grid of PEs [PE]. :exc:`ValueError` unless multiples of the cluster that make 1 to 15
        rows and columns of routers.
    edges : tuple of (str, Node)
        Names and places of all other nodes. :exc:`ValueError` if two are at one place, or one is
        neither at an edge nor at a local port past those of the PEs.
    cluster : tuple of (int, int)
        Rows and columns of the PEs that share a router [PE]. :exc:`ValueError` unless positive,
        with at most 12 PEs. Source: one router serves six PEs in Meta's ISCA 2026 paper on the
        MTIA 300.
    """

    rows: int
    columns: int
    edges: tuple
    cluster: tuple = (1, 1)

    def __post_init__(self):
        if (len(self.cluster) != 2 or not all(isinstance(n, int) and n > 0 for n in self.cluster)
                or self.cluster[0] * self.cluster[1] > CLUSTER_PES):
            raise ValueError(f"Cluster must be rows and columns of at most {CLUSTER_PES} PEs, "
                             f"not {self.cluster!r}")
        for name, value, share in (("Rows", self.rows, self.cluster[0]),
                                   ("Columns", self.columns, self.cluster[1])):
            top = share * ((1 << COORDINATE_BITS) - 1)
            if not isinstance(value, int) or not 1 <= value <= top:
                raise ValueError(f"{name} must be an integer in 1 to {top}, not {value!r}")
            if value % share:
                raise ValueError(f"{name} must be a multiple of the cluster's {share}, "
                                 f"not {value!r}")
        places = [node for _, node in self.edges]
        for name, node in self.edges:
            outward = {"NORTH": node.row == 0, "SOUTH": node.row == self.router_rows - 1,
                       "WEST": node.column == 0, "EAST": node.column == self.router_columns - 1}
            inside = 0 <= node.row < self.router_rows and 0 <= node.column < self.router_columns
            if not inside or not (outward.get(node.port, False) or node.port in self.spare_ports):
                raise ValueError(f"Node {name!r} must be at an edge of the mesh or at a local port "
                                 f"that no PE has, not {node!r}")
            if places.count(node) > 1:
                raise ValueError(f"Node {name!r} must have a place of its own, not {node!r}")

    @classmethod
    def standard(cls, rows, columns, *, peers=0, engines=0, networks=0, cluster=(1, 1)):
        """Memory tiles west and east of each row, control and bridge in the north, peers south.

        Rows and columns are those of the routers. ``peers``: links to other compute dies, at most
        2, at columns 0 and 1. ``engines``: message engines, at most 1, at the first row's middle.
        ``networks``: links to network chiplets, at most 2, at the last row's columns, from its end.
        As the edges of a small mesh are full, these two have local ports past those of the PEs.
        :exc:`ValueError` if there are not two columns of routers, or not two such ports of each.
        """
        bare = cls(rows, columns, (), cluster)
        rows, columns = bare.router_rows, bare.router_columns
        if columns < 2:
            raise ValueError(f"Columns must be an integer of at least {2 * cluster[1]}, "
                             f"not {bare.columns!r}")
        for name, value, top in (("Peers", peers, 2), ("Engines", engines, 1),
                                 ("Networks", networks, 2)):
            if not isinstance(value, int) or not 0 <= value <= top:
                raise ValueError(f"{name} must be an integer in 0 to {top}, not {value!r}")
        if engines + networks and len(bare.spare_ports) < 2:
            raise ValueError(f"Cluster must have at most {CLUSTER_PES - 2} PEs beside message "
                             f"engines and links to network chiplets, not {cluster!r}")
        tiles = [Node(row, column, port) for row in range(rows)
                 for column, port in ((0, "WEST"), (columns - 1, "EAST"))]
        edges = [(f"tile{i}", node) for i, node in enumerate(tiles)]
        edges += [("control", Node(0, 0, "NORTH")), ("bridge", Node(0, 1, "NORTH"))]
        edges += [(f"peer{i}", Node(rows - 1, i, "SOUTH")) for i in range(peers)]
        beside = [("engine", 0, (columns - 1) // 2)][:engines]
        beside += [(f"net{i}", rows - 1, columns - 1 - i) for i in range(networks)]
        for i, (name, *place) in enumerate(beside):
            taken = sum(place == other for _, *other in beside[:i])
            edges.append((name, Node(*place, bare.spare_ports[taken])))
        return cls(bare.rows, bare.columns, tuple(edges), cluster)

    @property
    def router_rows(self):
        return self.rows // self.cluster[0]

    @property
    def router_columns(self):
        return self.columns // self.cluster[1]

    @property
    def spare_ports(self):
        """Names of the local ports that no PE of a router has."""
        pes = self.cluster[0] * self.cluster[1]
        return [f"LOCAL{n}" for n in range(pes, CLUSTER_PES)]

    @property
    def nodes(self):
        """Every node by name, the PEs first: ``pe0``, ``pe1``, ..."""
        down, right = self.cluster
        pes = {f"pe{row * self.columns + column}":
               Node(row // down, column // right, f"LOCAL{row % down * right + column % right}")
               for row in range(self.rows) for column in range(self.columns)}
        return pes | dict(self.edges)

    def group(self, prefix):
        """Places of the nodes ``<prefix>0``, ``<prefix>1``, ..., in the order of the numbers."""
        nodes, found = self.nodes, []
        while f"{prefix}{len(found)}" in nodes:
            found.append(nodes[f"{prefix}{len(found)}"])
        return found
