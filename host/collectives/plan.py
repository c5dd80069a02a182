"""Plans of collectives: what one rank's message engine has to do, before there are addresses."""
from dataclasses import dataclass, field

from host.collectives import direct, doubling, ring, tree
from host.collectives.cost import ALGORITHMS, Topology, choose
from host.collectives.descriptor import Descriptor
from host.collectives.items import AHEAD, Check, Item, emit, most_ahead
from host.collectives.lane import SCRATCH_LINES, Lane
from host.collectives.order import Order, begin, finish
from host.collectives.share import Share
from host.collectives.spans import BLOCK, Elements, Span, chunks
from host.isa import LINE, Format, ceil
from host.network_isa import ENTRIES, SUBGRAPHS

LANES = 4                   # subgraphs of a ring beside each other, for large sizes
PIECE_BYTES = 16384         # of a message of a large ring
SMALLEST_PIECE = 1024       # below that messages cost more than they hide
DIRECT_STAGING = 1 << 20    # bytes of slots of a direct sum, about
ROOTED = ("broadcast", "reduce")
SUMS = ("all_reduce", "reduce_scatter", "reduce")


@dataclass(frozen=True)
class Plan:
    """Entries of a rank for a collective, with names for addresses: see :func:`plan`.

    ``lanes``: subgraphs. ``staging``: where the parts of staging memory start [byte].
    ``staging_bytes``: what is to be free for it. ``buffers``: names of those it uses.
    """

    descriptor: Descriptor
    rank: int
    lanes: tuple
    staging: dict = field(repr=False)
    staging_bytes: int = 0
    checks: tuple = ()

    @property
    def queue_pairs(self):
        """(peer, lane) of each connection that must exist."""
        return tuple((peer, lane.number) for lane in self.lanes for peer in sorted(lane.peers))

    @property
    def entries(self):
        return sum(len(lane.steps) for lane in self.lanes)


def plan(kind, *, count, format=Format.FP32, ranks, rank, root=0, peer=None, algorithm=None,
         in_place=False, lanes=None, piece_bytes=None, topology=None, check=False, sequence=1,
         sent=None, received=None, order=None, halves=False):
    """Plan a collective for one rank.

    The buffers are arrays of elements on lines: "input" and "output", for MX formats also
    "input scales" and "output scales", a byte for each 32 elements, above their elements. In
    place, what comes stands where it is to go: all of it in "output", but for reduce_scatter,
    where the sums of rank r replace chunk r of "input".

    Parameters
    ----------
    kind : str
        One of ``host.collectives.cost.ALGORITHMS``.
    count : int
        Elements: of the vector for all_reduce, broadcast, reduce, send and receive; of a rank's
        chunk for reduce_scatter, all_gather and all_to_all.
    ranks, rank, root, peer : int
        ``root``: of broadcast and reduce. ``peer``: of send and receive.
    algorithm : str
        If None, :func:`host.collectives.cost.choose` chooses.
    lanes, piece_bytes : int
        Subgraphs, and bytes of a message, at most; None: by size. The same on all ranks.
    check : bool
        Ranks tell each other what they do, and stop if it differs. For ranks of other hosts.
    sequence : int
        Of the collective in its group, from 1 on; the same on all ranks.
    sent, received : list of (first, count)
        Of all_to_all_v: what goes to each rank, where what comes from each is to stand.
    order : Order
        What the program waits for and tells besides.
    halves : bool
        Of a direct all_reduce: each rank adds up one chunk of the vector and sends the sum to the
        others. The same bits, with 2 (n - 1) / n times the bytes of the vector sent, not n - 1
        times, in two steps. All ranks must say the same.

    Raises :exc:`ValueError` for what cannot be; the same on every rank, if the arguments are.
    """
    if kind not in ALGORITHMS:
        raise ValueError(f"Collective must be one of {', '.join(ALGORITHMS)}, not {kind!r}")
    if ranks < 1 or not 0 <= rank < ranks:
        raise ValueError(f"Rank must be 0 to {ranks - 1}, not {rank}")
    if kind in ROOTED and not 0 <= root < ranks:
        raise ValueError(f"Root must be 0 to {ranks - 1}, not {root}")
    if kind in ("send", "receive") and (peer is None or not 0 <= peer < ranks or peer == rank):
        raise ValueError(f"Peer must be another rank of 0 to {ranks - 1}, not {peer}")
    elements = Elements(Format(format))
    if kind == "barrier":
        elements, count = Elements(Format.FP32), 1
    if kind == "all_to_all":
        sent = received = [(r * count, count) for r in range(ranks)]
    if kind == "all_to_all_v":
        count = _check_runs(sent, received, ranks, elements, in_place)
    elif count < 1:
        raise ValueError(f"Elements must be at least 1, not {count}")
    elements.check(count)
    size = count * elements.bytes * (ranks if kind in (
        "reduce_scatter", "all_gather", "all_to_all") else 1)
    topology = topology or Topology()
    algorithm = algorithm or choose(kind, size, ranks, topology)
    if algorithm not in ALGORITHMS[kind]:
        raise ValueError(f"Algorithm of {kind} must be one of {', '.join(ALGORITHMS[kind])}, "
                         f"not {algorithm!r}")
    if lanes is not None and not 1 <= lanes <= SUBGRAPHS:
        raise ValueError(f"Lanes must be 1 to {SUBGRAPHS}, not {lanes}")
    if halves and (kind, algorithm) != ("all_reduce", "direct"):
        raise ValueError(f"Halves must be of a direct all_reduce, not of {kind} by {algorithm}")
    lanes, piece = _division(kind, algorithm, count, elements, ranks, lanes, piece_bytes, halves)
    descriptor = Descriptor(kind, elements.format, algorithm, ranks, root, count, lanes, piece,
                            sequence)
    source, target = _names(kind, in_place)
    built, checks, shares = [], [], []
    for number in range(lanes):
        share = Share(rank, ranks, root, elements, number, lanes, piece, source, target)
        items = _items(kind, algorithm, share, count, in_place, peer, sent, received, halves)
        lane = Lane(number, elements)
        guard = None
        if check:
            guard = Check(lane, lambda other, sends: _words(descriptor, kind, other, sends, sent,
                                                            received))
        begin(lane, number, order, sequence)
        # In halves, what comes last is awaited before the sums are made: nobody finds no receive.
        emit(lane, items, guard, min(max(AHEAD, ranks - 2), most_ahead(elements.format))
             if halves else AHEAD)
        built.append(lane)
        shares.append(share)
        checks.append(guard)
    finish(built, order, sequence)
    longest = max(len(lane.steps) for lane in built)
    if longest > ENTRIES:
        raise ValueError(f"Entries of a subgraph must be at most {ENTRIES}, not {longest}: take "
                         f"larger pieces, more lanes or another algorithm")
    kept = [n for n, lane in enumerate(built) if lane.steps]
    staging, staging_bytes = _staging(built, shares, checks, elements)
    made = tuple(built[n] for n in kept)
    if order is not None and order.join:
        joins = Lane(lanes, elements)
        for _ in range(order.join):
            joins.arrive()
        made += (joins,)
    return Plan(descriptor, rank, made, staging, staging_bytes,
                tuple(checks[n] for n in kept if checks[n]))


def _check_runs(sent, received, ranks, elements, in_place):
    """Check what all_to_all_v is given; returns 0, for its count is of no use."""
    for name, runs in (("sent", sent), ("received", received)):
        if runs is None or len(runs) != ranks:
            raise ValueError(f"What is {name} must be given for each of {ranks} ranks, "
                             f"not {runs!r}")
        for first, count in runs:
            elements.check(count)
            if first < 0 or first % elements.unit:
                raise ValueError(f"A run must start at a block of {elements.unit}, not at {first}")
    used = sorted((first, count) for first, count in received if count)
    for (first, count), (after, _) in zip(used, used[1:], strict=False):
        if first + count > after:
            raise ValueError(f"Runs received must not overlap, as {first} to {first + count} "
                             f"and {after} do")
    if in_place and sent != received:
        raise ValueError("In place, runs sent and received must be the same")
    return 0


def _names(kind, in_place):
    if not in_place:
        return "input", "output"
    return ("input", "input") if kind == "reduce_scatter" else ("output", "output")


def _division(kind, algorithm, count, elements, ranks, lanes, piece_bytes, halves):
    """Lanes and elements of a piece, from what all ranks know."""
    grain, size = elements.grain, count * elements.bytes
    whole = max(ceil(count, grain), grain)
    if kind in ("barrier", "send", "receive", "all_to_all", "all_to_all_v"):
        # Copies of chunks that start inside a line touch others: one lane must do all.
        apart = kind == "all_to_all" and not size % LINE and not (
            elements.format.is_mx and count // BLOCK % LINE)
        return (lanes or 1) if apart else 1, whole
    # Unaligned copies write bytes of other chunks again: one lane must do all.
    together = (kind in ("all_gather", "reduce_scatter") and ranks > 1
                and (size % LINE or elements.format.is_mx and count // BLOCK % LINE))
    alone = bool(together) or (kind, algorithm) == ("all_gather", "doubling")
    part = ceil(-(-count // ranks), grain) if kind == "all_reduce" and (
        algorithm == "ring" or halves) else whole
    most = (piece_bytes or PIECE_BYTES) // elements.bytes
    if piece_bytes is None:
        fewest = SMALLEST_PIECE // elements.bytes
        beside = LANES * ring.BESIDE if algorithm == "ring" else LANES
        # A list of entries has an end: not more than 8 of a piece for each rank.
        fewest = max(fewest, 8 * ranks * part // (ENTRIES * (lanes or LANES)))
        most = max(min(most, part // beside), fewest)
        if algorithm == "direct" and kind in SUMS:
            most = max(min(most, DIRECT_STAGING // elements.bytes // (2 * ranks)), grain)
    piece = min(ceil(most, grain), part)
    # Others than the ring have queue pairs with many ranks: one with each, if nobody wants more.
    lanes = lanes or (LANES if algorithm == "ring" else 1)
    return 1 if alone else min(lanes, -(-part // piece)), piece


def _items(kind, algorithm, share, count, in_place, peer, sent, received, halves):
    """Items of a lane."""
    n, r, whole = share.ranks, share.rank, (0, count)
    module = {"ring": ring, "direct": direct, "doubling": doubling, "tree": tree}[algorithm]
    equal = [(rank * count, count) for rank in range(n)]
    here, there = Span(share.source, 0, count), Span(share.target, 0, count)
    match kind:
        case "send" | "receive":
            return [Item(send=(peer, here))] if kind == "send" else [Item((peer, there))]
        case "barrier":
            return module.barrier(share)
        case "all_to_all" | "all_to_all_v":
            return module.all_to_all(share, sent, received)
        case "reduce_scatter":
            there = Span(share.target, r * count, count) if in_place else there
            if n > 1:
                return module.reduce_scatter(share, equal, there)
        case "all_gather":
            if n > 1:
                return module.all_gather(
                    share, equal, Span(share.target, r * count, count) if in_place else here)
        case "all_reduce" if n > 1 and halves:
            return module.all_reduce_in_halves(share, chunks(count, n, share.elements))
        case "all_reduce" if n > 1:
            return module.all_reduce(
                share, chunks(count, n, share.elements) if algorithm == "ring" else whole)
        case "broadcast" | "reduce" if n > 1:
            items = getattr(module, kind)(share, whole)
            if kind == "broadcast" and r == share.root and not in_place:
                items = items + _copies(share, whole)
            return items
    return [] if share.source == share.target else _copies(share, whole)


def _copies(share, whole):
    return [Item(work=(("copy", *(share.cut(buffer, whole, j)
                                  for buffer in (share.target, share.source))),))
            for j in share.rounds([whole])]


def _words(descriptor, kind, other, sends, sent, received):
    """What a rank is told, or has to say; all_to_all_v: how much comes."""
    if kind == "all_to_all_v":
        return descriptor.words((sent if sends else received)[other][1])
    return descriptor.words()


def _staging(lanes, shares, checks, elements):
    """Bytes at which each lane's part of staging memory starts, and of all of it."""
    places, at = {}, 0
    for lane, share, check in zip(lanes, shares, checks, strict=True):
        slots = share.slots * share.slot_size
        sizes = {f"staging {lane.number}": slots * elements.bytes,
                 f"staging {lane.number} scales": slots // BLOCK * elements.format.is_mx,
                 lane.scratch: SCRATCH_LINES * LINE, f"flags {lane.number}": LINE,
                 f"check {lane.number}": LINE * check.lines if check else 0}
        for name, size in sizes.items():
            places[name] = at
            at += ceil(size, LINE)
    return places, at


__all__ = ["Order", "Plan", "plan"]
