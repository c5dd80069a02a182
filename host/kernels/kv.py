"""Writes a cache of keys and values: projections of tokens, quantised on the way out.

K goes to rows of its tensor, V^T to pages of 128 keys, as ``host.kernels.flash`` reads them. V^T
needs no transpose: a tile of 16 tokens is operand A and the rows of Wv stream past it, so that
line d of a product holds element d of 16 values. Tokens come twice, as operand A for V and as
operand B for K, because a circular buffer is emptied by one unit only.
"""
from dataclasses import dataclass

from host.isa import LINE, ROWS, Binary, Format, Operand, Rule, Source1, blocks, lines, scale_stride
from host.kernels.dots import Chunk, Panel, k_chunks, load, load_a, panel_lines
from host.kernels.flash import KEYS
from host.kernels.matmul import split, upper
from host.kernels.rows import array
from host.program import Program, use
from host.tensor import Tensor

CHUNKS = (2048, 1024, 512, 256, 128)    # columns that are multiplied at a time, if not all
FORMATS = (Format.E4M3, Format.E5M2, Format.E2M1, Format.BF16, Format.FP16)


@dataclass(frozen=True)
class KeyValueHead:
    """A head that keeps keys and values.

    ``wk``, ``wv``: weights [head, width]; ``k``: [keys, head]; ``vt``: pages of V^T, of 128
    columns: rows ``j h`` to ``j h + h - 1`` are page ``j`` of a head of ``h`` elements. Biases are
    FP32 rows [1, head] or None.
    """

    wk: Tensor
    wv: Tensor
    k: Tensor
    vt: Tensor
    k_bias: Tensor | None = None
    v_bias: Tensor | None = None

    @property
    def size(self):
        return self.wk.rows

    def check(self, x, pages):
        """:exc:`ValueError` if the shapes or formats do not fit together."""
        size, last = self.size, max(pages)
        if size % 32 or not 32 <= size <= 256:
            raise ValueError(f"Head size must be a multiple of 32 up to 256, not {size}")
        if any((w.rows, w.columns) != (size, x.columns) for w in (self.wk, self.wv)):
            raise ValueError(f"Shapes x {x.rows}x{x.columns}, Wk {self.wk.rows}x{self.wk.columns}, "
                             f"Wv {self.wv.rows}x{self.wv.columns} do not make keys and values")
        if self.k.columns != size or self.vt.columns != KEYS:
            raise ValueError(f"Columns of K and V^T must be {size} and {KEYS}, not "
                             f"{self.k.columns} and {self.vt.columns}")
        need = last * KEYS + (x.rows - (len(pages) - 1) * KEYS if last == pages[-1] else KEYS)
        if self.k.rows < need or self.vt.rows < (last + 1) * size:
            raise ValueError(f"Page {last} is outside of K {self.k.rows}x{size} or V^T "
                             f"{self.vt.rows}x{KEYS}")
        if self.k.format not in FORMATS or self.vt.format not in FORMATS:
            raise ValueError(f"Keys and values must be in MX or 16-bit formats, not "
                             f"{self.k.format.name} and {self.vt.format.name}")


def chunking(x, head, *, local_lines=8192):
    """Columns of ``x`` that are multiplied at a time, and how many such chunks local memory holds.

    The most columns that fit twice, so that one chunk comes while the other is multiplied; else
    once. :exc:`ValueError` if none fit, or if there are no rows of scales that tiles of 16 rows can
    start in: a chunk has more than 96 columns.
    """
    width, wk, wv = x.columns, head.wk, head.wv
    limit = min(k_chunks(width, wk.format, x.format)[0].columns,
                k_chunks(width, x.format, wv.format)[0].columns, width)
    if width % 32 or width <= 96:
        raise ValueError(f"Width must be a multiple of 32 above 96, not {width}")
    room = local_lines - sum(result_lines(head))
    for copies in (2, 1):
        for columns in (width, *CHUNKS):
            if columns > limit or 0 < width % columns <= 96:
                continue
            chunk = Chunk(0, columns)
            need = sum(sum(panel_lines(form, chunk, rows)) for form, rows in (
                (x.format, 2 * KEYS), (wk.format, head.size), (wv.format, head.size)))
            if copies * need <= room:
                return columns, copies
    raise ValueError(f"No chunk of the {width} columns fits into {local_lines} lines beside a page "
                     f"of a head of {head.size}")


def result_lines(head):
    """Lines of a page: sums of K and V^T, elements and scales of both in their format; biases."""
    size = head.size
    for form, rows, columns in ((head.k.format, KEYS, size), (head.vt.format, size, KEYS)):
        yield lines(KEYS * size * 4)
        yield rows * lines(form.row_bytes(columns))
        yield lines(rows * scale_stride(columns))
        yield lines(4 * size)


def cache(x, heads, *, pes, pages=None, rule=Rule.FLOOR, local_lines=8192):
    """Programs by PE that write keys and values of all rows of ``x``.

    Parameters
    ----------
    x : Tensor
        Tokens [tokens, width], of an MX or 16-bit format.
    heads : list of KeyValueHead
        Weights, and where the keys and values go.
    pages : list of int
        For each 128 tokens the page of K and V^T that they go to; 0, 1, ... if None.
    rule : Rule
        Of the quantiser.

    Of the last page of V^T the whole blocks of 32 keys that have a key are written, keys past the
    end zero; nothing reads what follows. K has rows for the keys alone.
    """
    count = upper(x.rows, KEYS)
    pages = list(range(count)) if pages is None else list(pages)
    if len(pages) != count or len(set(pages)) != count or min(pages) < 0:
        raise ValueError(f"Pages must be {count} different numbers, not {pages}")
    for head in heads:
        head.check(x, pages)
        if kind(head) != kind(heads[0]):
            raise ValueError("Heads of a cache must have the same size and formats")
    items = [(head, number) for head in heads for number in range(count)]
    programs = {}
    for pe, (first, last) in zip(pes, split(len(items), len(pes)), strict=True):
        if first < last:
            job = _Cache(x, items[first:last], pages, rule, local_lines)
            job.emit()
            programs[pe] = job.program
    return programs


def kind(head):
    """Size and formats."""
    return head.size, *(t.format for t in (head.wk, head.wv, head.k, head.vt))


class _Cache:
    """Emits one PE's pages: loads of the next chunk, then the products of this one."""

    def __init__(self, x, items, pages, rule, local_lines):
        self.x, self.items, self.pages, self.rule = x, items, pages, rule
        p = self.program = Program(local_lines=local_lines)
        head = items[0][0]
        columns, self.copies = chunking(x, head, local_lines=local_lines)
        self.chunks = [Chunk(at, min(at + columns, x.columns))
                       for at in range(0, x.columns, columns)]
        self.size, self.tiles = head.size, head.size // ROWS
        whole = self.chunks[0]
        self.cbs = {name: tuple(p.buffer(self.copies * n)
                                for n in panel_lines(form, whole, rows))
                    for name, form, rows in (("xa", x.format, KEYS), ("xb", x.format, KEYS),
                                             ("wk", head.wk.format, self.size),
                                             ("wv", head.wv.format, self.size))}
        self.sums = {side: p.buffer(lines(KEYS * self.size * 4)) for side in "kv"}
        self.out = {"k": self._out(head.k.format, KEYS, self.size),
                    "v": self._out(head.vt.format, self.size, KEYS)}
        self.bias = {side: p.buffer(lines(4 * self.size)) for side in "kv"}

    def _out(self, form, rows, columns):
        return (self.program.buffer(rows * lines(form.row_bytes(columns))),
                self.program.buffer(lines(rows * scale_stride(columns))))

    def rows(self, number):
        """Tokens of a page."""
        return min(KEYS, self.x.rows - number * KEYS)

    def emit(self):
        steps = [(*item, chunk) for item in self.items for chunk in self.chunks]
        ahead = self.copies - 1
        if ahead:
            self._load(*steps[0])
        for at, step in enumerate(steps):
            if at + ahead < len(steps):
                self._load(*steps[at + ahead])
            self._values(*step)
            self._keys(*step)
            if step[2] is self.chunks[-1]:
                self._finish(*step[:2])

    def _load(self, head, number, chunk):
        p, rows = self.program, self.rows(number)
        for name, tensor, first, count in (
                ("wv", head.wv, 0, self.size), ("xa", self.x, number * KEYS, rows),
                ("wk", head.wk, 0, self.size), ("xb", self.x, number * KEYS, rows)):
            load(p, tensor, chunk, *self.cbs[name], first=first, rows=count)

    def _product(self, a, b, chunk, out, tile, tiles, *, a_rows, b_rows):
        """Emit one tile of operand A against operand B; ``a``, ``b``: (name, format, rows)."""
        p, (a_name, a_form), (b_name, b_form) = self.program, a, b
        last, final = tile == tiles - 1, chunk is self.chunks[-1]
        held, scales_held = panel_lines(a_form, chunk, a_rows)
        size, scale_size = panel_lines(a_form, chunk, ROWS)
        load_a(p, a_form, b_form, chunk, *self.cbs[a_name],
               rows=min(ROWS, a_rows - tile * ROWS), offset=tile * size,
               scale_offset=tile * scale_size, ready=held, scale_ready=scales_held,
               release=held * last, scale_release=scales_held * last)
        panel = Panel(b_form, chunk.columns)
        count, scale_count = panel_lines(b_form, chunk, b_rows)
        elements, scales = self.cbs[b_name]
        total = b_rows * tiles
        p.dot(use(elements, wait=count, release=count * last),
              use(scales, wait=scale_count, release=scale_count * last) if b_form.is_mx else None,
              Operand(out, tile, total, total * (last and final)), a=a_form, b=b_form,
              columns=b_rows, blocks=blocks(chunk.columns, a_form, b_form),
              stride=panel.row_lines, scale_stride=panel.scale_stride, out_stride=tiles,
              accumulate=chunk is not self.chunks[0])

    def _values(self, head, number, chunk):
        rows = self.rows(number)
        for tile in range(upper(rows, ROWS)):
            self._product(("xa", self.x.format), ("wv", head.wv.format), chunk, self.sums["v"],
                          tile, upper(rows, ROWS), a_rows=rows, b_rows=self.size)

    def _keys(self, head, number, chunk):
        for tile in range(self.tiles):
            self._product(("wk", head.wk.format), ("xb", self.x.format), chunk, self.sums["k"],
                          tile, self.tiles, a_rows=self.size, b_rows=self.rows(number))

    def _finish(self, head, number):
        """Emit: V^T and K of a page quantised and sent to their place."""
        keys, page = self.rows(number), self.pages[number]
        self._quantise("v", head.v_bias, head.vt, self.size, keys, upper(keys, ROWS),
                       page * self.size)
        self._quantise("k", head.k_bias, head.k, keys, self.size, self.tiles, page * KEYS)

    def _quantise(self, side, bias, tensor, rows, columns, stride, first):
        p, form, (elements, scales) = self.program, tensor.format, self.out[side]
        options = {}
        if bias is not None:
            count = lines(4 * self.size)
            p.dma_in(use(self.bias[side], wait=count, release=count), bias.address,
                     row_bytes=count * LINE)
            options = {"op": Binary.ADD, "src1": array(self.bias[side], count),
                       "mode": Source1.ROW if side == "k" else Source1.SCALAR}
        count, row = rows * tensor.row_lines, tensor.row_lines
        scale_count = lines(rows * tensor.scale_stride)
        if form.is_mx:
            options["scales"] = array(scales, scale_count)
        p.simd(array(self.sums[side], rows * stride), array(elements, count), rows=rows,
               columns=columns, stride=stride, form=form, rule=self.rule, dst_stride=row,
               dst_scale_stride=tensor.scale_stride if form.is_mx else 0, **options)
        groups = upper(columns, 32)
        self._send(array(elements, count), tensor.row(first), rows, groups * 4 * form.bits,
                   tensor.row_bytes)
        if form.is_mx:
            self._send(array(scales, scale_count), tensor.scale_row(first), rows, groups,
                       tensor.scale_stride)

    def _send(self, operand, remote, rows, count, stride):
        """Emit: ``count`` bytes of each row, in one run if they are all of it."""
        if count == stride:
            self.program.dma_out(operand, remote, row_bytes=rows * stride)
        else:
            self.program.dma_out(operand, remote, rows=rows, row_bytes=count, remote_stride=stride,
                                 local_stride=stride)
