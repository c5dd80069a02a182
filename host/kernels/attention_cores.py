"""Attention of a head over a sentence in local memory, with the attention unit or without it."""
from abc import ABC, abstractmethod

from host.isa import LINE, ROWS, Binary, Format, Operand, Source1, blocks, lines, scale_stride
from host.kernels.flash import KEYS
from host.kernels.matmul import upper
from host.kernels.rows import LOG2_E, array, softmax, softmax_scratch, store
from host.program import use

QUERIES = 64    # rows of a score matrix in local memory at a time; half if there are many keys
SCALES = 4      # bytes between scales of Q, K and of a page of V^T, so that 16 rows fill a line


class Core(ABC):
    """Buffers of Q, K and V^T, and the commands that fill them.

    Parameters
    ----------
    p : Program
    act : host.kernels.transformer.Activations
    shape : host.kernels.transformer.Shape
    rule : Rule
        Of the quantiser.
    runs : list
        Sentences that are projected together, (first, past last) each.
    depth : int
        Heads under way: 2 if the next head is projected before this one is done.
    bias : int
        Circular buffer of the biases: Q, K and V of each head, ``head`` FP32 numbers each.
    """

    def __init__(self, p, act, shape, rule, runs, depth, bias):
        self.p, self.act, self.rule, self.bias = p, act, rule, bias
        self.form, self.head = act.xq.format, shape.head
        self.tiles = self.head // ROWS
        self.row = lines(self.form.row_bytes(self.head))
        self.scale = self.head ** -0.5
        self.runs, self.depth = runs, depth
        self.longest = longest = max(b - a for run in runs for a, b in run)
        self.q, self.k = ((p.buffer(self.room(lambda n: n * self.row)),
                           p.buffer(self.room(lambda n: lines(SCALES * n)))) for _ in range(2))
        self.turned = p.buffer(depth * self.head * lines(4 * longest))
        self.vt = (p.buffer(self.room(lambda n: self.v_lines(n)[0])),
                   p.buffer(self.room(lambda n: self.v_lines(n)[1])))
        self.out = (p.buffer(depth * longest * self.row),
                    p.buffer(depth * lines(longest * scale_stride(self.head))))

    def room(self, size):
        """Lines for ``depth`` runs, if a sentence of ``n`` tokens takes ``size(n)``."""
        return self.depth * max(sum(size(b - a) for a, b in run) for run in self.runs)

    def quantise(self, source, target, rows, at):
        """Emit: bias from line ``at`` on added to Q or K of a sentence, quantised by head."""
        self.p.simd(array(source, rows * self.tiles), array(target[0], rows * self.row), rows=rows,
                    columns=self.head, op=Binary.ADD, mode=Source1.ROW,
                    src1=use(self.bias, offset=at, wait=at + self.tiles), form=self.form,
                    rule=self.rule, dst_scale_stride=SCALES,
                    scales=array(target[1], lines(SCALES * rows)))

    def turn(self, source, rows, at):
        """Emit: V of a sentence to V^T, bias added, quantised along the keys."""
        width = lines(4 * rows)
        self.p.transpose(array(source, rows * self.tiles), array(self.turned, self.head * width),
                         rows=rows, columns=self.head, element_bytes=4,
                         src_stride=self.tiles * LINE, dst_stride=width * LINE)
        for key, keys, stride in self.pages(rows):
            last = key + keys == rows
            self.p.simd(Operand(self.turned, lines(4 * key), self.head * width,
                                self.head * width * last),
                        array(self.vt[0], self.head * lines(self.form.row_bytes(keys))),
                        rows=self.head, columns=keys, op=Binary.ADD, mode=Source1.SCALAR,
                        src1=use(self.bias, offset=at, wait=at + self.tiles), form=self.form,
                        rule=self.rule, stride=width, dst_scale_stride=stride,
                        scales=array(self.vt[1], lines(self.head * stride)))

    def v_lines(self, rows):
        """Lines of elements and of scales of V^T of a sentence."""
        return tuple(sum(n) for n in zip(*(
            (self.head * lines(self.form.row_bytes(keys)), lines(self.head * stride))
            for _, keys, stride in self.pages(rows)), strict=True))

    @abstractmethod
    def pages(self, rows):
        """How V^T of a sentence is cut: (first key, keys, bytes between scales)."""

    @abstractmethod
    def steps(self, run, number):
        """Functions that emit the attention of head ``number`` over the sentences of a run.

        Other products may come between them.
        """

    def write(self, source, first, rows, number):
        """Emit: rows of O, FP32 in ``source``, quantised and sent to their place."""
        stride = scale_stride(self.head)
        elements = array(self.out[0], rows * self.row)
        scales = array(self.out[1], lines(rows * stride))
        self.p.simd(array(source, rows * self.tiles), elements, rows=rows, columns=self.head,
                    form=self.form, rule=self.rule, scales=scales)
        store(self.p, self.act.heads, elements, scales, first=first, rows=rows,
              column=number * self.head, columns=self.head, stride=stride)


class Fused(Core):
    """By SCORE and WEIGH; the softmax of a block runs beside the next product.

    Steps are S0, S1 W0, S2 W1, ..., over tiles of 16 queries, blocks of 128 keys and sentences.
    """

    def __init__(self, *args, p_format=Format.E4M3):
        super().__init__(*args)
        self.p_format = p_format
        self.result = self.p.buffer(self.depth * self.head * upper(self.longest, ROWS))
        self.rows = self.p.buffer(self.depth * self.longest * self.tiles)

    def pages(self, rows):
        return [(key, min(KEYS, rows - key), SCALES) for key in range(0, rows, KEYS)]

    def steps(self, run, number):
        blocks = [(span, tile, page, at) for span in run
                  for tile in range(upper(span[1] - span[0], ROWS))
                  for at, page in enumerate(self.pages(span[1] - span[0]))]
        steps = []
        for i in range(len(blocks) + 1):
            steps.append(lambda i=i: (i < len(blocks) and self.score(*blocks[i]),
                                      i and self.weigh(*blocks[i - 1], number)))
        return steps

    def score(self, span, tile, page, at):
        """Emit the scores of a block for a tile of queries; with the first the tile's load."""
        p, rows, (key, keys, _) = self.p, span[1] - span[0], page
        end = key + keys == rows
        if at == 0:
            n = min(ROWS, rows - tile * ROWS)
            p.load_a(array(self.q[0], n * self.row), array(self.q[1], lines(SCALES * n)),
                     form=self.form, rows=n, blocks=self.head // 32, stride=self.row,
                     scale_stride=SCALES)
        count, scale_count = rows * self.row, lines(SCALES * rows)
        drop = end and (tile + 1) * ROWS >= rows
        p.score(Operand(self.k[0], key * self.row, count, count * drop),
                Operand(self.k[1], lines(SCALES * key), scale_count, scale_count * drop),
                a=self.form, b=self.form, p=self.p_format, keys=keys, blocks=self.head // 32,
                stride=self.row, scale_stride=SCALES, low=0, high=keys - 1, share=4,
                factor=self.scale * LOG2_E, first=at == 0, last=end, release_a=end)

    def weigh(self, span, tile, page, at, number):
        """Emit the weighing of a block; after the last of a sentence its result is written."""
        p, rows, (key, keys, stride) = self.p, span[1] - span[0], page
        end, tiles = key + keys == rows, upper(rows, ROWS)
        done = end and tile == tiles - 1
        count, scale_count = self.v_lines(rows)
        total = self.head * tiles
        p.weigh(Operand(self.vt[0], at * self.head * lines(self.form.row_bytes(KEYS)), count,
                        count * done),
                Operand(self.vt[1], at * lines(self.head * stride), scale_count,
                        scale_count * done),
                Operand(self.result, tile, total, total * done), p=self.p_format, b=self.form,
                rows=self.head, blocks=blocks(keys, self.p_format, self.form),
                stride=lines(self.form.row_bytes(keys)), scale_stride=stride, out_stride=tiles,
                first=at == 0, last=end)
        if done:
            p.transpose(array(self.result, total), array(self.rows, rows * self.tiles),
                        rows=self.head, columns=rows, element_bytes=4, src_stride=tiles * LINE,
                        dst_stride=self.tiles * LINE)
            self.write(self.rows, span[0], rows, number)


class Separate(Core):
    """By products and a softmax of SIMD commands, with a matrix of scores in local memory."""

    def __init__(self, *args):
        super().__init__(*args)
        p, longest = self.p, self.longest
        self.queries = queries = min(QUERIES if longest <= KEYS else QUERIES // 2, longest)
        score, v_row = lines(4 * longest), lines(self.form.row_bytes(longest))
        self.scores = p.buffer(queries * score)
        self.weights = p.buffer(queries * v_row), p.buffer(lines(queries * scale_stride(longest)))
        self.scratch = softmax_scratch(p, queries, longest)
        self.result = p.buffer(queries * self.tiles)

    def pages(self, rows):
        return [(0, rows, max(SCALES, scale_stride(rows)))]

    def steps(self, run, number):
        steps = []
        for span in run:
            rows = span[1] - span[0]
            for q0 in range(0, rows, self.queries):
                part = q0, min(self.queries, rows - q0), rows, q0 + self.queries >= rows
                steps += [lambda part=part: self.score(*part),
                          lambda part=part, span=span: self.weigh(*part, span[0], number)]
        return steps

    def score(self, q0, n, rows, end):
        """Emit the scores of ``n`` queries against all keys, and their softmax."""
        width, count, columns = lines(4 * rows), rows * self.row, self.columns(rows)
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
        softmax(self.p, self.scratch, self.scores, array(self.weights[0], n * columns), rows=n,
                columns=rows, scale=self.scale, form=self.form, rule=self.rule,
                scales=array(self.weights[1], lines(n * scale_stride(rows))))

    def columns(self, rows):
        """Lines of a row of probabilities or of V^T."""
        return lines(self.form.row_bytes(rows))

    def weigh(self, q0, n, rows, end, first, number):
        """Emit the sum of values weighted by probabilities, and write it."""
        columns, stride = self.columns(rows), self.pages(rows)[0][2]
        size, scale_size = self.v_lines(rows)
        weights, weight_scales = n * columns, lines(n * scale_stride(rows))
        for tile in range(self.tiles):
            last = tile == self.tiles - 1
            self.p.load_a(
                Operand(self.vt[0], tile * ROWS * columns, size, size * (last and end)),
                Operand(self.vt[1], tile * ROWS * stride // LINE, scale_size,
                        scale_size * (last and end)),
                form=self.form, rows=ROWS, blocks=upper(rows, 32), stride=columns,
                scale_stride=stride)
            self.p.dot(
                Operand(self.weights[0], 0, weights, weights * last),
                Operand(self.weights[1], 0, weight_scales, weight_scales * last),
                Operand(self.result, tile, n * self.tiles, n * self.tiles * last), a=self.form,
                b=self.form, columns=n, blocks=upper(rows, 32), stride=columns,
                scale_stride=scale_stride(rows), out_stride=self.tiles)
        self.write(self.result, first + q0, n, number)
