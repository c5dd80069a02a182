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

    :exc:`ValueError` if the number of banks or channels is no power of two.
    """

    layout: MeshLayout
    bank_lines: int
    channel_lines: int = 0

    def __post_init__(self):
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
        return 4 * LINE_BYTES

    def decode(self, m, address, *, die):
        """Returns the node that answers ``address``, and whether there is one on this ``die``."""
        node, known = Signal(node_layout()), Signal()
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
        return node, known
