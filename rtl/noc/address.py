"""Which node answers an address of a die."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import enum
from amaranth.utils import exact_log2

from rtl.net.interfaces import NETWORK_WINDOW_LOG2
from rtl.noc.interleave import check_ways, spread
from rtl.noc.packets import MeshLayout, node_layout
from rtl.pe.interfaces import LINE_BYTES

DIE_BITS = 4
REGION_BITS = 4
OFFSET_BITS = 40
SMALL_PES, SMALL_TILES = 16, 8   # of dies with half as many lines of control registers
PE_WINDOW_BITS = 16     # log2 of the bytes of a PE's register window
ENGINE_WINDOW_BITS = 13     # and of a message engine's


class Region(enum.Enum, shape=REGION_BITS):
    """Regions of a die's addresses, see docs/programming-model.md."""

    SRAM = 0
    HBM = 1
    PE = 2
    CONTROL = 3
    CHANNEL = 4     # counters of the HBM pseudo-channels, a line each
    NETWORK = 5     # windows of the NICs behind the links to network chiplets
    ENGINE = 6      # the message engine, see docs/network.md


def control_lines(*, pes, tiles, networks=0):
    """Lines of a die's control registers: a large die needs some that others do not have."""
    return 16 if pes <= SMALL_PES and tiles + networks <= SMALL_TILES else 32


@dataclass(frozen=True)
class AddressMap:
    """What a compute die has at which addresses.

    Lines are spread in turn over the SRAM banks, of which every memory tile has one, and over the
    HBM: first over the tiles that have some, then over the pseudo-channels of each.

    Parameters
    ----------
    layout : MeshLayout
        Mesh with the nodes ``tile<n>``, ``control``, and, if there are any, ``engine`` and
        ``net<n>``.
    bank_lines : int
        Size of an SRAM bank [line of 64 bytes].
    hbm_tiles, tile_channels : int
        Tiles that have HBM, from the first on, and pseudo-channels of each of them.
    channel_lines : int
        Size of a pseudo-channel [line of 64 bytes].
    grid : tuple of int
        Rows and columns of compute dies that are joined by links; dies are numbered row-major. A
        row or column has at most two dies.

    :exc:`ValueError` if the number of tiles or of pseudo-channels is neither a power of two nor
    three times one, if the HBM is larger than the region, or if the layout has not one node
    ``peer<n>`` for each neighbour of a die.
    """

    layout: MeshLayout
    bank_lines: int
    hbm_tiles: int = 0
    tile_channels: int = 0
    channel_lines: int = 0
    grid: tuple = (1, 1)

    def __post_init__(self):
        if self.grid not in ((1, 1), (1, 2), (2, 1), (2, 2)):
            raise ValueError("Grid of dies must have 1 or 2 rows and 1 or 2 columns, "
                             f"not {self.grid!r}")
        if len(self.layout.group("peer")) != sum(self.grid) - 2:
            raise ValueError(f"Peers must be {sum(self.grid) - 2} for a grid of {self.grid!r}, "
                             f"not {len(self.layout.group('peer'))!r}")
        check_ways("Memory tiles", self.banks)
        if not self.hbm_tiles:
            return
        check_ways("Memory tiles with HBM", self.hbm_tiles)
        check_ways("Pseudo-channels of a tile", self.tile_channels)
        if self.hbm_tiles > self.banks:
            raise ValueError(f"Memory tiles with HBM must be at most {self.banks}, the tiles of "
                             f"the mesh, not {self.hbm_tiles!r}")
        if self.hbm_bytes > 1 << OFFSET_BITS:
            raise ValueError(f"HBM of a die must be at most {1 << OFFSET_BITS} bytes, "
                             f"not {self.hbm_bytes!r}")

    @property
    def banks(self):
        return len(self.layout.group("tile"))

    @property
    def channels(self):
        return self.hbm_tiles * self.tile_channels

    @property
    def hbm_line_bits(self):
        """Bits of the number of an HBM line of the die."""
        return (self.hbm_bytes // LINE_BYTES - 1).bit_length()

    @property
    def scratch_line_bits(self):
        """Bits of the number of an SRAM line of the die."""
        return (self.sram_bytes // LINE_BYTES - 1).bit_length()

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
        return LINE_BYTES * control_lines(pes=self.pes, tiles=self.banks, networks=self.networks)

    @property
    def engines(self):
        """Message engines: 0 or 1."""
        return int("engine" in self.layout.nodes)

    @property
    def networks(self):
        """Links to network chiplets."""
        return len(self.layout.group("net"))

    @property
    def ways(self):
        """Nodes at the links to neighbours: "X", the other die of the row, "Y", of the column."""
        names = [name for name, size in zip("XY", self.grid[::-1], strict=True) if size > 1]
        return dict(zip(names, self.layout.group("peer"), strict=True))

    def decode(self, m, address, *, die, ways=(), networks=False):
        """Returns the node that takes a request for ``address``, whether it is a bridge to another
        chiplet than ``die``, and whether there is one at all.

        The node for another compute die is that of a neighbour, first along the row, then along the
        column, if it is one of ``ways``. The network chiplets are open to requests only with
        ``networks``.
        """
        node, known, far = Signal(node_layout()), Signal(), Signal()
        offset = address[:OFFSET_BITS]
        region = Region(address[OFFSET_BITS:OFFSET_BITS + REGION_BITS])
        line = offset >> exact_log2(LINE_BYTES)
        window = offset[PE_WINDOW_BITS:]
        tiles = self.layout.group("tile")
        bank, _ = spread(line[:self.scratch_line_bits], self.banks)
        groups = {Region.SRAM: (tiles, bank, self.sram_bytes),
                  Region.PE: (self.layout.group("pe"), window, self.pes << PE_WINDOW_BITS),
                  Region.CONTROL: ([self.layout.nodes["control"]], C(0), self.control_bytes)}
        if self.hbm_tiles:
            tile, _ = spread(line[:self.hbm_line_bits], self.hbm_tiles)
            groups[Region.HBM] = tiles[:self.hbm_tiles], tile, self.hbm_bytes
            groups[Region.CHANNEL] = [tile for tile in tiles[:self.hbm_tiles]
                                      for _ in range(self.tile_channels)], line, (
                                          self.channels * LINE_BYTES)
        if self.engines:
            groups[Region.ENGINE] = [self.layout.nodes["engine"]], C(0), 1 << ENGINE_WINDOW_BITS
        if self.networks and networks:
            groups[Region.NETWORK] = (self.layout.group("net"), offset[NETWORK_WINDOW_LOG2:],
                                      self.networks << NETWORK_WINDOW_LOG2)
        with m.Switch(region):
            for value, (nodes, index, size) in groups.items():
                with m.Case(value):
                    here = (offset < size) & (address[OFFSET_BITS + REGION_BITS:] == die)
                    m.d.comb += known.eq(here)
                    if value is Region.NETWORK:
                        m.d.comb += far.eq(here)
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
