"""Projections and attention of a PE's heads; Q, K, V and scores stay in local memory.

Sentences are projected in runs of up to 128 tokens, so that a tile of weights is loaded once for
several short ones. Each head of a run is an item. Between the six products of an item come the
quantising of what they gave, and the attention of the item before, piece by piece: neither the
SIMD engine nor the softmax keeps the dot-product engine waiting.
"""
from host.isa import ROWS, Operand, blocks
from host.kernels.attention_cores import Fused, Separate
from host.kernels.dots import Chunk, Panel, load, load_a, panel_lines
from host.program import use

RUN = 128       # tokens that are projected together; a longer sentence is a run of its own
PARTS = ("q", "k", "v")


def attention(p, weights, act, sentences, heads, shape, rule, p_format=None, *, alone=False):
    """Emit projections and attention of heads ``heads[0]`` to ``heads[1]`` over all sentences.

    ``p_format``: format of P if the attention unit does it; None: products and SIMD commands.
    ``alone``: the products of the projections alone, to be measured; nothing is kept.
    """
    if heads[0] == heads[1]:
        return
    _Heads(p, weights, act, shape, runs_of(sentences), heads, rule, p_format, alone).emit()


def runs_of(sentences):
    """Group sentences into runs, in order."""
    runs = []
    for first, last in sentences:
        if runs and last - runs[-1][0][0] <= RUN and runs[-1][-1][1] == first:
            runs[-1].append((first, last))
        else:
            runs.append([(first, last)])
    return runs


class _Heads:
    """Emits one PE's share; its buffers are those of the largest run."""

    def __init__(self, p, weights, act, shape, runs, heads, rule, p_format, alone):
        self.p, self.weights, self.act, self.shape = p, weights, act, shape
        self.runs, self.heads, self.tiles = runs, range(*heads), shape.head // ROWS
        self.whole, self.form = Chunk(0, shape.width), act.xq.format
        most = max(run[-1][1] - run[0][0] for run in runs)
        self.depth = depth = 2 if most <= RUN else 1
        count = len(self.heads) * len(PARTS) * self.tiles
        self.tile_lines = panel_lines(weights.qkv.format, self.whole, ROWS)
        self.weight_cbs = tuple(p.buffer(n * count) for n in self.tile_lines)
        self.token_cbs = tuple(p.buffer(depth * n)
                               for n in panel_lines(self.form, self.whole, most))
        self.bias = p.buffer(count)
        self.parts = {part: p.buffer(most * self.tiles) for part in PARTS}
        options = {} if p_format is None else {"p_format": p_format}
        self.core = None if alone else (Separate if p_format is None else Fused)(
            p, act, shape, rule, runs, depth, self.bias, **options)

    def emit(self):
        """All items, each with the attention of the one before (or its own, if depth is 1)."""
        slots = [(part, tile) for part in PARTS for tile in range(self.tiles)]
        items = [(run, head) for run in self.runs for head in self.heads]
        self.load_tile(0)
        self.load_tokens(self.runs[0])
        self.load_biases()
        behind, steps = [], []  # what follows the product before; attention of the item before
        for number, (run, head) in enumerate(items):
            for at, (part, tile) in enumerate(slots):
                if run is self.runs[0]:
                    self.load_tile(self.index(head, part, tile) + 1)
                self.project(run, head, part, tile, final=head == self.heads[-1]
                             and at == len(slots) - 1)
                for action in behind:
                    action()
                behind = self.follow(run, head, part) if tile == self.tiles - 1 else []
                for step in steps[len(steps) * at // len(slots):
                                  len(steps) * (at + 1) // len(slots)]:
                    step()
                if at == 0 and self.depth == 2:
                    self.load_next(number, run, head == self.heads[0])
            steps = self.core.steps(run, head) if self.core else []
            if self.depth == 1 or number == len(items) - 1:
                for action in (*behind, *steps):
                    action()
                behind = steps = []
            if self.depth == 1:
                self.load_next(number, run, head == self.heads[-1])

    def load_next(self, number, run, due):
        at = number // len(self.heads) + 1
        if due and at < len(self.runs):
            self.load_tokens(self.runs[at])

    def index(self, head, part, tile):
        """Number of a tile of weights among this PE's."""
        return ((head - self.heads[0]) * len(PARTS) + PARTS.index(part)) * self.tiles + tile

    def load_tile(self, index):
        """Emit the load of a tile of weights; they come in the order of their use."""
        head, rest = divmod(index, len(PARTS) * self.tiles)
        part, tile = divmod(rest, self.tiles)
        if head < len(self.heads):
            first = part * self.shape.mixed + self.heads[head] * self.shape.head + tile * ROWS
            load(self.p, self.weights.qkv, self.whole, *self.weight_cbs, first=first, rows=ROWS)

    def load_tokens(self, run):
        first, last = run[0][0], run[-1][1]
        load(self.p, self.act.xq, self.whole, *self.token_cbs, first=first, rows=last - first)

    def load_biases(self):
        """Emit the load of the biases: a head's Q, K, V one after another."""
        count, size = len(PARTS) * self.tiles, 4 * self.shape.head
        for head in self.heads:
            self.p.dma_in(use(self.bias, wait=count, release=count),
                          self.weights.qkv_bias.address + head * size, rows=len(PARTS),
                          row_bytes=size, remote_stride=4 * self.shape.mixed, local_stride=size)

    def project(self, run, head, part, tile, *, final):
        """Emit one tile of Q, K or V for a run."""
        p, form, rows = self.p, self.weights.qkv.format, run[-1][1] - run[0][0]
        index = self.index(head, part, tile)
        load_a(p, form, self.form, self.whole, *self.weight_cbs,
               offset=index * self.tile_lines[0], scale_offset=index * self.tile_lines[1])
        panel = Panel(self.form, self.shape.width)
        count, scale_count = rows * panel.row_lines, panel.scale_lines(rows)
        total = rows * self.tiles
        kept = self.core and tile == self.tiles - 1
        p.dot(use(self.token_cbs[0], wait=count, release=count * final),
              use(self.token_cbs[1], wait=scale_count, release=scale_count * final),
              Operand(self.parts[part], tile, total, total if kept else 0),
              a=form, b=self.form, columns=rows,
              blocks=blocks(self.shape.width, form, self.form), stride=panel.row_lines,
              scale_stride=panel.scale_stride, out_stride=self.tiles)

    def follow(self, run, head, part):
        """What is to be done with Q, K or V of each sentence: functions that emit it."""
        core, source, at = self.core, self.parts[part], self.index(head, part, 0)
        if core is None:
            return []
        if part == "v":
            return [lambda n=b - a: core.turn(source, n, at) for a, b in run]
        target = core.q if part == "q" else core.k
        return [lambda n=b - a: core.quantise(source, target, n, at) for a, b in run]
