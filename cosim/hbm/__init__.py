"""Requests to one HBM pseudo-channel alone: what it carries, how late, and where the rest goes."""
import dataclasses
import subprocess

from cosim.build.pseudo import BANKS, HbmTiming, build, default, parameters_of

__all__ = ["BANKS", "OPTIONS", "PARTS", "HbmTiming", "default", "efficiency", "parameters_of",
           "refreshes_missing", "run", "shares", "unloaded_latency"]

OPTIONS = {"request": 100, "of": 100, "open": 0, "queued": 0, "ready": 100, "quiet": 0,
           "warm": 0, "gap": 0, "burst": 64, "victim": 0, "agents": 1, "under_way": 1 << 20,
           "far": 0, "stride": 4, "skip": 0, "noise": 1, "fill": 1, "flips": 0, "stuck": 0,
           "doubled": 0, "failed": 0, "clk_period": 1600, "hbm_period": 1847,
           "phase": 100}    # see options.hpp
PARTS = ("reading", "writing", "ecc", "refresh", "turnaround", "row", "group", "idle")
OWN_CLOCKS = {"hbm": 9, "core": 4}      # of a read, beside the device's; see HbmChannel


def run(pattern, count, *, wrap=None, timing=None, rows, seed=1, channel=None, **options):
    """Run ``count`` requests of a pattern; gives what was measured, by name.

    Every answer is compared with a model, and at the end all of memory; every command is judged by
    the device. :exc:`RuntimeError` if anything is wrong.

    Parameters
    ----------
    pattern : str
        See ``make`` in traffic.hpp.
    wrap, channel
        See :func:`cosim.build.pseudo.build`; ``channel`` are parameters of the channel beside
        ``timing`` and ``rows``.
    options : int
        See ``OPTIONS``.
    """
    timing = timing or HbmTiming()
    program = build(wrap, timing=timing, rows=rows, **(channel or {}))
    values = dataclasses.asdict(timing) | {"rows": rows, "count": count, "seed": seed,
                                           "pattern": pattern} | OPTIONS | options
    result = subprocess.run([program, *(f"{name}={value}" for name, value in values.items())],
                            text=True, capture_output=True, check=False)
    if result.returncode:
        raise RuntimeError(f"The pseudo-channel failed: {result.stdout}{result.stderr}")
    return {name: int(value) for name, value in
            (line.split("=") for line in result.stdout.splitlines())}


def efficiency(measured, timing=None):
    """Clocks with data on the pins, of those of the window: from the first command to the last."""
    bl = (timing or HbmTiming()).bl
    return measured["window_accesses"] * bl / measured["window"]


def shares(measured):
    """Parts of the channel's clocks, by name; :exc:`RuntimeError` if they are not all of them."""
    counts = {part: measured[f"at_{part}"] for part in PARTS}
    if sum(counts.values()) != measured["at_clocks"] or max(counts.values()) > sum(counts.values()):
        raise RuntimeError(f"Counters must make up {measured['at_clocks']} clocks, not {counts}")
    return {part: count / measured["at_clocks"] for part, count in counts.items()}


def refreshes_missing(measured, timing=None):
    """Refreshes of banks that came to be owed in the window, less those given in it."""
    refi = (timing or HbmTiming()).refi
    return measured["window"] // (refi // BANKS) - measured["window_refreshes"]


def unloaded_latency(row, timing=None):
    """Clocks of HBM and of the chip that a read alone takes, as :class:`HbmChannel` states it.

    ``row``: ``"open"``, ``"closed"``, ``"other"``: how it finds its bank.
    """
    t = timing or HbmTiming()
    more = {"open": 0, "closed": t.rcdrd, "other": t.rp + t.rcdrd}[row]
    return t.cl + t.ccdl + more + OWN_CLOCKS["hbm"], OWN_CLOCKS["core"]
