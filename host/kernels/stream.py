"""Streams of memory through the PEs: element-wise work on arrays of any length."""
from dataclasses import dataclass

from host.isa import LINE, Binary, Format, Reduce
from host.kernels.rows import array
from host.program import Program

DEEP = 3        # pieces of each array in local memory: one that comes, one in use, one to spare
RUN_LINES = 64  # lines that a PE adds before those of the next PE; this project's choice
PIECE_RUNS = 14 # of these in a piece at most: as long as local memory has room for; likewise


PACE = 0.957        # of the HBM's pins that the PEs may ask for; this project's choice
BURST = 255         # requests of a PE at once after a pause; likewise


def request_shape(lines_a_cycle, pes):
    """Rate and burst of the requests of each of ``pes`` PEs, for :meth:`host.driver.Device.shaped`.

    Together they ask for a little less than the ``lines_a_cycle`` of a die's HBM. Unshaped, PEs
    drift apart, open rows that no other one uses, and the last ends long after the others.
    """
    return min(int(PACE * 256 * lines_a_cycle / pes), 256), BURST


@dataclass(frozen=True)
class Piece:
    """``runs`` runs of ``lines`` lines each, the first at line ``at``, a stride apart."""

    at: int
    runs: int
    lines: int


def pieces(total, run, most, number, parts):
    """What part ``number`` of ``parts`` does of ``total`` lines: :class:`Piece` of ``most`` runs.

    Runs go to the parts in turn, so that all of them work in the same rows of the HBM: one that is
    ahead waits for rows to be opened, those behind it find them open and catch up.
    """
    whole = total // run
    for first in range(0, whole, parts * most):
        mine = (min(parts * most, whole - first) - number + parts - 1) // parts
        if mine > 0:
            yield Piece((first + number) * run, mine, run)
    if total % run and whole % parts == number:
        yield Piece(whole * run, 1, total % run)


def elements_of(form):
    """Elements in a line."""
    return LINE * 8 // form.bits


def add(a, b, c, count, *, pes, form=Format.BF16, local_lines=8192):
    """Programs by PE: c = a + b, arrays of ``count`` elements that start on lines.

    What lies behind the last element in its line is overwritten. FP32 sums are rounded to
    ``form``.
    """
    if form not in (Format.BF16, Format.FP16, Format.FP32):
        raise ValueError(f"Format must be BF16, FP16 or FP32, not {form.name}")
    if count < 1:
        raise ValueError(f"Count must be positive, not {count}")
    most = min(PIECE_RUNS, local_lines // (3 * DEEP * RUN_LINES))
    programs = {}
    for number, pe in enumerate(pes):
        mine = list(pieces(-(-count // elements_of(form)), RUN_LINES, most, number, len(pes)))
        if mine:
            programs[pe] = _add(mine, a, b, c, form, local_lines, len(pes) * RUN_LINES * LINE)
    return programs


def _add(mine, a, b, c, form, local_lines, stride):
    """The program of one PE: loads run ahead of the sums as far as local memory goes."""
    p = Program(local_lines=local_lines)
    size = DEEP * max(piece.runs * piece.lines for piece in mine)
    sources, target = [p.buffer(size) for _ in range(2)], p.buffer(size)

    def bring(piece):
        for cb, place in zip(sources, (a, b), strict=True):
            p.dma_in(array(cb, piece.runs * piece.lines), place + piece.at * LINE,
                     **walk(piece, stride))
    for piece in mine[:DEEP - 1]:
        bring(piece)
    for number, piece in enumerate(mine):
        if number + DEEP - 1 < len(mine):
            bring(mine[number + DEEP - 1])
        lines = piece.runs * piece.lines
        p.simd(array(sources[0], lines), array(target, lines), rows=1,
               columns=lines * elements_of(form), op=Binary.ADD, src1=array(sources[1], lines),
               form=form, src_format=form, src1_format=form)
        p.dma_out(array(target, lines), c + piece.at * LINE, **walk(piece, stride))
    return p


def walk(piece, stride):
    """Fields of a DMA command for a piece that is dense in local memory."""
    several = piece.runs > 1
    return {"rows": piece.runs, "row_bytes": piece.lines * LINE,
            "remote_stride": stride * several, "local_stride": piece.lines * LINE * several}


SPAN_LINES = 32     # lines whose maximum is taken
AHEAD = 3       # pieces that come while one is in use; with more the last ones wait to be used
SPANS = 32      # of these in a piece: their maxima are two lines
RESULT_LINES = SPANS * 4 // LINE    # lines of the maxima of a piece


def maxima(a, out, count, *, pes, local_lines=8192):
    """Programs by PE: the maximum of each run of 512 of ``count`` FP32 numbers.

    Each PE writes a line of ``out`` for every 8,192 numbers that it reads, so nearly all of the
    traffic is that of reading; :func:`maxima_places` tells whose maxima they are.
    :exc:`ValueError` unless all PEs read the same number of whole pieces.
    """
    step = SPAN_LINES * SPANS * len(pes)
    if count < 1 or count % (step * elements_of(Format.FP32)):
        raise ValueError(f"Count must be a positive multiple of "
                         f"{step * elements_of(Format.FP32)}, not {count}")
    total = count // elements_of(Format.FP32)
    return {pe: _maxima(list(pieces(total, SPAN_LINES, SPANS, number, len(pes))), a,
                        out + number * (total // step) * RESULT_LINES * LINE, local_lines,
                        len(pes) * SPAN_LINES * LINE)
            for number, pe in enumerate(pes)}


def maxima_places(count, pes):
    """Number of the run of 512 that each maximum is of, in the order in which they are written."""
    total = count // elements_of(Format.FP32)
    return [piece.at // SPAN_LINES + row * pes for number in range(pes)
            for piece in pieces(total, SPAN_LINES, SPANS, number, pes) for row in range(SPANS)]


def _maxima(mine, a, out, local_lines, stride):
    p = Program(local_lines=local_lines)
    size, results = SPAN_LINES * SPANS, RESULT_LINES * len(mine)
    ahead = min(AHEAD, (local_lines - results) // size - 1)
    source, target = p.buffer((ahead + 1) * size), p.buffer(results)

    def bring(piece):
        p.dma_in(array(source, size), a + piece.at * LINE, **walk(piece, stride))
    for piece in mine[:ahead]:
        bring(piece)
    for number in range(len(mine)):
        if number + ahead < len(mine):
            bring(mine[number + ahead])
        p.simd(array(source, size), array(target, RESULT_LINES), rows=SPANS,
               columns=SPAN_LINES * 16, reduce=Reduce.MAX)
    p.dma_out(array(target, results), out, row_bytes=results * LINE)
    return p
