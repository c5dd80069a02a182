"""Binomial tree. Places count from the root; place v has the children v + 1, v + 2, v + 4, ...

They are as many as v ends in zero bits. A place adds its children's sums to its own in this order:
((x[v] + sum(v + 1)) + sum(v + 2)) + ...
"""
from host.collectives.items import Item, interleave


def _family(share):
    """Parent, or None for the root, and children, as ranks."""
    place, bit, children = (share.rank - share.root) % share.ranks, 1, []

    def rank(v):
        return (v + share.root) % share.ranks

    while bit < share.ranks and not place & bit:
        if place + bit < share.ranks:
            children.append(rank(place + bit))
        bit *= 2
    return rank(place - bit) if place else None, children


def _up(share, whole, j):
    parent, children = _family(share)
    slots = 2 * (len(children) + 1)
    total, items = share.cut(share.source, whole, j), []
    for n, child in enumerate(children):
        slot = share.slot(total, slots)
        done = n == len(children) - 1 and parent is None
        room = share.cut(share.target, whole, j) if done else slot
        items.append(Item((child, slot), None, share.add(room, total, slot, slots)))
        total = room
    return items + [Item(None, (parent, total))] * (parent is not None)


def _down(share, whole, j, source):
    parent, children = _family(share)
    here = share.cut(share.target, whole, j)
    sent = share.cut(source, whole, j) if parent is None else here
    items = [Item((parent, here))] if parent is not None else []
    return items + [Item(None, (child, sent)) for child in reversed(children)]


def reduce(share, whole):
    return interleave(_up(share, whole, j) for j in share.rounds([whole]))


def broadcast(share, whole):
    return interleave(_down(share, whole, j, share.source) for j in share.rounds([whole]))


def all_reduce(share, whole):
    return interleave(_up(share, whole, j) + _down(share, whole, j, share.target)
                      for j in share.rounds([whole]))
