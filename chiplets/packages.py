"""Which chiplets make which package, in which size.

Sources of numbers: S the MTIA 450/500 announcement; R Meta's roadmap table of March 2026; I26 the
ISCA 2026 paper on MTIA 300; HC a Hot Chips 2026 talk on MTIA 400; P this project's choice.
"""
from dataclasses import dataclass, field

from rtl.noc.address import AddressMap
from rtl.noc.packets import MeshLayout

ROW_LINES = 256     # of all 16 banks of a pseudo-channel


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
        Grid of PEs that are used [PE]; one spare row is built in addition.
    local_lines, local_banks : int
        Local memory of a PE [line of 64 bytes], and its banks.
    dot_rows, mx4_lanes : int
        Rows of operand A of the dot-product engine; rows of operand B that MX4 takes at once.
    attention : bool
        Build the softmax unit into the PEs, and what goes with it in their engines.
    bank_lines : int
        Size of an SRAM bank [line]; a memory tile with one stands at each end of each row.
    hbm_tiles, tile_channels, hbm_rows : int
        Memory tiles that have HBM, pseudo-channels of each of these, and rows of 1 KiB of each of
        the 16 banks of a pseudo-channel.
    link_latency_cycles : int
        Latency of the die-to-die channel one way [cycle].
    host : bool
        The interface to the host is on this chiplet; there is no I/O chiplet.
    grid : tuple of int
        Rows and columns of compute chiplets that are joined by links; (1, 1): none is.
    far_requests : int
        Requests of a PE to other chiplets under way at once; with so many, it makes no other.
    cluster : tuple of int
        Rows and columns of the PEs that share a router of the mesh [PE].
    engines, networks : int
        Message engines, and links to network chiplets. As many requests to other chiplets as of a
        PE are under way of a message engine, and of the host to the network chiplets.

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
    hbm_tiles: int = 0
    tile_channels: int = 0
    hbm_rows: int = 1024
    link_latency_cycles: int = 16
    host: bool = False
    grid: tuple = (1, 1)
    far_requests: int = 40
    cluster: tuple = (1, 1)
    engines: int = 0
    networks: int = 0

    @property
    def layout(self):
        return MeshLayout.standard(self.rows, self.columns, peers=sum(self.grid) - 2,
                                   engines=self.engines, networks=self.networks,
                                   cluster=self.cluster)

    @property
    def addresses(self):
        return AddressMap(self.layout, bank_lines=self.bank_lines, hbm_tiles=self.hbm_tiles,
                          tile_channels=self.tile_channels,
                          channel_lines=self.hbm_rows * ROW_LINES, grid=self.grid)

    @property
    def peers(self):
        """Names of the links to other compute chiplets."""
        return [f"peer{n}" for n in range(len(self.addresses.ways))]

    @property
    def nets(self):
        """Names of the links to network chiplets."""
        return [f"net{n}" for n in range(self.networks)]

    @property
    def pes(self):
        return self.rows * self.columns

    @property
    def built_pes(self):
        return (self.rows + 1) * self.columns

    @property
    def ring(self):
        """Reduction ring: pairs of a PE and the one after it; none if only one is used."""
        order = ring_order(self.rows, self.columns)
        return list(zip(order, order[1:] + order[:1], strict=True)) if len(order) > 1 else []


@dataclass(frozen=True)
class NetworkParameters:
    """A network chiplet.

    Parameters
    ----------
    nics : int
        NICs, each of 16 bytes a cycle to and from its MAC.
    qps : int
        Queue pairs of a NIC.

    Their exceptions are those of the components that they are for.
    """

    nics: int = 1   # P
    qps: int = 16   # P


@dataclass(frozen=True)
class Published:
    """What a source says of a generation: terabytes a second, gigabytes, petaflops; 0: nothing."""

    hbm_tbps: float
    hbm_gb: int
    bf16: float
    mx8: float
    mx4: float
    scale_up: int       # accelerators in a scale-up domain


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
    core_megahertz, hbm_megahertz : int
        Clocks of the chiplets, and of the HBM's commands.
    published : Published
        What the package stands for.
    network_chiplets : int
        How many of these. Each has a link to each of as many compute chiplets one after another, or
        all of them are at each compute chiplet if there are more of them than of these.
    network : NetworkParameters
        What each network chiplet is.

    :exc:`ValueError` if the grid of joined compute chiplets is not all of them, if the links of the
    compute chiplets are not those of the network chiplets, or if the mesh, the memories and the
    links of a compute chiplet do not fit together, see :class:`rtl.noc.address.AddressMap`.
    """

    name: str
    size: str
    compute_chiplets: int
    io_chiplets: int
    compute: ComputeParameters
    core_megahertz: int = 1900
    hbm_megahertz: int = 1600
    published: Published | None = None
    network_chiplets: int = 0
    network: NetworkParameters = field(default_factory=NetworkParameters)

    def __post_init__(self):
        rows, columns = self.compute.grid
        if rows * columns not in (1, self.compute_chiplets):
            raise ValueError(f"Grid must have {self.compute_chiplets} compute chiplets or (1, 1), "
                             f"not {self.compute.grid!r}")
        links = max(self.network_chiplets, self.compute_chiplets if self.network_chiplets else 0)
        if links != self.compute_chiplets * self.compute.networks or (
                self.network_chiplets and links % self.network_chiplets):
            raise ValueError(f"Links to network chiplets must be those of "
                             f"{self.network_chiplets} for {self.compute_chiplets} compute "
                             f"chiplets, not {self.compute.networks!r} of each")
        _ = self.compute.addresses      # refuses what does not fit together

    @property
    def number(self):
        """Of the generation: 450 of ``mtia450``; what the package's register says."""
        return int("".join(c for c in self.name if c.isdigit()) or 0)

    @property
    def peer_links(self):
        """Links between compute chiplets: two chiplets, and the number of the link in both."""
        rows, columns = self.compute.grid
        dies = range(rows * columns)
        pairs = [[(die, die + 1) for die in dies if columns > 1 and die % columns == 0],
                 [(die, die + columns) for die in dies if rows > 1 and die < columns]]
        return [(*pair, n) for n, joined in enumerate(p for p in pairs if p) for pair in joined]

    @property
    def network_links(self):
        """Links to network chiplets: (network chiplet, its link, compute chiplet, its link)."""
        each, links = self.compute.networks, self.compute_chiplets * self.compute.networks
        share = links // max(self.network_chiplets, 1)      # of a network chiplet
        return [(n // share, n % share, n // each, n % each) for n in range(links)]

    @property
    def network_dies(self):
        """For each network chiplet, the compute chiplets that its links go to, in their order."""
        return [tuple(die for chiplet, _, die, _ in self.network_links if chiplet == number)
                for number in range(self.network_chiplets)]

    @property
    def sram_bytes(self):
        return self.compute_chiplets * self.compute.addresses.sram_bytes


FULL_NETWORK = NetworkParameters(nics=6, qps=1024)      # I26
PACKAGES = {(package.name, package.size): package for package in (
    # Sizes for simulation: PEs, clocks and pseudo-channels keep every ratio between the
    # generations that R publishes. PEs x clock: 2 x 1.9, 10 x 1.9, 12 x 1.847, 16 x 1.979 GHz.
    Package(
        name="mtia300", size="sim",
        compute_chiplets=1,             # R
        io_chiplets=0,                  # host interface on the compute chiplet, HC
        network_chiplets=2,             # R
        published=Published(6.1, 216, 0.6, 1.2, 0, 16),         # R
        compute=ComputeParameters(
            rows=1, columns=2,          # P
            mx4_lanes=0,                # no MX4, R
            bank_lines=65536,           # P
            hbm_tiles=2,                # P
            tile_channels=4,            # 8 pseudo-channels: 6.1 TB/s of the 400's 9.2 with 12, R
            hbm_rows=2048,              # P
            host=True,
            engines=1,                  # P; I26 has 16 beside 72 PEs
            networks=2)),               # both at the one compute chiplet, P
    Package(
        name="mtia400", size="sim",
        compute_chiplets=2,             # R
        io_chiplets=1,                  # HC
        network_chiplets=2,             # R
        published=Published(9.2, 288, 3, 6, 12, 72),            # R
        compute=ComputeParameters(
            rows=1, columns=5,          # P
            mx4_lanes=2,                # 12 / 6 PFLOPS, R
            bank_lines=65536,           # P
            hbm_tiles=2,                # P
            tile_channels=3,            # 2 x 6 pseudo-channels, R
            hbm_rows=2048,              # P
            link_latency_cycles=16,     # P
            grid=(1, 2),                # P
            engines=1, networks=1)),    # P: a network chiplet at each compute chiplet
    Package(
        name="mtia450", size="sim",
        compute_chiplets=2,             # R
        io_chiplets=1,                  # HC for the 400, S: same chassis
        network_chiplets=2,             # R
        published=Published(18.4, 288, 3.5, 7, 21, 72),         # R
        core_megahertz=1847,            # MX4 of the 450 / of the 400 = 1.75 with its PEs, R
        compute=ComputeParameters(
            rows=2, columns=3,          # PEs, P
            local_lines=8192,           # 512 KiB, I26
            local_banks=8,              # P
            dot_rows=16,                # P
            mx4_lanes=3,                # 21 / 7 PFLOPS, R
            attention=True,             # the 450 and 500 have hardware for it, S
            bank_lines=65536,           # 4 MiB, 4 banks: 16 MiB a chiplet, P
            hbm_tiles=4,                # P
            tile_channels=3,            # 2 x 12 pseudo-channels: twice the 400's, R
            hbm_rows=1024,              # as much as the 400 in all, R
            link_latency_cycles=16,     # P
            grid=(1, 2),                # P
            engines=1, networks=1)),    # P: a network chiplet at each compute chiplet
    Package(
        name="mtia500", size="sim",
        compute_chiplets=4,             # R: 2 x 2
        io_chiplets=1,                  # R
        network_chiplets=2,             # R
        published=Published(27.6, 512, 5, 10, 30, 72),          # R
        core_megahertz=1979,            # 25 times the 300's MX8 with its PEs, R
        compute=ComputeParameters(
            rows=2, columns=2,          # P
            mx4_lanes=3,                # 30 / 10 PFLOPS, R
            attention=True,             # S
            bank_lines=65536,           # P
            hbm_tiles=3, tile_channels=3,   # 4 x 9 pseudo-channels: 1.5 times the 450's, R
            hbm_rows=1024,              # P
            link_latency_cycles=16,     # P
            grid=(2, 2),                # R
            engines=1, networks=1)),    # P: a network chiplet at both compute chiplets of a row
    # Full sizes: the structure that was published; generated, not simulated. A router serves six
    # PEs (I26). Pseudo-channels of 32 pins; their clock is what gives R's bandwidth: 16 bytes of
    # each clock. A stack has 32 of them (I26), from the 450 on 64 (P). The PE is that of the small
    # size, so the peak rates are not those of R.
    Package(
        name="mtia300", size="full",
        compute_chiplets=1, io_chiplets=0, network_chiplets=2,  # as above
        published=Published(6.1, 216, 0.6, 1.2, 0, 16),         # R
        hbm_megahertz=1986,             # 6.1 TB/s, R
        compute=ComputeParameters(
            rows=12, columns=6, cluster=(2, 3),     # I26
            mx4_lanes=0, host=True,     # as above
            bank_lines=131072,          # P
            hbm_tiles=12, tile_channels=16,     # 6 stacks, P
            hbm_rows=73728,             # 216 GB: 36 a stack, R
            engines=1, networks=2),     # as above
        network=FULL_NETWORK),
    Package(
        name="mtia400", size="full",
        compute_chiplets=2, io_chiplets=1, network_chiplets=2,  # as above
        published=Published(9.2, 288, 3, 6, 12, 72),            # R
        hbm_megahertz=2246,             # 9.2 TB/s, R
        compute=ComputeParameters(
            rows=8, columns=6, cluster=(2, 3),      # HC; P for the cluster
            mx4_lanes=2,                # as above
            bank_lines=131072,          # P
            hbm_tiles=8, tile_channels=16,      # 4 stacks, P
            hbm_rows=73728,             # 288 GB: 36 a stack, R
            grid=(1, 2), engines=1, networks=1),    # as above
        network=FULL_NETWORK),
    Package(
        name="mtia450", size="full",
        compute_chiplets=2, io_chiplets=1, network_chiplets=2,  # as above
        published=Published(18.4, 288, 3.5, 7, 21, 72),         # R
        core_megahertz=1847, hbm_megahertz=2246,    # as above; 18.4 TB/s, R
        compute=ComputeParameters(
            rows=8, columns=6, cluster=(2, 3),      # P: those of the 400
            mx4_lanes=3, attention=True,            # as above
            bank_lines=131072,          # P
            hbm_tiles=8, tile_channels=32,      # 4 stacks of twice the 400's channels, P
            hbm_rows=36864,             # 288 GB: 36 a stack, R
            grid=(1, 2), engines=1, networks=1),    # as above
        network=FULL_NETWORK),
    Package(
        name="mtia500", size="full",
        compute_chiplets=4, io_chiplets=1, network_chiplets=2,  # as above
        published=Published(27.6, 512, 5, 10, 30, 72),          # R
        core_megahertz=1979, hbm_megahertz=2246,    # as above; 27.6 TB/s, R
        compute=ComputeParameters(
            rows=8, columns=4, cluster=(2, 2),      # P: smaller chiplets, R
            mx4_lanes=3, attention=True,            # as above
            bank_lines=131072,          # P
            hbm_tiles=8, tile_channels=24,      # 3 stacks, P
            hbm_rows=43690,             # 512 GB, less 8 MB, R
            grid=(2, 2), engines=1, networks=1),    # as above
        network=FULL_NETWORK),
)}


def package(name, size="sim"):
    """Returns the package; :exc:`ValueError` if there is none of that name and size."""
    if (name, size) not in PACKAGES:
        known = ", ".join(f"{n} {s}" for n, s in PACKAGES)
        raise ValueError(f"Package must be one of {known}, not {name!r} {size!r}")
    return PACKAGES[name, size]
