"""What a rank does in a collective, item by item, and the entries for it.

An item is a message to one rank, a message from one, and what is computed then. Algorithms are
lists of items; :func:`emit` makes entries of them, with receives posted ahead.

Progress: every rank's list puts a message at an item such that, if all messages of earlier items
have come everywhere, this one can be sent and received. The entry list keeps the order of the
items but for receives, which only come earlier, at most ``ahead`` of them: so the first item that
has not ended anywhere always finds its entries started, or not held back by any but its own.
"""
from bisect import bisect_left
from dataclasses import dataclass
from itertools import zip_longest

from host.collectives.lane import overlap
from host.collectives.spans import Span
from host.isa import LINE
from host.network_isa import PLACES

AHEAD = 4   # receives posted ahead; with their scales 8 of the 16 entries under way
CHECK_BYTES = 16


@dataclass(frozen=True)
class Item:
    """``receive``: (peer, span), first; then ``send``; then ``work``: ("add", s, a, b) ...

    A send of the same bytes that are received sends what came. Spans without elements are left
    out. ``copy``: (target, source) may lie anywhere.
    """

    receive: tuple[int, Span] | None = None
    send: tuple[int, Span] | None = None
    work: tuple = ()


def interleave(lists):
    """Items of pieces, two pieces beside each other: their first items, their second ones, ..."""
    lists = list(lists)
    return [item for at in range(0, len(lists), 2)
            for beside in zip_longest(*lists[at:at + 2]) for item in beside if item is not None]


def empty(transfer):
    return transfer is None or transfer[1].count == 0


class Check:
    """Words that tell peers what this rank is about to do, and places for theirs.

    Each peer's come before anything else from it, and its first word, a hash, must be the one that
    is expected: nothing after that starts before. Lines of staging, one for each place.

    Parameters
    ----------
    lane : host.collectives.lane.Lane
    words
        Called with a peer and whether it is to receive: four words that it is told, or has to say.
    """

    def __init__(self, lane, words):
        self.lane, self.words = lane, words
        self.buffer = f"check {lane.number}"
        self.lines, self.sources, self.places = 0, {}, {}
        self.sent, self.seen = set(), set()

    def _line(self):
        self.lines += 1
        return LINE * (self.lines - 1)

    def send(self, peer):
        if peer in self.sent:
            return
        self.sent.add(peer)
        words = self.words(peer, True)
        if words not in self.sources:
            self.sources[words] = at = self._line()
            for n, word in enumerate(words):
                self.lane.set((self.buffer, at + 4 * n), word)
        self.lane.send(peer, (self.buffer, self.sources[words], CHECK_BYTES))

    def receive(self, peer):
        if peer not in self.places:
            self.places[peer] = self._line()
            self.lane.receive(peer, (self.buffer, self.places[peer], CHECK_BYTES))

    def expected_count(self, peer):
        """Elements that a peer has to say it sends."""
        return self.words(peer, False)[2]

    def wait(self, peer):
        if peer not in self.seen:
            self.seen.add(peer)
            self.lane.wait((self.buffer, self.places[peer]), self.words(peer, False)[0])


def most_ahead(form):
    """Receives posted ahead at most: beside them and the next one a send must have its entries.

    A message of an MX format has two, as its scales are one of their own.
    """
    return PLACES // (2 if form.is_mx else 1) - 2


def emit(lane, items, check=None, ahead=AHEAD):
    """Append the entries of a list of items to a lane; ``ahead``: see :func:`most_ahead`."""
    elements = lane.elements
    used = [_touched(elements, item) for item in items]
    receives = [n for n, item in enumerate(items) if not empty(item.receive)]
    posted = 0
    for number, item in enumerate(items):
        consumed = bisect_left(receives, number)
        while posted < len(receives) and posted - consumed <= ahead:
            n = receives[posted]
            peer, span = items[n].receive
            parts = elements.parts(span)
            # What stands before it in the list must not find these bytes changed.
            if any(overlap(parts, used[before]) for before in range(number, n)):
                break
            if check:
                check.receive(peer)
            for part in parts:
                lane.receive(peer, part)
            posted += 1
        if not empty(item.send):
            peer, span = item.send
            if check:
                check.send(peer)
            for part in elements.parts(span):
                lane.send(peer, part)
        if check and not empty(item.receive):
            check.wait(item.receive[0])
        for what, *spans in item.work:
            getattr(lane, what)(*spans)


def _touched(elements, item):
    """Bytes that an item reads or writes, but for the lines of unaligned copies."""
    spans = [t[1] for t in (item.receive, item.send) if t is not None]
    spans += [span for _, *of in item.work for span in of]
    parts = [part for span in spans for part in elements.parts(span)]
    # An unaligned copy also writes the bytes before it again.
    return parts + [(buffer, first - first % LINE, first % LINE) for what, target, *_ in item.work
                    if what == "copy" for buffer, first, _ in elements.parts(target)
                    if first % LINE]
