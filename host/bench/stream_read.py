"""How fast a package reads its HBM: the maximum of every run of 512 numbers."""
import numpy as np

from host.isa import Region
from host.kernels.stream import CHUNK, maxima

CHUNKS = 480        # a die: 3.75 MiB


def measure(device, chunks=CHUNKS):
    """Bytes a cycle that the package reads on all dies, and whether every maximum is right."""
    rng, count, launches = np.random.default_rng(4), chunks * CHUNK * 16, []
    transport = device.transport
    for die in device.dies:
        values = rng.standard_normal(count).astype("<f4")
        at, out = device.alloc(die, values.nbytes, Region.HBM), device.alloc(die, chunks * 64)
        transport.preload(die, at & (1 << 40) - 1, values)
        programs = maxima(at, out, count, pes=device.pes)
        launches.append((values, at, out, device.prepare(die, programs, stream=die % 4)))
    device.synchronize()
    with device.batch():
        events = [device.start(launch[-1], stream=die % 4) for die, launch in enumerate(launches)]
    cycles = max(event.wait().cycles for event in events)
    exact = True
    for die, (values, at, out, _) in enumerate(launches):
        got = device.read(out, chunks * 64, stream=die % 4).view("<f4").reshape(-1, 16)[:, :4]
        exact &= np.array_equal(got.reshape(-1), values.reshape(-1, 512).max(axis=1))
        device.free(at)
        device.free(out)
    return 4 * count * len(launches) / cycles, exact
