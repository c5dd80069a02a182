"""Which algorithm is fastest: times from latency, bandwidth and rate of sums.

A message of m bytes to a rank d further on takes ``alpha + (hops(d) - 1) hop + m beta hops(d)``:
with all ranks sending to the same distance, a link carries the messages of ``hops(d)`` of them.
Every message costs the engine ``each`` more, every byte added ``gamma``. Steps of an algorithm that
wait for one another are added; messages that do not share latency, not bytes. Pieces under way
beside each other hide sums but for the first piece of a step.
"""
from dataclasses import dataclass
from math import ceil, log2

ALGORITHMS = {
    "all_reduce": ("ring", "doubling", "tree", "direct"),
    "reduce_scatter": ("ring", "direct"),
    "all_gather": ("ring", "doubling", "direct"),
    "broadcast": ("ring", "tree", "direct"),
    "reduce": ("ring", "tree", "direct"),
    "all_to_all": ("direct",),
    "all_to_all_v": ("direct",),
    "send": ("direct",),
    "receive": ("direct",),
    "barrier": ("doubling", "direct"),
}


@dataclass(frozen=True)
class Topology:
    """How ranks are joined, and how fast; times in cycles.

    The defaults are this project's choice, to be replaced by measured ones (``mxlet bench
    allreduce`` prints alpha and beta).

    Parameters
    ----------
    alpha : float
        From the start of a message to the start of what waits for it, with no bytes.
    beta : float
        For a byte on the links of a rank; 16 bytes a cycle of a simulated MAC port.
    gamma : float
        For a byte added in memory.
    each : float
        Of the engine, for a message.
    hop : float
        For each link more on the way.
    shape : str
        "switch": all are one hop apart. "ring": cables to the two neighbours alone.
    """

    alpha: float = 600.0
    beta: float = 1 / 16
    gamma: float = 1 / 32
    each: float = 20.0
    hop: float = 100.0
    shape: str = "switch"

    def __post_init__(self):
        if self.shape not in ("switch", "ring"):
            raise ValueError(f"Shape must be 'switch' or 'ring', not {self.shape!r}")

    def hops(self, distance, ranks):
        distance %= ranks
        return 1 if self.shape == "switch" else min(distance, ranks - distance) or 1

    def together(self, sizes, ranks):
        """Time of messages of some bytes to some distances that a rank sends at once."""
        if not sizes:
            return 0.0
        hops = [self.hops(d, ranks) for d, _ in sizes]
        return (self.alpha + (max(hops) - 1) * self.hop + self.each * len(sizes)
                + sum(m * h for (_, m), h in zip(sizes, hops, strict=True)) * self.beta)


def predict(kind, algorithm, size, ranks, topology=None, piece=16384):
    """Cycles of a collective of ``size`` bytes a rank; of all ranks for those that gather.

    ``size``: bytes of the input of all_reduce, reduce_scatter, broadcast, reduce, all_to_all, of
    the output of all_gather.
    """
    t, n = topology or Topology(), ranks
    if n == 1:
        return 0.0
    part, piece, steps = size / n, min(piece, size / n), ceil(log2(n))
    powers = [1 << k for k in range(n.bit_length() - 1)]    # of the places of doubling
    folded = n & (n - 1) != 0

    def step(distance, count=size, messages=1):
        return t.together([(distance, count / messages)] * messages, n)

    match kind, algorithm:
        case "all_reduce", "ring":
            return 2 * (n - 1) * step(1, part) + (n - 1) * piece * t.gamma
        case "reduce_scatter", "ring":
            return (n - 1) * (step(1, part) + piece * t.gamma)
        case "all_gather", "ring":
            return (n - 1) * step(1, part)
        case ("broadcast" | "reduce"), "ring":
            small = min(16384, size)
            sums = small * t.gamma * (kind == "reduce")
            return (n - 1) * (step(1, small) + sums) + (size - small) * t.beta
        case "all_reduce", "doubling":
            return (sum(step(d) for d in powers) + 2 * folded * step(1)
                    + (len(powers) + folded) * size * t.gamma)
        case "all_gather", "doubling":
            return (sum(step(d, d * part) for d in powers)
                    + folded * (step(1, part) + step(1)))
        case "barrier", "doubling":
            return sum(step(1 << k, 0) for k in range(steps))
        case ("all_reduce" | "broadcast" | "reduce"), "tree":
            way = sum(step(1 << k) for k in range(steps))
            sums = steps * size * t.gamma
            return {"all_reduce": 2 * way + sums, "broadcast": way, "reduce": way + sums}[kind]
        case ("all_reduce" | "broadcast" | "reduce"), "direct":
            sums = (n - 1) * size * t.gamma * (kind != "broadcast")
            return t.together([(d, size) for d in range(1, n)], n) + sums
        case ("reduce_scatter" | "all_gather" | "all_to_all" | "all_to_all_v"), "direct":
            sums = (n - 1) * part * t.gamma * (kind == "reduce_scatter")
            return t.together([(d, part) for d in range(1, n)], n) + sums
        case "barrier", "direct":
            return t.together([(d, 0) for d in range(1, n)], n)
        case ("send" | "receive"), "direct":
            return step(1)
    raise ValueError(f"Algorithm of {kind} must be one of {', '.join(ALGORITHMS.get(kind, ()))}, "
                     f"not {algorithm!r}")


def choose(kind, size, ranks, topology=None):
    """The algorithm that should take least time; the first of those that tie."""
    return min(ALGORITHMS[kind], key=lambda a: predict(kind, a, size, ranks, topology))


def table(kind, ranks, sizes=tuple(4 ** k for k in range(2, 14)), topology=None):
    """Lines of text: for each size, cycles of each algorithm and the one that is chosen."""
    names = ALGORITHMS[kind]
    lines = [f"{kind}, {ranks} ranks", "bytes".rjust(12) + "".join(n.rjust(14) for n in names)]
    for size in sizes:
        times = [predict(kind, name, size, ranks, topology) for name in names]
        lines.append(f"{size:12,}" + "".join(f"{time:14,.0f}" for time in times)
                     + f"  {choose(kind, size, ranks, topology)}")
    return lines
