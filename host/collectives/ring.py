"""Ring: every rank sends to the next and receives from the one before.

Chunk c is summed from rank c + 1 on: ((x[c+1] + x[c+2]) + ...) + x[c], so that rank c has it; then
it goes round. A lane has :data:`BESIDE` pieces on their way at a time, so that one is received, one
added and one sent; lanes do other pieces.
"""
from host.collectives.items import AHEAD, Item

BESIDE = 2


def groups(numbers):
    numbers = list(numbers)
    return [numbers[at:at + BESIDE] for at in range(0, len(numbers), BESIDE)]


def all_reduce(share, chunks):
    items = []
    for group in groups(share.rounds(chunks)):
        items += _sums(share, chunks, group, lambda c, j: share.cut(share.target, chunks[c], j),
                       AHEAD + 1)
        items += _gather(share, chunks, group)
    return items


def reduce_scatter(share, chunks, target):
    """``target``: span of this rank's sums."""
    own = (target.first, target.count)
    items = []
    for group in groups(share.rounds(chunks)):
        items += _sums(share, chunks, group,
                       lambda c, j: share.cut(target.buffer, own, j) if c == share.rank else None,
                       AHEAD + BESIDE + 3)
    return items


def all_gather(share, chunks, own):
    """``own``: where this rank's chunk is; it goes to its place while others come."""
    return [item for group in groups(share.rounds(chunks))
            for item in _gather(share, chunks, group, own)]


def _sums(share, chunks, group, place, slots):
    """Items of the first half; sums without a place stay in their slot."""
    n, items, sums = share.ranks, [], {}
    for step in range(n - 1):
        for j in group:
            gone, come = share.peer(-1 - step) % n, share.peer(-2 - step) % n
            own = share.cut(share.source, chunks[come], j)
            slot = share.slot(own, slots)
            target = sums[come, j] = place(come, j) or slot
            sent = share.cut(share.source, chunks[gone], j) if step == 0 else sums[gone, j]
            items.append(Item((share.peer(-1), slot), (share.peer(1), sent),
                              share.add(target, slot, own, slots)))
    return items


def _gather(share, chunks, group, own=None):
    items = []
    for step in range(share.ranks - 1):
        for j in group:
            gone, come = (share.cut(share.target, chunks[share.peer(-step - k)], j)
                          for k in (0, 1))
            work = ()
            if step == 0 and own is not None:
                here = share.cut(own.buffer, (own.first, own.count), j)
                gone, work = here, share.copy(gone, here)
            items.append(Item((share.peer(-1), come), (share.peer(1), gone), work))
    return items


def broadcast(share, whole):
    """Along the chain from the root: a piece goes on as soon as it has come."""
    place = (share.rank - share.root) % share.ranks
    items = []
    for j in share.rounds([whole]):
        here = share.cut(share.target, whole, j)
        items.append(Item((share.peer(-1), here) if place else None,
                          (share.peer(1), share.cut(share.target if place else share.source,
                                                    whole, j))
                          if place < share.ranks - 1 else None))
    return items


def reduce(share, whole):
    """Along the chain that ends at the root: ((x[root+1] + x[root+2]) + ...) + x[root]."""
    place = (share.rank - share.root - 1) % share.ranks
    last, slots = place == share.ranks - 1, AHEAD + 4
    items = []
    for j in share.rounds([whole]):
        own = share.cut(share.source, whole, j)
        if place:
            slot = share.slot(own, slots)
            target = share.cut(share.target, whole, j) if last else slot
            items.append(Item((share.peer(-1), slot), None,
                              share.add(target, slot, own, slots)))
            own = target
        if not last:
            items.append(Item(None, (share.peer(1), own)))
    return items
