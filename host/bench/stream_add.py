"""c = a + b on arrays in HBM, which is bound by memory alone."""
import numpy as np

from cosim.golden import simd
from cosim.golden.formats import Format as GoldenFormat
from host.bench.gemm import random_bf16
from host.driver import Device
from host.isa import LINE, Format, Region, offset_of
from host.kernels.stream import add, request_shape
from host.losses import Counts
from host.outcome import Outcome
from host.transport import open_package

ELEMENTS = 1 << 22      # a die: 24 MiB move, more than 20 refresh intervals of every package
STARTS = 4              # runs, each from another state of refreshes and of open rows
APART = 3               # accesses of the host more before each next one


def run(options, elements=ELEMENTS):
    """Measure the share of the HBM's pins that is used, and compare every element.

    Refreshes and what ran before make some starts better than others: figures are those of the
    worst, ``hbm_fraction_best`` that of the best.
    """
    rng = np.random.default_rng(3)
    with open_package(options) as transport:
        device = Device(transport)
        dies, c = list(device.dies), device.configuration
        given = [[random_bf16(rng, elements) for _ in range(2)] for _ in dies]
        options.step(0, 1 + STARTS, "arrays into HBM")
        programs, targets = [], []
        for die in dies:
            places = [device.alloc(die, 2 * elements, Region.HBM) for _ in range(3)]
            for at, data in zip(places, given[die], strict=False):
                transport.preload(die, offset_of(at), data)
            targets.append(places[2])
            programs.append(add(*places, elements, pes=device.pes))
        pins, runs, exact = device.hbm_pins, [], True
        bf16 = GoldenFormat.BF16
        expected = [simd.simd(a[None], b[None], format0=bf16, format1=bf16,
                              operation=simd.Operation.ADD, destination=bf16)[0] for a, b in given]
        with device.shaped(*request_shape(pins / LINE, len(device.pes))):
            for start in range(STARTS):
                options.step(1 + start, 1 + STARTS, "sums on the package")
                for die, at in zip(dies, targets, strict=True):
                    transport.preload(die, offset_of(at), np.zeros(elements, np.uint16))
                for _ in range(APART * start):
                    device.read(targets[0], LINE)
                launches = [device.prepare(die, programs[die], stream=die % 4) for die in dies]
                device.synchronize()
                before = Counts.read(device)
                cycles = device.run_together(launches)
                runs.append((cycles, Counts.read(device).since(before)))
                exact &= all(np.array_equal(
                    transport.peek(die, offset_of(at), 2 * elements).view(np.uint16), want)
                    for die, at, want in zip(dies, targets, expected, strict=True))
        cycles, losses = max(runs, key=lambda run: run[0])
    outcome = Outcome("stream_add", options.package)
    outcome.metrics = {
        "hbm_fraction": 3 * 2 * elements / cycles / pins,
        "hbm_fraction_best": 3 * 2 * elements / min(run[0] for run in runs) / pins,
        "cycles": cycles,
        "bytes_per_cycle_and_die": 6 * elements / cycles, "pins_bytes_per_cycle_and_die": pins,
        "gigabytes_per_second": 6 * elements * len(dies) / cycles * c.core_megahertz / 1e3,
        "elements_compared": STARTS * elements * len(dies), **losses.metrics()}
    outcome.checks = {"bit_exact": exact}
    outcome.config = {"elements_of_a_die": elements, "format": Format.BF16.name,
                      "pes": len(device.pes) * len(dies), "starts": STARTS,
                      "shares_by_channel": dict(losses.hbm.rows())}
    return outcome
