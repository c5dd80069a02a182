"""The network of a network chiplet: NICs as its nodes, links to compute dies at its edges."""
from dataclasses import dataclass

from amaranth import *

from rtl.net.interfaces import NIC_WINDOW_LOG2
from rtl.noc.address import DIE_BITS, OFFSET_BITS, REGION_BITS, Region
from rtl.noc.packets import MeshLayout, Node, node_layout

NIC_BITS = 4        # of the number of a NIC in an address


def network_layout(*, nics, links):
    """A row of routers with a NIC each; the links stand in the north, then in the south.

    :exc:`ValueError` unless there are 1 to 12 NICs, and at most two links for each.
    """
    if not isinstance(nics, int) or not 1 <= nics <= 12:
        raise ValueError(f"NICs must be an integer in 1 to 12, not {nics!r}")
    if not isinstance(links, int) or not 1 <= links <= 2 * nics:
        raise ValueError(f"Links must be an integer in 1 to {2 * nics}, not {links!r}")
    places = [Node(0, column, port) for port in ("NORTH", "SOUTH") for column in range(nics)]
    return MeshLayout(1, nics, tuple((f"peer{n}", places[n]) for n in range(links)))


@dataclass(frozen=True)
class MemoryMap:
    """What a NIC can reach: the compute dies that its chiplet has a link to.

    Parameters
    ----------
    layout : MeshLayout
        See :func:`network_layout`.
    dies : tuple of int
        Numbers of the compute dies, one for each link.
    """

    layout: MeshLayout
    dies: tuple

    def decode(self, m, address, *, die, ways=(), networks=False):
        """As :meth:`rtl.noc.address.AddressMap.decode`; all dies are others."""
        node, known = Signal(node_layout()), Signal()
        target = address[OFFSET_BITS + REGION_BITS:][:DIE_BITS]
        with m.Switch(target):
            for n, number in enumerate(self.dies):
                with m.Case(number):
                    m.d.comb += [node.eq(self.layout.nodes[f"peer{n}"].const()), known.eq(1)]
        return node, known, known


@dataclass(frozen=True)
class WindowMap:
    """What a compute die can reach on a network chiplet: the windows of the NICs.

    Parameters
    ----------
    layout : MeshLayout
        See :func:`network_layout`.
    """

    layout: MeshLayout

    def decode(self, m, address, *, die, ways=(), networks=False):
        """As :meth:`rtl.noc.address.AddressMap.decode`; which die it is does not matter."""
        node, known = Signal(node_layout()), Signal()
        number = address[NIC_WINDOW_LOG2:][:NIC_BITS]
        here = address[OFFSET_BITS:][:REGION_BITS] == Region.NETWORK
        with m.Switch(number):
            for n in range(self.layout.columns):
                with m.Case(n):
                    m.d.comb += [node.eq(self.layout.nodes[f"pe{n}"].const()), known.eq(here)]
        return node, C(0, 1), known
