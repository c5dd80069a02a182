"""How fast a package reads its HBM: the maximum of every run of 512 numbers."""
import numpy as np

from host.driver import CHANNEL_BYTES
from host.isa import Region
from host.kernels.stream import ROW, ROWS, maxima, maxima_places
from host.losses import HbmCounts

CYCLES = 120000      # about, of a run: starting and ending costs less than a hundredth of them


def pins(configuration):
    """Bytes that the pins of a die's HBM carry in a cycle of its other clock."""
    c = configuration
    return c.hbm_channels * CHANNEL_BYTES * c.hbm_megahertz / c.core_megahertz


def measure(device, cycles=CYCLES):
    """Bytes a cycle that the package reads on all dies, if every maximum is right, and losses."""
    pes = len(device.pes)
    lines = ROW * ROWS * pes * max(1, round(cycles * pins(device.configuration)
                                            / (64 * ROW * ROWS * pes)))
    rng, count, launches = np.random.default_rng(4), lines * 16, []
    transport = device.transport
    for die in device.dies:
        values = rng.standard_normal(count).astype("<f4")
        at, out = device.alloc(die, values.nbytes, Region.HBM), device.alloc(die, lines // ROW * 4)
        transport.preload(die, at & (1 << 40) - 1, values)
        programs = maxima(at, out, count, pes=device.pes)
        launches.append((values, at, out, device.prepare(die, programs, stream=die % 4)))
    device.synchronize()
    before = HbmCounts.read(device)
    with device.batch():
        events = [device.start(launch[-1], stream=die % 4) for die, launch in enumerate(launches)]
    cycles = max(event.wait().cycles for event in events)
    losses, exact = HbmCounts.read(device).since(before), True
    order = maxima_places(count, pes)
    for die, (values, at, out, _) in enumerate(launches):
        got = device.read(out, lines // ROW * 4, stream=die % 4).view("<f4")
        wanted = values.reshape(-1, 512).max(axis=1)[order]
        exact &= np.array_equal(got.reshape(-1), wanted)
        device.free(at)
        device.free(out)
    return 4 * count * len(launches) / cycles, exact, losses
