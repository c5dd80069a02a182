"""What ranks must agree on in a collective, as words that they can compare."""
import zlib
from dataclasses import dataclass, fields

import numpy as np

from host.collectives.cost import ALGORITHMS
from host.isa import Format

KINDS = tuple(ALGORITHMS)
NAMES = ("ring", "doubling", "tree", "direct")


@dataclass(frozen=True)
class Descriptor:
    """A collective as every rank of the group must see it."""

    kind: str
    format: Format
    algorithm: str
    ranks: int
    root: int
    count: int
    lanes: int
    piece: int
    sequence: int

    def words(self, count=None):
        """Four words: a hash of all that must agree, then what can be read from it.

        ``count``: of this message, where ranks may send different ones. A send is known to its
        peer as a receive.
        """
        count = self.count if count is None else count
        kind = "receive" if self.kind == "send" else self.kind
        first = (KINDS.index(kind) | self.format << 4 | NAMES.index(self.algorithm) << 8
                 | self.root << 12 | self.lanes << 28)
        rest = np.array([first, count & 0xFFFF_FFFF, self.sequence & 0xFFFF_FFFF,
                         self.ranks, self.piece & 0xFFFF_FFFF], "<u4")
        return zlib.crc32(rest.tobytes()), first, count & 0xFFFF_FFFF, int(rest[2])

    def difference(self, other):
        """What another descriptor has otherwise, in words; None if they agree."""
        for part in fields(self):
            mine, theirs = getattr(self, part.name), getattr(other, part.name)
            if mine != theirs and {mine, theirs} != {"send", "receive"}:
                return f"{part.name} {_text(mine)} against {_text(theirs)}"
        return None

    def explain(self, words, count=None):
        """The same of four words that a peer sent."""
        mine = self.words(count)
        if tuple(words) == mine:
            return None
        first, theirs = mine[1], int(words[1])
        for name, low, bits, names in (("kind", 0, 4, KINDS), ("format", 4, 4, None),
                                       ("algorithm", 8, 4, NAMES), ("root", 12, 16, None),
                                       ("lanes", 28, 4, None)):
            a, b = (word >> low & (1 << bits) - 1 for word in (first, theirs))
            if a != b:
                if name == "format":
                    names = {f.value: f.name for f in Format}
                    return f"format {names[a]} against {names.get(b, b)}"
                return f"{name} {names[a] if names else a} against " + str(
                    names[b] if names and b < len(names) else b)
        for name, at in (("count", 2), ("sequence", 3)):
            if mine[at] != int(words[at]):
                return f"{name} {mine[at]} against {int(words[at])}"
        return "number of ranks, or size of a piece"


def _text(value):
    return value.name if isinstance(value, Format) else str(value)
