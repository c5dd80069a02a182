"""The driver's way to a co-simulated package, and what the command line asks of it."""
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosim import yardstick as yardstick_model
from cosim.build import generate as generator
from cosim.build.large import LARGE
from cosim.cluster import Cluster
from cosim.engine.engine import RESET_CYCLES, EngineError
from cosim.package import Package
from host.boot import Settings
from host.isa import LINE, Unit

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
HBM_ACCESS = 32     # bytes that a command of a pseudo-channel moves

yardstick = yardstick_model.cycles_per_second
PackageError = EngineError
IDLE, BUSY = 0, 1       # states of a unit
UNIT_NAMES = ("CP", "DMA in", "DMA out", "A loader", "DPE", "RE", "SIMD", "layout", "softmax")


@dataclass(frozen=True)
class Timeline:
    """State changes of every unit: ``lanes`` are (name, [(cycle, state), ...])."""

    lanes: list
    first: int
    last: int


class CosimTransport:
    """A co-simulated package as the driver sees it; a context manager."""

    def __init__(self, package, settings=None):
        self.package, self.settings = package, settings or Settings()
        self.configuration = package.configuration
        self.host_memory = package.host_memory
        self.build_seconds, self.clock_hertz = package.cold_build_seconds, package.clock_hertz

    def read_register(self, name):
        return self.package.read_register(name)

    def write_register(self, name, value):
        self.package.write_register(name, value)

    def run_until_interrupt(self, cycles):
        return self.package.run_until_interrupt(cycles)

    @property
    def cycle(self):
        return self.package.cycle

    def preload(self, die, offset, data):
        """Place bytes into a die's HBM before a run."""
        if offset % LINE:
            raise ValueError(f"Offset must be a multiple of {LINE}, not {offset}")
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        padded = np.zeros(-(-len(data) // LINE) * LINE, np.uint8)
        padded[:len(data)] = data
        lines = padded.reshape(-1, LINE)
        places = list(self.package.hbm_lines(die, offset // LINE, len(lines)))
        for number, (memory, at) in enumerate(places):
            mine = lines[number::self.package.package.compute.addresses.channels]
            memory[at:at + len(mine)] = mine

    def peek(self, die, offset, count):
        """Bytes of a die's HBM as they are now, without simulation."""
        first, last = offset // LINE, -(-(offset + count) // LINE)
        places = list(self.package.hbm_lines(die, first, last - first))
        lines = np.zeros((last - first, LINE), np.uint8)
        for number, (memory, at) in enumerate(places):
            mine = lines[number::self.package.package.compute.addresses.channels]
            mine[:] = memory[at:at + len(mine)]
        return lines.reshape(-1)[offset - first * LINE:][:count]

    def statistics(self):
        """Cycles and seconds of the simulation, and bytes over each interface."""
        counts = self.package.statistics()
        carried = {f"link {name}": n for name, n in counts["channel_bytes"].items()}
        carried |= {"AXI, read by the package": counts["axi_read_bytes"],
                    "AXI, written by the package": counts["axi_write_bytes"]}
        for name, hbm in counts["hbm"].items():
            for way, commands in (("read", hbm["reads"]), ("written", hbm["writes"])):
                line = f"HBM of {name.split('.')[0]}, {way}"
                carried[line] = carried.get(line, 0) + HBM_ACCESS * commands
        return {"cycles": counts["cycles"], "seconds": counts["seconds"], "bytes": carried}

    def worker_memory_mb(self):
        """Resident memory of worker processes at their peak [MB]."""
        return sum(map(peak_memory_mb, self.package.engine.worker_pids()))

    def peak_memory_mb(self):
        """Resident memory of this process at its peak, and of its workers [MB].

        Its own peak is that since :func:`forget_peak_memory`.
        """
        return peak_memory_mb("self") + self.worker_memory_mb()

    def _changes(self):
        """State changes by die, PE and unit."""
        for die, lane, cycles, values in self.package.events():
            for unit in Unit:
                states = values >> 2 * unit & 3
                keep = np.flatnonzero(np.diff(states, prepend=0))
                yield die, lane, unit, cycles[keep], states[keep]

    def timeline(self):
        """Return what every unit did when; needs a recording."""
        lanes, first, last = [], None, 0
        for die, lane, unit, cycles, states in self._changes():
            if unit == Unit.COMMAND_PROCESSOR or not len(cycles):
                continue
            lanes.append((f"{die} {lane} {UNIT_NAMES[unit]}",
                          list(zip(cycles.tolist(), states.tolist(), strict=True))))
            first = int(cycles[0]) if first is None else min(first, int(cycles[0]))
            last = max(last, int(cycles[-1]))
        return Timeline(lanes, first or 0, last)

    def programs(self, die):
        """What each PE of a die ran so far: [PE][program] (first command, end); needs a recording.

        The cycle of the first command executed, and of the last in which the program ran.
        """
        return [spans(cycles, states) for name, _, unit, cycles, states in self._changes()
                if name == f"compute{die}" and unit == Unit.COMMAND_PROCESSOR]

    def cycle_of(self, stamp):
        """The cycle at which the clock of a die had a value, see docs/programming-model.md."""
        return stamp + RESET_CYCLES     # before 2^32 cycles

    def dot_beats(self):
        """Beats of all dot-product engines in each cycle so far; needs a recording."""
        delta = np.zeros(self.cycle + 2, np.int64)
        for _, _, unit, cycles, states in self._changes():
            if unit == Unit.DOT:
                busy = (states == BUSY).astype(np.int64)
                np.add.at(delta, cycles, np.diff(busy, prepend=0))
        return np.cumsum(delta)


def spans(cycles, states):
    """From each change to busy to the last cycle before the next change to idle."""
    found, first = [], None
    for cycle, state in zip(cycles.tolist(), states.tolist(), strict=True):
        if state == BUSY and first is None:
            first = cycle
        elif state == IDLE and first is not None:
            found.append((first, cycle - 1))
            first = None
    return found


def programs(cluster):
    """What each PE of each rank ran so far: by rank and die, [PE][program]; needs a recording.

    Programs are as of :meth:`CosimTransport.programs`.
    """
    found = {}
    for name, _, cycles, values in cluster.engine.events():
        rank, die = name.split(".")
        states = values >> 2 * Unit.COMMAND_PROCESSOR & 3
        keep = np.flatnonzero(np.diff(states, prepend=0))
        found.setdefault((int(rank[1:]), int(die.removeprefix("compute"))), []).append(
            spans(cycles[keep], states[keep]))
    return found


def peak_memory_mb(pid):
    """Resident memory of a process at its peak [MB]."""
    line, = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines()
             if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def forget_peak_memory():
    """From now on, the peak is that of what is resident now and later."""
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def open_package(options, *, record=False):
    """A running package for ``host.outcome.Options``; ``record`` keeps what units did."""
    workers = ({"processes": options.processes} if options.processes
               else {"threads": options.threads})
    options.step(0, 1, "building the package (the first time takes minutes)")
    broken = [(die, row, column) for die, row, column in options.settings.bad_pes]
    with Package(options.package, waves=options.waves, trace=options.trace, record=record,
                 broken=broken, **workers) as package:
        yield CosimTransport(package, options.settings)


@contextmanager
def open_cluster(options, ranks, fabric=None, *, record=False):
    """``ranks`` packages for ``host.outcome.Options`` in one simulation, joined by a fabric.

    Gives the cluster and the transport of each rank; ``fabric`` is a ``cosim.fabric.Fabric``.
    """
    workers = ({"processes": options.processes} if options.processes
               else {"threads": options.threads})
    options.step(0, 1, "building the packages (the first time takes minutes)")
    broken = [(rank, *pe) for rank in range(ranks) for pe in options.settings.bad_pes]
    with Cluster([options.package] * ranks, fabric=fabric, waves=options.waves,
                 trace=options.trace, record=record, broken=broken, **workers) as cluster:
        yield cluster, [CosimTransport(member, options.settings) for member in cluster.members]


def large_package():
    """A package with 512 GiB of HBM, for ``Options.package``."""
    return LARGE


def packages():
    """Names of the packages."""
    return generator.package_names()


MEASURED = {"hbm_gigabytes_per_second": "HBM_GB_per_s", "bf16_teraflops": "BF16_TFLOPS",
            "mx8_teraflops": "MX8_TFLOPS", "mx4_teraflops": "MX4_TFLOPS"}


def package_rows(benchmarks=BENCHMARKS, *, size="sim"):
    """Structure and peaks of each package, by name, and what ``mxlet bench generations`` found.

    Measured is size ``sim``; ``full`` is generated, not simulated.
    """
    rows, path = generator.package_rows(size), benchmarks / "generations.json"
    there = size == "sim" and path.exists()
    metrics = json.loads(path.read_text())["metrics"] if there else {}
    for name, row in rows.items():
        row |= {f"measured_{shown}": round(metrics[f"{name}_{key}"], 2)
                for key, shown in MEASURED.items() if f"{name}_{key}" in metrics}
    return rows


def write_packages(rows, target, *, size="sim"):
    """Write the table of packages as JSON."""
    metrics = {f"{name}_{key}": value for name, row in rows.items() for key, value in row.items()}
    text = json.dumps({"name": "packages", "package": "all", "metrics": metrics, "checks": {},
                       "config": {"size": size}}, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text)


def tops():
    """Tops that Verilog can be generated of."""
    return generator.TOPS


def sizes():
    """Sizes that packages have."""
    return generator.SIZES


def generate(top, folder, *, size="sim", check=True):
    """Write the Verilog of a top; returns its path and what the checkers found."""
    return generator.generate(top, Path(folder), size=size, check=check)


def commit():
    """Commit of the checkout, marked if there are changes; empty outside a checkout."""
    result = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                            text=True, check=False)
    return result.stdout.strip()
