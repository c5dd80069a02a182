"""How fast the co-simulation is while the whole package is busy, beside a yardstick."""
import numpy as np

from host.bench import gemm
from host.driver import Device
from host.outcome import Outcome
from host.transport import open_package, yardstick

ROUNDS = 20


def run(options):
    """Useful MACs a second on ``gemm``, divided by the yardstick's cycles a second.

    Both are timed in turn, the package being there, and the best of twenty rounds counts for each:
    a machine that is busy with something else for a while, such as after a build, delays both. Only
    the seconds in which the simulation runs count, and only those of the product itself.
    """
    job = gemm.Job()
    rng = np.random.default_rng(job.seed)
    x, w = (gemm.random_operand(rng, rows, job.k, job.form) for rows in (job.m, job.n))
    with open_package(options) as transport:
        device, sticks, runs = Device(transport), [], []
        for number in range(ROUNDS):
            options.step(number, ROUNDS, "yardstick, and product on the package")
            sticks.append(yardstick(repeats=1))
            runs.append(gemm.execute(device, job, x, w))
        build_seconds = transport.build_seconds
    best = min(runs, key=lambda r: r.seconds)
    rate, stick = job.m * job.n * job.k / best.seconds, max(sticks)
    options.step(ROUNDS, ROUNDS, "done")
    outcome = Outcome("simspeed", options.package)
    outcome.metrics = {"macs_per_yardstick_cycle": rate / stick, "mac_evals_per_second": rate,
                       "cycles_per_second": best.simulated / best.seconds,
                       "build_seconds": build_seconds, "yardstick_cycles_per_second": stick,
                       "slowest_yardstick": min(sticks),
                       "slowest_product": job.m * job.n * job.k / max(r.seconds for r in runs)}
    outcome.checks = {"bit_exact": all(np.array_equal(r.result.view(np.uint32),
                                                      gemm.golden(w, x)
                                                      .view(np.uint32)) for r in runs[:1])}
    outcome.config = {"m": job.m, "n": job.n, "k": job.k, "format": job.form.name,
                      "threads": options.threads, "processes": options.processes,
                      "rounds": ROUNDS}
    return outcome
