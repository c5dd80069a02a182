"""Recursive doubling: ranks exchange with one 1, 2, 4, ... away; excess ranks are folded in first.

Of n ranks let p be the largest power of two, and e = n - p. Ranks 2i and 2i + 1 make place i for
i < e, rank i + e makes place i for the others: places hold runs of ranks, in order. The sum of a
place is x[2i] + x[2i+1] or x[i+e]; at each exchange the sum of the lower places stands left.
"""
from host.collectives.items import Item, interleave
from host.collectives.spans import Span


def places(ranks):
    """Ranks of each place: (first, number)."""
    power = 1 << ranks.bit_length() - 1
    excess = ranks - power
    return [(2 * i, 2) if i < excess else (i + excess, 1) for i in range(power)]


def all_reduce(share, whole):
    return interleave(_piece(share, whole, j) for j in share.rounds([whole]))


def _piece(share, whole, j):
    where = places(share.ranks)
    slots = 2 * (len(where).bit_length() + 1)
    own, target = (share.cut(buffer, whole, j) for buffer in (share.source, share.target))
    place = next(i for i, (first, size) in enumerate(where)
                 if first <= share.rank < first + size)
    first, size = where[place]
    if share.rank > first:      # folded in
        return [Item(None, (first, own)), Item((first, target))]
    items, total, distance = [], own, 1
    if size == 2:
        slot = share.slot(own, slots)
        items.append(Item((first + 1, slot), None, share.add(slot, own, slot, slots)))
        total = slot
    while distance < len(where):
        peer, slot = where[place ^ distance][0], share.slot(own, slots)
        left, right = (slot, total) if place & distance else (total, slot)
        distance *= 2
        room = target if distance == len(where) else slot
        items.append(Item((peer, slot), (peer, total), share.add(room, left, right, slots)))
        total = room
    if size == 2:
        items.append(Item(None, (first + 1, target)))
    return items


def all_gather(share, chunks, own):
    """Runs of chunks double at each exchange; a folded rank gets all of them at the end.

    ``own``: where this rank's chunk is; it is copied to its place first.
    """
    where = places(share.ranks)
    place = next(i for i, (first, size) in enumerate(where) if first <= share.rank < first + size)
    first, size = where[place]
    whole = (0, sum(count for _, count in chunks))

    def run(low, high):
        """Chunks of the places from low to high, in pieces of this lane."""
        start, (end, more) = where[low][0], where[high - 1]
        at = chunks[start][0]
        span = (at, sum(chunks[end + more - 1]) - at)
        return [share.cut(share.target, span, j) for j in share.rounds([span])]

    def transfer(peer, spans, receive):
        return [Item((peer, s), None) if receive else Item(None, (peer, s)) for s in spans]

    here = Span(share.target, *chunks[share.rank])
    items, distance = [Item(work=share.copy(here, own))], 1
    if share.rank > first:
        mine = [share.cut(share.target, chunks[share.rank], j)
                for j in share.rounds([chunks[share.rank]])]
        back = [share.cut(share.target, whole, j) for j in share.rounds([whole])]
        return items + transfer(first, mine, False) + transfer(first, back, True)
    if size == 2:
        items += transfer(first + 1, [share.cut(share.target, chunks[first + 1], j)
                                      for j in share.rounds([chunks[first + 1]])], True)
    while distance < len(where):
        low = place // distance * distance
        other = low ^ distance
        peer = where[place ^ distance][0]
        gone, come = run(low, low + distance), run(other, other + distance)
        for n in range(max(len(gone), len(come))):
            items.append(Item((peer, come[n]) if n < len(come) else None,
                              (peer, gone[n]) if n < len(gone) else None))
        distance *= 2
    if size == 2:
        items += transfer(first + 1, run(0, len(where)), False)
    return items


def barrier(share):
    """After step k a message, made when those of earlier steps had come, came from 2^k before."""
    from host.collectives.spans import Span
    token = Span(f"staging {share.lane}", 0, 1)
    items, held, step = [], share.slot(token, 1), 1
    while step < share.ranks:
        come = share.slot(token, share.ranks.bit_length() + 1, 1)
        items.append(Item((share.peer(-step), come), (share.peer(step), held)))
        held, step = come, 2 * step
    return items
