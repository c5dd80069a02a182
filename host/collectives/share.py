"""What a lane has of a collective: its pieces, and slots of staging memory for what it receives."""
from dataclasses import dataclass, field

from host.collectives.spans import Elements, Span, pieces


@dataclass
class Share:
    """A lane's share of the work of a rank.

    Parameters
    ----------
    rank, ranks, root : int
        Of the group.
    elements : host.collectives.spans.Elements
    lane, lanes : int
        Piece ``j`` of a chunk is done by lane ``j`` modulo ``lanes``.
    piece : int
        Elements of a piece, a multiple of the grain unless there is one piece only.
    source, target : str
        Buffers of what is there before and after; the same if in place.
    """

    rank: int
    ranks: int
    root: int
    elements: Elements
    lane: int
    lanes: int
    piece: int
    source: str
    target: str
    slots: int = 0
    _next: dict = field(default_factory=dict)

    def peer(self, step):
        return (self.rank + step) % self.ranks

    def rounds(self, chunks):
        """Numbers of the pieces that this lane does."""
        most = max((len(pieces(*chunk, self.piece)) for chunk in chunks), default=0)
        return range(self.lane, most, self.lanes)

    def cut(self, buffer, chunk, number):
        """Piece ``number`` of a chunk, maybe empty, as a span of a buffer."""
        first, count = chunk
        at = min(number * self.piece, count)
        return Span(buffer, first + at, min(self.piece, count - at))

    def slot(self, like, among, base=0):
        """Room for a span, the next of ``among`` slots from ``base`` on, in turn."""
        turn = self._next[base, among] = self._next.get((base, among), -1) + 1
        number = base + turn % among
        self.slots = max(self.slots, number + 1)
        return Span(f"staging {self.lane}", number * self.slot_size, like.count)

    @property
    def slot_size(self):
        """Elements from a slot to the next."""
        return -(-self.piece // self.elements.grain) * self.elements.grain

    def on_lines(self, span, base):
        """Copies so that a span can be added, and where it is then."""
        if not self.elements.format.is_mx or self.elements.on_lines(span):
            return (), span
        room = self.slot(span, 2, base)
        return (("copy", room, span),), room

    @staticmethod
    def copy(target, source):
        """Work for a copy, unless it is there."""
        return () if target == source else (("copy", target, source),)

    def add(self, target, a, b, base):
        """Work for target = a + b, wherever they are; slots from ``base`` on are free for it."""
        work, operands = [], []
        for n, span in enumerate((a, b)):
            copies, span = self.on_lines(span, base + 2 * n)
            work += copies
            operands.append(span)
        if self.elements.on_lines(target):
            return (*work, ("add", target, *operands))
        room = self.slot(target, 2, base + 4)
        return (*work, ("add", room, *operands), ("copy", target, room))
