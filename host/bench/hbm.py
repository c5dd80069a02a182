"""An HBM pseudo-channel alone: what it carries, how late, what the rest went to; and 512 GB of HBM.

The pseudo-channel is that of the package, with its clocks and every refresh.
"""
from dataclasses import dataclass, replace

import numpy as np

from cosim import hbm
from host import transport
from host.driver import Device, address
from host.isa import LINE, Region
from host.outcome import Outcome

QUEUED = 128                        # lines read, and lines written, of a copy
CASES = {"read": ("read", {}), "write": ("write", {}), "random_64B": ("random", {}),
         "copy": ("copy", {"burst": 1, "queued": QUEUED}),      # a line read, one written
         "copy_by_16": ("copy", {"burst": 16, "queued": QUEUED}),
         "copy_by_64": ("copy", {"burst": 64, "queued": QUEUED})}
SHARED = ("read", "write", "random_64B", "copy")    # cases whose losses are shown
LOADS = (10, 30, 50, 60)            # per cent of the pins
ROWS = ("closed", "other", "open")  # how three reads find their bank, in this order
NAMES = {"open": "open_row", "closed": "closed_bank", "other": "other_row"}
LATE = hbm.BANKS + 1                # refreshes that may be under way at either end of a window
SCALE = 1 << 24                     # of a rate of requests
QUIET = 1000                        # cycles: the reset is over for long


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    ``intervals``: of refreshes at least, in each case, after ``warm`` others, in which refreshes
    are put off as far as the channel ever does; ``clocks``: of the pins at each load; ``phases``:
    of the two clocks, for latencies; ``touched``: bytes of HBM, in ``pieces`` on each die;
    ``copied``: bytes that are written by DMA in the first, the middle and the last of these;
    ``looked_at``: bytes of each piece that are read by DMA.
    """

    intervals: int = 200
    warm: int = 40
    clocks: int = 1_000_000
    phases: int = 16
    touched: int = 1 << 30
    pieces: int = 64
    copied: int = 1 << 17
    looked_at: int = 4096


class Channel:
    """A package's pseudo-channel and its clocks."""

    def __init__(self, package):
        channel, self.core, self.hbm = hbm.parameters_of(package)
        self.rows, self.channel = channel.pop("rows"), channel
        self.timing = hbm.HbmTiming()
        self.line_clocks = 2 * self.timing.bl

    def run(self, pattern, count, **options):
        clocks = {"clk_period": self.hbm, "hbm_period": self.core}
        return hbm.run(pattern, count, rows=self.rows, channel=self.channel, **clocks | options)


def measure_streams(channel, sizes, metrics):
    """Efficiency, shares and refreshes of each case, and the depth of the copies.

    The shares are those of the whole run, start and end included.
    """
    refi, missing, depth = channel.timing.refi, [], 0
    lines = (sizes.intervals + sizes.warm + 1) * refi // channel.line_clocks
    for name, (pattern, options) in CASES.items():
        measured = channel.run(pattern, lines, warm=sizes.warm * refi, **options)
        metrics[f"{name}_efficiency"] = hbm.efficiency(measured)
        metrics |= {f"{name}_{part}_share": share for part, share in hbm.shares(measured).items()
                    if name in SHARED and part not in ("reading", "writing")}
        metrics[f"{name}_refreshes"] = measured["window_refreshes"]
        metrics[f"{name}_refreshes_owed"] = measured["window"] // (refi // hbm.BANKS)
        missing.append(hbm.refreshes_missing(measured))
        if pattern == "copy":
            depth = max(depth, measured["queued_reads"], measured["queued_writes"])
    metrics["refreshes_missing"], metrics["copy_depth"] = max(missing), depth


def measure_latency(channel, phases, metrics):
    """Reads of an idle channel; true if they take what the channel's description says.

    Exactly so with clocks of equal rate, and within two clocks with those of the package.
    """
    core, fast, right = channel.core, channel.hbm, True
    gap = {"gap": channel.timing.rc, "quiet": QUIET}
    equal = channel.run("conflict", 3, clk_period=1000, hbm_period=1000, phase=500, **gap)
    runs = [channel.run("conflict", 3, phase=core * n // phases, seed=n, **gap)
            for n in range(phases)]
    for n, row in enumerate(ROWS):
        clocks, own = hbm.unloaded_latency(row)
        times = [1000 * run[f"latency{n}"] / core for run in runs]
        metrics[f"unloaded_latency_ns_{NAMES[row]}"] = sum(times) / len(times)
        metrics[f"formula_latency_ns_{NAMES[row]}"] = 1000 * (clocks / fast + own / core)
        metrics[f"equal_clocks_latency_{NAMES[row]}"] = equal[f"latency{n}"]
        metrics[f"equal_clocks_formula_{NAMES[row]}"] = clocks + own
        right &= equal[f"latency{n}"] == clocks + own and all(
            abs(run[f"hbm_latency{n}"] - clocks - own) <= 2 for run in runs)
    return right


def measure_loads(channel, clocks, metrics):
    """Random reads that come at a rate, from when they come; true if the channel carries it."""
    carried = True
    for load in LOADS:
        rate = load / 100 / channel.line_clocks * channel.hbm / channel.core    # a cycle
        measured = channel.run("random", clocks * load // 100 // channel.line_clocks, open=1,
                               request=round(rate * SCALE), of=SCALE)
        metrics[f"latency_ns_at_{load}_percent"] = (
            1000 * measured["all_reads"] / measured["read"] / channel.core)
        metrics[f"worst_latency_ns_at_{load}_percent"] = (
            1000 * measured["worst_read"] / channel.core)
        carried &= abs(100 * hbm.efficiency(measured) / load - 1) < 0.03
    return carried


def content(die, piece, count):
    return np.frombuffer(np.random.default_rng([die, piece]).bytes(count), np.uint8)


def touch(device, sizes, size, places):
    """Write every piece: all by the host's view of memory, and some of it then by DMA."""
    link, by_dma = device.transport, {0, sizes.pieces // 2, sizes.pieces - 1}
    for die in device.dies:
        for piece, at in enumerate(places):
            data, first = content(die, piece, size), sizes.copied if piece in by_dma else 0
            link.preload(die, at + first, data[first:])
            if first:
                device.write(address(die, Region.HBM, at), data[:first], stream=die)
        device.synchronize()


def same(device, sizes, size, places):
    """Whether all pieces are as they should be, also when a part is read by DMA."""
    right = True
    for die in device.dies:
        seen = device.read_each([address(die, Region.HBM, at) for at in places], sizes.looked_at)
        for piece, at in enumerate(places):
            data = content(die, piece, size)
            right &= np.array_equal(seen[piece], data[:sizes.looked_at])
            right &= np.array_equal(device.transport.peek(die, at, size), data)
    return right


def measure_memory(options, sizes, metrics):
    """Resident memory of a package of 512 GB, some of it touched; true if it is all right."""
    transport.forget_peak_memory()
    with transport.open_package(replace(options, package=transport.large_package())) as link:
        metrics["opened_memory_mb"] = link.peak_memory_mb()
        device = Device(link)
        whole = device.configuration.hbm_bytes
        size = sizes.touched // len(device.dies) // sizes.pieces
        places = [(whole - size) * n // (sizes.pieces - 1) // LINE * LINE
                  for n in range(sizes.pieces)]
        touch(device, sizes, size, places)
        right = same(device, sizes, size, places)
        metrics["package_hbm_gb"] = whole * len(device.dies) / 1e9
        metrics["touched_mb"] = size * len(device.dies) * sizes.pieces / 1e6
        counts = link.statistics()["bytes"]
        for what in ("read", "written"):
            moved = [n for name, n in counts.items() if name.endswith(f", {what}")
                     and name.startswith("HBM")]
            metrics[f"dma_{what}_mb"] = sum(moved) / 1e6
            right &= min(moved) > 0     # by every pseudo-channel
        metrics["peak_memory_mb"] = link.peak_memory_mb()
    return right


def run(options, sizes=Sizes()):
    """Streams, latencies and memory.

    Every answer of the pseudo-channel, and all of its memory at the end, is compared with a model:
    a wrong one, or a command that the device refuses, ends the measurement with an error.
    """
    outcome, metrics = Outcome("hbm", options.package), {}
    options.step(0, 4, "streams (the first time is a build of a minute)")
    channel = Channel(options.package)
    measure_streams(channel, sizes, metrics)
    options.step(1, 4, "latency of an idle channel")
    formula = measure_latency(channel, sizes.phases, metrics)
    options.step(2, 4, "latency under load")
    carried = measure_loads(channel, sizes.clocks, metrics)
    options.step(3, 4, "memory of a package of 512 GB (the first time is a build of minutes)")
    right = measure_memory(options, sizes, metrics)
    outcome.metrics = metrics
    outcome.checks = {
        "data_right": True, "refreshes_delivered": metrics["refreshes_missing"] <= LATE,
        "latency_is_the_formula": formula, "loads_carried": carried, "content_right": right,
        "efficiency": metrics["copy_efficiency"] >= 0.88 and min(
            metrics["read_efficiency"], metrics["write_efficiency"]) >= 0.97,
        "memory": metrics["package_hbm_gb"] >= 512 and metrics["peak_memory_mb"] <= 3000}
    outcome.config = {
        "channel_rows": channel.rows, "depth": hbm.default("depth"), "core_megahertz": channel.core,
        "hbm_megahertz": channel.hbm, "refresh_intervals": sizes.intervals,
        "large_package": transport.large_package().name}
    return outcome
