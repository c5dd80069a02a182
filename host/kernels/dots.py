"""Products of a resident weight matrix with streamed rows, the core of several kernels."""
from dataclasses import dataclass

from host.isa import LINE, MAX_A_BYTES, ROWS, Format, Group, blocks, lines, scale_stride
from host.program import use


@dataclass(frozen=True)
class Chunk:
    """Columns ``start`` to ``stop`` of K, small enough for a buffer of operand A."""

    start: int
    stop: int

    @property
    def columns(self):
        return self.stop - self.start


def k_chunks(columns, a, b):
    """Split K so that one buffer of operand A holds a chunk, on bounds of lines of both operands.

    A buffer holds 2,048 bytes a row, and 64 blocks (128 where operand A is MX and its blocks are
    counted in halves or are E2M1).
    """
    step = MAX_A_BYTES * 8 // a.bits
    if not (a.is_mx and b.is_mx):
        step = min(step, 1024)
    return [Chunk(at, min(at + step, columns)) for at in range(0, columns, step)]


@dataclass(frozen=True)
class Panel:
    """How a chunk of K of an operand lies in local memory: dense rows that start on lines."""

    form: Format
    columns: int

    @property
    def row_lines(self):
        return lines(self.form.row_bytes(self.columns))

    @property
    def scale_stride(self):
        return scale_stride(self.columns) if self.form.is_mx else 0

    def scale_lines(self, rows):
        return lines(rows * self.scale_stride)


def load(program, tensor, chunk, elements, scales, *, first, rows, group=Group.ALONE):
    """Bring rows ``first`` .. of a chunk of a tensor into two circular buffers, and push them.

    ``group``: PEs that load the same, see :meth:`host.program.Program.dma_in`.
    """
    panel = Panel(tensor.format, chunk.columns)
    at = chunk.start * tensor.format.bits // 8
    count = rows * panel.row_lines
    whole = chunk.columns == tensor.columns
    if whole:
        program.dma_in(use(elements, wait=count, release=count), tensor.row(first),
                       row_bytes=count * LINE, group=group)
    else:
        program.dma_in(use(elements, wait=count, release=count), tensor.row(first) + at,
                       rows=rows, row_bytes=panel.row_lines * LINE,
                       remote_stride=tensor.row_bytes, local_stride=panel.row_lines * LINE,
                       group=group)
    if not tensor.format.is_mx:
        return
    count = panel.scale_lines(rows)
    operand = use(scales, wait=count, release=count)
    if whole:
        program.dma_in(operand, tensor.scale_row(first), row_bytes=rows * panel.scale_stride,
                       group=group)
    else:
        program.dma_in(operand, tensor.scale_row(first) + chunk.start // 32, rows=rows,
                       row_bytes=-(-chunk.columns // 32), remote_stride=tensor.scale_stride,
                       local_stride=panel.scale_stride, group=group)


def panel_lines(form, chunk, rows):
    """Lines of elements and of scales of ``rows`` rows of a chunk."""
    panel = Panel(form, chunk.columns)
    return rows * panel.row_lines, panel.scale_lines(rows)


def load_a(program, form, b_form, chunk, elements, scales, *, rows=ROWS, offset=0,
           scale_offset=0, ready=None, scale_ready=None, release=0, scale_release=0):
    """Fill an A buffer from rows that lie ``offset`` lines into a circular buffer."""
    panel = Panel(form, chunk.columns)
    count, scale_count = rows * panel.row_lines, panel.scale_lines(rows)
    program.load_a(
        use(elements, offset=offset, wait=offset + count if ready is None else ready,
            release=release),
        use(scales, offset=scale_offset,
            wait=scale_offset + scale_count if scale_ready is None else scale_ready,
            release=scale_release) if form.is_mx else None,
        form=form, rows=rows, blocks=blocks(chunk.columns, form, b_form), stride=panel.row_lines,
        scale_stride=panel.scale_stride)
