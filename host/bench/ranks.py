"""What the measurements of several packages share: systems, buffers, what must come out."""
from contextlib import contextmanager

import numpy as np

from cosim.fabric import Fabric
from cosim.golden import collectives as golden
from cosim.golden.formats import SPECS, pack
from cosim.golden.formats import Format as NumberFormat
from host.collectives import Buffer, System, rails_of
from host.driver import Device
from host.isa import Format, Region, ceil
from host.transport import open_cluster

FRAME_BYTES = 4096 + 64         # of payload with header and checksum
LINK_BYTES = 16 * 4096 / FRAME_BYTES    # of payload, one way, of a NIC in a cycle


@contextmanager
def open_system(options, ranks, fabric=None, *, record=False):
    """``ranks`` packages with their drivers; gives the cluster and the system.

    ``record`` keeps what units did.
    """
    with open_cluster(options, ranks, fabric or Fabric(), record=record) as (cluster, transports):
        package = cluster.packages[0]
        yield cluster, System([Device(t) for t in transports], rails_of(package),
                              queue_pairs=package.network.qps)


def numbers(rng, form, count):
    """Random numbers of very different sizes, as the golden models have them."""
    form = NumberFormat(form)
    if SPECS[form].block:
        codes = rng.integers(0, 256, count).astype(np.uint8)
        codes[(codes & 0x7F) >= 0x7B] = 0x33    # no infinities, no NaN
        return golden.Vector(form, codes, rng.integers(110, 140, count // 32).astype(np.uint8))
    bits = (rng.normal(size=count) * 2.0 ** rng.integers(-6, 7, count)).astype(np.float32)
    codes = {NumberFormat.FP32: bits.view(np.uint32),
             NumberFormat.BF16: (bits.view(np.uint32) >> 16).astype(np.uint16),
             NumberFormat.FP16: bits.astype(np.float16).view(np.uint16)}[form]
    return golden.Vector(form, codes)


def put(device, die, vector, count=None):
    """A buffer with a vector in it, or with room for ``count`` elements, and its scales above."""
    form, count = Format(vector.format), len(vector) if count is None else count
    size, scale_bytes = count * form.bits // 8, count // 32 * form.is_mx
    at = device.alloc(die, ceil(size, 64) + scale_bytes, Region.SRAM)
    scales = at + ceil(size, 64) if form.is_mx else None
    if count == len(vector):
        device.write(at, pack(vector.format, vector.codes))
        if form.is_mx:
            device.write(scales, vector.scales)
    return Buffer(at, count, form, scales)


def same(device, buffer, want):
    """Whether a buffer starts with a vector, bit for bit."""
    codes = pack(want.format, want.codes)
    if not np.array_equal(device.read(buffer.address, len(codes)), codes):
        return False
    return want.scales is None or np.array_equal(device.read(buffer.scales, len(want.scales)),
                                                 want.scales)


def release(devices, buffers):
    for device, buffer in zip(devices, buffers, strict=True):
        device.free(buffer.address)


class Summands:
    """Random vectors of ranks, one on each rail, in buffers that an all-reduce sums in place."""

    def __init__(self, group, form, count, rng, rails=None):
        self.group = group
        dies = [rail.die for rail in group.system.rails][:rails]
        self.vectors = [[numbers(rng, form, count) for _ in group.ranks] for _ in dies]
        self.buffers = [tuple(put(device, die, self.vectors[k][r]) for k, die in enumerate(dies))
                        for r, device in enumerate(group.devices)]

    def summed(self, algorithm):
        """Whether every rank has the sums, bit for bit."""
        wants = [golden.all_reduce(vectors, algorithm) for vectors in self.vectors]
        return all(same(device, buffer, want)
                   for device, own in zip(self.group.devices, self.buffers, strict=True)
                   for buffer, want in zip(own, wants, strict=True))

    def release(self):
        for device, own in zip(self.group.devices, self.buffers, strict=True):
            release([device] * len(own), own)
