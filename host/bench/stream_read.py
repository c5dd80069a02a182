"""How fast a package reads its HBM: the maximum of every run of 512 numbers."""
import numpy as np

from host.isa import Region, offset_of
from host.kernels.stream import SPAN_LINES, SPANS, maxima, maxima_places
from host.losses import HbmCounts

CYCLES = 120000      # about, of a run: starting and ending costs less than a hundredth of them


def measure(device, cycles=CYCLES):
    """Bytes a cycle that the package reads on all dies, if every maximum is right, and losses."""
    pes = len(device.pes)
    lines = SPAN_LINES * SPANS * pes * max(1, round(cycles * device.hbm_pins
                                            / (64 * SPAN_LINES * SPANS * pes)))
    rng, count, launches = np.random.default_rng(4), lines * 16, []
    transport = device.transport
    for die in device.dies:
        values = rng.standard_normal(count).astype("<f4")
        at = device.alloc(die, values.nbytes, Region.HBM)
        out = device.alloc(die, lines // SPAN_LINES * 4)
        transport.preload(die, offset_of(at), values)
        programs = maxima(at, out, count, pes=device.pes)
        launches.append((values, at, out, device.prepare(die, programs, stream=die % 4)))
    device.synchronize()
    before = HbmCounts.read(device)
    cycles = device.run_together(launch[-1] for launch in launches)
    losses, exact = HbmCounts.read(device).since(before), True
    order = maxima_places(count, pes)
    for die, (values, at, out, _) in enumerate(launches):
        got = device.read(out, lines // SPAN_LINES * 4, stream=die % 4).view("<f4")
        wanted = values.reshape(-1, 512).max(axis=1)[order]
        exact &= np.array_equal(got.reshape(-1), wanted)
        device.free(at)
        device.free(out)
    return 4 * count * len(launches) / cycles, exact, losses
