"""All-reduce over packages: bus bandwidth when large, latency when small, what that is made of."""
import numpy as np

from cosim.golden import collectives as golden
from host.bench.ranks import LINK_BYTES, Summands, numbers, open_system, put, release, same
from host.collectives import ALGORITHMS, Group, Topology, choose, table
from host.isa import Format
from host.outcome import Outcome

RANKS = 8
SMALL_RANKS = (2, 8)
LARGE_BYTES = 1 << 21   # of each rail: start and end of the ring, 6,000 cycles, count little
FORM = Format.BF16


def together(group, handles):
    """Start what is prepared, and wait.

    Returns the cycles from the first doorbell to the last completion that the host sees, those
    that programs wait for each other's links included.
    """
    for device in group.devices:
        device.synchronize()
    clock = group.devices[0].transport
    start = clock.cycle
    for handle in handles:
        handle.start()
    for handle in handles:
        handle.wait()
    return clock.cycle - start


def alone(group, handle):
    """Start what is prepared, and wait; cycles of the longest program."""
    for device in group.devices:
        device.synchronize()
    return handle.start().wait()


def large(group, count, rng, **options):
    """All-reduce of ``count`` elements on each rail at once; cycles, and whether bits are right."""
    parts = Summands(group, FORM, count, rng)
    handles = group.all_reduce(parts.buffers, algorithm="ring", later=True, **options)
    cycles = together(group, handles)
    good = parts.summed("ring")
    parts.release()
    return cycles, good


def busbw_fraction(ranks, size, cycles, nics):
    """Bus bandwidth, as nccl-tests define it, to the payload bandwidth of the NICs of a package."""
    return 2 * (ranks - 1) / ranks * size / cycles / (LINK_BYTES * nics)


def small(group, rng, algorithm):
    """Cycles of an all-reduce of one element, the queue pairs being there, and its check."""
    die = group.system.rails[0].die
    for _ in range(2):      # the first makes the connections
        x = [numbers(rng, FORM, 1) for _ in group.ranks]
        buffers = [put(d, die, v) for d, v in zip(group.devices, x, strict=True)]
        cycles = alone(group, group.all_reduce(buffers, algorithm=algorithm, later=True))
        want = golden.all_reduce(x, algorithm)
        good = all(same(d, b, want) for d, b in zip(group.devices, buffers, strict=True))
        release(group.devices, buffers)
    return cycles, good


def message(group, rng, count):
    """Cycles of a send and its receive, of ``count`` elements from rank 0 to rank 1."""
    die, vector = group.system.rails[0].die, numbers(rng, FORM, count)
    buffers = [put(group.devices[r], die, vector) for r in range(2)]
    cycles = [alone(group, group.send(*buffers, 0, 1, later=True)) for _ in range(2)][-1]
    release(group.devices[:2], buffers)
    return cycles


def measure_small(system, outcome, rng, clock):
    """Latencies, and what they consist of: programs, messages, sums."""
    for ranks in SMALL_RANKS:
        group = Group(system, range(ranks))
        times = {}
        for algorithm in ALGORITHMS["all_reduce"]:
            times[algorithm], good = small(group, rng, algorithm)
            outcome.checks[f"bit_exact_small_{algorithm}_{ranks}"] = good
            outcome.metrics[f"latency_small_{algorithm}_{ranks}_cycles"] = times[algorithm]
        chosen = choose("all_reduce", 2, ranks)
        outcome.metrics[f"latency_small_us_{ranks}"] = times[chosen] / clock * 1e6
        barrier = alone(group, group.barrier(later=True))
        outcome.metrics[f"barrier_{ranks}_us"] = barrier / clock * 1e6
        outcome.checks[f"fastest_is_chosen_{ranks}"] = times[chosen] <= 1.1 * min(times.values())
    pair, single = Group(system, [0, 1]), Group(system, [0])
    die = system.rails[0].die
    source, target = (put(single.devices[0], die, numbers(rng, FORM, 1)) for _ in range(2))
    copies = single.all_reduce([source], [target], later=True)      # one entry, a copy
    program = alone(single, copies)
    release([single.devices[0]] * 2, [source, target])
    one = message(pair, rng, 1)
    outcome.metrics["latency_program_us"] = program / clock * 1e6
    outcome.metrics["latency_message_us"] = (one - program) / clock * 1e6
    many = 1 << 15
    beta = (message(pair, rng, many) - one) / (2 * many)
    outcome.metrics["alpha_cycles"], outcome.metrics["beta_cycles_per_byte"] = one - program, beta
    return Topology(alpha=float(one - program), beta=beta)


def run(options):
    """Measure a large all-reduce of 8 packages and small ones of 2 and 8."""
    outcome, rng = Outcome("allreduce", options.package), np.random.default_rng(0)
    with open_system(options, RANKS) as (cluster, system):
        nics = {port.number for rail in system.rails for port in rail.ports}
        options.step(0, 2, "small")
        topology = measure_small(system, outcome, rng, cluster.clock_hertz)
        options.step(1, 2, "large")
        count = LARGE_BYTES // 2
        group = Group(system)
        large(group, RANKS, rng)    # makes the connections
        cycles, good = large(group, count, rng)
    options.step(2, 2, "done")
    size = LARGE_BYTES * len(system.rails)
    fraction = busbw_fraction(RANKS, size, cycles, len(nics))
    outcome.metrics |= {"busbw_fraction": fraction, "large_cycles": cycles, "large_bytes": size}
    outcome.checks["bit_exact_large"] = good
    outcome.checks["busbw_fraction_at_least_0.94"] = fraction >= 0.94
    outcome.config = {"ranks": RANKS, "format": FORM.name, "nics": len(nics),
                      "rails": len(system.rails),
                      "model": table("all_reduce", RANKS, topology=topology)}
    return outcome
