"""What collectives must give, bit for bit: which ranks' numbers are added in which order.

Every sum of two vectors is ``near_memory.add`` (``add_mx`` with rule FLOOR): rounded into the
format each time. The orders, for n ranks with vectors x[0] to x[n-1]:

- ring: the vector is cut into n chunks at whole lines (:func:`borders`; reduce_scatter: into equal
  chunks); chunk c is ((x[c+1] + x[c+2]) + ...) + x[c], indices modulo n. A ring that reduces to a
  root is the same with the root for c, for the whole vector;
- direct: ((x[0] + x[1]) + x[2]) + ...;
- tree: places count from the root (rank 0 for all_reduce). The sum of place v is
  ((x[v] + sum(v+1)) + sum(v+2)) + sum(v+4) ..., over powers of two below the lowest set bit of v;
- doubling: with p the largest power of two in n, and e = n - p, places are x[2i] + x[2i+1] for
  i < e, then x[i+e]; places are added in pairs of neighbours, then those sums, and so on.
"""
import numpy as np

from cosim.golden import near_memory
from cosim.golden.formats import MX_FORMATS, SPECS, Format

LINE = 64


class Vector:
    """Codes of a format and, for MX formats, scale bytes of their blocks."""

    def __init__(self, format, codes, scales=None):
        self.format, self.codes, self.scales = Format(format), codes, scales

    def __add__(self, other):
        if self.format in MX_FORMATS:
            return Vector(self.format, *near_memory.add_mx(
                self.codes, self.scales, other.codes, other.scales, self.format))
        return Vector(self.format, near_memory.add(self.codes, other.codes, self.format))

    def __getitem__(self, run):
        blocks = slice(run.start // 32, run.stop // 32)
        return Vector(self.format, self.codes[run.start:run.stop],
                      None if self.scales is None else self.scales[blocks])

    def __len__(self):
        return len(self.codes)

    def same(self, other):
        """Whether all bits are the same."""
        return (self.format == other.format and np.array_equal(self.codes, other.codes)
                and (self.scales is None or np.array_equal(self.scales, other.scales)))


def join(vectors):
    """Vectors one after another."""
    scales = None if vectors[0].scales is None else np.concatenate([v.scales for v in vectors])
    return Vector(vectors[0].format, np.concatenate([v.codes for v in vectors]), scales)


def borders(count, ranks, format):
    """Slices of the chunks of an all_reduce by a ring."""
    unit = 32 * LINE if format in MX_FORMATS else LINE * 8 // SPECS[format].bits
    units = -(-count // unit)
    sizes = [units // ranks + (rank < units % ranks) for rank in range(ranks)]
    ends = np.minimum(np.cumsum([0, *sizes]) * unit, count)
    return [slice(int(a), int(b)) for a, b in zip(ends, ends[1:], strict=False)]


def in_order(vectors):
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    return total


def around(vectors, last):
    """Sum from the one after ``last`` on, around to it."""
    return in_order(vectors[last + 1:] + vectors[:last + 1])


def tree_sum(vectors, root):
    placed = vectors[root:] + vectors[:root]

    def sum_of(place):
        total, bit = placed[place], 1
        while not place & bit and place + bit < len(placed):
            total = total + sum_of(place + bit)
            bit *= 2
        return total

    return sum_of(0)


def doubling_sum(vectors):
    power = 1 << len(vectors).bit_length() - 1
    excess = len(vectors) - power
    places = [vectors[2 * i] + vectors[2 * i + 1] for i in range(excess)] + vectors[2 * excess:]
    while len(places) > 1:
        places = [a + b for a, b in zip(places[::2], places[1::2], strict=True)]
    return places[0]


def all_reduce(vectors, algorithm):
    """The vector that every rank has in the end."""
    match algorithm:
        case "ring":
            runs = borders(len(vectors[0]), len(vectors), vectors[0].format)
            return join([around([v[run] for v in vectors], c) for c, run in enumerate(runs)])
        case "direct":
            return in_order(vectors)
        case "tree":
            return tree_sum(vectors, 0)
        case "doubling":
            return doubling_sum(vectors)
    raise ValueError(f"Algorithm must be ring, direct, tree or doubling, not {algorithm!r}")


def reduce(vectors, algorithm, root):
    """The vector that the root has in the end."""
    match algorithm:
        case "ring":
            return around(vectors, root)
        case "direct":
            return in_order(vectors)
        case "tree":
            return tree_sum(vectors, root)
    raise ValueError(f"Algorithm must be ring, direct or tree, not {algorithm!r}")


def reduce_scatter(vectors, algorithm):
    """What each rank has in the end: its chunk of the sum."""
    if algorithm not in ("ring", "direct"):
        raise ValueError(f"Algorithm must be ring or direct, not {algorithm!r}")
    count = len(vectors[0]) // len(vectors)
    found = []
    for rank in range(len(vectors)):
        parts = [v[rank * count:(rank + 1) * count] for v in vectors]
        found.append(around(parts, rank) if algorithm == "ring" else in_order(parts))
    return found


def all_to_all(vectors):
    """What each rank has in the end: its chunk of every rank's vector."""
    count = len(vectors[0]) // len(vectors)
    return [join([v[rank * count:(rank + 1) * count] for v in vectors])
            for rank in range(len(vectors))]
