"""How fast the co-simulation is while the whole package is busy, beside a yardstick."""
import numpy as np

from host.bench import gemm
from host.driver import Device
from host.outcome import Outcome
from host.transport import open_package, yardstick


def run(options):
    """Useful MACs a second on ``gemm``, divided by the yardstick's cycles a second.

    The yardstick is timed before and after in the same run; its mean counts. Only the seconds in
    which the simulation runs count, and only those of the product itself.
    """
    job = gemm.Job()
    rng = np.random.default_rng(job.seed)
    x, w = (gemm.random_operand(rng, rows, job.k, job.form) for rows in (job.m, job.n))
    options.step(0, 3, "yardstick")
    before = yardstick()
    with open_package(options) as transport:
        device = Device(transport)
        options.step(1, 3, "product on the package")
        runs = [gemm.execute(device, job, x, w) for _ in range(5)]
        build_seconds = transport.build_seconds
    options.step(2, 3, "yardstick")
    after = yardstick()
    seconds = min(r.seconds for r in runs)
    cycles = next(r.simulated for r in runs if r.seconds == seconds)
    rate = job.m * job.n * job.k / seconds
    mean = (before + after) / 2
    options.step(3, 3, "done")
    outcome = Outcome("simspeed", options.package)
    outcome.metrics = {"macs_per_yardstick_cycle": rate / mean, "mac_evals_per_second": rate,
                       "cycles_per_second": cycles / seconds, "build_seconds": build_seconds,
                       "yardstick_cycles_per_second": mean,
                       "yardstick_before": before, "yardstick_after": after}
    outcome.checks = {"bit_exact": all(np.array_equal(r.result.view(np.uint32),
                                                      gemm.golden(w, x)
                                                      .view(np.uint32)) for r in runs[:1])}
    outcome.config = {"m": job.m, "n": job.n, "k": job.k, "format": job.form.name,
                      "threads": options.threads, "processes": options.processes,
                      "repetitions": len(runs)}
    return outcome
