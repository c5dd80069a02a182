"""Work-queue entries of one subgraph, in order, with the conditions that keep them apart.

A :class:`Lane` notes which bytes each entry reads and writes. An entry that touches bytes of an
earlier one, one of them writing, gets a condition that makes it start after that one has ended,
unless that follows already: entries start in order, so what an earlier entry has waited for has
ended, and so has what that one had waited for, and requests of one queue end in order. Hence no
entry can run into another of its subgraph. Subgraphs of a program share no bytes that any of them
writes, and other ranks write only into posted receives: there are no other races.
"""
from dataclasses import dataclass

from host.isa import LINE, Format
from host.network_isa import MAX_BACK, Compare, EngineKind

RENEW = 200     # entries after which one that may not have ended is waited for; < MAX_BACK
WORD = 4
SCRATCH_LINES = 5   # of a lane: room to shift bytes, and a word that nobody reads
FILL = 4 * LINE


@dataclass(eq=False)
class Step:
    """An entry whose addresses are still names: (buffer, byte).

    ``queue``: (peer, receives) of a work request. ``scales``: there are some beside all three.
    """

    kind: EngineKind
    length: int = 0
    local: tuple | None = None
    a: tuple | None = None
    b: tuple | None = None
    queue: tuple | None = None
    format: Format = Format.FP32
    scales: bool = False
    immediate: int = 0
    mask: int = 0
    compare: Compare = Compare.EQUAL
    back: int = 0
    rx_sync: bool = False
    sync: bool = False
    fence: bool = False


class Lane:
    """Builds the entries of one subgraph.

    Parameters
    ----------
    number : int
        Its number, part of the names of its queue pairs.
    elements : host.collectives.spans.Elements
        Format of what is added and copied.
    """

    def __init__(self, number, elements):
        self.number, self.elements = number, elements
        self.steps, self.open, self.peers = [], [], []
        self.scratch = f"scratch {number}"

    # What can be asked for

    def send(self, peer, part):
        """Send bytes (buffer, first, count)."""
        self._request(EngineKind.SEND, peer, part)

    def receive(self, peer, part):
        self._request(EngineKind.RECV, peer, part)

    def add(self, s, a, b):
        """Elements S = A + B of spans of equal length; S may be A or B."""
        parts = [self.elements.parts(span) for span in (s, a, b)]
        if not s.count:
            return
        mx = self.elements.format.is_mx
        spans = (s, a, b) if mx else (s,)
        if not all(self.elements.on_lines(span) for span in spans):
            raise ValueError(f"Sums must start on lines, not at {s}, {a}, {b}")
        (local, *_), (left, *_), (right, *_) = parts
        self._append(Step(EngineKind.REDUCE, local[2], local[:2], left[:2], right[:2],
                          format=self.elements.format, scales=mx),
                     reads=parts[1] + parts[2], writes=parts[0])

    def copy(self, s, a):
        """Elements S = A of two spans, anywhere."""
        for target, source in zip(self.elements.parts(s), self.elements.parts(a), strict=True):
            self._copy_bytes(target, source)

    def set(self, word, value):
        """Write a 32-bit word (buffer, byte)."""
        self._append(Step(EngineKind.SET, WORD, word, immediate=value), writes=[(*word, WORD)])

    def last(self, word, value):
        """Write a word when all before has ended."""
        self._append(Step(EngineKind.SET, WORD, word, immediate=value, sync=True),
                     writes=[(*word, WORD)])

    def wait(self, word, value, compare=Compare.EQUAL):
        """Nothing after it starts until a word has a value."""
        self._append(Step(EngineKind.WAIT, 0, word, immediate=value, mask=0xFFFF_FFFF,
                          compare=compare, fence=True), reads=[(*word, WORD)])

    def arrive(self):
        """Join the barrier of the work packet; nothing after it starts until all have come."""
        self._append(Step(EngineKind.ARRIVE, fence=True))

    def stamp(self, line, clock, *, last=False):
        """Copy a word, the time, to a line (buffer, byte); ``last``: when all before has ended."""
        self._append(Step(EngineKind.COPY, WORD, line, clock, sync=last), reads=[(*clock, WORD)],
                     writes=[(*line, WORD)])

    # How it is done

    def _request(self, kind, peer, part):
        receives = kind == EngineKind.RECV
        if peer not in self.peers:
            self.peers.append(peer)
        self._append(Step(kind, part[2], part[:2], queue=(peer, receives)),
                     reads=[] if receives else [part], writes=[part] if receives else [])

    def _copy_bytes(self, target, source):
        """Copy bytes to anywhere, although COPY writes from a line on.

        The bytes before the target on its line, and the first of the source behind them, are put
        together in scratch memory, so that whole lines can be written: the bytes before are
        written again as they were.
        """
        (buffer, first, count), room = target, self.scratch
        before = first % LINE
        if target == source:
            return
        if not before:
            self._raw_copy((buffer, first), source[:2], count)
            return
        shifted = min(LINE - before, count)
        self._raw_copy((room, LINE), (buffer, first - before), before)
        self._raw_copy((room, 2 * LINE), (room, before), LINE)  # ends with the bytes before
        self._raw_copy((room, 3 * LINE), source[:2], shifted)
        self._raw_copy((buffer, first - before), (room, 3 * LINE - before), before + shifted)
        if count > shifted:
            self._raw_copy((buffer, first + shifted), (source[0], source[1] + shifted),
                           count - shifted)

    def _raw_copy(self, s, a, count):
        self._append(Step(EngineKind.COPY, count, s, a), reads=[(*a, count)],
                     writes=[(*s, count)])

    def _append(self, step, reads=(), writes=()):
        while self.open and len(self.steps) - self.open[0][0] >= RENEW:
            queue = self.steps[self.open[0][0]].queue
            self._fill(max(n for n, _, _ in self.open if n == self.open[0][0] or (
                len(self.steps) - n >= RENEW // 2 and queue
                and self.steps[n].queue == queue)))
        needed = self._last_of_queues([
            other for other, their_reads, their_writes in self.open
            if overlap(writes, their_reads) or overlap(writes, their_writes)
            or overlap(reads, their_writes)])
        if len(needed) > 1:
            kinds = {self.steps[n].kind for n in needed}
            if {n for n, _, _ in self.open} <= self._implied(needed):
                step.sync = True
            elif kinds == {EngineKind.RECV} and {
                    n for n, _, _ in self.open
                    if self.steps[n].kind == EngineKind.RECV} <= self._implied(needed):
                step.rx_sync = True
            else:
                for other in needed[:-1]:
                    self._fill(other)
                needed = needed[-1:]
        if len(needed) == 1:
            step.back = len(self.steps) - needed[0]
            if not 0 < step.back <= MAX_BACK:
                raise ValueError(f"An entry cannot wait for the one {step.back} before")
        self._close([n for n, _, _ in self.open] if step.sync else needed)
        self.open.append((len(self.steps), list(reads), list(writes)))
        self.steps.append(step)
        if step.fence:
            self._close([len(self.steps) - 1])

    def _fill(self, other):
        """An entry that does nothing, and starts when another has ended."""
        self.steps.append(Step(EngineKind.SET, WORD, (self.scratch, FILL),
                               back=len(self.steps) - other))
        self._close([other])

    def _last_of_queues(self, needed):
        """Without those that end before others of the same queue."""
        last = {}
        for n in needed:
            last[self.steps[n].queue or n] = n
        return sorted(last.values())

    def _implied(self, ended):
        """All that have ended when some have."""
        latest = {self.steps[n].queue: n for n in sorted(ended) if self.steps[n].queue}
        return set(ended) | {n for n, _, _ in self.open
                             if n <= latest.get(self.steps[n].queue, -1)}

    def _close(self, ended):
        if ended:
            gone = self._implied(ended)
            self.open = [entry for entry in self.open if entry[0] not in gone]


def overlap(some, others):
    """Whether any of some runs of bytes (buffer, first, count) meet any of others."""
    return any(a[0] == b[0] and a[1] < b[1] + b[2] and b[1] < a[1] + a[2]
               for a in some for b in others)
