"""Feed-forward network of a transformer on the PEs of one die, as one work packet.

Each PE first makes some columns of the intermediate for some tokens or all: gate and up products,
the activation, their product, quantised on the way out of the SIMD engine. FP32 sums live in local
memory for 32 columns at a time; only MX codes leave the PE, a byte an element. After a barrier each
PE makes some columns of the result; its weights were loaded before, if they fit. So every PE has
nearly the same to do, and a weight is loaded by one PE, or by few. If each PE had tokens of its own
there would be no barrier, but each would load all the weights: 128 tokens on 12 PEs would need 2.3
lines a cycle of the 3 that SRAM gives, fewer tokens more than it gives, and 11 tokens on some
PEs beside 10 on others cost 3 %. Over dies it is tokens that are shared out, as nothing then
crosses between them.

Weights in MXFP4 decode into the cell that multiplies 8-bit elements, as the other operand is
MXFP8: the products run at the rate of MX8, 512 MACs a cycle and PE, with half the bytes of weights.
"""
from dataclasses import dataclass
from functools import partial
from math import lcm

from cosim.golden.ffn import Kind
from host.isa import LINE, ROWS, Binary, Format, Function, Op, Rule, Source1, blocks, lines
from host.kernels.dots import Panel, k_chunks, load, load_a, panel_lines
from host.kernels.matmul import Product, partition, shares
from host.kernels.rows import store
from host.kernels.schedule import Die, Load, Work, cuts, duration, fill_cycles, interleave, upper
from host.program import Program, use
from host.tensor import Tensor

BLOCK = 32      # columns of the intermediate made at a time
LAST = 16       # rows, about, of the last piece of the intermediate: what the barrier waits for
AHEAD = 2       # blocks of weights in local memory


@dataclass(frozen=True)
class Weights:
    """Device tensors: matrices [inner, width] and [width, inner] in one MX format.

    ``gate`` is None for a kind without gate; ``zeros`` is the address of 32 FP32 zeros, needed by
    ``RELU`` only.
    """

    up: Tensor
    down: Tensor
    gate: Tensor | None = None
    zeros: int | None = None


def ffn(x, weights, inner, y, *, kind, pes, rule=Rule.FLOOR, local_lines=8192):
    """Programs, by PE number, of Y = act(X gate^T, X up^T) down^T.

    Tokens, width and inner width may be any; the inner width is padded to blocks of 32.

    Parameters
    ----------
    x, y : host.tensor.Tensor
        [tokens, width], MX and FP32.
    weights : Weights
        :exc:`ValueError` if shapes or formats do not fit together.
    inner : host.tensor.Tensor
        [tokens, inner], MXFP8: room for the intermediate.
    kind : cosim.golden.ffn.Kind
        SwiGLU, GeGLU, GELU or ReLU.
    pes : list of int
        PEs that share the work; the first ones get the smaller shares.
    """
    _check(x, weights, inner, y, kind)
    count, programs = len(pes), {}
    before = partition(x.rows, upper(inner.columns, BLOCK) * ROWS, count, 1)
    after = shares(inner, weights.down, count, local_lines)
    for pe, share, (rows, tiles) in zip(pes, before, after, strict=True):
        p = programs[pe] = Program(local_lines=local_lines)
        raised = None
        if _any(*share):
            raised = Intermediate(x, weights, inner, kind, *share, pes=count, rule=rule,
                                  local_lines=local_lines)
            raised.allocate(p)
        if not _any(rows, tiles):
            if raised:
                raised.emit(p)
            p.phase(barrier=True)
            continue
        down = _beside(p, inner, weights.down, y, rows, tiles, count) if raised else None
        if raised:
            raised.emit(p, [partial(down.load_tile, p, t) for t in range(*tiles)] if down else [])
        if down:
            p.add(Op.BARRIER)
        else:
            p.phase(barrier=True)
            down = Product(inner, weights.down, y, rows, tiles, pes=count, budget=local_lines)
            down.allocate(p)
        down.emit(p)
    return programs


def _any(*spans):
    return all(a < b for a, b in spans)


def _beside(p, inner, w, y, rows, tiles, pes):
    """Return the down product if it fits beside the buffers of ``p``, all weights loaded early."""
    try:
        down = Product(inner, w, y, rows, tiles, pes=pes, budget=p.free_lines,
                       loaded=tiles[1] - tiles[0])
    except ValueError:
        return None
    if down.copies == 2:
        return None
    down.allocate(p)
    return down


def _check(x, weights, inner, y, kind):
    shape = inner.columns, x.columns
    matrices = [weights.gate, weights.up] if kind.gated else [weights.up]
    if any(w is None or (w.rows, w.columns) != shape for w in matrices):
        raise ValueError(f"Gate and up must be {shape[0]}x{shape[1]} matrices")
    if (weights.down.columns, y.columns) != (shape[0], weights.down.rows) or not (
            x.rows == inner.rows == y.rows):
        raise ValueError(f"Down must be a matrix of {y.columns}x{shape[0]}, and all of X, inner "
                         f"and Y must have {x.rows} rows")
    if len({w.format for w in matrices}) > 1 or not all(
            t.format.is_mx for t in (x, inner, weights.down, *matrices)):
        raise ValueError("X, inner and weights must be of MX formats, gate and up of the same")
    if inner.format == Format.E2M1:
        raise ValueError("The intermediate must be MXFP8, not E2M1")
    if kind == Kind.RELU and weights.zeros is None:
        raise ValueError("ReLU needs zeros in device memory")


class Intermediate:
    """One PE's share of the intermediate: some blocks of 32 columns for some tokens.

    Tokens come in bands that fit into local memory; a band meets all blocks before the next one. In
    a block, tiles of the gate matrix come first, then those of up, then the SIMD engine works on
    their sums while the next block is multiplied. The first block is made in short runs of tokens,
    so that products start early, and the last one ends with a short run, as the barrier waits for
    what the SIMD engine does with it.

    Parameters
    ----------
    rows, columns : tuple of int
        First and one past the last token, and block of 32 columns.
    pes : int
        See :class:`host.kernels.matmul.Product`.
    local_lines : int
        Lines of local memory; half of it is left for the down product if that is enough.
        :exc:`ValueError` if a token and two tiles do not fit.
    """

    def __init__(self, x, weights, inner, kind, rows, columns, *, pes, rule, local_lines):
        self.x, self.inner, self.kind, self.rule = x, inner, kind, rule
        self.zeros_address = weights.zeros
        self.columns, self.rate = columns, Die().rate(pes)
        self.matrices = [weights.gate, weights.up] if kind.gated else [weights.up]
        self.form = self.matrices[0].format
        self.chunks = k_chunks(x.columns, self.form, x.format)
        self.row_lines = sum(sum(panel_lines(x.format, c, 16)) for c in self.chunks) / 16
        self.tile_lines = sum(sum(panel_lines(self.form, c, ROWS)) for c in self.chunks)
        self.row_cycles = sum(blocks(c.columns, self.form, x.format) for c in self.chunks)
        self.unit = lcm(*(LINE // min(Panel(x.format, c.columns).scale_stride, LINE)
                          for c in self.chunks))
        self.bands = self._bands(rows, local_lines)
        plans = cuts(self.bands[0][1] - rows[0], self.bands[0][1] - rows[0], self.unit, self.unit)
        first = min(plans, key=lambda runs: duration(*self._order(runs), self.rate))
        self.loads, self.works = self._order(first)

    def _bands(self, rows, local_lines):
        """Cut the tokens into as few bands as fit, about equal ones.

        Two blocks of weights are held, or two tiles (``whole`` is false) if that is too much.
        """
        total, a_row = rows[1] - rows[0], 4 * len(self.matrices) + 5
        block = 2 * len(self.matrices)
        for budget, tiles in ((local_lines // 2, block), (local_lines, block), (local_lines, 1)):
            self.whole, self.held = tiles > 1, AHEAD * tiles
            left = budget - self.held * self.tile_lines - 16
            most = int(left // (a_row + self.row_lines))
            if most < total:
                most = int(left // (a_row + 2 * self.row_lines)) // self.unit * self.unit
            if most > 0:
                size = upper(upper(total, upper(total, most)), self.unit) * self.unit
                return [(a, min(a + size, rows[1])) for a in range(rows[0], rows[1], size)]
        raise ValueError("A token and two tiles of weights do not fit into local memory")

    def _runs(self, band, block, first):
        """Runs of tokens in which a block is made."""
        (r0, r1), short = self.bands[band], upper(LAST, self.unit) * self.unit
        if not self.whole:
            return [(r0, r1)]
        if band == 0 and block == self.columns[0]:
            return [(r0 + a, r0 + b) for a, b in first]
        cut = r0 + (r1 - r0 - 1) // short * short
        if band == len(self.bands) - 1 and block == self.columns[1] - 1 and cut > r0:
            return [(r0, cut), (cut, r1)]
        return [(r0, r1)]

    def _tiles(self, block):
        """(matrix, tile of it) of a block, in the order of the products."""
        last = upper(self.inner.columns, ROWS)
        return [(i, t) for i in range(len(self.matrices))
                for t in range(2 * block, min(2 * block + 2, last))]

    def _tile_rows(self, tile):
        return min(ROWS, self.inner.columns - tile * ROWS)

    def _order(self, first):
        """Loads and products, if the first block is made in the runs ``first``."""
        loads, works, ends, band_ends = [], [], [], []
        commands, fill = 2 * len(self.chunks), fill_cycles(self.tile_lines)
        for band in range(len(self.bands)):
            arrived = []
            for block in range(*self.columns):
                tiles = {}
                for run in self._runs(band, block, first):
                    for tile in self._tiles(block):
                        if tile not in tiles:
                            after = ends[-AHEAD] if len(ends) >= AHEAD else -1
                            tiles[tile] = len(loads)
                            loads.append(Load(("tile", *tile), self.tile_lines, commands, after,
                                              fill))
                        if block == self.columns[0] and tile == self._tiles(block)[0]:
                            after = band_ends[band - 2] if band > 1 else -1
                            arrived.append((run[0], len(loads)))
                            loads.append(Load(("rows", *run), (run[1] - run[0]) * self.row_lines,
                                              commands, after))
                        works.append(Work((band, block, tile, run),
                                          max((run[1] - run[0]) * self.row_cycles, fill),
                                          (tiles[tile],
                                           max(n for a, n in arrived if a < run[1]))))
                        if not self.whole or (tile == self._tiles(block)[-1]
                                              and run[1] == self.bands[band][1]):
                            ends.append(len(works) - 1)
            band_ends.append(len(works) - 1)
        return loads, works

    def allocate(self, p):
        """Allocate circular buffers."""
        most, copies = max(b - a for a, b in self.bands), min(len(self.bands), 2)
        self.cbs = []
        for chunk in self.chunks:
            we, ws = panel_lines(self.form, chunk, ROWS)
            xe, xs = panel_lines(self.x.format, chunk, most)
            self.cbs.append((p.buffer(self.held * we), p.buffer(self.held * ws),
                             p.buffer(copies * xe), p.buffer(copies * xs)))
        self.sums = [p.buffer(2 * 2 * most) for _ in self.matrices]
        self.active = p.buffer(2 * most) if self.kind.gated else None
        self.out = p.buffer(2 * most), p.buffer(2 * lines(most))
        if self.kind == Kind.RELU:
            self.zeros = p.buffer(2)

    def emit(self, p, between=()):
        """Emit all of it; ``between``: what else to emit, spread over the products.

        That is not begun at once: the first products wait for their own loads.
        """
        done, start, more = 0, len(self.works) // 4, list(between)
        if self.kind == Kind.RELU:
            p.dma_in(use(self.zeros, wait=2, release=2), self.zeros_address, row_bytes=2 * LINE)
        for item in interleave(self.loads, self.works):
            if isinstance(item, Load):
                self._load(p, *item.what)
                continue
            band, block, tile, run = item.what
            self._multiply(p, band, block, tile, run)
            done += 1
            due = len(between) * (done - start) // max(len(self.works) - start - 1, 1)
            while more and len(between) - len(more) < due:
                more.pop(0)()
        for emit in more:
            emit()

    def _load(self, p, kind, *what):
        for chunk, (we, ws, xe, xs) in zip(self.chunks, self.cbs, strict=True):
            if kind == "tile":
                matrix, tile = what
                load(p, self.matrices[matrix], chunk, we, ws, first=tile * ROWS,
                     rows=self._tile_rows(tile))
            else:
                load(p, self.x, chunk, xe, xs, first=what[0], rows=what[1] - what[0])

    def _multiply(self, p, band, block, tile, run):
        """Emit one tile's product with a run of tokens, and what follows the last of a matrix."""
        matrix, number = tile
        tiles, (r0, r1), rows = self._tiles(block), self.bands[band], run[1] - run[0]
        at = tiles.index(tile)
        last = tile == tiles[-1] and run[1] == r1   # product of the block
        final = last and block == self.columns[1] - 1
        held, at, drop = (tiles, at, last) if self.whole else ([tile], 0, True)
        for i, (chunk, (we, ws, xe, xs)) in enumerate(zip(self.chunks, self.cbs, strict=True)):
            sizes = [panel_lines(self.form, chunk, self._tile_rows(t)) for _, t in held]
            skip, scale_skip, total, scale_total = (
                sum(s[j] for s in part) for part in (sizes[:at], sizes) for j in (0, 1))
            load_a(p, self.form, self.x.format, chunk, we, ws, rows=self._tile_rows(number),
                   offset=skip, scale_offset=scale_skip, release=total if drop else 0,
                   scale_release=scale_total if drop else 0)
            panel = Panel(self.x.format, chunk.columns)
            begin, end, whole = (panel_lines(self.x.format, chunk, n)
                                 for n in (run[0] - r0, run[1] - r0, r1 - r0))
            place, closing = number - 2 * block, number == tiles[-1][1]
            p.dot(*(use(cb, offset=begin[j], wait=end[j], release=whole[j] if final else 0)
                    for j, cb in enumerate((xe, xs))),
                  use(self.sums[matrix], offset=place, wait=2 * rows,
                      release=2 * rows if closing and i == len(self.chunks) - 1 else 0),
                  a=self.form, b=self.x.format, columns=rows,
                  blocks=blocks(chunk.columns, self.form, self.x.format), stride=panel.row_lines,
                  scale_stride=panel.scale_stride, out_stride=2, accumulate=i > 0)
        if number == tiles[-1][1]:
            self._activate(p, block, matrix, run)

    def _activate(self, p, block, matrix, run):
        """Emit what the SIMD engine does with the sums of a matrix, and the way to memory."""
        rows = run[1] - run[0]
        count = 2 * rows
        sums = use(self.sums[matrix], wait=count, release=count)
        shape = {"rows": rows, "columns": min(BLOCK, self.inner.columns - BLOCK * block),
                 "stride": 2}
        function = Function(self.kind.function)
        if self.kind.gated and matrix == 0:
            p.simd(sums, use(self.active, wait=count, release=count), **shape, function=function,
                   dst_stride=2)
            return
        elements, scales = (use(cb, wait=n, release=n)
                            for cb, n in zip(self.out, (rows, lines(rows)), strict=True))
        coded = {"form": self.inner.format, "rule": self.rule, "scales": scales, "dst_stride": 1,
                 "dst_scale_stride": 1}
        if self.kind.gated:
            active = use(self.active, wait=count, release=count)
            p.simd(active, elements, **shape, **coded, op=Binary.MUL, src1=sums, stride1=2)
        elif self.kind == Kind.RELU:
            p.simd(sums, elements, **shape, **coded, op=Binary.MAX, mode=Source1.ROW,
                   src1=use(self.zeros, wait=2))
        else:
            p.simd(sums, elements, **shape, **coded, function=function)
        store(p, self.inner, elements, scales, first=run[0], rows=rows, column=BLOCK * block,
              columns=BLOCK, stride=1)
