"""An encoder layer whose heads and inner columns are shared out to ranks, in stages.

Stage ``mix`` ends with the partial sums of the attention output, stage ``spread`` with those of the
second matrix of the feed-forward network, stage ``close`` with the layer's output. What stands
between two stages is the sum of the partial sums over the ranks. A package may be several ranks:
then it adds their partial sums itself, in the order of the ranks, with the same roundings as the
message engines. Golden model: ``host.models.parallel``.
"""
from dataclasses import dataclass

from host.isa import ROWS, Binary, Format, Operand, Rule, Source1, blocks, lines
from host.kernels.attention import attention
from host.kernels.dots import Chunk, Panel, load, load_a, panel_lines
from host.kernels.matmul import split
from host.kernels.rows import array, layer_norm, rowwise
from host.kernels.transformer import (
    OUT_TILES,
    UP_TILES,
    Activations,
    activation,
    both,
    dense,
    passes,
)
from host.program import Program, use
from host.tensor import Tensor

STAGES = ("mix", "spread", "close")
BARRIERS = {"mix": 1, "spread": 2, "close": 0}      # inside a stage
TOKENS = 48     # rows of a product at a time
ROW_GROUP = 16  # rows that a LayerNorm does at once


@dataclass(frozen=True)
class Flow:
    """Device tensors of some tokens of a die.

    ``x`` and ``xq``: the layer's input, FP32 and quantised; ``y`` and ``yq``: the same after each
    of the two norms. ``heads``, ``inner``: by rank of this package, quantised. ``sums``: FP32 or
    BF16, after ``mix`` and after ``spread``.
    """

    x: Tensor
    xq: Tensor
    heads: tuple
    sums: tuple
    y: tuple
    yq: tuple
    inner: tuple


@dataclass(frozen=True)
class Work:
    """What the stages of a die have in common.

    ``weights``: ``host.kernels.transformer.LayerWeights`` of each rank of this package. ``shape``:
    of one of them.
    """

    weights: tuple
    shape: object
    pes: list
    rule: Rule = Rule.FLOOR
    probabilities: Format | None = Format.E4M3
    local_lines: int = 8192


def stage(name, work, flow, sentences):
    """Programs by PE of a stage; all have :data:`BARRIERS` barriers.

    ``sentences`` are (first, past last) token rows. :exc:`ValueError` for an unknown name.
    """
    if name not in STAGES:
        raise ValueError(f"Stage must be one of {', '.join(STAGES)}, not {name!r}")
    programs = {pe: Program(local_lines=work.local_lines) for pe in work.pes}
    {"mix": _mix, "spread": _spread, "close": _close}[name](work, flow, sentences, programs)
    return programs


def _mix(work, flow, sentences, programs):
    """Projections and attention of all heads, then the partial sums of the output projection."""
    for p, items in zip(programs.values(), share_heads(work, sentences), strict=True):
        for number, (rank, heads, part) in enumerate(items):
            if number:
                p.phase(barrier=False)
            act = Activations(flow.x, flow.xq, flow.heads[rank], None, None)
            attention(p, work.weights[rank], act, part, heads, work.shape, work.rule,
                      work.probabilities)
        p.phase(barrier=True)
    _products(work, flow.heads, [w.out for w in work.weights], flow.sums[0], programs)


def _spread(work, flow, sentences, programs):
    """Residual and norm, the feed-forward network up to the partial sums of its second matrix."""
    _norms(work, flow, 0, programs)
    pairs = flow.inner[0].columns // 32     # of tiles, of a rank
    most = max(1, min(UP_TILES, most_tiles(work, flow.yq[:1], [work.weights[0].up], 4)) // 2)
    for p, span in zip(programs.values(), split(pairs * len(work.weights), len(work.pes)),
                       strict=True):
        p.phase(barrier=True)
        first = True
        for rank, weights in enumerate(work.weights):
            a, b = (min(max(end - rank * pairs, 0), pairs) for end in span)
            if a == b:
                continue
            act = Activations(None, flow.yq[0], None, None, flow.inner[rank])
            for at, end in passes(p, (a, b), most):
                if not first and at == a:
                    p.phase(barrier=False)
                first, tiles = False, (at * 2, end * 2)
                dense(p, act.xq, weights.up, tiles,
                      activation(p, weights.up_bias, act, tiles, work.rule))
        p.phase(barrier=True)
    _products(work, flow.inner, [w.down for w in work.weights], flow.sums[1], programs)


def _close(work, flow, sentences, programs):
    """Residual and norm: the layer's output."""
    _norms(work, flow, 1, programs)


def share_heads(work, sentences):
    """For each PE: (rank, heads, sentences) of its share, such that the largest is small.

    Heads of all ranks are shared out to the PEs, where there are few also the sentences.
    """
    heads, pes = work.shape.heads, len(work.pes)
    total = heads * len(work.weights)

    def largest(groups):
        return -(-total // (pes // groups)) * max(
            sum(b - a for a, b in sentences[i:j]) for i, j in split(len(sentences), groups))
    groups = min(range(1, min(pes, len(sentences)) + 1), key=lambda g: (largest(g), g))
    each, shares = pes // groups, []
    most = _most_heads(work)
    for i, j in split(len(sentences), groups):
        for first, last in split(total, each):
            items = []
            while first < last:
                rank, at = divmod(first, heads)
                end = min(heads, at + last - first, at + most)
                items.append((rank, (at, end), sentences[i:j]))
                first += end - at
            shares.append(items)
    return shares + [[] for _ in range(pes - len(shares))]


def most_tiles(work, sources, matrices, arrays):
    """Tiles of matrices that fit into local memory with as many arrays of their products."""
    x, w = sources[0], matrices[0]
    chunk, whole = min(TOKENS, x.rows), Chunk(0, x.columns)
    tile = len(matrices) * sum(panel_lines(w.format, whole, ROWS)) + arrays * chunk
    rest = 2 * sum(panel_lines(x.format, whole, chunk)) + arrays * chunk + 64
    return (work.local_lines - rest) // tile


def _most_heads(work):
    """Heads whose weights take at most a third of local memory; one at least."""
    weights = work.weights[0].qkv
    size = sum(panel_lines(weights.format, Chunk(0, weights.columns), 3 * work.shape.head))
    return max(1, work.local_lines // 3 // size)


def _products(work, sources, matrices, target, programs):
    """The sum over ranks of the products of their columns, into ``target``."""
    most = max(1, min(OUT_TILES, most_tiles(work, sources, matrices, 7)))
    for p, tiles in zip(programs.values(), split(target.columns // ROWS, len(work.pes)),
                        strict=True):
        for part in passes(p, tiles, most):
            ordered_product(p, sources, matrices, target, part)


def ordered_product(p, sources, matrices, target, tiles):
    """Emit: columns of ((x[0] w[0]^T + x[1] w[1]^T) + ...), rounded to the target's format.

    So is each product before it is added, and each sum. All operands are of one format and as wide
    as each other; the weights stay in local memory.
    """
    t0, t1 = tiles
    if t0 == t1:
        return
    x, w, count, n = sources[0], matrices[0], t1 - t0, len(sources)
    whole, chunk = Chunk(0, x.columns), min(TOKENS, x.rows)
    we, ws = panel_lines(w.format, whole, ROWS)
    xe, xs = panel_lines(x.format, whole, chunk)
    cbs = (p.buffer(we * count * n), p.buffer(ws * count * n), p.buffer(2 * xe), p.buffer(2 * xs))
    out, sums = p.buffer(2 * chunk * count), Sums(p, target, tiles, chunk, n)
    turns = [(r, min(r + chunk, x.rows), k) for r in range(0, x.rows, chunk) for k in range(n)]
    loads = [(k, tile) for k in range(n) for tile in range(t0, t1)]

    def load_tile(number):
        if number < len(loads):
            k, tile = loads[number]
            load(p, matrices[k], whole, cbs[0], cbs[1], first=tile * ROWS, rows=ROWS)

    def load_rows(turn):
        r0, r1, k = turn
        load(p, sources[k], whole, cbs[2], cbs[3], first=r0, rows=r1 - r0)
    load_tile(0)
    load_rows(turns[0])
    panel = Panel(x.format, x.columns)
    for number, (r0, r1, k) in enumerate(turns):
        rows = r1 - r0
        lines_in, scales_in = rows * panel.row_lines, panel.scale_lines(rows)
        for at in range(count):
            place, done = k * count + at, at == count - 1
            if r0 == 0:
                load_tile(place + 1)
            load_a(p, w.format, x.format, whole, cbs[0], cbs[1], offset=place * we,
                   scale_offset=place * ws)
            p.dot(use(cbs[2], wait=lines_in, release=lines_in * done),
                  use(cbs[3], wait=scales_in, release=scales_in * done),
                  Operand(out, at, rows * count, rows * count * done), a=w.format, b=x.format,
                  columns=rows, blocks=blocks(x.columns, w.format, x.format),
                  stride=panel.row_lines, scale_stride=panel.scale_stride, out_stride=count)
            if at == 0 and number + 1 < len(turns):
                load_rows(turns[number + 1])
        sums.emit(out, r0, rows, k)


class Sums:
    """Adds products in local memory, one rank after another, and writes columns of the sum."""

    def __init__(self, p, target, tiles, chunk, ranks):
        self.p, self.target, self.ranks, self.form = p, target, ranks, target.format
        self.columns = (tiles[1] - tiles[0]) * ROWS
        self.row_bytes = self.columns * self.form.bits // 8
        self.at = target.address + tiles[0] * ROWS * self.form.bits // 8
        self.width = lines(self.row_bytes)
        self.new = p.buffer(2 * chunk * self.width)
        self.total = p.buffer(2 * chunk * self.width) if ranks > 1 else None
        self.rounded = p.buffer(chunk * self.width) if ranks > 1 else None

    def emit(self, out, first, rows, rank):
        """Emit what follows the product of a rank's columns, FP32 rows in ``out``."""
        p, last = self.p, rank == self.ranks - 1
        count, shape = rows * self.width, {"rows": rows, "columns": self.columns}
        source = array(out, rows * self.columns // ROWS)
        target = array(self.new if last else self.total, count)
        if rank == 0:
            p.simd(source, target, form=self.form, **shape)
        else:
            p.simd(source, array(self.rounded, count), form=self.form, **shape)
            p.simd(array(self.total, count), target, src_format=self.form, op=Binary.ADD,
                   src1=array(self.rounded, count), src1_format=self.form, form=self.form, **shape)
        if last:
            p.dma_out(array(self.new, count), self.at + first * self.target.row_bytes, rows=rows,
                      row_bytes=self.row_bytes, remote_stride=self.target.row_bytes,
                      local_stride=self.width * 64)


def _norms(work, flow, number, programs):
    """Sum plus bias plus what the half of the layer began with, LayerNorm, and that quantised."""
    weights, sums = work.weights[0], flow.sums[number]
    old = (flow.x, flow.y[0])[number]
    bias = (weights.out_bias, weights.down_bias)[number]
    norm = (weights.norm1, weights.norm2)[number]
    targets = flow.y[number], flow.yq[number]
    row = lines(4 * old.columns)
    lines_a_row = 2 * (sums.row_lines + row + row + targets[1].row_lines + 2) + 3 * row

    def body(p, chunk, columns):
        biased, whole = p.buffer(chunk * row), p.buffer(chunk * row)
        finish = layer_norm(p, chunk, columns, epsilon=work.shape.epsilon, targets=2)

        def emit(rows, cbs, fixed, pairs):
            shape = {"rows": rows, "columns": columns, "op": Binary.ADD}
            p.simd(array(cbs[0], rows * sums.row_lines), array(biased, rows * row),
                   src_format=sums.format, mode=Source1.ROW,
                   src1=array(fixed[0], row, release=False), **shape)
            p.simd(array(biased, rows * row), array(whole, rows * row),
                   src1=array(cbs[1], rows * row), **shape)
            act = Activations(*targets, None, None, None)
            finish(rows, whole, fixed[1], both(act, pairs, rows, work.rule))
        return emit
    chunk = max(1, min(ROW_GROUP, (work.local_lines - 4 * row - 64) // lines_a_row))
    for p, span in zip(programs.values(), split(sums.rows, len(work.pes)), strict=True):
        rowwise(p, span, [sums, old], [(bias,), tuple(norm)], list(targets), body, chunk=chunk)
