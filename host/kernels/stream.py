"""Streams of memory through the PEs: element-wise work on arrays of any length."""
from host.isa import LINE, Binary, Format, Reduce
from host.kernels.rows import array
from host.program import Program

CHUNK = 128     # lines that a command moves: long enough to hide its start; this project's choice
DEEP = 3        # chunks of each array in local memory: one that comes, one in use, one to spare


def elements_of(form):
    """Elements in a line."""
    return LINE * 8 // form.bits


def add(a, b, c, count, *, pes, form=Format.BF16, local_lines=8192):
    """Programs by PE: c = a + b, arrays of ``count`` elements that start on lines.

    Chunks go to the PEs in turn, so that all of them work in the same rows of the HBM. What lies
    behind the last element in its line is overwritten. FP32 sums are rounded to ``form``.
    """
    if form not in (Format.BF16, Format.FP16, Format.FP32):
        raise ValueError(f"Format must be BF16, FP16 or FP32, not {form.name}")
    if count < 1:
        raise ValueError(f"Count must be positive, not {count}")
    total, programs = -(-count // elements_of(form)), {}
    chunks = [(at, min(CHUNK, total - at)) for at in range(0, total, CHUNK)]
    for number, pe in enumerate(pes):
        mine = chunks[number::len(pes)]
        if mine:
            programs[pe] = _add(mine, a, b, c, form, local_lines)
    return programs


def _add(chunks, a, b, c, form, local_lines):
    """The program of one PE: loads run ahead of the sums as far as local memory goes."""
    p = Program(local_lines=local_lines)
    size = DEEP * CHUNK
    sources, target = [p.buffer(size) for _ in range(2)], p.buffer(size)

    def bring(chunk):
        at, lines = chunk
        for cb, place in zip(sources, (a, b), strict=True):
            p.dma_in(array(cb, lines), place + at * LINE, row_bytes=lines * LINE)
    for chunk in chunks[:DEEP - 1]:
        bring(chunk)
    for number, (at, lines) in enumerate(chunks):
        if number + DEEP - 1 < len(chunks):
            bring(chunks[number + DEEP - 1])
        p.simd(array(sources[0], lines), array(target, lines), rows=1,
               columns=lines * elements_of(form), op=Binary.ADD, src1=array(sources[1], lines),
               form=form, src_format=form, src1_format=form)
        p.dma_out(array(target, lines), c + at * LINE, row_bytes=lines * LINE)
    return p


ROW = 32        # lines of a row whose maximum is taken


def maxima(a, out, count, *, pes, local_lines=8192):
    """Programs by PE: the maximum of each run of 512 of ``count`` FP32 numbers.

    The four maxima of a chunk of 2,048 numbers go to a line of ``out``: nearly all of the traffic
    is that of reading. :exc:`ValueError` unless the chunks are whole.
    """
    if count < 1 or count % (CHUNK * elements_of(Format.FP32)):
        raise ValueError(f"Count must be a positive multiple of {CHUNK * 16}, not {count}")
    chunks, programs = range(count // (CHUNK * 16)), {}
    for number, pe in enumerate(pes):
        if mine := chunks[number::len(pes)]:
            programs[pe] = _maxima(mine, a, out, local_lines)
    return programs


def _maxima(chunks, a, out, local_lines):
    p = Program(local_lines=local_lines)
    ahead = (local_lines - len(chunks)) // CHUNK - 1
    source, target = p.buffer((ahead + 1) * CHUNK), p.buffer(len(chunks))

    def bring(chunk):
        p.dma_in(array(source, CHUNK), a + chunk * CHUNK * LINE, row_bytes=CHUNK * LINE)
    for chunk in chunks[:ahead]:
        bring(chunk)
    for number in range(len(chunks)):
        if number + ahead < len(chunks):
            bring(chunks[number + ahead])
        p.simd(array(source, CHUNK), array(target, 1), rows=CHUNK // ROW, columns=ROW * 16,
               reduce=Reduce.MAX)
    for chunk in chunks:
        p.dma_out(array(target, 1), out + chunk * LINE, row_bytes=16)
    return p
