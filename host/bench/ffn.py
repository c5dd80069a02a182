"""A feed-forward network with operands in SRAM, on all PEs of the package and on one PE."""
from dataclasses import dataclass

import numpy as np

from cosim.golden.ffn import Kind
from cosim.golden.ffn import ffn as golden
from host.bench.gemm import random_operand, rows_of
from host.driver import Device
from host.isa import Format
from host.kernels.ffn import Weights, ffn
from host.kernels.matmul import split
from host.outcome import Outcome
from host.transport import open_package


@dataclass(frozen=True)
class Job:
    """Y = (silu(X gate^T) * (X up^T)) down^T with random operands."""

    tokens: int = 128
    width: int = 512
    inner: int = 1536
    form: Format = Format.E2M1          # of the weights
    activations: Format = Format.E4M3
    kind: Kind = Kind.SWIGLU
    seed: int = 1

    @property
    def macs(self):
        return (3 if self.kind.gated else 2) * self.tokens * self.width * self.inner


def operands(job):
    """Return X, gate, up, down; scales such that nothing overflows."""
    rng = np.random.default_rng(job.seed)
    shapes = [(job.inner, job.width)] * 2 + [(job.width, job.inner)]
    return (random_operand(rng, job.tokens, job.width, job.activations),
            *(random_operand(rng, *shape, job.form) for shape in shapes))


def execute(device, job, x, gate, up, down, places):
    """Run the network; ``places``: PEs by die. Each die takes a run of tokens.

    Returns the result and the cycles from the fetch of the submission entries to the completion of
    the last.
    """
    prepared, parts, freed = [], [], []
    spans = split(job.tokens, len(places))
    for (die, pes), (first, last) in zip(places.items(), spans, strict=True):
        put = [device.put(t, die, stream=die) for t in (rows_of(x, first, last), gate, up, down)]
        inner = device.empty(die, last - first, job.inner, job.activations)
        y = device.empty(die, last - first, job.width, Format.FP32)
        programs = ffn(put[0], Weights(up=put[2], down=put[3], gate=put[1]), inner, y,
                       kind=job.kind, pes=pes)
        prepared.append(device.prepare(die, programs, stream=die))
        parts.append((die, y))
        freed += [*put, inner, y]
    device.synchronize()
    cycles = device.run_together(prepared)
    result = np.concatenate([device.get(y, stream=die) for die, y in parts])
    for tensor in freed:
        device.release(tensor)
    return result, cycles


def run(options, job=None):
    """Measure utilisation twice, and compare every element with the golden model."""
    job = job or Job()
    given = operands(job)
    with open_package(options) as transport:
        device = Device(transport)
        pes = device.pes_far_first
        peak = device.shape.macs(Format.E4M3)   # MX4 weights decode into the cells of MX8
        options.step(0, 3, "network on the package")
        whole, cycles = execute(device, job, *given, dict.fromkeys(device.dies, pes))
        options.step(1, 3, "network on one PE")
        alone, cycles_pe = execute(device, job, *given, {0: [0]})
        count = len(pes) * len(device.dies)
    options.step(2, 3, "golden model")
    expected = golden(*(g.operand for g in given), job.kind, form=job.activations)
    options.step(3, 3, "done")
    outcome = Outcome("ffn", options.package)
    outcome.metrics = {
        "utilization": job.macs / (peak * count * cycles),
        "utilization_pe": job.macs / (peak * cycles_pe), "cycles": cycles, "cycles_pe": cycles_pe,
        "elements_compared": 2 * expected.size}
    outcome.checks = {"bit_exact": all(np.array_equal(y.view(np.uint32), expected)
                                       for y in (whole, alone))}
    outcome.config = {"tokens": job.tokens, "width": job.width, "inner": job.inner,
                      "kind": job.kind.name, "weights": job.form.name,
                      "activations": job.activations.name, "pes": count,
                      "peak_macs_per_cycle_and_pe": peak}
    return outcome
