"""Direct: every rank sends to every other. Sums are made in the order of the ranks.

At step s a rank sends to the one s further on and receives from the one s before.
"""
from host.collectives.items import AHEAD, Item
from host.collectives.spans import Span


def ordered_sum(share, target, terms, base):
    """Work for ((terms[0] + terms[1]) + ...) in a target; all terms but one are slots.

    Sums stand in the slots until the last, as the target may be the term that is none.
    """
    (first, *rest), work = terms, []
    for n, term in enumerate(rest):
        room = target
        if n < len(rest) - 1:
            room = first if first.buffer.startswith("staging") else term
        work += share.add(room, first, term, base)
        first = room
    return tuple(work)


def _exchange(share, sent, own, target, slots, receives=True, sends=True):
    """Items that send spans to the others and add up what they send.

    ``sent``: called with a rank, the span that it gets. ``slots``: in use at a time.
    """
    n, items, terms = share.ranks, [], {share.rank: own}
    for step in range(1, n):
        come, gone = share.peer(-step), share.peer(step)
        if receives:
            terms[come] = share.slot(own, slots)
        items.append(Item((come, terms[come]) if receives else None,
                          (gone, sent(gone)) if sends else None))
    if receives:
        items.append(Item(work=ordered_sum(share, target, [terms[k] for k in range(n)], slots)))
    return items


def all_reduce(share, whole):
    items, rounds = [], share.rounds([whole])
    for j in rounds:
        own = share.cut(share.source, whole, j)
        items += _exchange(share, lambda rank, own=own: own, own,
                           share.cut(share.target, whole, j),
                           (share.ranks - 1) * min(2, len(rounds)))
    return items


def all_reduce_in_halves(share, chunks):
    """Each rank adds up a chunk, then gives it to all: the same sums, fewer bytes."""
    own = Span(share.target, *chunks[share.rank])
    return reduce_scatter(share, chunks, own) + all_gather(share, chunks, own)


def reduce_scatter(share, chunks, target):
    items, rounds = [], share.rounds(chunks)
    for j in rounds:
        items += _exchange(share, lambda rank, j=j: share.cut(share.source, chunks[rank], j),
                           share.cut(share.source, chunks[share.rank], j),
                           share.cut(target.buffer, (target.first, target.count), j),
                           (share.ranks - 1) * min(2, len(rounds)))
    return items


def reduce(share, whole):
    items, rounds, top = [], share.rounds([whole]), share.rank == share.root
    for j in rounds:
        own = share.cut(share.source, whole, j)
        if top:
            items += _exchange(share, None, own, share.cut(share.target, whole, j),
                               (share.ranks - 1) * min(2, len(rounds)), sends=False)
        else:
            items.append(Item(None, (share.root, own)))
    return items


def all_gather(share, chunks, own):
    """``own``: where this rank's chunk is."""
    items = []
    for j in share.rounds(chunks):
        here = share.cut(own.buffer, (own.first, own.count), j)
        copy = share.copy(share.cut(share.target, chunks[share.rank], j), here)
        for step in range(1, share.ranks):
            come = share.peer(-step)
            items.append(Item((come, share.cut(share.target, chunks[come], j)),
                              (share.peer(step), here), copy if step == 1 else ()))
    return items


def broadcast(share, whole):
    items = []
    for j in share.rounds([whole]):
        if share.rank == share.root:
            sent = share.cut(share.source, whole, j)
            items += [Item(None, (share.peer(step), sent)) for step in range(1, share.ranks)]
        else:
            items.append(Item((share.root, share.cut(share.target, whole, j))))
    return items


def all_to_all(share, sent, received):
    """``sent``, ``received``: first element and number for each rank.

    Lanes take turns at the steps. In place, ranks r and s - r meet at step s, so that nothing is
    overwritten before it has gone: what comes waits in a slot.
    """
    n, items = share.ranks, []
    if share.source != share.target:
        if share.lane == 0:
            items.append(Item(work=(("copy", Span(share.target, *received[share.rank]),
                                     Span(share.source, *sent[share.rank])),)))
        for step in range(1 + share.lane, n, share.lanes):
            come, gone = share.peer(-step), share.peer(step)
            items.append(Item((come, Span(share.target, *received[come])),
                              (gone, Span(share.source, *sent[gone]))))
        return items
    for step in range(share.lane, n, share.lanes):
        peer = (step - share.rank) % n
        if peer != share.rank:
            there = Span(share.target, *received[peer])
            slot = share.slot(there, AHEAD + 2)
            items.append(Item((peer, slot), (peer, Span(share.source, *sent[peer])),
                              (("copy", there, slot),)))
    return items


def barrier(share):
    """Everybody has come when a message has come from everybody: one word of a slot each."""
    token = Span(f"staging {share.lane}", 0, 1)
    return [Item((share.peer(-step), share.slot(token, share.ranks, 1)),
                 (share.peer(step), share.slot(token, 1))) for step in range(1, share.ranks)]
