"""The four generations side by side: bandwidth by streaming, peaks by full arrays, and ratios."""
from dataclasses import replace

import numpy as np

from host.bench import gemm, stream_read
from host.driver import Device
from host.isa import Format
from host.outcome import Outcome
from host.transport import open_package

GENERATIONS = ("mtia300", "mtia400", "mtia450", "mtia500")
FORMATS = {"bf16": Format.BF16, "mx8": Format.E4M3, "mx4": Format.E2M1}
RATIOS = {      # metric: (what, generation, by what, of generation, published by R or S)
    "hbm_450_over_400": ("hbm", "mtia450", "hbm", "mtia400", 2),
    "hbm_500_over_450": ("hbm", "mtia500", "hbm", "mtia450", 1.5),
    "hbm_500_over_300": ("hbm", "mtia500", "hbm", "mtia300", 4.5),
    "mx4_450_over_400": ("mx4", "mtia450", "mx4", "mtia400", 1.75),
    "mx4_500_over_450": ("mx4", "mtia500", "mx4", "mtia450", 1.43),
    "compute_500_over_300": ("mx4", "mtia500", "mx8", "mtia300", 25)}


def measure(options, name):
    """Bandwidth [GB/s] and FLOPS [Tera] of one package, each measured in a run; bits compared."""
    found, exact = {}, True
    with open_package(replace(options, package=name), record=True) as transport:
        device = Device(transport)
        rate, same, losses = stream_read.measure(device)
        found["hbm"] = rate * device.configuration.core_megahertz / 1e3
        found["hbm_fraction"] = rate / len(device.dies) / device.hbm_pins
        found |= losses.metrics("")
        exact &= same
        for key, form in FORMATS.items():
            if not device.shape.macs(form):
                continue
            per_cycle, same = full_arrays(device, transport, form)
            found[key] = 2 * per_cycle * device.configuration.core_megahertz / 1e6
            exact &= same
    return found, exact


def full_arrays(device, transport, form):
    """MACs a cycle in the middle of a product that keeps the arrays full, and if it is exact."""
    tiles = len(device.pes) * len(device.dies)
    job = gemm.Job(m=480, n=16 * 4 * tiles, k=1024, form=form)
    rng = np.random.default_rng(job.seed)
    x, w = (gemm.random_operand(rng, rows, job.k, form) for rows in (job.m, job.n))
    done = gemm.execute(device, job, x, w)
    peak = device.shape.macs(form) * tiles
    work = job.m * job.n * job.k / peak
    beats = transport.dot_beats()[done.end - done.cycles:done.end]
    same = np.array_equal(done.result.view(np.uint32),
                          gemm.golden(w, x).view(np.uint32))
    return gemm.steady(beats, work) * peak, same


def run(options):
    """Measure every package and the ratios that are published; all within 2 per cent."""
    measured, exact = {}, True
    for number, name in enumerate(GENERATIONS):
        options.step(number, len(GENERATIONS), name)
        measured[name], same = measure(options, name)
        exact &= same
    options.step(len(GENERATIONS), len(GENERATIONS), "done")
    outcome = Outcome("generations", "all")
    units = {"hbm": "_gigabytes_per_second"} | dict.fromkeys(FORMATS, "_teraflops")
    for name, figures in measured.items():
        for what, value in figures.items():
            outcome.metrics[f"{name}_{what}{units.get(what, '')}"] = value
    outcome.checks = {"bit_exact": exact}
    for metric, (what, a, by, b, published) in RATIOS.items():
        ratio = measured[a][what] / measured[b][by]
        outcome.metrics[metric] = ratio
        outcome.checks[f"{metric}_within_2_percent"] = abs(ratio / published - 1) <= 0.02
    outcome.config = {"published": {metric: r[-1] for metric, r in RATIOS.items()}}
    return outcome
