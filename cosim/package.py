"""A whole package, simulated: what the host's driver sees of the hardware."""
import time
from dataclasses import dataclass

from cosim import trace as chrome
from cosim.build import dies as build
from cosim.build.cache import building_seconds
from cosim.engine import Engine
from cosim.engine.engine import WATCH

LINE_BYTES = 64
HOST_MEMORY_BYTES = 1 << 28     # this project's choice; sparse


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


class Package:
    """A running package with its host memory; a context manager.

    The result is the same for any ``threads`` and ``processes``.

    Parameters
    ----------
    name, size : str
        Package, see ``chiplets.packages``; ``name`` may also be a description of one's own.
    threads, processes : int
        Workers that step the dies; one of the two must be 1.
    waves : pathlib.Path
        Write FST waveforms to ``<waves>.<die>.<model>.fst``; slower.
    trace : pathlib.Path
        Write what every unit did to this file at the end, for Perfetto.
    record : bool
        Keep what every unit did, for ``engine.events()``, without writing it.
    broken : list of (int, int, int)
        Die, row and column of PEs that do not work: their outputs are random in every cycle.
    gating : bool
        Leave out the evaluation of idle models; changes nothing but the speed.
    """

    def __init__(self, name="mtia450", size="sim", *, threads=1, processes=1, waves=None,
                 trace=None, record=False, gating=True, broken=(),
                 host_memory_bytes=HOST_MEMORY_BYTES):
        self.package = build.describe(name, size)
        self._host = build.host_die(self.package)
        start = time.monotonic()
        dies, channels = build.package_dies(self.package, host_memory_bytes=host_memory_bytes,
                                            waves=waves is not None)
        self.build_seconds = time.monotonic() - start
        columns = self.package.compute.columns
        for die, row, column in broken:
            dies[die].broken.append(f"pe{row * columns + column}")
        self.cold_build_seconds = building_seconds(
            {m.library.parent for die in dies for m in die.models.values()})
        self.trace, self.clock_hertz = trace, self.package.core_megahertz * 1e6
        self.engine = Engine(dies, channels, threads=threads, processes=processes, waves=waves,
                             trace=record or trace is not None, gating=gating,
                             watch=[(self._host, build.HOST, "irq")])
        compute = self.package.compute
        self.configuration = Configuration(
            self.package.compute_chiplets, compute.pes, compute.addresses.sram_bytes,
            compute.addresses.hbm_bytes, compute.rows, compute.columns, compute.attention,
            compute.grid, compute.mx4_lanes, compute.addresses.banks, compute.addresses.channels,
            self.package.core_megahertz, self.package.hbm_megahertz)
        self.host_memory = self.engine.memory(f"{self._host}.host")

    def _offset(self, register):
        offsets = build.register_offsets()
        if isinstance(register, str) and register not in offsets:
            raise ValueError(f"Register must be one of {', '.join(offsets)}, not {register!r}")
        return offsets.get(register, register)

    def read_register(self, register):
        """Value of a register of the host's interface, by name or byte offset; time passes."""
        return self.engine.access(f"{self._host}.registers", self._offset(register))

    def write_register(self, register, value):
        """Write a register of the host's interface, by name or byte offset; time passes."""
        self.engine.access(f"{self._host}.registers", self._offset(register), int(value))

    def run(self, cycles):
        """Simulate ``cycles`` cycles."""
        self.engine.run(cycles)

    def run_until_interrupt(self, max_cycles):
        """Simulate until the interrupt is high between two quanta; False if it stayed low."""
        return self.engine.run(max_cycles, until=WATCH) == WATCH

    @property
    def cycle(self):
        """Cycles simulated so far."""
        return self.engine.cycle

    def memory(self, die, name):
        """Memory of an HBM channel, such as ``memory(0, "hbm1")``, as an array of bytes."""
        return self.engine.memory(f"compute{die}.{name}")

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

    def statistics(self):
        """Counts by name: those of the engine, of host memory and of the HBM channels."""
        host = dict(zip(("read_bursts", "read_beats", "write_bursts", "write_beats",
                         "written_bytes", "read_stalls", "decode_errors"),
                        self.engine.counters(f"{self._host}.host"), strict=False))
        hbm = {f"compute{die}.hbm{channel}": dict(zip(
                   ("activates", "precharges", "refreshes", "reads", "writes", "bank_refreshes"),
                   self.engine.counters(f"compute{die}.hbm{channel}"), strict=False))
               for die in range(self.configuration.dies)
               for channel in range(self.package.compute.addresses.channels)}
        return self.engine.statistics() | {
            "host": host, "axi_read_bytes": 64 * host["read_beats"],
            "axi_write_bytes": host["written_bytes"], "hbm": hbm,
            "build_seconds": self.build_seconds}

    def close(self):
        """Write the trace, stop the workers; ``host_memory`` stays readable."""
        if self.trace is not None and self.engine:
            chrome.write(self.trace, self.engine.events(), end_cycle=self.cycle,
                         clock_hertz=self.clock_hertz)
            self.trace = None
        self.engine.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
