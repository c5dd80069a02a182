"""A tensor-parallel transformer layer: the same bits as one package, and where its time went."""
from dataclasses import dataclass, field, replace

import numpy as np

from host.bench.embed import FORMATS
from host.bench.ranks import open_system
from host.driver import Device
from host.embed import cosine
from host.isa import Format
from host.models.parallel import Sizes, reference
from host.outcome import Outcome
from host.parallel import Job, LayerError, OnePackage, Ranks
from host.transport import open_package, package_rows, programs

SUMS = {"fp32": Format.FP32, "bf16": Format.BF16}
LIMITS = 2, 8       # of ranks
PARTS = ("compute", "communication", "overlapped", "neither")


def job_of(package, weights="mxfp8", ranks=LIMITS[1], sums="bf16", pieces=2, **sizes):
    """The job that a user asks for; :exc:`LayerError` with one sentence if it cannot be."""
    if not LIMITS[0] <= ranks <= LIMITS[1]:
        raise LayerError(f"Ranks must be {LIMITS[0]} to {LIMITS[1]}, not {ranks}")
    if sums not in SUMS:
        raise LayerError(f"Sums must be {' or '.join(SUMS)}, not {sums!r}")
    rows = package_rows()
    if weights == "mxfp4" and package in rows and not rows[package]["configured_MX4_TFLOPS"]:
        raise LayerError(f"Weights must be mxfp8 on {package}, which has no MX4")
    return Job(Sizes(**sizes), ranks=ranks, pieces=pieces, weights=FORMATS[weights],
               sums=SUMS[sums])


@dataclass
class Lane:
    """What a die did when: runs (first, past last cycle) of its PEs' programs and all-reduces."""

    rank: int
    die: int
    compute: list
    communication: list


@dataclass
class Report:
    """Everything that is printed and drawn.

    ``parts``: cycles by rank of each of :data:`PARTS`, the mean of its dies. ``window``: first and
    past last cycle.
    """

    outcome: Outcome
    lanes: list
    parts: list
    window: tuple
    statistics: dict = field(default_factory=dict)


def union(runs):
    """Runs (first, past last) that overlap or touch made one."""
    found = []
    for first, last in sorted(runs):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], last)
        elif first < last:
            found.append((first, last))
    return found


def common(some, others):
    """Cycles that two lists of runs, each without overlaps, have in common."""
    return sum(max(0, min(b, d) - max(a, c)) for a, b in some for c, d in others)


def parts(lane, window):
    """Cycles of a die in each of :data:`PARTS`; compute and communication both with overlapped."""
    compute, reduce = union(lane.compute), union(lane.communication)
    busy, sent = (sum(b - a for a, b in runs) for runs in (compute, reduce))
    both = common(compute, reduce)
    return np.array([busy, sent, both, window[1] - window[0] - (busy + sent - both)])


def lanes_of(ran, reductions, cycle_of):
    """Lanes from what PEs ran, by rank and die, and all-reduces by rank (die, start, end)."""
    return [Lane(rank, die, [(first, end + 1) for pe in pes for first, end in pe],
                 [(cycle_of(start), cycle_of(end)) for at, start, end in reductions[rank]
                  if at == die])
            for (rank, die), pes in sorted(ran.items()) if any(pes)]


def window_of(lanes):
    """First and past last cycle of all programs of PEs."""
    runs = [run for lane in lanes for run in lane.compute]
    return min(a for a, _ in runs), max(b for _, b in runs)


def ordered(ran, reductions, cycle_of, job):
    """Whether all-reduces started when their partial sums were there, and ended before their use.

    This also compares the clocks of the dies, by which all-reduces are timed, with the recording
    of the PEs.
    """
    good = True
    for (rank, die), built in ran.items():
        pes = [pe for pe in built if pe]
        own = [(cycle_of(a), cycle_of(b)) for at, a, b in reductions[rank] if at == die]
        pieces = len(own) // 2
        for number, (start, end) in enumerate(own):
            made = [pe[number] for pe in pes]
            used = [pe[number + pieces] for pe in pes]
            good &= max(last for _, last in made) < start < end < min(first for first, _ in used)
    return good


def on_ranks(options, job):
    """Run on as many packages as ranks; results by rank, lanes, whether in order, statistics."""
    with open_system(options, job.ranks, record=True) as (cluster, system):
        options.step(1, 3, f"the layer on {job.ranks} packages")
        ranks = Ranks(system, job)
        ranks.run()
        results = [own.result() for own in ranks.packages]
        reductions, ran = ranks.reductions(), programs(cluster)
        cycle_of = system.devices[0].transport.cycle_of
        statistics = cluster.engine.statistics()
    return (results, lanes_of(ran, reductions, cycle_of),
            ordered(ran, reductions, cycle_of, job), statistics)


def on_one(options, job):
    """Run on one package; its result and the cycles from the first command to the last end."""
    with open_package(replace(options, waves=None, trace=None), record=True) as transport:
        options.step(0, 3, "the layer on one package")
        one = OnePackage(Device(transport), job)
        one.run()
        result = one.result()
        spans = [span for die in one.package.dies for pe in transport.programs(die)
                 for span in pe]
        unit = transport.configuration.attention
    return result, max(b for _, b in spans) + 1 - min(a for a, _ in spans), unit


def job(options, made=None):
    """Run the layer on the ranks and on one package, and compare both with the golden model."""
    made = made or Job()
    alone, alone_cycles, unit = on_one(options, made)
    results, lanes, in_order, statistics = on_ranks(options, made)
    options.step(2, 3, "golden model")
    golden = made.golden(unit)
    exact = reference(made.input, made.layer, made.spans, made.sizes.heads)
    options.step(3, 3, "done")
    window = window_of(lanes)
    cycles = window[1] - window[0]
    each = [np.mean([parts(lane, window) for lane in lanes if lane.rank == rank], axis=0)
            for rank in range(made.ranks)]
    mean = dict(zip(PARTS, np.mean(each, axis=0), strict=True))
    value = results[0].view(np.float32)
    outcome = Outcome("tp", options.package)
    outcome.metrics = {
        "cycles": cycles, "cycles_one_package": alone_cycles, "speedup": alone_cycles / cycles,
        **{f"{name}_cycles": mean[name] for name in PARTS},
        "communication_hidden": mean["overlapped"] / mean["communication"],
        **{f"{name}_cycles_rank{rank}": own for rank, of in enumerate(each)
           for name, own in zip(PARTS, of, strict=True)},
        "useful_macs_per_cycle": made.sizes.macs / cycles,
        "max_abs_error": np.abs(value - exact).max(), "min_cosine": cosine(value, exact).min(),
        "elements_compared": made.ranks * golden.size,
        "simulated_khz": statistics["cycles_per_second"] / 1e3}
    outcome.checks = {
        "bit_exact": all(np.array_equal(found, golden) for found in results),
        "same_as_one_package": all(np.array_equal(found, alone) for found in results),
        "all_reduces_between_their_stages": in_order}
    s = made.sizes
    outcome.config = {"ranks": made.ranks, "sentences": s.sentences, "tokens": s.tokens,
                      "width": s.width, "heads": s.heads, "inner": s.inner,
                      "pieces": made.pieces, "weights": made.weights.name,
                      "sums": made.sums.name}
    return Report(outcome, lanes, each, window, statistics)


def run(options):
    """The layer on 8 packages."""
    return job(options, Job(ranks=8)).outcome
