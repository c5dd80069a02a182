"""What an all-reduce costs a matrix product that runs beside it on every package."""
import numpy as np

from host.bench import gemm
from host.bench.allreduce import FORM
from host.bench.ranks import Summands, open_system
from host.collectives import Group
from host.isa import Format, Region
from host.kernels.matmul import matmul
from host.outcome import Outcome

RANKS = 2
ROWS, COLUMNS, DEPTH = 512, 576, 2048   # of the product, whose operands are MX8
REDUCED_BYTES = 11 << 18        # so many that the all-reduce lasts as long as the product
STREAMS = 0, 1          # of the product and of the all-reduce
LEAST_SHARE = 0.9       # of the product's time in which the all-reduce must have run


class Product:
    """A product on the die of a rail, the same on each of some packages."""

    def __init__(self, devices, die, rng):
        self.devices, self.die = devices, die
        x, w = (gemm.random_operand(rng, rows, DEPTH, Format.E4M3) for rows in (ROWS, COLUMNS))
        self.expected = gemm.golden(w, x).view(np.uint32)
        self.work = [(device.put(x, die), device.put(w, die),
                      device.empty(die, ROWS, COLUMNS, Format.FP32, Region.SRAM))
                     for device in devices]

    def prepare(self, *, together):
        """Programs in the memory of every rank; ``together``: PEs read together what they share."""
        made = []
        for device, (x, w, y) in zip(self.devices, self.work, strict=True):
            c = device.configuration
            programs = matmul(x, w, y, pes=device.pes, die=device.shape,
                              grid=(c.rows, c.columns) if together else None)
            made.append(device.prepare(self.die, programs, stream=STREAMS[0]))
        for device in self.devices:
            device.synchronize()
        return made

    def start(self, made):
        return [device.start(each, stream=STREAMS[0])
                for device, each in zip(self.devices, made, strict=True)]

    def right(self):
        """Whether each rank has the result; it is overwritten."""
        good = True
        for device, (*_, y) in zip(self.devices, self.work, strict=True):
            good &= np.array_equal(device.get(y).view(np.uint32), self.expected)
            device.write(y.address, np.zeros(y.element_bytes, np.uint8)).wait()
        return good


def beside(product, group, rng, *, reduce_first, together):
    """Cycles of the products and of an all-reduce beside them, and whether all bits are right."""
    parts = Summands(group, FORM, REDUCED_BYTES // 2, rng, rails=1)
    made = product.prepare(together=together)
    if reduce_first:
        (handle,), events = group.all_reduce(parts.buffers, algorithm="ring"), product.start(made)
    else:
        events, (handle,) = product.start(made), group.all_reduce(parts.buffers, algorithm="ring")
    cycles = [event.wait().cycles for event in events]
    reduced = handle.wait()
    good = parts.summed("ring")
    parts.release()
    return cycles, reduced, good and product.right()


def run(options):
    """Measure products of two packages without and with an all-reduce of their NICs.

    ``gemm_loss``: of the slowest product, of two runs: the all-reduce is launched before the
    products and after them. ``gemm_loss_reading_alone``: the same of a product whose PEs do not
    read together what they share, so that it asks the SRAM for more than twice the lines.
    """
    rng = np.random.default_rng(0)
    outcome = Outcome("overlap", options.package)
    with open_system(options, RANKS) as (_, system):
        group = Group(system, range(RANKS), stream=STREAMS[1])
        product = Product(group.devices, system.rails[0].die, rng)
        steps, good, shares = 6, True, []
        for n, (name, together) in enumerate((("", True), ("_reading_alone", False))):
            options.step(3 * n, steps, f"products alone{name.replace('_', ' ')}")
            alone = [event.wait().cycles for event in product.start(
                product.prepare(together=together))]
            good &= product.right()
            losses = []
            for first in (True, False):
                options.step(3 * n + 1 + (not first), steps, "beside an all-reduce")
                cycles, reduced, right = beside(product, group, rng, reduce_first=first,
                                                together=together)
                losses.append(max(b / a - 1 for a, b in zip(alone, cycles, strict=True)))
                shares.append(reduced / max(cycles))
                good &= right
            outcome.metrics |= {f"gemm_loss{name}": max(losses), f"gemm_cycles{name}": max(alone),
                                f"allreduce_cycles{name}": reduced}
            peak = len(group.devices[0].pes) * group.devices[0].shape.macs(Format.E4M3)
            outcome.metrics[f"gemm_utilization{name}"] = (
                ROWS * COLUMNS * DEPTH / peak / max(alone))
    options.step(steps, steps, "done")
    outcome.checks = {"bit_exact": bool(good),
                      "gemm_loss_at_most_0.005": outcome.metrics["gemm_loss"] <= 0.005,
                      "beside_each_other": min(shares) >= LEAST_SHARE}
    outcome.config = {"ranks": RANKS, "m": ROWS, "n": COLUMNS, "k": DEPTH,
                      "format": Format.E4M3.name, "reduced_bytes": REDUCED_BYTES}
    return outcome
