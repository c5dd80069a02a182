"""A transformer layer on the ranks of a tensor-parallel group, or on one package that is them all.

Sentences are shared out to the dies of a package, those of a die to pieces. A die does the stages
of ``host.kernels.parallel`` piece by piece: mix of all pieces, spread of all, close of all. The
all-reduce of a piece's partial sums is in the work packet of the next stage, so it runs beside the
compute of another piece; it is alone in a packet if there is no other piece. Die k of each rank
meets die k of the others, over its own NICs.
"""
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np

from cosim.golden import transformer as golden
from cosim.golden.formats import Format as NumberFormat
from host.collectives import Buffer, Group, Order
from host.embed import MATRICES, Blob, moved
from host.isa import LINE, MAX_A_BYTES, Format, Region, Rule, offset_of
from host.kernels import transformer as kernels
from host.kernels.matmul import split
from host.kernels.parallel import BARRIERS, STAGES, Flow, Work, stage
from host.models import parallel as model
from host.models.minilm import EPSILON
from host.tensor import pack

SUMMED = {"mix": 0, "spread": 1}    # stages that end with partial sums, and which ones
ACTIVATIONS = Format.E4M3
MOST_COLUMNS = MAX_A_BYTES      # of a row of a product, as activations are a byte each


class LayerError(ValueError):
    """A layer that cannot be split so, or that a package cannot hold; one sentence."""


@dataclass(frozen=True)
class Job:
    """A layer, how it is split, and its arithmetic.

    Parameters
    ----------
    sizes : host.models.parallel.Sizes
    ranks : int
        That the layer is split over. :exc:`LayerError` if they do not divide its heads, if a head
        or a share of the inner width is no multiple of 32 columns, or if a row of a product is
        longer than a buffer of operand A.
    pieces : int
        Of the tokens of a die.
    weights, sums : Format
        Of the matrices (MX), of the partial sums (FP32 or BF16).
    """

    sizes: model.Sizes = field(default_factory=model.Sizes)
    ranks: int = 2
    pieces: int = 2
    weights: Format = Format.E4M3
    sums: Format = Format.BF16
    weight_rule: Rule = Rule.EVEN
    rule: Rule = Rule.RCEIL
    seed: int = 0

    def __post_init__(self):
        s = self.sizes
        for name, value in (("Ranks", self.ranks), ("Pieces", self.pieces),
                            *((f.name.capitalize(), getattr(s, f.name)) for f in fields(s))):
            if value < 1:
                raise LayerError(f"{name} must be at least 1, not {value}")
        if s.width % s.heads or s.head % 32:
            raise LayerError(f"Width must be a multiple of 32 for each of {s.heads} heads, not "
                             f"{s.width}")
        if s.width > MOST_COLUMNS:
            raise LayerError(f"Width must be at most {MOST_COLUMNS}, not {s.width}")
        if s.heads % self.ranks:
            raise LayerError(f"Ranks must divide the {s.heads} heads, as {self.ranks} do not")
        if s.inner % (32 * self.ranks):
            raise LayerError(f"Inner width must be a multiple of 32 for each of {self.ranks} "
                             f"ranks, not {s.inner}")
        if s.inner > MOST_COLUMNS * self.ranks:
            raise LayerError(f"Inner width must be at most {MOST_COLUMNS} for each of "
                             f"{self.ranks} ranks, not {s.inner}")
        if self.sums not in (Format.FP32, Format.BF16):
            raise LayerError(f"Sums must be FP32 or BF16, not {self.sums.name}")

    @property
    def spans(self):
        """First and past last row of each sentence."""
        return [(n * self.sizes.tokens, (n + 1) * self.sizes.tokens)
                for n in range(self.sizes.sentences)]

    @property
    def piece_bytes(self):
        """Bytes of a message, at most: an all-reduce is not cut into pieces of its own."""
        s = self.sizes
        return s.sentences * s.tokens * s.width * self.sums.bits // 8

    @cached_property
    def layer(self):
        """FP32 parameters."""
        return model.random_layer(self.sizes, self.seed)

    @cached_property
    def input(self):
        """FP32 rows of all tokens."""
        return model.random_input(self.sizes, self.seed + 1)

    def arithmetic(self, attention_unit):
        return golden.Arithmetic(
            NumberFormat(self.weights), NumberFormat(ACTIVATIONS), self.weight_rule, self.rule,
            NumberFormat(ACTIVATIONS) if attention_unit else None)

    def golden(self, attention_unit=True):
        """FP32 patterns [tokens, width] that every rank must have."""
        layer = self.layer
        coded = replace(layer, **{name: pack(getattr(layer, name), self.weights,
                                             rule=self.weight_rule).operand for name in MATRICES})
        return model.split_layer(golden.bits(self.input), coded, self.spans, self.sizes.heads,
                                 self.arithmetic(attention_unit), self.ranks,
                                 NumberFormat(self.sums))


@contextmanager
def fitting():
    """Within, memory that does not suffice is a :exc:`LayerError`."""
    try:
        yield
    except MemoryError as error:
        raise LayerError(f"The layer is too large for the memory of a die, take fewer tokens: "
                         f"{error}") from None


@dataclass
class Piece:
    """Some sentences of a die: rows of the input, spans among its own rows, tensors."""

    rows: slice
    spans: list
    flow: Flow


@dataclass
class Packet:
    """A work packet of a die: a stage of a piece, an all-reduce of the sums of another, or both."""

    stage: tuple | None = None      # name, number of the piece
    reduce: tuple | None = None


def packets(pieces):
    """The packets of a die, in order: what a stage needs has ended in packets before its own."""
    found, under_way = [], None
    for name in STAGES:
        for piece in range(pieces):
            needed = {"spread": ("mix", piece), "close": ("spread", piece)}.get(name)
            if under_way is not None and under_way == needed:
                found.append(Packet(None, under_way))
                under_way = None
            found.append(Packet((name, piece), under_way))
            under_way = (name, piece) if name in SUMMED else None
    return found


class Package:
    """One package with the parameters of some ranks, and the tensors of all tokens.

    Parameters
    ----------
    device : host.driver.Device
    job : Job
    ranks : list of int
        Whose parameters it has; all of them: no network is needed.
    pieces : int
        Of each die.

    :exc:`LayerError` if memory is too small.
    """

    def __init__(self, device, job, ranks, pieces):
        self.device, self.job = device, job
        s = job.sizes
        self.shape = kernels.Shape(s.width, s.heads // job.ranks, s.inner // job.ranks, EPSILON,
                                   s.head)
        self.shares = [model.share(job.layer, s.heads, job.ranks, rank) for rank in ranks]
        self.dies = {}
        for die, (first, last) in zip(device.dies, split(s.sentences, len(device.dies)),
                                      strict=True):
            if first < last:
                runs = split(last - first, min(pieces, last - first))
                with fitting():
                    self.dies[die] = self._work(die), [self._piece(die, first + a, first + b)
                                                       for a, b in runs]
        device.synchronize()

    def _work(self, die):
        """Bring the parameters into a die's HBM, as after an earlier upload."""
        weights = []
        for own in self.shares:
            blob = Blob()
            parts = {name: blob.add(pack(getattr(own, name), self.job.weights,
                                         rule=self.job.weight_rule)) for name in MATRICES}
            parts |= {f"{name}_bias": blob.row(getattr(own, f"{name}_bias")) for name in MATRICES}
            parts |= {name: [blob.row(v) for v in getattr(own, name)]
                      for name in ("norm1", "norm2")}
            data = blob.bytes()
            at = self.device.alloc(die, data.size, Region.HBM)
            self.device.transport.preload(die, offset_of(at), data)
            weights.append(moved(kernels.LayerWeights(**parts), at))
        unit = self.device.configuration.attention
        return Work(tuple(weights), self.shape, self.device.pes, self.job.rule,
                    ACTIVATIONS if unit else None)

    def _piece(self, die, first, last):
        tokens, d = self.job.sizes.tokens, self.device
        count, width = (last - first) * tokens, self.job.sizes.width
        rows = slice(first * tokens, last * tokens)

        def empty(columns, form, number):
            return tuple(d.empty(die, count, columns, form) for _ in range(number))
        x = self.job.input[rows]
        ranks = len(self.shares)
        flow = Flow(d.put(pack(x, Format.FP32), die, stream=die),
                    d.put(pack(x, ACTIVATIONS, rule=self.job.rule), die, stream=die),
                    empty(self.shape.mixed, ACTIVATIONS, ranks), empty(width, self.job.sums, 2),
                    empty(width, Format.FP32, 2), empty(width, ACTIVATIONS, 2),
                    empty(self.shape.inner, ACTIVATIONS, ranks))
        return Piece(rows, [(n * tokens, (n + 1) * tokens) for n in range(last - first)], flow)

    def programs(self, die, name, number):
        """Programs by PE of a stage of a piece."""
        work, pieces = self.dies[die]
        try:
            return stage(name, work, pieces[number].flow, pieces[number].spans)
        except ValueError as error:
            raise LayerError(f"The layer is too large for a PE's local memory, take a smaller "
                             f"width or shorter sentences: {error}") from None

    def buffer(self, die, name, number):
        """The partial sums after a stage."""
        return Buffer.of(self.dies[die][1][number].flow.sums[SUMMED[name]])

    def result(self):
        """FP32 patterns [tokens, width] of the layer's output."""
        s = self.job.sizes
        found = np.zeros((s.sentences * s.tokens, s.width), np.uint32)
        for die, (_, pieces) in self.dies.items():
            for piece in pieces:
                found[piece.rows] = self.device.get(piece.flow.y[1], stream=die).view(np.uint32)
        return found


class Ranks:
    """The layer on a group of packages, rank k on the k-th.

    Parameters
    ----------
    system : host.collectives.System
        As many devices as ranks; :exc:`ValueError` if there are others.
    job : Job
    """

    def __init__(self, system, job):
        if len(system.devices) != job.ranks:
            raise ValueError(f"Devices must be as many as ranks, {job.ranks}, not "
                             f"{len(system.devices)}")
        self.system, self.job = system, job
        self.packages = [Package(device, job, [rank], job.pieces)
                         for rank, device in enumerate(system.devices)]
        self.groups = {die: Group(system, stream=die) for die in self.packages[0].dies}
        self.stamps = []        # (die, lines by rank) of each all-reduce

    def run(self):
        """Do the layer once; all programs are on the packages before the first one starts."""
        lists = {die: packets(len(pieces)) for die, (_, pieces) in self.packages[0].dies.items()}
        with fitting():
            steps = [self._prepare(die, own[number])
                     for number in range(max(map(len, lists.values())))
                     for die, own in lists.items() if number < len(own)]
        for device in self.system.devices:
            device.synchronize()
        with ExitStack() as doorbells:
            for device in self.system.devices:
                doorbells.enter_context(device.batch())
            waits = [wait for start in steps for wait in start()]
        for wait in waits:
            wait()

    def _prepare(self, die, packet):
        """Bring a packet's programs to all ranks; returns what starts it and gives its waits."""
        beside = [own.programs(die, *packet.stage) if packet.stage else {}
                  for own in self.packages]
        if packet.reduce is None:
            made = [(own.device, own.device.prepare(die, programs, stream=die))
                    for own, programs in zip(self.packages, beside, strict=True)]
            return lambda: [device.start(each, stream=die).wait for device, each in made]
        lines = [device.alloc(die, 2 * LINE) for device in self.system.devices]
        self.stamps.append((die, lines))
        joined = BARRIERS[packet.stage[0]] if packet.stage else 0
        order = [Order(join=joined, stamps=(at, at + LINE)) for at in lines]
        handle = self.groups[die].all_reduce(
            [own.buffer(die, *packet.reduce) for own in self.packages],
            algorithm="direct", halves=self.job.ranks > 2, order=order, beside=beside, later=True,
            piece_bytes=self.job.piece_bytes)
        return lambda: [handle.start().wait]

    def reductions(self):
        """Start and end of each all-reduce by rank, as the clocks of the dies had it: [rank][n].

        Each (die, start, end) in cycles, modulo 2^32.
        """
        found = [[] for _ in self.packages]
        for die, lines in self.stamps:
            for own, device, at in zip(found, self.system.devices, lines, strict=True):
                words = device.read(at, 2 * LINE, stream=die).view("<u4")
                own.append((die, int(words[0]), int(words[LINE // 4])))
        return found


class OnePackage:
    """The layer on one package that makes the partial sums of all ranks, and adds them itself."""

    def __init__(self, device, job):
        self.device = device
        self.package = Package(device, job, range(job.ranks), 1)

    def run(self):
        """Do the layer once."""
        with fitting():
            prepared = [(die, self.device.prepare(die, self.package.programs(die, name, 0),
                                                  stream=die))
                        for name in STAGES for die in self.package.dies]
        self.device.synchronize()
        with self.device.batch():
            events = [self.device.start(each, stream=die) for die, each in prepared]
        for event in events:
            event.wait()

    def result(self):
        return self.package.result()
