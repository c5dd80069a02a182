"""Collectives on the golden message system: plans of all ranks, run in a random order."""
import numpy as np

from cosim.golden.collectives import Vector
from cosim.golden.formats import MX_FORMATS, SPECS, pack, unpack
from cosim.golden.formats import Format as NumberFormat
from cosim.golden.message_system import MessageSystem
from host.collectives import Binding, Place, plan
from host.isa import LINE, Region, address, ceil
from host.network_isa import doorbells, nic_window

GUARD = 2 * LINE    # bytes around every buffer, that nobody may change
KEYS = {"input": 0x101, "output": 0x102, "staging": 0x103}


def random_vector(rng, format, count):
    """Numbers of very different sizes; their sums depend on the order."""
    format = NumberFormat(format)
    if format not in MX_FORMATS:
        bits = (rng.normal(size=count) * 2.0 ** rng.integers(-6, 7, count)).astype(np.float32)
        if format == NumberFormat.FP32:
            return Vector(format, bits.view(np.uint32))
        if format == NumberFormat.BF16:
            return Vector(format, (bits.view(np.uint32) >> 16).astype(np.uint16))
        return Vector(format, bits.astype(np.float16).view(np.uint16))
    codes = rng.integers(0, 256, count).astype(np.uint8)
    codes[(codes & 0x7F) >= 0x7B] = 0x33    # no infinities or NaN, in either format
    return Vector(format, codes, rng.integers(110, 140, count // 32).astype(np.uint8))


class Rank:
    """A node with its buffers in one memory, guards between them."""

    def __init__(self, system, number, sizes):
        self.offsets, at = {}, GUARD
        for name, size in sizes.items():
            self.offsets[name] = at, size
            at += ceil(size, LINE) + GUARD
        self.base = address(0, Region.HBM, 0x4000 * (number + 1))
        rng = np.random.default_rng(number)
        self.memory = rng.integers(0, 256, at, dtype=np.uint8)
        self.node = system.node(f"rank {number}", {self.base: self.memory})
        self.places = {}
        for name, (start, size) in self.offsets.items():
            key = KEYS[name.split()[0]] + len(name.split()) * 0x1000
            self.places[name] = Place(self.base + start, key)
            self.node.register(key, self.base + start, size)
        self.before = None

    def bytes_of(self, name):
        start, size = self.offsets[name]
        return self.memory[start:start + size]

    def put(self, name, first, vector):
        """Write elements from number ``first`` of a buffer on."""
        size = SPECS[vector.format].bits // 8
        self.bytes_of(name)[first * size:][:len(vector) * size] = pack(vector.format, vector.codes)
        if vector.scales is not None:
            self.bytes_of(name + " scales")[first // 32:][:len(vector) // 32] = vector.scales

    def get(self, name, first, count, format):
        size = SPECS[NumberFormat(format)].bits // 8
        codes = unpack(NumberFormat(format),
                       self.bytes_of(name)[first * size:(first + count) * size])
        scales = None
        if NumberFormat(format) in MX_FORMATS:
            scales = self.bytes_of(name + " scales")[first // 32:(first + count) // 32].copy()
        return Vector(format, codes.copy(), scales)

    def remember(self):
        self.before = self.memory.copy()

    def changed(self, *allowed):
        """Whether bytes changed other than those of some runs (buffer, first byte, bytes)."""
        now = self.memory.copy()
        for name, first, count in allowed:
            start = self.offsets[name][0] + first
            now[start:start + count] = self.before[start:start + count]
        return not np.array_equal(now, self.before)


def join_all(system, ranks, plans):
    """Connect the nodes as the plans want it; returns the doorbells of each rank."""
    bells = [{} for _ in ranks]
    numbers = [0] * len(ranks)
    for rank, made in enumerate(plans):
        for peer, lane in made.queue_pairs:
            if (peer, lane) in bells[rank]:
                continue
            assert (rank, lane) in plans[peer].queue_pairs
            ends = []
            for me, other in ((rank, peer), (peer, rank)):
                bells[me][other, lane] = doorbells(nic_window(0, 0), numbers[me])
                ends.append((numbers[me], bells[me][other, lane]))
                numbers[me] += 1
            system.join(ranks[rank].node, ranks[peer].node, ends[0][1], ends[1][1],
                        numbers=(ends[0][0], ends[1][0]))
    return bells


def buffer_sizes(format, buffers, staging):
    """Bytes of buffers of so many elements, their scales after all elements, and of staging."""
    form = NumberFormat(format)
    sizes = {name: count * SPECS[form].bits // 8 for name, count in buffers.items()}
    if form in MX_FORMATS:
        sizes |= {name + " scales": count // 32 for name, count in buffers.items()}
    return sizes | {"staging": staging}


def set_up(plans, buffers, format, *, seed=0, frame_bytes=192):
    """A message system with a rank for each plan; ``buffers``: elements, one dict or one a rank."""
    system = MessageSystem(seed=seed, frame_bytes=frame_bytes)
    each = buffers if isinstance(buffers, list) else [buffers] * len(plans)
    ranks = [Rank(system, n, buffer_sizes(format, each[n], p.staging_bytes))
             for n, p in enumerate(plans)]
    return system, ranks, join_all(system, ranks, plans)


def start(ranks, plans, bells):
    for rank, made, own in zip(ranks, plans, bells, strict=True):
        rank.remember()
        if made.lanes:
            rank.node.start(Binding(made, rank.places, own).entries())


def plans_of(kind, n, **options):
    """The plans of all ranks; an option that is a list has one for each."""
    return [plan(kind, ranks=n, rank=r, **{
        k: v[r] if isinstance(v, list) else v for k, v in options.items()}) for r in range(n)]
