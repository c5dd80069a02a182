"""Matrix product of any shape on the PEs of one die: Y[M, N] = X[M, K] x W[N, K]^T."""
from host.isa import ROWS, Format, Operand, blocks, lines
from host.kernels.dots import Panel, k_chunks, load, load_a, panel_lines
from host.program import Program, use

LANES = 3   # columns of operand B at once in MX4 x MX4


def lanes(a, b):
    return LANES if a == b == Format.E2M1 else 1


def upper(value, divisor):
    """Quotient rounded up."""
    return (value + divisor - 1) // divisor


def split(total, parts):
    """Cut ``range(total)`` into ``parts`` runs whose sizes differ by at most one."""
    bounds = [total * i // parts for i in range(parts + 1)]
    return list(zip(bounds, bounds[1:], strict=False))


def partition(m, n, pes, group):
    """Rows of X and tiles of W for each PE, so that the busiest one is least busy.

    Returns one ``((m0, m1), (tile0, tile1))`` per PE; ranges may be empty.
    """
    tiles = -(-n // ROWS)

    def cost(m_parts):
        n_parts = pes // m_parts
        rows = upper(upper(m, m_parts), group)
        share = upper(tiles, n_parts)
        return rows * share, share * ROWS + rows * group
    factors = [f for f in range(1, pes + 1) if pes % f == 0]
    m_parts = min(factors, key=cost)
    row_runs = [(a * group, min(b * group, m)) for a, b in split(-(-m // group), m_parts)]
    tile_runs = split(tiles, pes // m_parts)
    return [(rows, tile) for rows in row_runs for tile in tile_runs]


def matmul(x, w, y, *, pes, local_lines=8192):
    """Programs, by PE number, that write Y = X W^T; ragged edges are padded here and in hardware.

    Operands may be of any supported pair of formats; Y is FP32. Rows of X stream as operand B,
    rows of W are cached as operand A. K beyond one A buffer is cut into chunks; the reduction
    engine adds their FP32 sums in ascending order of K.

    Parameters
    ----------
    x, w, y : host.tensor.Tensor
        Shapes [M, K], [N, K], [M, N]. :exc:`ValueError` if they do not fit together.
    pes : list of int
        PEs that share the work.
    """
    if x.columns != w.columns or y.rows != x.rows or y.columns != w.rows:
        raise ValueError(f"Shapes {x.rows}x{x.columns}, {w.rows}x{w.columns} and "
                         f"{y.rows}x{y.columns} do not make a product")
    if y.format != Format.FP32:
        raise ValueError(f"A product is written in FP32, not {y.format.name}")
    group = lanes(w.format, x.format)
    shares = partition(x.rows, w.rows, len(pes), group)
    return {pe: _share(x, w, y, rows, tiles, group, local_lines)
            for pe, (rows, tiles) in zip(pes, shares, strict=True)
            if rows[0] < rows[1] and tiles[0] < tiles[1]}


def _plan(x, w, chunks, m, tiles, group, budget):
    """Rows of X and tiles of W held in local memory at a time."""
    def row_cost(form):
        return sum(sum(panel_lines(form, c, 16)) for c in chunks) / 16
    tile_lines = sum(sum(panel_lines(w.format, c, ROWS)) for c in chunks)
    x_lines = row_cost(x.format)
    for held in range(tiles, 0, -1):
        weights = held * tile_lines * (1 if held == tiles else 2)
        rows = int((budget - weights - 64) // (2 * x_lines + 4))
        rows = rows // group * group
        if rows >= min(m, 8 * group):
            parts = max(upper(m, rows), min(3, upper(m, 8 * group)))
            return upper(upper(m, parts), group) * group, held
    raise ValueError("A tile of the product does not fit into local memory")


def _runs(rows, step, group):
    """Cut rows into runs of about equal size, at most ``step``, whole groups but for the last.

    A shorter first run would start earlier, but then the tiles of its other products come too
    late (measured on 512 x 512 x 2,048: 0.908 of the peak with equal runs, 0.896 with a first run
    of 33 rows of 171).
    """
    groups, parts = upper(rows[1] - rows[0], group), upper(rows[1] - rows[0], step)
    return [(rows[0] + a * group, min(rows[0] + b * group, rows[1]))
            for a, b in split(groups, parts)]


def _share(x, w, y, rows, tiles, group, local_lines):
    program = Program(local_lines=local_lines)
    chunks = k_chunks(x.columns, w.format, x.format)
    m, tile_count = rows[1] - rows[0], tiles[1] - tiles[0]
    step, held = _plan(x, w, chunks, m, tile_count, group, local_lines)
    passes = [(t, min(t + held, tiles[1])) for t in range(tiles[0], tiles[1], held)]
    copies = 1 if len(passes) == 1 else 2
    buffers = []
    for chunk in chunks:
        we, ws = panel_lines(w.format, chunk, ROWS)
        xe, xs = panel_lines(x.format, chunk, step)
        buffers.append((program.buffer(we * held * copies), program.buffer(ws * held * copies),
                        program.buffer(2 * xe), program.buffer(2 * xs)))
    out = program.buffer(4 * step)
    runs = _runs(rows, step, group)
    steps = [(span, i) for span in passes for i in range(len(runs))]

    def load_rows(at):
        for chunk, (_, _, xe, xs) in zip(chunks, buffers, strict=True):
            r0, r1 = runs[steps[at][1]]
            load(program, x, chunk, xe, xs, first=r0, rows=r1 - r0)

    # Loads stand one tile and one run of rows ahead of their use, so that the command processor
    # never waits with a product behind them.
    for at, ((t0, t1), i) in enumerate(steps):
        r0, r1 = runs[i]
        if i == 0:
            _load_tile(program, w, chunks, buffers, t0)
        if at == 0:
            load_rows(0)
        for tile in range(t0, t1):
            if i == 0 and tile + 1 < t1:
                _load_tile(program, w, chunks, buffers, tile + 1)
            _dots(program, x, w, chunks, buffers, out, r1 - r0, tile, (t0, t1),
                  last=r1 == rows[1])
            columns = min(ROWS, w.rows - tile * ROWS)
            program.dma_out(use(out, wait=r1 - r0, release=r1 - r0),
                            y.row(r0) + tile * ROWS * 4, rows=r1 - r0, row_bytes=columns * 4,
                            remote_stride=y.row_bytes, local_stride=64)
            # In the first run of rows the tiles come first: they are needed sooner.
            if tile == (max(t1 - 2, t0) if i == 0 else t0) and at + 1 < len(steps):
                load_rows(at + 1)
    return program


def _load_tile(program, w, chunks, buffers, tile):
    rows = min(ROWS, w.rows - tile * ROWS)
    for chunk, (we, ws, _, _) in zip(chunks, buffers, strict=True):
        load(program, w, chunk, we, ws, first=tile * ROWS, rows=rows)


def _dots(program, x, w, chunks, buffers, out, rows, tile, span, *, last):
    """One tile of W against the rows of X in local memory, all chunks of K."""
    t0, t1 = span
    tile_rows = min(ROWS, w.rows - tile * ROWS)
    for i, (chunk, (we, ws, xe, xs)) in enumerate(zip(chunks, buffers, strict=True)):
        size, scale_size = panel_lines(w.format, chunk, ROWS)
        total = sum(panel_lines(w.format, chunk, min(ROWS, w.rows - t * ROWS))[0]
                    for t in range(t0, t1))
        scale_total = sum(panel_lines(w.format, chunk, min(ROWS, w.rows - t * ROWS))[1]
                          for t in range(t0, t1))
        drop = last and tile == t1 - 1
        load_a(program, w.format, x.format, chunk, we, ws, rows=tile_rows,
               offset=(tile - t0) * size, scale_offset=(tile - t0) * scale_size,
               release=total if drop else 0, scale_release=scale_total if drop else 0)
        panel = Panel(x.format, chunk.columns)
        count, scale_count = panel_lines(x.format, chunk, rows)
        done = tile == t1 - 1
        program.dot(
            Operand(xe, 0, count, count if done else 0),
            Operand(xs, 0, scale_count, scale_count if done else 0) if x.format.is_mx else None,
            Operand(out, 0, rows, rows if i == len(chunks) - 1 else 0),
            a=w.format, b=x.format, columns=rows,
            blocks=blocks(chunk.columns, w.format, x.format), stride=panel.row_lines,
            scale_stride=panel.scale_stride, out_stride=1, release_a=True, accumulate=i > 0)


def output_lines(rows, columns):
    """Lines of an FP32 array of that shape."""
    return rows * lines(columns * 4)
