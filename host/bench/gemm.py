"""A matrix product with operands in SRAM, on all PEs of the package."""
from dataclasses import dataclass

import numpy as np

from cosim.golden import dot
from host.driver import Device
from host.isa import Format, Region
from host.kernels.dots import k_chunks
from host.kernels.matmul import lanes, matmul, split, upper
from host.outcome import Outcome
from host.tensor import Packed, pack_codes, pack_scales
from host.transport import open_package


@dataclass(frozen=True)
class Job:
    """Y[m, n] = X[m, k] W[n, k]^T with random operands of one format."""

    m: int = 512
    n: int = 512
    k: int = 2048
    form: Format = Format.E2M1
    seed: int = 1


def random_operand(rng, rows, columns, form):
    """Random codes without NaN or infinity, and scales near 1; BF16 near 1, of both signs."""
    if form == Format.BF16:
        return Packed(rows, columns, form, pack_codes(random_bf16(rng, (rows, columns)), form),
                      None)
    codes = rng.integers(0, 1 << form.bits, (rows, columns), dtype=np.uint16)
    if form == Format.E4M3:
        codes &= 0xf7
    elif form == Format.E5M2:
        codes &= 0xbf
    scales = rng.integers(120, 134, (rows, columns // 32), dtype=np.uint8)
    return Packed(rows, columns, form, pack_codes(codes, form), pack_scales(scales, columns))


def random_bf16(rng, shape):
    """Random BF16 patterns near 1, of both signs."""
    sign, exponent, fraction = (rng.integers(low, high, shape, dtype=np.uint16)
                                for low, high in ((0, 2), (120, 134), (0, 128)))
    return sign << 15 | exponent << 7 | fraction


def golden(w, x):
    """Product of two packed tensors.

    FP32 sums of the chunks of K that a buffer of operand A holds, added in order.
    """
    total = None
    for chunk in k_chunks(x.columns, w.format, x.format):
        parts = []
        for packed in (w, x):
            whole = packed.operand
            stop = chunk.stop if chunk.stop < packed.columns else whole.codes.shape[1]
            codes = whole.codes[:, chunk.start:stop]
            block = 32 if w.format.is_mx and x.format.is_mx else 16
            padded = np.zeros((len(codes), -(-codes.shape[1] // block) * block), codes.dtype)
            padded[:, :codes.shape[1]] = codes
            scales = None
            if whole.scales is not None:
                scales = whole.scales[:, chunk.start // 32:upper(stop, 32)]
            parts.append((whole.format, padded, scales))
        width = min(codes.shape[1] for _, codes, _ in parts)
        cut = [dot.Operand(form, codes[:, :width],
                           None if scales is None else scales[:, :upper(width, 32)])
               for form, codes, scales in parts]
        sums = dot.matmul(*cut)
        total = sums if total is None else total + sums
    return total


def rows_of(packed, first, last):
    scales = None if packed.scales is None else packed.scales[first:last]
    return Packed(last - first, packed.columns, packed.format, packed.elements[first:last], scales)


@dataclass
class Run:
    """A product that ran: its result, cycles from fetch to completion, when it ended.

    ``seconds`` and ``simulated`` are the wall-clock time of the simulation of the product alone,
    and its cycles (up to the interrupt, so a few more than ``cycles``).
    """

    result: np.ndarray
    cycles: int
    end: int
    seconds: float
    simulated: int


def execute(device, job, x, w, region=Region.SRAM):
    """Run the product on all dies: each takes a run of columns of Y; all lies in ``region``."""
    dies = list(device.dies)
    spans = [(a * 16, min(b * 16, job.n)) for a, b in split(upper(job.n, 16), len(dies))]
    prepared, parts, freed = [], [], []
    for die, (first, last) in zip(dies, spans, strict=True):
        tx = device.put(x, die, region, stream=die)
        tw = device.put(rows_of(w, first, last), die, region, stream=die)
        ty = device.empty(die, job.m, last - first, Format.FP32, region)
        programs = matmul(tx, tw, ty, pes=device.pes_far_first, die=device.shape)
        prepared.append(device.prepare(die, programs, stream=die))
        parts.append(ty)
        freed += [tx, tw, ty]
    device.synchronize()
    before = device.transport.statistics()
    cycles = device.run_together(prepared)
    end, after = device.transport.cycle, device.transport.statistics()
    result = np.concatenate([device.get(t, stream=d) for d, t in zip(dies, parts, strict=True)], 1)
    for tensor in freed:
        device.release(tensor)
    return Run(result, cycles, end, after["seconds"] - before["seconds"],
               after["cycles"] - before["cycles"])


def steady(beats, cycles_of_work):
    """Useful work in the middle 80 % of an interval, over its length.

    ``beats``: beats of all dot-product engines in each cycle of the interval;
    ``cycles_of_work``: useful MACs over peak MACs a cycle, in all.
    """
    a, b = len(beats) // 10, len(beats) - len(beats) // 10
    return beats[a:b].sum() / beats.sum() * cycles_of_work / (b - a)


def run(options, job=None, region=Region.SRAM):
    """Measure utilisation and compare every element with the golden model."""
    job = job or Job()
    rng = np.random.default_rng(job.seed)
    x, w = (random_operand(rng, rows, job.k, job.form) for rows in (job.m, job.n))
    with open_package(options, record=True) as transport:
        device = Device(transport)
        options.step(0, 2, "product on the package")
        done = execute(device, job, x, w, region)
        options.step(1, 2, "golden model")
        expected = golden(w, x)
        pes = len(device.pes) * len(device.dies)
        peak = device.shape.macs(job.form) * pes
        work = job.m * job.n * job.k / peak
        beats = transport.dot_beats()
        statistics = transport.statistics()
    equal = done.result.view(np.uint32) == expected.view(np.uint32)
    options.step(2, 2, "done")
    outcome = Outcome("gemm", options.package)
    outcome.metrics = {
        "utilization_steady": steady(beats[done.end - done.cycles:done.end], work),
        "utilization_end_to_end": work / done.cycles,
        "cycles": done.cycles, "ideal_cycles": work, "elements_compared": equal.size,
        "simulated_khz": statistics["cycles"] / statistics["seconds"] / 1e3}
    outcome.checks = {"bit_exact": bool(equal.all())}
    outcome.config = {"m": job.m, "n": job.n, "k": job.k, "format": job.form.name, "pes": pes,
                      "peak_macs_per_cycle": peak,
                      "columns_at_once": lanes(job.form, job.form, device.shape)}
    return outcome

