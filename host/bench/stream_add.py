"""c = a + b on arrays in HBM, which is bound by memory alone."""
import numpy as np

from cosim.golden import simd
from cosim.golden.formats import Format as GoldenFormat
from host.bench.gemm import random_bf16
from host.driver import Device
from host.isa import Format, Region, offset_of
from host.kernels.stream import add
from host.losses import HbmCounts
from host.outcome import Outcome
from host.transport import open_package

ELEMENTS = 1 << 22      # a die: 24 MiB move, more than 20 refresh intervals of every package


def run(options, elements=ELEMENTS):
    """Measure the share of the HBM's pins that is used, and compare every element."""
    rng = np.random.default_rng(3)
    with open_package(options) as transport:
        device = Device(transport)
        dies, c = list(device.dies), device.configuration
        given = [[random_bf16(rng, elements) for _ in range(2)] for _ in dies]
        options.step(0, 2, "arrays into HBM")
        launches = []
        for die in dies:
            places = [device.alloc(die, 2 * elements, Region.HBM) for _ in range(3)]
            for at, data in zip(places, given[die], strict=False):
                transport.preload(die, offset_of(at), data)
            programs = add(*places, elements, pes=device.pes)
            launches.append((places[2], device.prepare(die, programs, stream=die % 4)))
        device.synchronize()
        options.step(1, 2, "sums on the package")
        before = HbmCounts.read(device)
        cycles = device.run_together(prepared for _, prepared in launches)
        losses, pins = HbmCounts.read(device).since(before), device.hbm_pins
        sums = [transport.peek(die, offset_of(at), 2 * elements).view(np.uint16)
                for die, (at, _) in enumerate(launches)]
    bf16 = GoldenFormat.BF16
    expected = [simd.simd(a[None], b[None], format0=bf16, format1=bf16,
                          operation=simd.Operation.ADD, destination=bf16)[0] for a, b in given]
    outcome = Outcome("stream_add", options.package)
    outcome.metrics = {
        "hbm_fraction": 3 * 2 * elements / cycles / pins, "cycles": cycles,
        "bytes_per_cycle_and_die": 6 * elements / cycles, "pins_bytes_per_cycle_and_die": pins,
        "gigabytes_per_second": 6 * elements * len(dies) / cycles * c.core_megahertz / 1e3,
        "elements_compared": elements * len(dies), **losses.metrics()}
    outcome.checks = {"bit_exact": all(np.array_equal(got, want) for got, want
                                       in zip(sums, expected, strict=True))}
    outcome.config = {"elements_of_a_die": elements, "format": Format.BF16.name,
                      "pes": len(device.pes) * len(dies), "shares_by_channel": dict(losses.rows())}
    return outcome
