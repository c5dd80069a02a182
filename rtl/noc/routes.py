"""X-then-Y routing: which way a packet takes at a router. For numbers and for signals alike."""
from dataclasses import dataclass

from rtl.noc.packets import CLUSTER_PES, Port

OPPOSITE = {"NORTH": "SOUTH", "SOUTH": "NORTH", "EAST": "WEST", "WEST": "EAST"}
STEP = {"NORTH": (-1, 0), "SOUTH": (1, 0), "EAST": (0, 1), "WEST": (0, -1)}


@dataclass(frozen=True)
class Ports:
    """Ports of a router by name, and which ways lead through it.

    Parameters
    ----------
    inputs, outputs : tuple of str
        Ports that exist, as names of :class:`rtl.noc.packets.Port`; :exc:`ValueError` for others.
    links : tuple of str
        Sides that lead to another router. Any other port holds a node.
    """

    inputs: tuple
    outputs: tuple
    links: tuple

    def __post_init__(self):
        for port in (*self.inputs, *self.outputs, *self.links):
            if port not in Port.__members__:
                raise ValueError(f"Port must be one of {list(Port.__members__)}, not {port!r}")

    def turns(self, output):
        """Inputs from which X-then-Y routing can lead to ``output``."""
        def possible(source):
            if source not in self.links:
                return True  # a node sends anywhere, itself included
            if source == output:
                return False
            return source in ("EAST", "WEST") or output not in self.links or \
                output == OPPOSITE[source]
        return tuple(source for source in self.inputs if possible(source))

    def ways(self, source):
        """Outputs to which X-then-Y routing can lead from ``source``: one queue each."""
        return tuple(output for output in self.outputs if source in self.turns(output))


def ports_of(layout, row, column, *, sources, targets):
    """Ports of the router at ``row``, ``column`` of a mesh; nodes that send, that take, by name."""
    names = {node: name for name, node in layout.nodes.items()}
    links = tuple(port for port, (down, right) in STEP.items()
                  if 0 <= row + down < layout.router_rows
                  and 0 <= column + right < layout.router_columns)
    chosen = []
    for nodes in (sources, targets):
        held = {(n.row, n.column, n.port) for n, name in names.items() if name in nodes}
        chosen.append(tuple(port for port in Port.__members__
                            if port in links or (row, column, port) in held))
    return Ports(*chosen, links)


@dataclass(frozen=True)
class Place:
    """A router as routing sees it: where it is, and masks of the PEs about it.

    Members are numbers or signals. ``above``, ``own_rows``, ``below``: masks of the rows of PEs
    north of it, its own, south of it; ``left``, ``own_columns``, ``right``: of the columns.
    """

    row: object
    column: object
    above: object
    own_rows: object
    below: object
    left: object
    own_columns: object
    right: object


def place(row, column, *, layout):
    """The :class:`Place` of the router at ``row`` and ``column``, numbers or signals."""
    def masks(at, share, total):
        before = (1 << (at * share)) - 1
        own = ((1 << share) - 1) << (at * share)
        return before, own, ((1 << total) - 1) & ~(before | own)
    above, own_rows, below = masks(row, layout.cluster[0], layout.rows)
    left, own_columns, right = masks(column, layout.cluster[1], layout.columns)
    return Place(row, column, above, own_rows, below, left, own_columns, right)


def unicast(target, here, output, *, links):
    """Whether a packet for ``target`` leaves the router ``here`` by ``output``."""
    row, column = target.place.row, target.place.column
    in_column = column == here.column
    if output not in links:
        return in_column & (row == here.row) & (target.port == Port[output])
    return {"EAST": column > here.column, "WEST": column < here.column,
            "SOUTH": in_column & (row > here.row), "NORTH": in_column & (row < here.row)}[output]


def multicast(members, here, output, *, links, cluster):
    """Whether a packet for ``members`` leaves the router ``here`` by ``output``, if it may.

    Turns that X-then-Y routing does not have (:meth:`Ports.ways`) are no way for it either; what
    is left is a tree that reaches every member once.
    """
    rows, columns = members.rows, members.columns
    in_columns = (columns & here.own_columns) != 0
    if output in links:
        return {"EAST": (columns & here.right) != 0, "WEST": (columns & here.left) != 0,
                "SOUTH": in_columns & ((rows & here.below) != 0),
                "NORTH": in_columns & ((rows & here.above) != 0)}[output]
    number = int(output.removeprefix("LOCAL")) if output.startswith("LOCAL") else CLUSTER_PES
    if number >= cluster[0] * cluster[1]:   # no PE is there
        return in_columns & 0
    down, right = divmod(number, cluster[1])
    first_row, first_column = here.own_rows & ~(here.own_rows << 1), \
        here.own_columns & ~(here.own_columns << 1)
    return ((rows & (first_row << down)) != 0) & ((columns & (first_column << right)) != 0)
