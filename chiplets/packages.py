"""Which chiplets make which package, in which size.

Sources of numbers: S the MTIA 450/500 announcement; R Meta's roadmap table of March 2026; I26 the
ISCA 2026 paper on MTIA 300; HC a Hot Chips 2026 talk on MTIA 400; P this project's choice.
"""
from dataclasses import dataclass

from rtl.noc.address import AddressMap
from rtl.noc.packets import MeshLayout


def ring_order(rows, columns):
    """PEs of a grid in the order of the reduction ring; the last is followed by the first.

    Row by row, every second one backwards, so that a PE and the next are neighbours in the grid.
    """
    return [row * columns + (columns - 1 - column if row % 2 else column)
            for row in range(rows) for column in range(columns)]


@dataclass(frozen=True)
class ComputeParameters:
    """A compute chiplet.

    Parameters
    ----------
    rows, columns : int
        Grid of PEs [PE].
    local_lines, local_banks : int
        Local memory of a PE [line of 64 bytes], and its banks.
    dot_rows, mx4_lanes : int
        Rows of operand A of the dot-product engine; rows of operand B that MX4 takes at once.
    attention : bool
        Build the softmax unit into the PEs, and what goes with it in their engines.
    bank_lines : int
        Size of an SRAM bank [line]; there is one bank at each end of each row.
    hbm_channels, hbm_rows : int
        HBM channels, and rows of 2 KiB of each of the 16 banks of a channel.
    link_latency_cycles : int
        Latency of the die-to-die channel one way [cycle].
    grid : tuple of int
        Rows and columns of compute chiplets that are joined by links; (1, 1): none is.
    far_requests : int
        Requests of a PE to other chiplets under way at once; with so many, it makes no other.

    Their exceptions are those of the components that they are for.
    """

    rows: int
    columns: int
    local_lines: int = 8192
    local_banks: int = 8
    dot_rows: int = 16
    mx4_lanes: int = 3
    attention: bool = False
    bank_lines: int = 65536
    hbm_channels: int = 0
    hbm_rows: int = 1024
    link_latency_cycles: int = 16
    grid: tuple = (1, 1)
    far_requests: int = 40

    @property
    def layout(self):
        return MeshLayout.standard(self.rows, self.columns, hbm_channels=self.hbm_channels,
                                   peers=sum(self.grid) - 2)

    @property
    def addresses(self):
        return AddressMap(self.layout, bank_lines=self.bank_lines,
                          channel_lines=self.hbm_rows * 512 if self.hbm_channels else 0,
                          grid=self.grid)

    @property
    def peers(self):
        """Names of the links to other compute chiplets."""
        return [f"peer{n}" for n in range(len(self.addresses.ways))]

    @property
    def pes(self):
        return self.rows * self.columns

    @property
    def ring(self):
        """Reduction ring: pairs of a PE and the one after it; none in a chiplet of one PE."""
        order = ring_order(self.rows, self.columns)
        return list(zip(order, order[1:] + order[:1], strict=True)) if len(order) > 1 else []


@dataclass(frozen=True)
class Package:
    """Chiplets in one package.

    Parameters
    ----------
    name, size : str
        Generation, and ``sim`` or ``full``.
    compute_chiplets, io_chiplets : int
        How many of each.
    compute : ComputeParameters
        What each compute chiplet is.

    :exc:`ValueError` if the grid of joined compute chiplets is not all of them.
    """

    name: str
    size: str
    compute_chiplets: int
    io_chiplets: int
    compute: ComputeParameters

    def __post_init__(self):
        rows, columns = self.compute.grid
        if rows * columns not in (1, self.compute_chiplets):
            raise ValueError(f"Grid must have {self.compute_chiplets} compute chiplets or (1, 1), "
                             f"not {self.compute.grid!r}")

    @property
    def peer_links(self):
        """Links between compute chiplets: two chiplets, and the number of the link in both."""
        rows, columns = self.compute.grid
        dies = range(rows * columns)
        pairs = [[(die, die + 1) for die in dies if columns > 1 and die % columns == 0],
                 [(die, die + columns) for die in dies if rows > 1 and die < columns]]
        return [(*pair, n) for n, joined in enumerate(p for p in pairs if p) for pair in joined]

    @property
    def sram_bytes(self):
        return self.compute_chiplets * self.compute.addresses.sram_bytes


PACKAGES = {(package.name, package.size): package for package in (
    Package(
        name="mtia450", size="sim",
        compute_chiplets=2,             # R
        io_chiplets=1,                  # HC for the 400, S: same chassis
        compute=ComputeParameters(
            rows=2, columns=3,          # PEs, P
            local_lines=8192,           # 512 KiB, I26
            local_banks=8,              # P
            dot_rows=16,                # P
            mx4_lanes=3,                # 21 / 7 PFLOPS, R
            attention=True,             # the 450 and 500 have hardware for it, S
            bank_lines=65536,           # 4 MiB, 4 banks: 16 MiB a chiplet, P
            hbm_channels=2,             # P, until the memory's share is measured
            hbm_rows=1024,              # 32 MiB a channel, P
            link_latency_cycles=16,     # P
            grid=(1, 2))),              # P
)}


def package(name, size="sim"):
    """Returns the package; :exc:`ValueError` if there is none of that name and size."""
    if (name, size) not in PACKAGES:
        known = ", ".join(f"{n} {s}" for n, s in PACKAGES)
        raise ValueError(f"Package must be one of {known}, not {name!r} {size!r}")
    return PACKAGES[name, size]
