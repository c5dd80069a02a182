"""A whole package, simulated: what the host's driver sees of the hardware."""
import time
from dataclasses import dataclass

from cosim import trace as chrome
from cosim.build import dies as build
from cosim.engine import Engine
from cosim.engine.engine import WATCH

HOST_MEMORY_BYTES = 1 << 28     # this project's choice; sparse
# At which 12 PEs have 1.75 times the MX4 peak of the 400's ten at 1.9 GHz; this project's choice.
CLOCK_HERTZ = 1.847e9


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
    gating : bool
        Leave out the evaluation of idle PEs; changes nothing but the speed.
    clock_hertz : float
        Clock frequency of the trace's time axis [Hz].
    """

    def __init__(self, name="mtia450", size="sim", *, threads=1, processes=1, waves=None,
                 trace=None, record=False, gating=True, host_memory_bytes=HOST_MEMORY_BYTES,
                 clock_hertz=CLOCK_HERTZ):
        self.package = build.describe(name, size)
        start = time.monotonic()
        dies, channels = build.package_dies(self.package, host_memory_bytes=host_memory_bytes,
                                            waves=waves is not None)
        self.build_seconds = time.monotonic() - start
        libraries = {m.library for die in dies for m in die.models.values()}
        # what building them took when they were built, from their caches' notes
        self.cold_build_seconds = sum(float((path.parent / "done").read_text())
                                      for path in libraries)
        self.trace, self.clock_hertz = trace, clock_hertz
        self.engine = Engine(dies, channels, threads=threads, processes=processes, waves=waves,
                             trace=record or trace is not None, gating=gating,
                             watch=[("io", "top", "irq")])
        compute = self.package.compute
        self.configuration = Configuration(
            self.package.compute_chiplets, compute.pes, compute.addresses.sram_bytes,
            compute.addresses.hbm_bytes, compute.rows, compute.columns, compute.attention)
        self.host_memory = self.engine.memory("io.host")

    def _offset(self, register):
        offsets = build.register_offsets()
        if isinstance(register, str) and register not in offsets:
            raise ValueError(f"Register must be one of {', '.join(offsets)}, not {register!r}")
        return offsets.get(register, register)

    def read_register(self, register):
        """Value of a register of the I/O chiplet, by name or byte offset; time passes."""
        return self.engine.access("io.registers", self._offset(register))

    def write_register(self, register, value):
        """Write a register of the I/O chiplet, by name or byte offset; time passes."""
        self.engine.access("io.registers", self._offset(register), int(value))

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

    def statistics(self):
        """Counts by name: those of the engine, of host memory and of the HBM channels."""
        host = dict(zip(("read_bursts", "read_beats", "write_bursts", "write_beats",
                         "written_bytes", "read_stalls", "decode_errors"),
                        self.engine.counters("io.host"), strict=False))
        hbm = {f"compute{die}.hbm{channel}": dict(zip(
                   ("activates", "precharges", "refreshes", "reads", "writes"),
                   self.engine.counters(f"compute{die}.hbm{channel}"), strict=False))
               for die in range(self.configuration.dies)
               for channel in range(self.package.compute.hbm_channels)}
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
