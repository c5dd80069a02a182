"""A package in a running system: what the host's driver sees of the hardware."""
from dataclasses import dataclass

from cosim.build import dies as build
from cosim.engine.engine import WATCH

LINE_BYTES = 64


@dataclass(frozen=True)
class Configuration:
    """What a driver has to know of a package; sizes are those of one compute die [byte]."""

    dies: int
    pes: int
    sram_bytes: int
    hbm_bytes: int
    rows: int
    columns: int
    attention: bool     # PEs have an attention unit
    grid: tuple         # rows and columns of compute dies joined by links; (1, 1): none is
    mx4_lanes: int      # rows of operand B that MX4 takes at once; 0: no MX4
    banks: int          # of SRAM
    hbm_channels: int   # pseudo-channels
    core_megahertz: int
    hbm_megahertz: int
    engines: int        # message engines
    networks: int       # links to network chiplets


class Member:
    """A package of a running system, with its own host: memory, registers, interrupt.

    Time is that of the whole system: what lets it pass for this host lets it pass for all.

    Parameters
    ----------
    system : cosim.engine.Engine
    package : chiplets.packages.Package
    prefix : str
        Of the names of its dies.
    watch : int
        Number of its interrupt among the outputs that the engine watches.
    build_seconds, cold_build_seconds : float
        What it took to build the models of the system: now, and when they were not there.
    """

    def __init__(self, system, package, *, prefix="", watch=0, build_seconds=0.0,
                 cold_build_seconds=0.0):
        self.engine, self.package, self.prefix, self._watch = system, package, prefix, watch
        self.build_seconds, self.cold_build_seconds = build_seconds, cold_build_seconds
        self.clock_hertz = package.core_megahertz * 1e6
        compute = package.compute
        self.configuration = Configuration(
            package.compute_chiplets, compute.pes, compute.addresses.sram_bytes,
            compute.addresses.hbm_bytes, compute.rows, compute.columns, compute.attention,
            compute.grid, compute.mx4_lanes, compute.addresses.banks, compute.addresses.channels,
            package.core_megahertz, package.hbm_megahertz, compute.engines, compute.networks)
        self._host = prefix + build.host_die(package)
        self.host_memory = system.memory(f"{self._host}.host")

    def _offset(self, register):
        offsets = build.register_offsets()
        if isinstance(register, str) and register not in offsets:
            raise ValueError(f"Register must be one of {', '.join(offsets)}, not {register!r}")
        return offsets.get(register, register)

    def read_register(self, register):
        """Value of a register of the host's interface, by name or byte offset; time passes."""
        return self.engine.access(*self.register(register))

    def write_register(self, register, value):
        """Write a register of the host's interface, by name or byte offset; time passes."""
        self.engine.access(*self.register(register), int(value))

    def register(self, register):
        """The device and the offset that ``Engine.access`` takes for a register."""
        return f"{self._host}.registers", self._offset(register)

    def run(self, cycles):
        """Simulate ``cycles`` cycles."""
        self.engine.run(cycles)

    def run_until_interrupt(self, max_cycles):
        """Simulate until the interrupt is high between two quanta; False if it stayed low."""
        return self.engine.run(max_cycles, until=WATCH, watch=[self._watch]) == WATCH

    @property
    def interrupted(self):
        """Whether the interrupt was high at the end of the last run."""
        return bool(self.engine.watched(self._watch))

    @property
    def cycle(self):
        """Cycles simulated so far."""
        return self.engine.cycle

    def memory(self, die, name):
        """Memory of an HBM channel, such as ``memory(0, "hbm1")``, as an array of bytes."""
        return self.engine.memory(f"{self.prefix}compute{die}.{name}")

    def hbm_lines(self, die, first, count):
        """Where HBM lines of a die lie: ``(array of lines, number of the first of them there)``.

        One pair for each pseudo-channel that has some, in the order of the lines: consecutive
        lines are in consecutive pairs, and so on in turn.
        """
        addresses = self.package.compute.addresses
        tiles, channels = addresses.hbm_tiles, addresses.tile_channels
        for line in range(first, first + min(count, addresses.channels)):
            number = line % tiles * channels + line // tiles % channels
            memory = self.memory(die, f"hbm{number}").reshape(-1, LINE_BYTES)
            yield memory, line // addresses.channels

    def events(self):
        """As ``Engine.events``, of its own dies, named as in a package alone."""
        for die, lane, cycles, values in self.engine.events():
            if die.startswith(self.prefix):
                yield die.removeprefix(self.prefix), lane, cycles, values

    def statistics(self):
        """Counts by name: those of the engine, of host memory and of the HBM channels.

        Of its own dies and the channels from them, named as in a package alone.
        """
        counts = {name: {key.removeprefix(self.prefix): n for key, n in value.items()
                         if key.startswith(self.prefix)} if isinstance(value, dict) else value
                  for name, value in self.engine.statistics().items()}
        host = dict(zip(("read_bursts", "read_beats", "write_bursts", "write_beats",
                         "written_bytes", "read_stalls", "decode_errors"),
                        self.engine.counters(f"{self._host}.host"), strict=False))
        hbm = {f"compute{die}.hbm{channel}": dict(zip(
                   ("activates", "precharges", "refreshes", "reads", "writes", "bank_refreshes"),
                   self.engine.counters(f"{self.prefix}compute{die}.hbm{channel}"), strict=False))
               for die in range(self.configuration.dies)
               for channel in range(self.package.compute.addresses.channels)}
        return counts | {
            "host": host, "axi_read_bytes": 64 * host["read_beats"],
            "axi_write_bytes": host["written_bytes"], "hbm": hbm,
            "build_seconds": self.build_seconds}
