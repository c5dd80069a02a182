"""Kernels that work row by row: norms, softmax, GELU, addition, rotary embedding, gather."""
from host.isa import LINE, Binary, Function, Norm, Reduce, Rule, Source1, lines
from host.kernels.matmul import split
from host.program import Program, use

LOG2_E = 1.4426950408889634
CHUNK = 32  # rows held in local memory at a time; two of them for what moves in and out


def move_in(program, tensor, elements, *, first, rows):
    """Bring rows of an FP32 tensor into a circular buffer."""
    count = rows * tensor.row_lines
    program.dma_in(use(elements, wait=count, release=count), tensor.row(first),
                   row_bytes=count * LINE)


def move_out(program, tensor, buffers, *, first, rows):
    """Send rows of a tensor, elements and scales, from their circular buffers to memory."""
    elements, scales = buffers
    count = rows * tensor.row_lines
    program.dma_out(use(elements, wait=count, release=count), tensor.row(first),
                    row_bytes=count * LINE)
    if tensor.format.is_mx:
        size = rows * tensor.scale_stride
        program.dma_out(use(scales, wait=lines(size), release=lines(size)),
                        tensor.scale_row(first), row_bytes=size)


def rowwise(program, span, inputs, constants, outputs, body, *, chunk=CHUNK):
    """Emit a row-wise kernel for the rows ``span`` of one PE in the current phase.

    ``inputs`` and ``outputs`` are tensors with a row for each row; ``constants`` are tensors of one
    row, or tuples of them that share a circular buffer, row after row. ``body(program, chunk,
    columns)`` allocates scratch buffers and returns a function
    ``emit(rows, inputs, constants, outputs)`` over circular buffers (outputs: pairs of elements,
    scales), which consumes each input and produces each output once.
    """
    first, last = span
    if first == last:
        return
    chunk = min(chunk, last - first)
    sources = [program.buffer(2 * chunk * t.row_lines) for t in inputs]
    fixed = []
    for tensors in constants:
        tensors = tensors if isinstance(tensors, tuple) else (tensors,)
        fixed.append(program.buffer(sum(t.row_lines for t in tensors)))
        for tensor in tensors:
            move_in(program, tensor, fixed[-1], first=0, rows=1)
    targets = [(program.buffer(2 * chunk * t.row_lines),
                program.buffer(2 * lines(chunk * t.scale_stride)) if t.format.is_mx else None)
               for t in outputs]
    emit = body(program, chunk, outputs[0].columns)
    runs = [(r, min(r + chunk, last)) for r in range(first, last, chunk)]
    for i, (r0, r1) in enumerate(runs):
        if i == 0:
            for tensor, cb in zip(inputs, sources, strict=True):
                move_in(program, tensor, cb, first=r0, rows=r1 - r0)
        if i + 1 < len(runs):
            n0, n1 = runs[i + 1]
            for tensor, cb in zip(inputs, sources, strict=True):
                move_in(program, tensor, cb, first=n0, rows=n1 - n0)
        emit(r1 - r0, sources, fixed, targets)
        for tensor, pair in zip(outputs, targets, strict=True):
            move_out(program, tensor, pair, first=r0, rows=r1 - r0)


def array(cb, count, *, release=True, offset=0):
    """Whole operand of ``count`` lines that is given on (or kept) at the end of the command."""
    return use(cb, offset=offset, wait=offset + count, release=offset + count if release else 0)


def scalars(cb, rows, *, release=True):
    """Operand of one packed FP32 scalar a row."""
    return array(cb, lines(4 * rows), release=release)


def layer_norm(program, chunk, columns, *, epsilon, targets=1):
    """Allocate scratch; return ``emit(rows, src, parameters, targets)`` for LayerNorm.

    ``parameters`` holds a row of gamma and one of beta. ``targets`` is a list of (operand, options
    of the SIMD command), as many as said before. One is written by the norm itself; several by
    one more pass each over its FP32 result, as a circular buffer has one consumer.
    """
    width = lines(4 * columns)
    normal = program.buffer(chunk * width) if targets > 1 else None

    def emit(rows, src, parameters, targets):
        count = rows * width
        shape = {"rows": rows, "columns": columns}
        direct = normal is None
        dst, options = targets[0] if direct else (array(normal, count), {})
        program.simd(array(src, count), dst, **shape, norm=Norm.LAYER, epsilon=epsilon,
                     src1=array(parameters, 2 * width, release=False), **options)
        for dst, options in [] if direct else targets:
            program.simd(array(normal, count, release=dst is targets[-1][0]), dst, **shape,
                         **options)
    return emit


def softmax_scratch(program, rows, columns):
    """Buffers that :func:`softmax` needs for arrays up to that size."""
    small = lines(4 * rows)
    return (*(program.buffer(small) for _ in range(3)), program.buffer(rows * lines(4 * columns)))


def softmax(program, scratch, src, dst, *, rows, columns, scale=1.0, **options):
    """Emit the softmax of ``scale`` times each row over its columns; consumes ``src``."""
    peak, total, inverse, powers = scratch
    count = rows * lines(4 * columns)
    shape = {"rows": rows, "columns": columns}
    program.simd(array(src, count, release=False), scalars(peak, rows), **shape,
                 reduce=Reduce.MAX)
    program.simd(array(src, count), array(powers, count), **shape, op=Binary.SUB,
                 src1=scalars(peak, rows), mode=Source1.SCALAR, affine=(scale * LOG2_E, 0.0),
                 function=Function.EXP2)
    program.simd(array(powers, count, release=False), scalars(total, rows), **shape,
                 reduce=Reduce.SUM)
    program.simd(scalars(total, rows), scalars(inverse, rows), rows=1, columns=rows,
                 function=Function.RECIP)
    program.simd(array(powers, count), dst, **shape, op=Binary.MUL, src1=scalars(inverse, rows),
                 mode=Source1.SCALAR, **options)


def target(tensor, pair, rows):
    """Operand and SIMD options that write ``rows`` rows of a tensor of any format."""
    elements, scales = pair
    options = {"form": tensor.format}
    if tensor.format.is_mx:
        options["scales"] = array(scales, lines(rows * tensor.scale_stride))
    return array(elements, rows * tensor.row_lines), options


def _programs(span_rows, pes, body, local_lines):
    programs = {}
    for pe, span in zip(pes, split(span_rows, len(pes)), strict=True):
        if span[0] < span[1]:
            programs[pe] = Program(local_lines=local_lines)
            body(programs[pe], span)
    return programs


def _elementwise(sources, y, pes, local_lines, **options):
    """Programs of one SIMD command a chunk, from one or two FP32 tensors to ``y``."""
    def body(program, chunk, columns):
        def emit(rows, cbs, fixed, targets):
            dst, more = target(y, targets[0], rows)
            operands = [array(cb, rows * t.row_lines) for cb, t in zip(cbs, sources, strict=True)]
            program.simd(operands[0], dst, rows=rows, columns=columns,
                         src1=operands[1] if len(operands) > 1 else None, **options, **more)
        return emit
    per_row = 2 * (sum(t.row_lines for t in sources) + y.row_lines + 1)
    return _programs(y.rows, pes, lambda p, span: rowwise(
        p, span, sources, [], [y], body, chunk=_chunk(local_lines, per_row)), local_lines)


def _chunk(local_lines, lines_a_row):
    """Rows at a time, so that all buffers fit."""
    return max(1, min(CHUNK, (local_lines - 256) // lines_a_row))


def gelu(x, y, *, pes, local_lines=8192):
    """Programs for y = GELU(x), erf form; y of any format."""
    return _elementwise([x], y, pes, local_lines, function=Function.GELU)


def add(a, b, y, *, pes, local_lines=8192):
    """Programs for y = a + b, one rounding; y of any format."""
    return _elementwise([a, b], y, pes, local_lines, op=Binary.ADD)


def convert(x, y, *, pes, rule=Rule.FLOOR, local_lines=8192):
    """Programs for y = x in another format."""
    return _elementwise([x], y, pes, local_lines, rule=rule)


def layer_norm_rows(x, gamma, beta, y, *, pes, epsilon=1e-5, local_lines=8192):
    """Programs for LayerNorm of each row of x; y of any format."""
    return _norm_rows(Norm.LAYER, x, (gamma, beta), y, pes, epsilon, local_lines)


def rms_norm_rows(x, gamma, y, *, pes, epsilon=1e-5, local_lines=8192):
    """Programs for RMSNorm of each row of x; y of any format."""
    return _norm_rows(Norm.RMS, x, (gamma,), y, pes, epsilon, local_lines)


def _norm_rows(norm, x, parameters, y, pes, epsilon, local_lines):
    size = sum(t.row_lines for t in parameters)

    def body(program, chunk, columns):
        def emit(rows, cbs, fixed, targets):
            dst, options = target(y, targets[0], rows)
            program.simd(array(cbs[0], rows * x.row_lines), dst, rows=rows, columns=columns,
                         norm=norm, epsilon=epsilon, src1=array(fixed[0], size, release=False),
                         **options)
        return emit
    chunk = _chunk(local_lines, 2 * (x.row_lines + y.row_lines + 1))
    return _programs(y.rows, pes, lambda p, span: rowwise(p, span, [x], [parameters], [y], body,
                                                          chunk=chunk), local_lines)


def rotary_rows(x, table, positions, y, *, pes, local_lines=8192):
    """Programs for the rotary embedding of each row of x; y of any format.

    A row is one head of one token: pairs (x[2i], x[2i + 1]) are rotated by the pair (cosine, sine)
    at the same columns of row ``positions[r]`` of ``table``, an FP32 tensor as wide as x.
    ``positions`` is the address of 32-bit numbers. Pairs are neighbours, as in the original
    embedding; for a model that pairs the halves of a head, permute the rows of its Q and K weights.
    :exc:`ValueError` if the tables do not fit.
    """
    if table.columns != x.columns or x.columns % 2:
        raise ValueError(f"Table must have an even number of columns, those of the rows, not "
                         f"{table.columns} for {x.columns}")
    chunk_lines = 2 * (x.row_lines + table.row_lines + y.row_lines + 1)

    def body(p, span):
        chunk = min(_chunk(local_lines, chunk_lines), span[1] - span[0])
        rows_cb, turns = (p.buffer(2 * chunk * t.row_lines) for t in (x, table))
        index = p.buffer(2 * lines(4 * chunk))
        pair = (p.buffer(2 * chunk * y.row_lines),
                p.buffer(2 * lines(chunk * y.scale_stride)) if y.format.is_mx else None)
        for r0 in range(span[0], span[1], chunk):
            rows = min(chunk, span[1] - r0)
            move_in(p, x, rows_cb, first=r0, rows=rows)
            gather(p, table, positions, turns, index, first=r0, rows=rows)
            dst, options = target(y, pair, rows)
            p.simd(array(rows_cb, rows * x.row_lines), dst, rows=rows, columns=x.columns,
                   op=Binary.ROTATE, src1=array(turns, rows * table.row_lines), **options)
            move_out(p, y, pair, first=r0, rows=rows)
    return _programs(y.rows, pes, body, local_lines)


def softmax_rows(x, y, *, pes, scale=1.0, local_lines=8192):
    """Programs for softmax(scale x) over each row of x; y of any format."""
    def body(program, chunk, columns):
        scratch = softmax_scratch(program, chunk, columns)

        def emit(rows, cbs, fixed, targets):
            dst, options = target(y, targets[0], rows)
            softmax(program, scratch, cbs[0], dst, rows=rows, columns=columns, scale=scale,
                    **options)
        return emit
    chunk = _chunk(local_lines, 5 * x.row_lines + 2)
    return _programs(y.rows, pes, lambda p, span: rowwise(p, span, [x], [], [y], body,
                                                          chunk=chunk), local_lines)


def gather(program, tensor, index_address, cb, index_cb, *, first, rows):
    """Emit: rows of ``tensor`` named by 32-bit indices in memory, into a circular buffer."""
    index_lines = lines(4 * rows)
    program.dma_in(use(index_cb, wait=index_lines, release=index_lines),
                   index_address + 4 * first, row_bytes=4 * rows)
    count = rows * tensor.row_lines
    program.gather(use(cb, wait=count, release=count),
                   use(index_cb, wait=index_lines, release=index_lines), tensor.address,
                   rows=rows, row_bytes=tensor.row_bytes, remote_stride=tensor.row_bytes,
                   local_stride=tensor.row_bytes, limit=tensor.rows)


def gather_rows(tensor, index_address, y, *, pes, local_lines=8192):
    """Programs for y[r] = tensor[index[r]], FP32 rows."""
    def body(program, span):
        chunk = min(CHUNK, span[1] - span[0], (local_lines - 8) // (2 * y.row_lines))
        cb, index = program.buffer(2 * chunk * y.row_lines), program.buffer(2 * lines(4 * chunk))
        for r0 in range(span[0], span[1], chunk):
            r1 = min(r0 + chunk, span[1])
            gather(program, tensor, index_address, cb, index, first=r0, rows=r1 - r0)
            move_out(program, y, (cb, None), first=r0, rows=r1 - r0)
    return _programs(y.rows, pes, body, local_lines)


def store(p, tensor, elements, scales, *, first, rows, column, columns, stride):
    """Send a run of columns (whole blocks) of a quantised tensor to memory."""
    bits = tensor.format.bits
    p.dma_out(elements, tensor.row(first) + column * bits // 8, rows=rows,
              row_bytes=columns * bits // 8, remote_stride=tensor.row_bytes,
              local_stride=lines(tensor.format.row_bytes(columns)) * LINE)
    p.dma_out(scales, tensor.scale_row(first) + column // 32, rows=rows, row_bytes=columns // 32,
              remote_stride=tensor.scale_stride, local_stride=stride)


def copy(program, source, target, count_bytes, *, part=0, parts=1, chunk_lines=256):
    """Emit a copy from memory to memory through local memory: every ``parts``-th chunk of it.

    A chunk of 256 lines is what two HBM channels hold in one bank of each group, so four PEs that
    copy with ``parts=4`` read four banks, each its own.
    """
    if count_bytes % LINE:
        raise ValueError(f"A copy must be of whole lines of {LINE} bytes, not {count_bytes} bytes")
    cb, step = program.buffer(4 * chunk_lines), chunk_lines * LINE
    for at in range(part * step, count_bytes, parts * step):
        size = min(step, count_bytes - at)
        operand = use(cb, wait=size // LINE, release=size // LINE)
        program.dma_in(operand, source + at, row_bytes=size)
        program.dma_out(operand, target + at, row_bytes=size)
