"""Projections and attention of a PE's heads; Q, K, V and scores stay in local memory."""
from dataclasses import dataclass

from host.isa import (
    LINE,
    ROWS,
    Binary,
    Operand,
    Source1,
    blocks,
    lines,
    scale_stride,
)
from host.kernels.dots import Chunk, Panel, load, load_a, panel_lines
from host.kernels.rows import array, softmax, softmax_scratch, store
from host.program import use

QUERIES = 64    # rows of a score matrix in local memory at a time
SCALES = 4      # bytes between scales of Q, K, V^T rows, so that 16 rows of them start on a line


def attention(p, weights, act, sentences, heads, shape, rule):
    """Emit projections and attention of heads ``heads[0]`` to ``heads[1]`` over all sentences."""
    if heads[0] == heads[1]:
        return
    job = Attention(p, act, shape, rule, max(b - a for a, b in sentences))
    job.projections(weights, sentences, heads)


@dataclass(frozen=True)
class Projection:
    """Circular buffers of the projections: weights, tokens, biases, each with its sizes."""

    we: int
    ws: int
    weight_cbs: tuple
    token_cbs: tuple
    copies: int
    bias: int


class Attention:
    """Emits one PE's share; its buffers are those of the longest sentence."""

    def __init__(self, p, act, shape, rule, longest):
        self.p, self.act, self.shape, self.rule = p, act, shape, rule
        self.form, self.head = act.xq.format, shape.head
        self.tiles = self.head // ROWS
        self.row = lines(self.form.row_bytes(self.head))
        self.longest = longest
        self.queries = queries = min(QUERIES, longest)
        score, v_row = lines(4 * longest), lines(self.form.row_bytes(longest))
        self.qk = p.buffer(longest * 2 * self.tiles)
        self.v = p.buffer(longest * self.tiles)
        self.q = p.buffer(longest * self.row), p.buffer(lines(SCALES * longest))
        self.k = p.buffer(longest * self.row), p.buffer(lines(SCALES * longest))
        self.turned = p.buffer(self.head * score)
        self.vt = p.buffer(self.head * v_row), p.buffer(lines(self.head * wide(longest)))
        self.scores = p.buffer(queries * score)
        self.weights = (p.buffer(queries * v_row),
                        p.buffer(lines(queries * scale_stride(longest))))
        self.scratch = softmax_scratch(p, queries, longest)
        self.result = p.buffer(queries * self.tiles)
        self.out = p.buffer(2 * queries * self.row), p.buffer(2 * lines(queries))

    def projections(self, weights, sentences, heads):
        p, tiles, whole = self.p, 3 * self.tiles, Chunk(0, self.shape.width)
        form = weights.qkv.format
        where = [part * self.shape.width + h * self.head + t * ROWS for h in range(*heads)
                 for part in range(3) for t in range(self.tiles)]
        we, ws = panel_lines(form, whole, ROWS)
        xe, xs = panel_lines(self.form, whole, self.longest)
        copies = 2 if self.longest <= 128 else 1
        at = Projection(we, ws, (p.buffer(we * len(where)), p.buffer(ws * len(where))),
                        (p.buffer(copies * xe), p.buffer(copies * xs)), copies,
                        p.buffer(len(where)))

        def load_tile(i):
            if i < len(where):
                load(p, weights.qkv, whole, *at.weight_cbs, first=where[i], rows=ROWS)

        def load_tokens(s):
            if s < len(sentences):
                first, last = sentences[s]
                load(p, self.act.xq, whole, *at.token_cbs, first=first, rows=last - first)
        load_tile(0)
        load_tokens(0)
        for row in where:
            p.dma_in(use(at.bias, wait=1, release=1), weights.qkv_bias.address + 4 * row,
                     row_bytes=LINE)
        for s, (first, last) in enumerate(sentences):
            for h in range(heads[1] - heads[0]):
                for t in range(tiles):
                    if s == 0:
                        load_tile(h * tiles + t + 1)
                    self.project(weights, at, h * tiles + t, t, last - first,
                                 final=h * tiles + t == len(where) - 1)
                    if copies == 2 and h == t == 0:
                        load_tokens(s + 1)
                if copies == 1 and h == heads[1] - heads[0] - 1:
                    load_tokens(s + 1)
                self.attend(first, last - first, at.bias, h * tiles, heads[0] + h)

    def project(self, weights, at, index, t, rows, *, final):
        """Emit one tile of Q, K (into ``qk``) or V (into ``v``) for a sentence."""
        p, form, whole = self.p, weights.qkv.format, Chunk(0, self.shape.width)
        load_a(p, form, self.form, whole, *at.weight_cbs, offset=index * at.we,
               scale_offset=index * at.ws)
        panel = Panel(self.form, self.shape.width)
        count, scale_count = rows * panel.row_lines, panel.scale_lines(rows)
        width = 2 * self.tiles if t < 2 * self.tiles else self.tiles
        place = t if t < 2 * self.tiles else t - 2 * self.tiles
        out = self.qk if t < 2 * self.tiles else self.v
        p.dot(use(at.token_cbs[0], wait=count, release=count * final),
              use(at.token_cbs[1], wait=scale_count, release=scale_count * final),
              Operand(out, place, rows * width, rows * width * (place == width - 1)),
              a=form, b=self.form, columns=rows,
              blocks=blocks(self.shape.width, form, self.form), stride=panel.row_lines,
              scale_stride=panel.scale_stride, out_stride=width)

    def attend(self, first, rows, bias, at, number):
        """Emit the attention of one head over one sentence; ``at``: its tiles in ``bias``."""
        p, tiles = self.p, self.tiles
        width, columns = lines(4 * rows), lines(self.form.row_bytes(rows))
        p.transpose(array(self.v, rows * tiles), array(self.turned, self.head * width), rows=rows,
                    columns=self.head, element_bytes=4, src_stride=tiles * LINE,
                    dst_stride=width * LINE)
        self.quantise(0, self.q, rows, bias, at, release=0)
        self.quantise(tiles, self.k, rows, bias, at + tiles, release=rows * 2 * tiles)
        p.simd(array(self.turned, self.head * width), array(self.vt[0], self.head * columns),
               rows=self.head, columns=rows, op=Binary.ADD, mode=Source1.SCALAR,
               src1=use(bias, offset=at + 2 * tiles, wait=at + 3 * tiles), form=self.form,
               rule=self.rule, dst_scale_stride=wide(rows),
               scales=array(self.vt[1], lines(self.head * wide(rows))))
        for q0 in range(0, rows, self.queries):
            n, end = min(self.queries, rows - q0), q0 + self.queries >= rows
            self.score(q0, n, rows, end)
            softmax(p, self.scratch, self.scores, array(self.weights[0], n * columns), rows=n,
                    columns=rows, scale=self.head ** -0.5, form=self.form, rule=self.rule,
                    scales=array(self.weights[1], lines(n * scale_stride(rows))))
            self.weigh(n, rows, end)
            elements, scales = array(self.out[0], n * self.row), array(self.out[1], lines(n))
            p.simd(array(self.result, n * tiles), elements, rows=n, columns=self.head,
                   form=self.form, rule=self.rule, scales=scales, dst_scale_stride=1)
            store(p, self.act.heads, elements, scales, first=first + q0, rows=n,
                  column=number * self.head, columns=self.head, stride=1)

    def quantise(self, offset, target, rows, bias, at, *, release):
        """Emit: bias added to Q or K (``offset`` tiles into ``qk``), quantised by head."""
        width = 2 * self.tiles
        self.p.simd(Operand(self.qk, offset, rows * width, release),
                    array(target[0], rows * self.row), rows=rows, columns=self.head, stride=width,
                    op=Binary.ADD, src1=use(bias, offset=at, wait=at + self.tiles),
                    mode=Source1.ROW, form=self.form, rule=self.rule, dst_scale_stride=SCALES,
                    scales=array(target[1], lines(SCALES * rows)))

    def score(self, q0, n, rows, end):
        """Emit the scores of ``n`` queries against all keys."""
        width, count = lines(4 * rows), rows * self.row
        scale_count = lines(SCALES * rows)
        for key in range(0, rows, ROWS):
            last = key + ROWS >= rows
            drop = end and last
            self.p.load_a(
                Operand(self.k[0], key * self.row, count, count * drop),
                Operand(self.k[1], lines(SCALES * key), scale_count, scale_count * drop),
                form=self.form, rows=min(ROWS, rows - key), blocks=self.head // 32,
                stride=self.row, scale_stride=SCALES)
            self.p.dot(
                Operand(self.q[0], q0 * self.row, count, count * drop),
                Operand(self.q[1], lines(SCALES * q0), scale_count, scale_count * drop),
                Operand(self.scores, key // ROWS, n * width, n * width * last), a=self.form,
                b=self.form, columns=n, blocks=self.head // 32, stride=self.row,
                scale_stride=SCALES, out_stride=width)

    def weigh(self, n, rows, end):
        """Emit the sum of values weighted by probabilities."""
        columns, stride = lines(self.form.row_bytes(rows)), wide(rows)
        size, scale_size = self.head * columns, lines(self.head * stride)
        weights, weight_scales = n * columns, lines(n * scale_stride(rows))
        for tile in range(self.tiles):
            last = tile == self.tiles - 1
            self.p.load_a(
                Operand(self.vt[0], tile * ROWS * columns, size, size * (last and end)),
                Operand(self.vt[1], tile * ROWS * stride // LINE, scale_size,
                        scale_size * (last and end)),
                form=self.form, rows=ROWS, blocks=-(-rows // 32), stride=columns,
                scale_stride=stride)
            self.p.dot(
                Operand(self.weights[0], 0, weights, weights * last),
                Operand(self.weights[1], 0, weight_scales, weight_scales * last),
                Operand(self.result, tile, n * self.tiles, n * self.tiles * last), a=self.form,
                b=self.form, columns=n, blocks=-(-rows // 32), stride=columns,
                scale_stride=scale_stride(rows), out_stride=self.tiles)


def wide(rows):
    """Bytes between the scales of rows of V^T."""
    return max(SCALES, scale_stride(rows))
