"""Slice of on-chip SRAM as last-level cache: what reads return, and what stays in it.

A line is 64 bytes. A cache of ``ways`` x ``sets`` lines holds line ``n`` of memory in set
``n % sets``. Two models: :class:`Contents` says what every answer must hold, whatever the cache
does; :class:`Cache` says what the cache does when its requests come one at a time.

Replacement. Each line of a set has a re-reference number r, 0 to 3; large means "not soon". A hit
sets r to 0. A line is replaced only if no way of the set is free (the lowest free way is taken
first): every r of the set is raised by the same amount until the largest is 3, and the lowest way
of those with 3 is replaced. What r a new line gets is SRRIP's or BRRIP's choice: 2, or 3 but for
every 32nd such line of the whole cache, which gets 2. Of every ``duel_sets(sets)`` sets the first
always does as SRRIP, the one in the middle as BRRIP; a counter of 0 to 63, at 31 to begin with,
goes up when the former brings in a line and down when the latter does, and from 32 on all other
sets do as BRRIP. A line brought in by PREFETCH gets 2, and is counted nowhere.
Source: Jaleel et al., "High performance cache replacement using re-reference interval prediction",
ISCA 2010; sizes are this project's choice.
"""
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

LINE_BYTES = 64
WHOLE = (1 << LINE_BYTES) - 1
FAR, LONG = 3, 2        # r of lines that are expected never, and late
RARE = 32               # of so many lines of BRRIP one is as of SRRIP
DUEL_START, DUEL_LIMIT = 31, 63


class Hint(IntEnum):
    """What a requester knows about a line."""

    NONE = 0
    NO_ALLOCATE = 1
    NO_WRITE_BACK = 2
    PREFETCH = 3


class Contents:
    """Memory under byte masks: what each read must return, in the order in which requests count.

    Bytes may become unknown, as those of a line that was given up unwritten.
    """

    def __init__(self):
        self.lines: dict[int, tuple[bytearray, int]] = {}   # values, mask of the known bytes

    def write(self, line: int, data: bytes, mask: int = WHOLE) -> None:
        values, known = self.lines.get(line, (bytearray(LINE_BYTES), WHOLE))
        for byte in range(LINE_BYTES):
            if mask >> byte & 1:
                values[byte] = data[byte]
        self.lines[line] = values, known | mask

    def read(self, line: int) -> tuple[bytes, int]:
        """The line, and which of its bytes are known."""
        values, known = self.lines.get(line, (bytes(LINE_BYTES), WHOLE))
        return bytes(values), known

    def forget(self, line: int) -> None:
        self.lines[line] = bytearray(self.read(line)[0]), 0


def duel_sets(sets: int) -> int:
    """Of so many sets two are set aside to compare; with fewer than two sets there are none."""
    return min(sets, 32)


@dataclass
class Way:
    """A line in a set."""

    line: int | None = None
    dirty: bool = False
    fresh: bool = False     # prefetched, not yet used
    r: int = 0


@dataclass
class Effect:
    """What a request does: to memory, in order, and to the counters."""

    hit: bool
    memory: list[tuple[str, int]] = field(default_factory=list)     # ("read" or "write", line)
    useless: int = 0        # prefetched lines replaced unused
    dropped: int = 0        # changed lines given up unwritten


class Cache:
    """What a cache does with requests that come one at a time."""

    def __init__(self, *, sets: int, ways: int):
        self.sets, self.count = sets, ways
        self.lines = [[Way() for _ in range(ways)] for _ in range(sets)]
        self.duel, self.rare = DUEL_START, 0

    def access(self, line: int, *, write: bool = False, mask: int = WHOLE,
               hint: Hint = Hint.NONE) -> Effect:
        ways = self.lines[line % self.sets]
        prefetch = hint == Hint.PREFETCH and not write
        dead = hint == Hint.NO_WRITE_BACK and not write
        whole = write and mask == WHOLE
        found = next((way for way in ways if way.line == line), None)
        if found:
            effect = Effect(True)
            found.r = 0
            found.dirty |= write
            found.fresh &= prefetch
            if dead:
                effect.dropped = found.dirty
                found.line, found.dirty = None, False
            return effect
        effect = Effect(False)
        if not self.count and prefetch:
            return effect
        if not self.count or dead or (hint == Hint.NO_ALLOCATE and (whole or not write)):
            effect.memory.append(("write" if write else "read", line))
            return effect
        way = self.victim(ways)
        if not whole:
            effect.memory.append(("read", line))
        if way.dirty:
            effect.memory.append(("write", way.line))
        effect.useless = way.line is not None and way.fresh
        way.line, way.dirty, way.fresh = line, write, prefetch
        way.r = LONG if prefetch else self.inserted(line % self.sets)
        return effect

    def victim(self, ways: list[Way]) -> Way:
        for way in ways:
            if way.line is None:
                return way
        raised = FAR - max(way.r for way in ways)
        for way in ways:
            way.r += raised
        return next(way for way in ways if way.r == FAR)

    def inserted(self, number: int) -> int:
        """Re-reference number of a new line in a set."""
        period = duel_sets(self.sets)
        leader = number % period if period > 1 else None
        rarely = self.duel > DUEL_START
        if leader == 0:
            self.duel, rarely = min(self.duel + 1, DUEL_LIMIT), False
        elif period > 1 and leader == period // 2:
            self.duel, rarely = max(self.duel - 1, 0), True
        if not rarely:
            return LONG
        self.rare = (self.rare + 1) % RARE
        return LONG if self.rare == 0 else FAR

    def flush(self, *, keep: int | None = None) -> list[int]:
        """Lines written back, set by set: all; ``keep``: afterwards only so many ways are left.

        Ways are given up from the lowest on.
        """
        given = 0 if keep is None else self.count - keep
        written = []
        for ways in self.lines:
            chosen = ways if keep is None else ways[:given]
            written += [way.line for way in chosen if way.dirty]
            for way in chosen:
                way.dirty = False
            del ways[:given]
        self.count -= given
        return written

    def grow(self, ways: int) -> None:
        """Take free ways in, below the ones there."""
        for held in self.lines:
            held[:0] = [Way() for _ in range(ways)]
        self.count += ways

    def hit_rate(self, trace: Iterable[int]) -> float:
        hits = [self.access(line).hit for line in trace]
        return sum(hits) / len(hits)


class LruCache:
    """The same cache with the least recently used line replaced, to compare."""

    def __init__(self, *, sets: int, ways: int):
        self.count, self.lines = ways, [OrderedDict() for _ in range(sets)]

    def hit_rate(self, trace: Iterable[int]) -> float:
        hits = total = 0
        for line in trace:
            held = self.lines[line % len(self.lines)]
            total += 1
            hits += line in held
            held[line] = True
            held.move_to_end(line)
            if len(held) > self.count:
                held.popitem(last=False)
        return hits / total
