"""Every collective on several numbers of ranks, with odd sizes, bit for bit."""
import numpy as np

from cosim.golden import collectives as golden
from host.bench.ranks import numbers, open_system, put, release, same
from host.collectives import ALGORITHMS, Group
from host.isa import Format
from host.outcome import Outcome

RANKS = (2, 3, 5, 8)
SIZES = {Format.BF16: (1, 37, 1001), Format.FP32: (1, 259), Format.FP16: (3,),
         Format.E4M3: (32, 2048 + 96), Format.E5M2: (64,)}     # elements of a rank
SKIPPED = ("send", "receive", "barrier", "all_to_all_v")        # have cases of their own below


def wanted(kind, algorithm, x, root):
    """Vectors that the ranks have in the end."""
    match kind:
        case "all_reduce":
            return [golden.all_reduce(x, algorithm)] * len(x)
        case "reduce_scatter":
            return golden.reduce_scatter(x, algorithm)
        case "all_gather":
            return [golden.join(x)] * len(x)
        case "broadcast":
            return [x[root]] * len(x)
        case "reduce":
            return [golden.reduce(x, algorithm, root) if r == root else None
                    for r in range(len(x))]
    return golden.all_to_all(x)


def exercise(group, kind, algorithm, form, count, rng, in_place=False):
    """Run a collective; elements compared and cycles, or None for the elements if a bit differs."""
    n, root, devices = len(group), len(group) - 1, group.devices
    die = group.system.rails[0].die
    whole = count * n if kind in ("reduce_scatter", "all_to_all") else count
    x = [numbers(rng, form, whole) for _ in range(n)]
    want = wanted(kind, algorithm, x, root)
    extra = {"root": root} if kind in ("broadcast", "reduce") else {}
    sources = [put(device, die, vector) for device, vector in zip(devices, x, strict=True)]
    if in_place or kind == "broadcast":
        targets = sources
        handle = getattr(group, kind)(sources, algorithm=algorithm, **extra)
    else:
        size = next(len(v) for v in want if v is not None)
        targets = [put(device, die, x[0], size if size != len(x[0]) else None)
                   for device in devices]
        handle = getattr(group, kind)(sources, targets, algorithm=algorithm, **extra)
    cycles = handle.wait()
    good = all(same(device, target, vector) for device, target, vector in zip(
        devices, targets, want, strict=True) if vector is not None)
    release(devices, sources)
    if targets is not sources:
        release(devices, targets)
    return (sum(len(v) for v in want if v is not None) if good else None), cycles


def exercise_runs(group, rng):
    """An all_to_all_v of runs of any length, some empty; elements compared, or None."""
    n, devices, die = len(group), group.devices, group.system.rails[0].die
    counts = rng.integers(0, 50, (n, n)) * (rng.random((n, n)) < 0.7)
    sent, received = ([[(sum(row[:k]), int(row[k])) for k in range(n)]
                       for row in table.tolist()] for table in (counts, counts.T))
    x = [numbers(rng, Format.BF16, max(sum(row), 1)) for row in counts.tolist()]
    sources = [put(d, die, v) for d, v in zip(devices, x, strict=True)]
    targets = [put(d, die, numbers(rng, Format.BF16, max(sum(row), 1)))
               for d, row in zip(devices, counts.T.tolist(), strict=True)]
    group.all_to_all_v(sources, targets, sent, received).wait()
    good = True
    for r, (device, target) in enumerate(zip(devices, targets, strict=True)):
        parts = [x[k].codes[sent[k][r][0]:][:sent[k][r][1]] for k in range(n)]
        codes = np.concatenate(parts)
        good &= np.array_equal(device.read(target.address, 2 * len(codes)).view("<u2"), codes)
    release(devices, sources)
    release(devices, targets)
    return int(counts.sum()) if good else None


def measure(system, ranks, outcome, rng):
    """All kinds and algorithms on the first ``ranks`` of a system; adds to an outcome."""
    group = Group(system, range(ranks))
    for kind in (k for k in ALGORITHMS if k not in SKIPPED):
        compared, slowest, good = 0, 0, True
        for algorithm in ALGORITHMS[kind]:
            for number, (form, count) in enumerate((f, c) for f, sizes in SIZES.items()
                                                   for c in sizes):
                in_place = kind in ("all_reduce", "reduce") and number % 2 == 1
                found, cycles = exercise(group, kind, algorithm, form, count, rng, in_place)
                good, slowest = good and found is not None, max(slowest, cycles)
                compared += found or 0
        outcome.checks[f"bit_exact_{kind}_{ranks}"] = good
        outcome.metrics[f"elements_{kind}_{ranks}"] = compared
        outcome.metrics[f"longest_{kind}_{ranks}_cycles"] = slowest
    found = exercise_runs(group, rng)
    outcome.checks[f"bit_exact_all_to_all_v_{ranks}"] = found is not None
    outcome.metrics[f"elements_all_to_all_v_{ranks}"] = found or 0
    outcome.metrics[f"barrier_{ranks}_cycles"] = group.barrier().wait()


def run(options):
    """Run every collective on 2, 3, 5 and 8 packages and compare every element."""
    outcome = Outcome("collectives", options.package)
    with open_system(options, max(RANKS)) as (_, system):
        for at, ranks in enumerate(RANKS):
            options.step(at, len(RANKS), f"{ranks} ranks")
            measure(system, ranks, outcome, np.random.default_rng(ranks))
    options.step(len(RANKS), len(RANKS), "done")
    outcome.checks["bit_exact"] = all(outcome.checks.values())
    outcome.config = {"ranks": list(RANKS),
                      "sizes": {form.name: list(sizes) for form, sizes in SIZES.items()}}
    return outcome
