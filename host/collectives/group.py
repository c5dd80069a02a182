"""Groups of ranks and their collectives, launched on the message engines of all of them."""
from contextlib import ExitStack
from dataclasses import dataclass

from host.collectives.plan import plan
from host.collectives.program import Binding, EngineProgram, Place
from host.collectives.spans import BLOCK, SCALES
from host.driver import DEFAULT_TIMEOUT, STREAMS
from host.isa import Code, Format
from host.network_isa import MESSAGE_ENGINE, NETWORK, Status

LONGEST = (1 << 31) - 1     # that a stream may wait for another one [cycle]
WATCHDOG = 1_000_000    # cycles in which no entry of a program ends; this project's choice


class CollectiveError(RuntimeError):
    """A collective did not end well; the message says on which rank and why."""


@dataclass(frozen=True)
class Buffer:
    """Elements in device memory, from a line on; MX: with a byte of scales for each 32."""

    address: int
    count: int
    format: Format
    scales: int | None = None

    @classmethod
    def of(cls, tensor):
        """All of a tensor, with what fills up its rows.

        :exc:`ValueError` if its scales are not one after another as its elements are.
        """
        count = tensor.element_bytes * 8 // tensor.format.bits
        if tensor.format.is_mx and tensor.rows > 1 and (
                tensor.scale_stride * BLOCK != tensor.row_bytes):
            raise ValueError(f"Rows of {tensor.columns} elements have scales every "
                             f"{tensor.scale_stride} bytes: a collective wants "
                             f"{tensor.row_bytes // BLOCK}")
        return cls(tensor.address, count, tensor.format, tensor.scales)


@dataclass
class Running:
    """The program of one rank: its plan, where its staging memory is, its event."""

    rank: int
    plan: object
    staging: int
    device: object
    prepared: tuple
    watchdog: int
    stream: int
    event: object = None


class Handle:
    """A collective under way."""

    def __init__(self, group, what, rail, running):
        self.group, self.what, self.rail, self.running = group, what, rail, running
        self.fences = []    # waits that came before it

    def start(self):
        """Launch what was only prepared, on all ranks; returns this handle."""
        for r in self.running:
            self.group.launch(r)
        return self

    @property
    def done(self):
        return all(r.event.done for r in self.running)

    def wait(self, timeout=DEFAULT_TIMEOUT):
        """Run until it has ended on all ranks; returns the cycles of the longest.

        :exc:`CollectiveError` with what is known of the first cause if it failed anywhere; the
        queue pairs of the group are then made anew for the next collective.
        """
        for r in self.running:
            r.device.run_until(lambda r=r: r.event.done, timeout)
        for fence in self.fences:
            fence.wait()        # has ended; an error if it did not wait
        failed = [r for r in self.running if r.event.completion.code]
        # Of several the cause is hardly the one that has only waited.
        failed.sort(key=lambda r: r.event.completion.code == Code.WATCHDOG)
        texts = [self._explain(r) for r in failed]
        for r in self.running:
            if r.staging is not None:
                r.device.free(r.staging)
                r.staging = None
        if failed:
            self.group.system.forget(self.rail, [self.group.ranks[r.rank] for r in self.running])
            raise CollectiveError(f"{self.what}: " + "; ".join(texts[:4]))
        return max((r.event.completion.cycles for r in self.running), default=0)

    def _explain(self, running):
        """What a rank reports, in words, with what its peers have told it otherwise."""
        c, made = running.event.completion, running.plan
        text = f"rank {running.rank}"
        if c.unit == MESSAGE_ENGINE:
            lane = made.lanes[min(c.command >> 12, len(made.lanes) - 1)]
            text += f", subgraph {c.command >> 12}, entry {c.command & 0xFFF}"
            if c.command & 0xFFF < len(lane.steps):
                step = lane.steps[c.command & 0xFFF]
                text += f" ({step.kind.name}"
                text += f" with rank {step.queue[0]})" if step.queue else ")"
        text += f": {'NETWORK' if c.code == NETWORK else Code(c.code).name}"
        if c.code == NETWORK:
            text += f", {Status(c.field).name}"
        for peer, difference in self._differences(running):
            text += f"; rank {peer} has another collective: {difference}"
        return text

    def _differences(self, running):
        for check in running.plan.checks:
            for peer, at in check.places.items():
                place = running.staging + running.plan.staging[check.buffer] + at
                words = running.device.read(place, 16).view("<u4")
                difference = running.plan.descriptor.explain(words,
                                                             check.expected_count(peer))
                if words.any() and difference:
                    yield peer, difference


class Group:
    """Some ranks of a system, in an order of their own: rank k of the group is ``ranks[k]``.

    Buffers are given as a list, one for each rank of the group; for several rails as a list of
    tuples, one buffer for each rail, and there is a collective on each. Collectives are launched on
    every rank in the order in which they are called, all in one stream; nothing is waited for.
    Those of several rails run beside each other: rail k in the stream k after the group's, which
    waits for what the group's was given before; what that is given later waits for all rails.

    Options of all collectives are those of :func:`host.collectives.plan` for algorithm, lanes,
    pieces and halves, ``order`` (of all ranks, or a list of theirs), ``watchdog``, ``beside``: for
    each rank the programs of PEs in the same work packet, by number (with ``Order(arrive=True)``
    the collective comes after their barrier, with ``Order(join=n)`` it runs beside n of them),
    ``absent``: ranks that are not launched, to see what others say of it, and ``later``: programs
    are copied now, and launched by :meth:`Handle.start`.

    Parameters
    ----------
    system : host.collectives.system.System
    ranks : list of int
        :exc:`ValueError` if one is not of the system, or comes twice.
    stream : int
        Of the drivers.
    topology : host.collectives.cost.Topology
        By which algorithms are chosen.
    check : bool
        Ranks also tell each other what they do, on the network.
    """

    def __init__(self, system, ranks=None, *, stream=0, topology=None, check=False,
                 watchdog=WATCHDOG):
        self.system, self.stream, self.topology = system, stream, topology
        self.check, self.watchdog, self.sequence = check, watchdog, 0
        self.ranks = list(range(len(system.devices)) if ranks is None else ranks)
        for rank in self.ranks:
            if not 0 <= rank < len(system.devices):
                raise ValueError(f"Rank {rank} is not one of the {len(system.devices)} of the "
                                 f"system")
        if not self.ranks or len(set(self.ranks)) != len(self.ranks):
            raise ValueError(f"Ranks of a group must be different, not {self.ranks}")

    def __len__(self):
        return len(self.ranks)

    @property
    def devices(self):
        """Drivers of the ranks, in the group's order."""
        return [self.system.devices[rank] for rank in self.ranks]

    def all_reduce(self, sources, targets=None, **options):
        """Sum over ranks, on every rank; in place without targets."""
        return self._run("all_reduce", sources, targets, **options)

    def reduce_scatter(self, sources, targets=None, **options):
        """Chunk k of the sum, on rank k; in place in chunk k."""
        return self._run("reduce_scatter", sources, targets, **options)

    def all_gather(self, sources, targets, **options):
        """The sources of all ranks, one after another, on every rank; in place without sources."""
        return self._run("all_gather", sources, targets, **options)

    def broadcast(self, buffers, root=0, **options):
        """What the root has, on every rank."""
        return self._run("broadcast", buffers, None, root=root, **options)

    def reduce(self, sources, targets=None, root=0, **options):
        """Sum over ranks, on the root; targets of others are not used."""
        return self._run("reduce", sources, targets, root=root, **options)

    def all_to_all(self, sources, targets=None, **options):
        """Chunk k of rank r's source is chunk r of rank k's target."""
        return self._run("all_to_all", sources, targets, **options)

    def all_to_all_v(self, sources, targets, sent, received, **options):
        """As all_to_all with runs of any size: ``sent[r][k]``, ``received[k][r]`` (first, count).

        :exc:`ValueError` if what a rank sends is not what its peer receives.
        """
        for r, row in enumerate(sent):
            for k, (_, count) in enumerate(row):
                if count != received[k][r][1]:
                    raise ValueError(f"Rank {r} sends {count} elements to rank {k}, which wants "
                                     f"{received[k][r][1]}")
        return self._run("all_to_all_v", sources, targets, sent=sent, received=received, **options)

    def send(self, source, target, sender, receiver, **options):
        """A buffer of one rank to one of another."""
        self._agree("send and receive", [(sender, source.count, source.format),
                                         (receiver, target.count, target.format)])
        return self._start("send", [(sender, "send", source, None, {"peer": receiver}),
                                    (receiver, "receive", None, target, {"peer": sender})],
                           [source.count] * 2, source.format, False, options)

    def barrier(self, **options):
        """All ranks have come."""
        return self._start("barrier", [(r, "barrier", None, None, {}) for r in range(len(self))],
                           [1] * len(self), Format.FP32, False, options)

    def _run(self, kind, sources, targets, sent=None, received=None, **options):
        """Launch a collective on each rail of the buffers; one handle, or one for each rail."""
        for name, buffers in (("sources", sources), ("targets", targets)):
            if buffers is not None and len(buffers) != len(self):
                raise ValueError(f"{kind} needs {name} of {len(self)} ranks, not {len(buffers)}")
        several = isinstance((targets if sources is None else sources)[0], tuple)
        if not several:
            sources, targets = (None if b is None else [(x,) for x in b]
                                for b in (sources, targets))
        handles, rails = [], len((targets if sources is None else sources)[0])
        streams = [(self.stream + rail) % STREAMS for rail in range(rails)]
        others = [stream for stream in dict.fromkeys(streams) if stream != self.stream]
        if options.get("later"):
            others = []     # it is for the caller to order what is launched later
        fences = self._order([self.stream] if others else [], others)
        for rail, stream in enumerate(streams):
            here, there = (None if b is None else [x[rail] for x in b] for b in (sources, targets))
            handles.append(self._run_rail(kind, here, there, sent, received,
                                          {"stream": stream} | options))
            handles[-1].fences = fences
        self._order(others, [self.stream])
        return handles if several else handles[0]

    def _order(self, before, after):
        """What some streams are given from now on waits for all that others were given.

        Returns the events of the waits.
        """
        waits = []
        for device in self.devices if before else ():
            for stream in before:
                event = self.system.end_of(device, stream)
                device.record(event, stream)
                waits += [device.wait(event, other, watchdog=LONGEST) for other in after]
        return waits

    def _run_rail(self, kind, sources, targets, sent, received, options):
        n, in_place = len(self), sources is None or targets is None
        given = targets if sources is None else sources
        for name, buffers in (("sources", sources), ("targets", targets)):
            if buffers is not None and not (kind == "reduce" and name == "targets"):
                self._agree(f"{kind}, {name}", [(r, None if kind == "all_to_all_v" else b.count,
                                                 b.format) for r, b in enumerate(buffers)])
        counts = [b.count for b in given]
        parts = {"reduce_scatter": True, "all_to_all": True, "all_gather": sources is None}
        if parts.get(kind):
            if counts[0] % n:
                raise ValueError(f"{kind} needs a multiple of {n} elements, not {counts[0]}")
            counts = [count // n for count in counts]
        self._fits(kind, sources, targets, counts[0], options.get("root", 0), sent, received)
        swapped = in_place and kind != "reduce_scatter"
        ranks = []
        for r in range(n):
            own = {"sent": sent[r], "received": received[r]} if sent is not None else {}
            source, target = (None if b is None else b[r] for b in (sources, targets))
            if swapped:
                source, target = None, given[r]
            ranks.append((r, kind, source, target, own))
        return self._start(kind, ranks, counts, given[0].format, in_place, options)

    def _agree(self, what, of_ranks):
        first, count, form = of_ranks[0]
        for rank, other, other_form in of_ranks[1:]:
            if other != count:
                raise ValueError(f"{what}: rank {rank} has {other} elements, rank {first} {count}")
            if other_form != form:
                raise ValueError(f"{what}: rank {rank} has {other_form.name}, rank {first} "
                                 f"{form.name}")

    def _fits(self, kind, sources, targets, count, root, sent, received):
        """:exc:`ValueError` unless what is moved lies inside the buffers."""
        n = len(self)
        if kind == "all_to_all_v":
            for buffers, runs in ((sources, sent), (targets or sources, received)):
                for rank, buffer in enumerate(buffers):
                    end = max((first + size for first, size in runs[rank]), default=0)
                    if end > buffer.count:
                        raise ValueError(f"Rank {rank} has {buffer.count} elements, not {end}")
            return
        wanted = count * n if kind in ("all_gather", "all_to_all") else count
        for rank, target in enumerate(targets or []):
            if (kind != "reduce" or rank == root) and target.count != wanted:
                raise ValueError(f"{kind}: the target of rank {rank} must have {wanted} elements, "
                                 f"not {target.count}")

    def _start(self, kind, ranks, counts, form, in_place, options):
        """Plan for all ranks, connect them, launch; returns a :class:`Handle`."""
        self.sequence += 1
        watchdog, absent = options.pop("watchdog", self.watchdog), options.pop("absent", ())
        beside = options.pop("beside", [{}] * len(self))
        later, orders = options.pop("later", False), options.pop("order", None)
        stream = options.pop("stream", self.stream)
        if not isinstance(orders, list):
            orders = [orders] * len(self)
        plans = [plan(own_kind, count=count, format=form, ranks=len(self), rank=rank,
                      in_place=in_place, topology=self.topology, check=self.check,
                      sequence=self.sequence, order=orders[rank], **own, **options)
                 for (rank, own_kind, _, _, own), count in zip(ranks, counts, strict=True)]
        for (rank, *_), made in zip(ranks[1:], plans[1:], strict=True):
            difference = plans[0].descriptor.difference(made.descriptor)
            if difference:
                raise ValueError(f"{kind}: rank {ranks[0][0]} and rank {rank} differ: {difference}")
        buffers = [b for _, _, *both, _ in ranks for b in both if b is not None]
        rails = {self.system.rail_of(b.address) for b in buffers} or {0}
        if len(rails) > 1:
            raise ValueError(f"Buffers of a collective must be on the same die of all ranks, not "
                             f"on dies {sorted({b.address >> 44 for b in buffers})}")
        (rail,) = rails
        bells = self.system.connect([(self.ranks[made.rank], self.ranks[peer], lane)
                                     for made in plans for peer, lane in made.queue_pairs], rail,
                                    stream=stream)
        die, running = self.system.rails[rail].die, []
        with ExitStack() as doorbells:      # rung one after another: no rank is far ahead
            for device in self.devices:
                doorbells.enter_context(device.batch())
            for (rank, _, source, target, _), made in zip(ranks, plans, strict=True):
                if made.lanes and rank not in absent:
                    running.append(self._prepare(rank, made, {"input": source, "output": target},
                                                 bells, die, watchdog, beside[rank], stream))
                    if not later:
                        self.launch(running[-1])
        return Handle(self, kind, rail, running)

    def _prepare(self, rank, made, buffers, bells, die, watchdog, beside, stream):
        system, whole = self.system, self.ranks[rank]
        device = system.devices[whole]
        places = {}
        for name, buffer in buffers.items():
            if buffer is not None:
                places[name] = Place(buffer.address, system.key(buffer.address))
                if buffer.scales is not None:
                    places[name + SCALES] = Place(buffer.scales, system.key(buffer.scales))
        staging = device.alloc(die, made.staging_bytes)
        places["staging"] = Place(staging, system.key(staging))
        entries = Binding(made, places, {
            (peer, lane): bells[whole, self.ranks[peer], lane]
            for peer, lane in made.queue_pairs}).entries()
        programs = {**(beside or {}), device.configuration.pes: EngineProgram(entries)}
        prepared = device.prepare(die, programs, stream=stream)
        return Running(rank, made, staging, device, prepared, watchdog, stream)

    def launch(self, running):
        """Start what a rank has prepared; returns its event."""
        system, whole = self.system, self.ranks[running.rank]
        running.event = event = running.device.start(running.prepared, stream=running.stream,
                                                     watchdog=running.watchdog)
        system.under_way[whole] += 1
        event.finish.append(lambda: system.under_way.subtract([whole]))
        return event
