"""What an all-reduce costs a matrix product that runs beside it on every package."""
import numpy as np

from host.bench.allreduce import FORM
from host.bench.ranks import numbers, open_system, put, release
from host.collectives import Group
from host.isa import Format, Region
from host.kernels.matmul import matmul
from host.outcome import Outcome
from host.tensor import pack

RANKS = 2
SIDE, DEPTH = 256, 2048     # of the product's matrices
REDUCED_BYTES = 1 << 18
STREAMS = 0, 1          # of the product and of the all-reduce
LEAST_SHARE = 0.5       # of the product's time in which the all-reduce must have run


def operands(device, die, rng):
    """Two MX8 matrices on a die and room for their product."""
    a, b = (device.put(pack(rng.normal(size=(SIDE, DEPTH)).astype(np.float32), Format.E4M3), die,
                       Region.SRAM) for _ in range(2))
    return a, b, device.empty(die, SIDE, SIDE, Format.FP32, Region.SRAM)


def prepare(devices, work, die):
    """The programs of the product on every rank, in its memory."""
    made = [device.prepare(die, matmul(*parts, pes=device.pes, die=device.shape),
                           stream=STREAMS[0])
            for device, parts in zip(devices, work, strict=True)]
    for device in devices:
        device.synchronize()
    return made


def start(devices, made):
    return [device.start(each, stream=STREAMS[0])
            for device, each in zip(devices, made, strict=True)]


def measure(system, rng, reduced=REDUCED_BYTES):
    """Cycles of the products alone and beside an all-reduce, and of that."""
    die, group = system.rails[0].die, Group(system, range(RANKS), stream=STREAMS[1])
    work = [operands(device, die, rng) for device in group.devices]
    buffers = [put(d, die, numbers(rng, FORM, reduced // 2)) for d in group.devices]
    group.all_reduce(buffers, algorithm="ring").wait()      # makes the connections
    first, second = (prepare(group.devices, work, die) for _ in range(2))
    alone = [event.wait().cycles for event in start(group.devices, first)]
    handle = group.all_reduce(buffers, algorithm="ring")
    events = start(group.devices, second)
    reduce = handle.wait()
    beside = [event.wait().cycles for event in events]
    release(group.devices, buffers)
    return alone, beside, reduce


def run(options):
    """Measure products of two packages without and with an all-reduce of their NICs."""
    with open_system(options, RANKS) as (_, system):
        options.step(0, 1, "products alone and beside an all-reduce")
        alone, beside, reduce = measure(system, np.random.default_rng(0))
    options.step(1, 1, "done")
    loss = max(b / a - 1 for a, b in zip(alone, beside, strict=True))
    outcome = Outcome("overlap", options.package)
    outcome.metrics = {"gemm_loss": loss, "gemm_cycles": max(alone),
                       "gemm_beside_cycles": max(beside), "allreduce_cycles": reduce}
    outcome.checks = {"gemm_loss_at_most_0.005": loss <= 0.005,
                      "beside_each_other": reduce >= LEAST_SHARE * max(alone)}
    outcome.config = {"ranks": RANKS, "side": SIDE, "reduced_bytes": REDUCED_BYTES}
    return outcome
