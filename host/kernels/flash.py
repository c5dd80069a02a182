"""Fused attention on PEs with a softmax unit: softmax(Q K^T) V without a score matrix in memory.

Keys come in blocks of 128. V is kept as V^T, a page of 128 keys after the other, so that a page is
one run of memory: page ``j`` of a head of ``h`` elements is rows ``j h`` to ``j h + h - 1`` of a
tensor of 128 columns, keys past the end zero. The output is O^T by tiles of 16 rows of Q: row
``t h + d`` of a tensor of 16 columns holds element ``d`` of the rows of tile ``t``.
"""
from dataclasses import dataclass
from math import isfinite

import numpy as np

from host.isa import LINE, ROWS, Format, Operand, blocks
from host.kernels.dots import Chunk, Panel, panel_lines
from host.kernels.matmul import upper
from host.program import Program, use
from host.tensor import Tensor, pack

KEYS = 128                  # keys of a block
GROUP = 8                   # blocks whose scales come together where keys are streamed
PAIRED = ROWS // 2          # most rows of Q of a pair
EVERYTHING = 1 << 30        # more keys than there are
LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Mask:
    """Which keys a row of Q sees, by its position: ``first`` + row // 2**``share``.

    ``causal``: those up to its position; ``window``: of these only the last so many. ``share``:
    log2 of how many rows of Q (heads that share keys) stand at one position.
    """

    causal: bool = False
    window: int | None = None
    first: int = 0
    share: int = 0

    def __post_init__(self):
        if self.window is not None and (self.window < 1 or not self.causal):
            raise ValueError(f"Window must be positive and causal, not {self.window!r}")
        if not 0 <= self.share <= 4:
            raise ValueError(f"Share must be in 0 to 4, not {self.share!r}")

    def seen(self, row):
        """First and last key that a row sees, before they are cut to the keys that exist."""
        at = self.first + (row >> self.share)
        return (at - self.window + 1 if self.window else -EVERYTHING,
                at if self.causal else EVERYTHING)

    def span(self, first, last, keys):
        """Keys ``(start, stop)`` that rows ``first`` to ``last - 1`` see, (0, 0) if none does."""
        low, high = max(self.seen(first)[0], 0), min(self.seen(last - 1)[1], keys - 1)
        return (low, high + 1) if low <= high else (0, 0)

    def bounds(self, row, key):
        """Fields ``low`` and ``high`` of SCORE for a tile from ``row``, a block from ``key`` on."""
        low, high = self.seen(row)
        return (low - key if self.window else -EVERYTHING,
                high - key if self.causal else EVERYTHING)


@dataclass(frozen=True)
class PageTable:
    """Which pages of a pool hold a sequence: 32-bit page numbers from ``address`` on, in order.

    A number past the pool ends the launch with BAD_FIELD of its GATHER, field 12 (the index).
    """

    address: int
    keys: int       # of the sequence


@dataclass(frozen=True)
class Head:
    """Operands of one head: Q [rows, head], K [keys, head], V^T by pages, O^T by tiles in FP32.

    With a page ``table`` K and V^T are pools of pages that several sequences share: page ``n`` is
    rows ``128 n`` to ``128 n + 127`` of K and the page ``n`` of V^T. What a page holds past the
    last key must be numbers: their weight is zero, but zero times NaN is NaN.
    """

    q: Tensor
    k: Tensor
    vt: Tensor
    out: Tensor
    table: PageTable | None = None

    @property
    def keys(self):
        return self.table.keys if self.table else self.k.rows

    @property
    def size(self):
        return self.q.columns

    def check(self):
        """:exc:`ValueError` if the shapes or formats do not fit together."""
        size, pages, tiles = self.size, upper(self.k.rows, KEYS), upper(self.q.rows, ROWS)
        if self.k.columns != size or (self.vt.rows, self.vt.columns) != (pages * size, KEYS):
            raise ValueError(f"Shapes Q {self.q.rows}x{size}, K {self.k.rows}x{self.k.columns}, "
                             f"V^T {self.vt.rows}x{self.vt.columns} do not make an attention")
        if (self.out.rows, self.out.columns, self.out.format) != (tiles * size, ROWS, Format.FP32):
            raise ValueError(f"O^T must be {tiles * size}x{ROWS} in FP32, not {self.out.rows}x"
                             f"{self.out.columns} in {self.out.format.name}")
        if size % 32 or not 32 <= size <= 256:
            raise ValueError(f"Head size must be a multiple of 32 up to 256, not {size}")


def sink_row(logits):
    """Sinks for :func:`flash`, packed for the device, from the logits of heads that share keys.

    Row r of Q is one of head r mod ``len(logits)``. :exc:`ValueError` unless there are 1, 2, 4, 8
    or 16.
    """
    logits = np.atleast_1d(np.asarray(logits, np.float64))
    if logits.ndim > 1 or len(logits) not in (1, 2, 4, 8, ROWS):
        raise ValueError(f"Sinks must be 1, 2, 4, 8 or 16 logits, not {logits.shape}")
    return pack(np.tile(np.float32(logits * LOG2_E), ROWS // len(logits)), Format.FP32)


def flash(head, *, p=Format.E4M3, mask=None, scale=None, tiles=None, cap=None, sinks=None,
          local_lines=8192):
    """Program of one PE for one head.

    Parameters
    ----------
    head : Head
        Operands in memory.
    p : Format
        Of P: E4M3, BF16 or FP16.
    mask : Mask
        Which keys a row sees; everything if None.
    scale : float
        Factor of the scores; ``size ** -0.5`` if None.
    tiles : range
        Tiles of 16 rows of Q; all if None. A head with at most 8 rows is done as a pair.
    cap : float
        Soft cap: logits become cap tanh(logit / cap); none if None.
    sinks : Tensor
        [1, 16] in FP32, as :func:`sink_row` makes it: number r is the x (logit times log2 e) of
        the sink of rows r, r + 16, ... of Q. A sink takes part in the softmax as a key whose
        value is zero; one of -infinity is none. None: no sinks.
    local_lines : int
        Size of local memory [line].
    """
    check(head, p, cap, sinks)
    return flash_program(head, p=p, mask=mask, scale=scale, tiles=tiles, cap=cap, sinks=sinks,
                         local_lines=local_lines)


def check(head, p, cap=None, sinks=None):
    """:exc:`ValueError` if the kernels do not take these arguments of :func:`flash`."""
    head.check()
    if head.table and (head.k.rows % KEYS or not 1 <= head.keys):
        raise ValueError(f"A pool has whole pages of {KEYS} keys and a sequence at least one key, "
                         f"not {head.k.rows} and {head.keys}")
    if head.keys > head.k.rows:
        raise ValueError(f"A sequence of {head.keys} keys does not fit into a pool of "
                         f"{head.k.rows}")
    if p not in (Format.E4M3, Format.BF16, Format.FP16):
        raise ValueError(f"P must be E4M3, BF16 or FP16, not {p.name}")
    if cap is not None and not (cap > 0 and isfinite(2 * cap * LOG2_E)):
        raise ValueError(f"Cap must be a positive number, not {cap!r}")
    if sinks is not None and (sinks.rows, sinks.columns, sinks.format) != (1, ROWS, Format.FP32):
        raise ValueError(f"Sinks must be 1x{ROWS} in FP32, not {sinks.rows}x{sinks.columns} in "
                         f"{sinks.format.name}")


def flash_program(head, *, p, mask=None, scale=None, cap=None, sinks=None, tiles=None,
                  local_lines=8192, span=None, merge=None):
    """As :func:`flash`, without its checks.

    ``span``: first and past last block of keys that count; all if None. ``merge`` (see
    ``host.kernels.split``) gets the state of each tile, in place of O^T in memory.
    """
    job = _Flash(head, p, mask or Mask(), head.size ** -0.5 if scale is None else scale, cap,
                 sinks, local_lines, span, merge)
    job.emit(range(upper(head.q.rows, ROWS)) if tiles is None else tiles)
    return job.program


class _Flash:
    """Emits the program: buffers, then the steps (tile, block) with softmax one step behind.

    If all keys fit, they stay in local memory; else each step brings its block in again. The scales
    of up to 8 such steps come together: the fabric interface has two transfers under way, and a
    short one between two long ones would keep it waiting for memory.
    """

    def __init__(self, head, p, mask, scale, cap, sinks, local_lines, span, merge):
        self.head, self.p, self.mask, self.sinks = head, p, mask, sinks
        self.span, self.merge = span or (0, upper(head.keys, KEYS)), merge
        self.factor = (scale if cap is None else 2 * scale / cap) * LOG2_E
        self.cap = None if cap is None else np.float32(cap * LOG2_E)
        self.program = program = Program(local_lines=local_lines)
        self.pair = head.q.rows <= PAIRED
        self.all, self.page = Chunk(0, head.size), Chunk(0, KEYS)
        q_lines = panel_lines(head.q.format, self.all, ROWS)
        self.lines = {"k": panel_lines(head.k.format, self.all, KEYS),
                      "v": panel_lines(head.vt.format, self.page, head.size)}
        self.out_lines = upper(head.size, 2) if self.pair else head.size
        self.q = [program.buffer(2 * n) for n in q_lines]
        if merge:
            merge.allocate(program, self.out_lines)
        self.out = merge.own if merge else program.buffer(2 * self.out_lines)
        self.sink = None if sinks is None else program.buffer(1)
        pages = self.span[1] - self.span[0]
        room = program.free_lines - (6 * GROUP if head.table else 0)
        elements, scales = (sum(side) for side in zip(*self.lines.values(), strict=True))
        self.resident = pages * (elements + scales) <= room
        held = pages if self.resident else (room - 2 * GROUP * scales) // elements
        if held < 2 and not self.resident:
            raise ValueError(f"Two blocks of keys need {2 * elements + 2 * GROUP * scales} lines, "
                             f"local memory has room for {room}")
        groups = held if self.resident else 2 * GROUP
        self.buffers = {side: (program.buffer(held * n), program.buffer(groups * n_scales))
                        for side, (n, n_scales) in self.lines.items()}
        self.places = {}        # resident blocks in the order in which they came
        # page numbers: one in a line for each block, and those of a group in a line
        self.numbers = {side: (program.buffer(2 * GROUP), program.buffer(2))
                        for side in self.lines} if head.table else {}

    def emit(self, tiles):
        """All steps: scores of a step, then the weighing of the one before it."""
        steps = [(t, *step) for t in tiles for step in self._blocks(t)]
        groups = self._groups(steps)
        order = list(dict.fromkeys(t for t, *_ in steps))
        used = [step[1] for step in steps]
        fresh = [not self.resident or block not in used[:at] for at, block in enumerate(used)]
        if self.sinks:
            self.program.dma_in(use(self.sink, wait=1, release=1), self.sinks.address,
                                row_bytes=LINE)
        self._load_q(order[0])
        for at, step in enumerate(steps):
            tile, block, _, first, _ = step
            if fresh[at]:
                self.places[block] = len(self.places)
                self._load("k", block, groups[at])
            self._score(step, groups[at])
            if first and order.index(tile) + 1 < len(order):
                self._load_q(order[order.index(tile) + 1])
            if at:
                self._finish(steps, groups, fresh, at - 1)
        self._finish(steps, groups, fresh, len(steps) - 1)

    def _finish(self, steps, groups, fresh, at):
        """The second half of a step; values come in after the next step's keys."""
        if fresh[at]:
            self._load("v", steps[at][1], groups[at])
        self._weigh(steps[at], groups[at])

    def _groups(self, steps):
        """For each step (place in its group, steps of the group): those that share scale loads."""
        if self.resident:
            return [(0, 1)] * len(steps)
        groups = []
        for tile in dict.fromkeys(t for t, *_ in steps):
            count = sum(t == tile for t, *_ in steps)
            for at in range(0, count, GROUP):
                size = min(GROUP, count - at)
                groups += [(i, size) for i in range(size)]
        return groups

    def _blocks(self, tile):
        """Steps of a tile: (block, keys of it, first, last); a tile that sees nothing has one."""
        head = self.head
        start, stop = self.mask.span(tile * ROWS, min(tile * ROWS + ROWS, head.q.rows),
                                     head.keys)
        first = max(start // KEYS, self.span[0])
        if first >= self.span[1]:       # all that is seen lies before the span
            first = self.span[0]
        run = range(first, max(min(upper(stop, KEYS), self.span[1]), first + 1))
        for block in run:
            keys = max(min(stop - block * KEYS, KEYS), 1)
            yield block, keys, block == run[0], block == run[-1]

    def _load_q(self, tile):
        """Bring a tile of Q into an A buffer; for a pair its rows twice."""
        program, q = self.program, self.head.q
        rows, copies = min(ROWS, q.rows - tile * ROWS), 2 if self.pair else 1
        panel = Panel(q.format, self.head.size)
        count, scale_count = panel_lines(q.format, self.all, ROWS)
        program.dma_in(use(self.q[0], wait=count, release=count), q.row(tile * ROWS), rows=copies,
                       row_bytes=rows * q.row_bytes, local_stride=PAIRED * q.row_bytes)
        if q.format.is_mx:
            program.dma_in(use(self.q[1], wait=scale_count, release=scale_count),
                           q.scale_row(tile * ROWS), rows=copies, row_bytes=rows * q.scale_stride,
                           local_stride=PAIRED * q.scale_stride)
        program.load_a(
            Operand(self.q[0], 0, count, count),
            Operand(self.q[1], 0, scale_count, scale_count) if q.format.is_mx else None,
            form=q.format, rows=ROWS if self.pair else rows,
            blocks=blocks(self.head.size, q.format, self.head.k.format),
            stride=panel.row_lines, scale_stride=panel.scale_stride)

    def _side(self, side):
        """Tensor, its rows of a block, the chunk of a row."""
        return ((self.head.k, KEYS, self.all) if side == "k"
                else (self.head.vt, self.head.size, self.page))

    def _rows(self, side, block, count=1):
        """Rows that ``count`` blocks from ``block`` on have."""
        tensor, each, _ = self._side(side)
        return count * each if self.head.table else min(count * each, tensor.rows - block * each)

    def _load(self, side, block, group):
        """Bring a block of K or a page of V^T in; with the first of a group the scales of all."""
        tensor, each, chunk = self._side(side)
        if self.head.table:
            self._gather(side, block, group)
            return
        elements, scales = self.buffers[side]
        first, rows = block * each, self._rows(side, block)
        count = panel_lines(tensor.format, chunk, rows)[0]
        self.program.dma_in(use(elements, wait=count, release=count), tensor.row(first),
                            row_bytes=count * LINE)
        if tensor.format.is_mx and group[0] == 0:
            rows = self._rows(side, block, group[1])
            count = panel_lines(tensor.format, chunk, rows)[1]
            self.program.dma_in(use(scales, wait=count, release=count), tensor.scale_row(first),
                                row_bytes=rows * tensor.scale_stride)

    def _gather(self, side, block, group):
        """The same by the numbers of its pages."""
        tensor, each, _ = self._side(side)
        (elements, scales), (numbers, lists) = self.buffers[side], self.numbers[side]
        at, count = self.head.table.address + 4 * block, group[1]
        page, scale_page = each * tensor.row_bytes, each * tensor.scale_stride
        pages = tensor.rows // each
        if group[0] == 0:
            self.program.dma_in(use(numbers, wait=count, release=count), at, rows=count,
                                row_bytes=4, remote_stride=4, local_stride=LINE)
        self.program.gather(
            use(elements, wait=page // LINE, release=page // LINE),
            use(numbers, wait=1, release=1), tensor.address, rows=1, row_bytes=page,
            remote_stride=page, local_stride=0, limit=pages)
        if tensor.format.is_mx and group[0] == 0:
            self.program.dma_in(use(lists, wait=1, release=1), at, row_bytes=4 * count)
            total = count * scale_page // LINE
            self.program.gather(
                use(scales, wait=total, release=total), use(lists, wait=1, release=1),
                tensor.scales, rows=count, row_bytes=scale_page, remote_stride=scale_page,
                local_stride=scale_page, limit=pages)

    def _operands(self, side, block, group, rows):
        """CB operands of ``rows`` rows of a block."""
        tensor, _, chunk = self._side(side)
        (elements, scales), full = self.buffers[side], self.lines[side]
        count, scale_count = panel_lines(tensor.format, chunk, rows)
        held = self._rows(side, block)
        if self.resident:
            at, scale_at = (self.places[block] * n for n in full)
            drop = scale_drop = 0
        else:
            at, scale_at = 0, group[0] * full[1]
            drop = panel_lines(tensor.format, chunk, held)[0]
            final = group[0] == group[1] - 1
            scale_drop = scale_at + panel_lines(tensor.format, chunk, held)[1] if final else 0
        operands = (Operand(elements, at, max(at + count, drop), drop),
                    Operand(scales, scale_at, max(scale_at + scale_count, scale_drop), scale_drop))
        return operands if tensor.format.is_mx else (operands[0], None)

    def _score(self, step, group):
        tile, block, keys, first, last = step
        q, k = self.head.q, self.head.k
        panel = Panel(k.format, self.head.size)
        low, high = self.mask.bounds(tile * ROWS, block * KEYS)
        self.program.score(
            *self._operands("k", block, group, keys), a=q.format, b=k.format, p=self.p, keys=keys,
            blocks=blocks(self.head.size, q.format, k.format), stride=panel.row_lines,
            scale_stride=panel.scale_stride, low=low, high=high, factor=self.factor,
            share=self.mask.share, first=first, last=last and not self.merge, release_a=last,
            pair=self.pair, state=last and self.merge is not None, cap=self.cap,
            sinks=use(self.sink, wait=1) if self.sinks and first else None)

    def _weigh(self, step, group):
        tile, block, keys, first, last = step
        vt, size = self.head.vt, self.head.size
        count = self.merge.state_lines if self.merge else self.out_lines
        panel = Panel(vt.format, KEYS)
        self.program.weigh(
            *self._operands("v", block, group, size), Operand(self.out, 0, count, count * last),
            p=self.p, b=vt.format, rows=size, blocks=blocks(keys, self.p, vt.format),
            stride=panel.row_lines, scale_stride=panel.scale_stride, out_stride=1, first=first,
            last=last and not self.merge, pair=self.pair)
        if last and self.merge:
            self.merge.emit(self.program, self.head.out.row(tile * size))
        elif last:
            self.program.dma_out(use(self.out, wait=count, release=count),
                                 self.head.out.row(tile * size), row_bytes=count * LINE)
