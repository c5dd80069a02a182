"""One encoder layer of a BERT-shaped transformer on the PEs of one die, as one work packet.

Tokens of all sentences stand one after another in matrices [tokens, width]. Five phases, with a
barrier between them: projections and attention (heads are shared out to the PEs; Q, K, V, scores
and probabilities never leave local memory), output projection, LayerNorm, two products of the
feed-forward network, LayerNorm.
"""
from dataclasses import dataclass, replace

from host.isa import (
    LINE,
    ROWS,
    Binary,
    Format,
    Function,
    Operand,
    Reduce,
    Rule,
    Source1,
    blocks,
    lines,
)
from host.isa import scale_stride as stride_of
from host.kernels.attention import attention
from host.kernels.dots import Chunk, Panel, load, load_a, panel_lines
from host.kernels.matmul import split
from host.kernels.rows import array, gather, layer_norm, move_out, rowwise, store, target
from host.program import Program, use
from host.tensor import Tensor

OUT_TILES = 6       # of W that a PE takes at once: with their rows they fit into local memory
UP_TILES = 24

@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder: width of a token, heads, width inside the feed-forward network.

    ``head_width``: of a head, if the heads are not all of the token's width, but a rank's share.
    """

    width: int = 384
    heads: int = 12
    inner: int = 1536
    epsilon: float = 1e-12
    head_width: int | None = None

    @property
    def head(self):
        return self.head_width or self.width // self.heads

    @property
    def mixed(self):
        """Width of all heads: of Q, of K and of V."""
        return self.heads * self.head


@dataclass(frozen=True)
class LayerWeights:
    """Device tensors of one layer: matrices [out, in], biases and LayerNorm rows in FP32."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    norm1: tuple
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    norm2: tuple


@dataclass(frozen=True)
class Activations:
    """Device tensors between the phases; ``x`` is FP32, ``xq`` the same quantised."""

    x: Tensor
    xq: Tensor
    heads: Tensor       # attention output, quantised
    sum: Tensor         # FP32, before a LayerNorm
    inner: Tensor       # inside the feed-forward network, quantised


def layer(weights, act, sentences, *, pes, shape, before=None, rule=Rule.FLOOR,
          probabilities=Format.E4M3, local_lines=8192):
    """Programs by PE of one encoder layer; ``sentences`` are (first, past last) token rows.

    ``before``: tensor of the hidden states that the layer starts from, if not ``act.x``.

    ``probabilities``: format of P in the attention unit; None on PEs without one.
    """
    programs, old = {}, act if before is None else replace(act, x=before)
    tokens = act.x.rows
    count = len(pes)
    for i, pe in enumerate(pes):
        p = programs[pe] = Program(local_lines=local_lines)
        attention(p, weights, act, sentences, split(shape.heads, count)[i], shape, rule,
                  probabilities)
        p.phase(barrier=True)
        for tiles in passes(p, split(shape.width // ROWS, count)[i], OUT_TILES):
            dense(p, act.heads, weights.out, tiles, residual(p, weights.out_bias, old, tiles))
        p.phase(barrier=True)
        normalise(p, split(tokens, count)[i], act, weights.norm1, shape, rule)
        p.phase(barrier=True)
        pairs = split(shape.inner // 32, count)[i]
        for first, last in passes(p, pairs, UP_TILES // 2):
            tiles = (first * 2, last * 2)
            dense(p, act.xq, weights.up, tiles, activation(p, weights.up_bias, act, tiles, rule))
        p.phase(barrier=True)
        for tiles in passes(p, split(shape.width // ROWS, count)[i], OUT_TILES):
            dense(p, act.inner, weights.down, tiles, residual(p, weights.down_bias, act, tiles))
        p.phase(barrier=True)
        normalise(p, split(tokens, count)[i], act, weights.norm2, shape, rule)
    return programs


def passes(p, tiles, most):
    """Runs of at most ``most`` tiles, each in buffers of its own; emits what is between them."""
    t0, t1 = tiles
    runs = split(t1 - t0, max(1, -(-(t1 - t0) // most)))
    for number, (a, b) in enumerate(runs):
        if number:
            p.phase(barrier=False)
        yield t0 + a, t0 + b


def attend(weights, act, sentences, *, pes, shape, rule=Rule.FLOOR, probabilities=Format.E4M3,
           alone=False, local_lines=8192):
    """Programs of the first phase of a layer alone: projections and attention.

    ``alone``: only the products of the projections.
    """
    programs = {}
    for pe, heads in zip(pes, split(shape.heads, len(pes)), strict=True):
        programs[pe] = Program(local_lines=local_lines)
        attention(programs[pe], weights, act, sentences, heads, shape, rule, probabilities,
                  alone=alone)
    return programs


def normalise(p, span, act, norm, shape, rule):
    """Emit LayerNorm of ``act.sum`` into ``act.x`` and, quantised, ``act.xq``."""
    def body(p, chunk, columns):
        emit = layer_norm(p, chunk, columns, epsilon=shape.epsilon, targets=2)
        return lambda rows, cbs, fixed, targets: emit(rows, cbs[0], *fixed,
                                                      both(act, targets, rows, rule))
    rowwise(p, span, [act.sum], [tuple(norm)], [act.x, act.xq], body, chunk=24)


def both(act, targets, rows, rule):
    """Targets of a LayerNorm: FP32 rows, and the same quantised."""
    plain, coded = (target(t, pair, rows) for t, pair in zip((act.x, act.xq), targets,
                                                             strict=True))
    return [plain, (coded[0], coded[1] | {"rule": rule})]


def dense(p, x, w, tiles, finish, *, chunk=48):
    """Emit products of all rows of ``x`` with tiles of ``w``.

    ``finish(rows)`` allocates its buffers and returns ``emit(first, rows, out)``, which consumes
    ``rows`` rows of (tiles x 16) FP32 values from the circular buffer ``out``.
    """
    t0, t1 = tiles
    if t0 == t1:
        return
    whole, count = Chunk(0, x.columns), t1 - t0
    chunk = min(chunk, x.rows)
    we, ws = panel_lines(w.format, whole, ROWS)
    xe, xs = panel_lines(x.format, whole, chunk)
    cbs = (p.buffer(we * count), p.buffer(ws * count), p.buffer(2 * xe), p.buffer(2 * xs))
    out = p.buffer(2 * chunk * count)
    emit = finish(chunk)
    runs = [(r, min(r + chunk, x.rows)) for r in range(0, x.rows, chunk)]

    def load_tile(tile):
        load(p, w, whole, cbs[0], cbs[1], first=tile * ROWS, rows=ROWS)

    def load_rows(run):
        load(p, x, whole, cbs[2], cbs[3], first=run[0], rows=run[1] - run[0])
    load_tile(t0)
    load_rows(runs[0])
    for i, (r0, r1) in enumerate(runs):
        for tile in range(t0, t1):
            if i == 0 and tile + 1 < t1:
                load_tile(tile + 1)
            load_a(p, w.format, x.format, whole, cbs[0], cbs[1], offset=(tile - t0) * we,
                   scale_offset=(tile - t0) * ws)
            dot_tile(p, w.format, x.format, x.columns, cbs[2:], out, rows=r1 - r0, at=tile - t0,
                     width=count)
            if tile == t0 and i + 1 < len(runs):
                load_rows(runs[i + 1])
        emit(r0, r1 - r0, out)


def dot_tile(p, a, b, columns, x, out, *, rows, at, width):
    """Emit one tile's product into tile ``at`` of ``width`` tiles of an FP32 array."""
    panel, done = Panel(b, columns), at == width - 1
    count, scale_count = rows * panel.row_lines, panel.scale_lines(rows)
    p.dot(use(x[0], wait=count, release=count if done else 0),
          use(x[1], wait=scale_count, release=scale_count if done else 0) if b.is_mx else None,
          Operand(out, at, rows * width, rows * width if done else 0), a=a, b=b, columns=rows,
          blocks=blocks(columns, a, b), stride=panel.row_lines, scale_stride=panel.scale_stride,
          out_stride=width)


def columns_of(tensor, tiles):
    """Address of the first of a PE's columns of an FP32 tensor."""
    return tensor.address + tiles[0] * ROWS * 4


def residual(p, bias, act, tiles):
    """Finish of a product: add bias and ``act.x``, write FP32 columns of ``act.sum``."""
    def finish(chunk):
        width = tiles[1] - tiles[0]
        bias_cb, mid, old, new = (p.buffer(n) for n in (
            width, chunk * width, 2 * chunk * width, 2 * chunk * width))
        p.dma_in(use(bias_cb, wait=width, release=width), columns_of(bias, tiles),
                 row_bytes=width * LINE)

        def emit(first, rows, out):
            count, shape = rows * width, {"rows": rows, "columns": width * ROWS}
            at = first * act.x.row_bytes
            p.dma_in(use(old, wait=count, release=count), columns_of(act.x, tiles) + at, rows=rows,
                     row_bytes=width * LINE, remote_stride=act.x.row_bytes,
                     local_stride=width * LINE)
            p.simd(array(out, count), array(mid, count), **shape, op=Binary.ADD,
                   src1=array(bias_cb, width, release=False), mode=Source1.ROW)
            p.simd(array(mid, count), array(new, count), **shape, op=Binary.ADD,
                   src1=array(old, count))
            p.dma_out(array(new, count), columns_of(act.sum, tiles) + at, rows=rows,
                      row_bytes=width * LINE, remote_stride=act.sum.row_bytes,
                      local_stride=width * LINE)
        return emit
    return finish


def activation(p, bias, act, tiles, rule):
    """Finish of a product: add bias, GELU, quantise, write columns of ``act.inner``."""
    form = act.inner.format

    def finish(chunk):
        width = tiles[1] - tiles[0]
        columns = width * ROWS
        stride, row = stride_of(columns), lines(form.row_bytes(columns))
        bias_cb, new, scales = (p.buffer(n) for n in (
            width, 2 * chunk * row, 2 * lines(chunk * stride)))
        p.dma_in(use(bias_cb, wait=width, release=width), columns_of(bias, tiles),
                 row_bytes=width * LINE)

        def emit(first, rows, out):
            elements, scale = array(new, rows * row), array(scales, lines(rows * stride))
            p.simd(array(out, rows * width), elements, rows=rows, columns=columns, op=Binary.ADD,
                   src1=array(bias_cb, width, release=False), mode=Source1.ROW,
                   function=Function.GELU, form=form, scales=scale, rule=rule)
            store(p, act.inner, elements, scale, first=first, rows=rows,
                  column=tiles[0] * ROWS, columns=columns, stride=stride)
        return emit
    return finish


def embed(tables, indices, act, norm, *, pes, shape, rule=Rule.FLOOR, local_lines=8192):
    """Programs: token and position rows gathered, added, LayerNorm, quantised.

    ``tables`` and ``indices``: two FP32 tensors and two addresses of 32-bit row numbers.
    """
    programs = {}
    for pe, (first, last) in zip(pes, split(act.x.rows, len(pes)), strict=True):
        p = programs[pe] = Program(local_lines=local_lines)
        if first == last:
            continue
        chunk = min(16, last - first)
        size = chunk * act.x.row_lines
        cbs = [p.buffer(size) for _ in range(3)]
        index = [p.buffer(lines(4 * chunk)) for _ in range(2)]
        parameters = p.buffer(2 * act.x.row_lines)
        for row in norm:
            p.dma_in(use(parameters, wait=row.row_lines, release=row.row_lines), row.address,
                     row_bytes=row.row_bytes)
        targets = [(p.buffer(size), None),
                   (p.buffer(chunk * act.xq.row_lines),
                    p.buffer(lines(chunk * act.xq.scale_stride)))]
        emit = layer_norm(p, chunk, act.x.columns, epsilon=shape.epsilon, targets=2)
        for r0 in range(first, last, chunk):
            rows = min(chunk, last - r0)
            for tensor, address, cb, ids in zip(tables, indices, cbs, index, strict=False):
                gather(p, tensor, address, cb, ids, first=r0, rows=rows)
            count = rows * act.x.row_lines
            p.simd(array(cbs[0], count), array(cbs[2], count), rows=rows, columns=act.x.columns,
                   op=Binary.ADD, src1=array(cbs[1], count))
            emit(rows, cbs[2], parameters, both(act, targets, rows, rule))
            for tensor, pair in zip((act.x, act.xq), targets, strict=True):
                move_out(p, tensor, pair, first=r0, rows=rows)
    return programs


def pool(x, y, sentences, *, pes, slice_columns=128, local_lines=8192):
    """Programs: mean over the tokens of each sentence, divided by its length as a vector.

    y has one row a sentence. The mean over rows is a transpose and a reduction along rows.
    """
    programs = {pe: Program(local_lines=local_lines) for pe in pes}
    longest = max(b - a for a, b in sentences)
    width = slice_columns * 4 // LINE
    for i, pe in enumerate(pes):
        p, mine = programs[pe], list(range(i, len(sentences), len(pes)))
        if not mine:
            continue
        rows_cb = p.buffer(longest * width)
        turned = p.buffer(slice_columns * lines(4 * longest))
        mean, norm, inverse, out = (p.buffer(n) for n in (x.row_lines, 1, 1, 2 * x.row_lines))
        for s in mine:
            first, rows = sentences[s][0], sentences[s][1] - sentences[s][0]
            for c in range(0, x.columns, slice_columns):
                _mean_slice(p, x, rows_cb, turned, mean, first, rows, c, slice_columns)
            total, one = x.row_lines, {"rows": 1, "columns": x.columns}
            p.simd(array(mean, total, release=False), array(norm, 1), **one, op=Binary.MUL,
                   src1=array(mean, total, release=False), reduce=Reduce.SUM)
            p.simd(array(norm, 1), array(inverse, 1), rows=1, columns=1, function=Function.RSQRT)
            p.simd(array(mean, total), array(out, total), **one, op=Binary.MUL,
                   src1=array(inverse, 1), mode=Source1.SCALAR)
            p.dma_out(array(out, total), y.row(s), row_bytes=y.row_bytes)
    return programs


def _mean_slice(p, x, rows_cb, turned, mean, first, rows, column, columns):
    width, across = columns * 4 // LINE, lines(4 * rows)
    p.dma_in(array(rows_cb, rows * width), x.row(first) + 4 * column, rows=rows,
             row_bytes=width * LINE, remote_stride=x.row_bytes, local_stride=width * LINE)
    p.transpose(array(rows_cb, rows * width), array(turned, columns * across), rows=rows,
                columns=columns, element_bytes=4, src_stride=width * LINE,
                dst_stride=across * LINE)
    p.simd(array(turned, columns * across), array(mean, width), rows=columns, columns=rows,
           affine=(1 / rows, 0.0), reduce=Reduce.SUM)

