"""Which node answers an address of a die."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import enum
from amaranth.utils import exact_log2

from rtl.noc.packets import MeshLayout, node_layout
from rtl.pe.interfaces import LINE_BYTES

DIE_BITS = 4
REGION_BITS = 4
OFFSET_BITS = 40
PE_WINDOW_BITS = 16     # log2 of the bytes of a PE's register window


class Region(enum.Enum, shape=REGION_BITS):
    """Regions of a die's addresses, see docs/programming-model.md."""

    SRAM = 0
    HBM = 1
    PE = 2
    CONTROL = 3


def inside(address, *, nodes):
    """Byte address within one of ``nodes`` memories whose lines are interleaved."""
    line_log2 = exact_log2(LINE_BYTES)
    return (address[:OFFSET_BITS] >> (line_log2 + exact_log2(nodes))) << line_log2


@dataclass(frozen=True)
class AddressMap:
    """What a compute die has at which addresses.

    Lines are interleaved over SRAM banks, and over HBM channels, by their lowest bits.

    Parameters
    ----------
    layout : MeshLayout
        Mesh with the nodes ``sram<n>``, ``hbm<n>``, ``control``.
    bank_lines : int
        Size of an SRAM bank [line of 64 bytes].
    channel_lines : int
        Size of an HBM channel [line of 64 bytes].
    grid : tuple of int
        Rows and columns of compute dies that are joined by links; dies are numbered row-major. A
        row or column has at most two dies.

    :exc:`ValueError` if the number of banks or channels is no power of two, or the layout has not
    one node ``peer<n>`` for each neighbour of a die.
    """

    layout: MeshLayout
    bank_lines: int
    channel_lines: int = 0
    grid: tuple = (1, 1)

    def __post_init__(self):
        if self.grid not in ((1, 1), (1, 2), (2, 1), (2, 2)):
            raise ValueError("Grid of dies must have 1 or 2 rows and 1 or 2 columns, "
                             f"not {self.grid!r}")
        if len(self.layout.group("peer")) != sum(self.grid) - 2:
            raise ValueError(f"Peers must be {sum(self.grid) - 2} for a grid of {self.grid!r}, "
                             f"not {len(self.layout.group('peer'))!r}")
        for name, nodes in (("SRAM banks", self.banks), ("HBM channels", self.channels)):
            if nodes & (nodes - 1):
                raise ValueError(f"{name} must be a power of two, not {nodes!r}")

    @property
    def banks(self):
        return len(self.layout.group("sram"))

    @property
    def channels(self):
        return len(self.layout.group("hbm"))

    @property
    def pes(self):
        return self.layout.rows * self.layout.columns

    @property
    def sram_bytes(self):
        return self.banks * self.bank_lines * LINE_BYTES

    @property
    def hbm_bytes(self):
        return self.channels * self.channel_lines * LINE_BYTES

    @property
    def control_bytes(self):
        return (4 + len(self.ways)) * LINE_BYTES

    @property
    def ways(self):
        """Nodes at the links to neighbours: "X", the other die of the row, "Y", of the column."""
        names = [name for name, size in zip("XY", self.grid[::-1], strict=True) if size > 1]
        return dict(zip(names, self.layout.group("peer"), strict=True))

    def decode(self, m, address, *, die, ways=()):
        """Returns the node that takes a request for ``address``, whether it is on another die than
        ``die``, and whether there is one at all.

        The node for another die is that of a neighbour, first along the row, then along the column,
        if it is one of ``ways``.
        """
        node, known, far = Signal(node_layout()), Signal(), Signal()
        offset = address[:OFFSET_BITS]
        region = Region(address[OFFSET_BITS:OFFSET_BITS + REGION_BITS])
        line = offset >> exact_log2(LINE_BYTES)
        window = offset[PE_WINDOW_BITS:]
        groups = {Region.SRAM: (self.layout.group("sram"), line, self.sram_bytes),
                  Region.HBM: (self.layout.group("hbm"), line, self.hbm_bytes),
                  Region.PE: (self.layout.group("pe"), window, self.pes << PE_WINDOW_BITS),
                  Region.CONTROL: ([self.layout.nodes["control"]], C(0), self.control_bytes)}
        with m.Switch(region):
            for value, (nodes, index, size) in groups.items():
                with m.Case(value):
                    m.d.comb += known.eq((offset < size)
                                         & (address[OFFSET_BITS + REGION_BITS:] == die))
                    with m.Switch(index[:max(len(nodes) - 1, 0).bit_length()]):
                        for i, place in enumerate(nodes):
                            with m.Case(i):
                                m.d.comb += node.eq(place.const())
        target = address[OFFSET_BITS + REGION_BITS:]
        rows, columns = self.grid
        differs, there = target ^ die, target < rows * columns
        apart = {"X": differs[0] & (columns > 1), "Y": differs[columns - 1] & (rows > 1)}
        for at, way in enumerate("XY"):
            if way in ways and way in self.ways:
                with m.If(there & apart[way] & ~(apart["X"] & bool(at))):
                    m.d.comb += [node.eq(self.ways[way].const()), known.eq(1), far.eq(1)]
        return node, far, known
