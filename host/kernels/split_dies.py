"""Matrix product shared out to the compute dies of a package: Y[M, N] = X[M, K] x W[N, K]^T.

Each die multiplies the rows of W, columns of Y, that lie in its memory. Rows of X that lie in
another die are read over the links between dies, by every PE that needs them or once, into a copy;
results may be written to another die. The order of additions is that of one die, and so are the
bits of Y.
"""
from host.isa import LINE, ROWS, Region
from host.kernels.matmul import matmul, split
from host.program import Program, use
from host.tensor import Packed, Part

PIECE = 256     # lines of a command that copies, at most


def die_of(tensor):
    """Number of the die whose memory holds a tensor."""
    return tensor.address >> 44


def shared_rows(rows, dies):
    """First row and one past the last for each of ``dies`` parts of W: whole tiles of 16.

    :exc:`ValueError` if there are fewer tiles than dies.
    """
    tiles = -(-rows // ROWS)
    if tiles < dies:
        raise ValueError(f"Rows of W must be at least {ROWS * (dies - 1) + 1} for {dies} dies, "
                         f"not {rows}")
    return [(a * ROWS, min(b * ROWS, rows)) for a, b in split(tiles, dies)]


def put_shared(device, packed, dies, region=Region.SRAM):
    """Copy the rows of a packed matrix to the dies, a part to each; returns tensors by die."""
    parts = []
    for die, (a, b) in zip(dies, shared_rows(packed.rows, len(dies)), strict=True):
        scales = None if packed.scales is None else packed.scales[a:b]
        part = Packed(b - a, packed.columns, packed.format, packed.elements[a:b], scales)
        parts.append(device.put(part, die, region))
    return parts


def copy(source, target, *, pes, local_lines=8192):
    """Programs, by PE, that copy a tensor to another of the same shape, on whichever dies.

    :exc:`ValueError` if the shapes or formats differ.
    """
    shapes = [(t.rows, t.columns, t.format) for t in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"A copy must be alike, not {target.rows}x{target.columns} "
                         f"{target.format.name} for {source.rows}x{source.columns} "
                         f"{source.format.name}")
    runs = [(source.address, target.address, source.element_bytes // LINE)]
    if source.format.is_mx:
        runs.append((source.scales, target.scales, source.scale_bytes // LINE))
    programs, piece = {}, max(min(PIECE, local_lines // 4), 1)
    for number, pe in enumerate(pes):
        program = Program(local_lines=local_lines)
        buffer = program.buffer(4 * piece)
        moved = False
        for come, go, lines in runs:
            first, last = split(lines, len(pes))[number]
            for at in range(first, last, piece):
                count = min(piece, last - at)
                program.dma_in(use(buffer, wait=count, release=count), come + LINE * at,
                               row_bytes=LINE * count)
                program.dma_out(use(buffer, wait=count, release=count), go + LINE * at,
                                row_bytes=LINE * count)
                moved = True
        if moved:
            programs[pe] = program
    return programs


def matmul_dies(x, w, y, *, pes, copies=None, local_lines=8192):
    """Launches that write Y = X W^T: a list of ``(die, programs by PE)``, see :func:`launch`.

    Parameters
    ----------
    x : host.tensor.Tensor or list
        X, or parts of it that stand one below the other, in any dies.
    w : list of host.tensor.Tensor
        Parts of W that stand one below the other, each of whole tiles of 16 rows but the last, each
        in the die that multiplies it.
    y : host.tensor.Tensor or list
        Y in any die, or for each part of W its columns. FP32.
    pes : list of int
        PEs of each die that share its work.
    copies : dict
        By die a tensor for a copy of X, from which that die then multiplies. Without one, its PEs
        read X where it is.

    :exc:`ValueError` if shapes do not fit together.
    """
    parts = x if isinstance(x, list) else [x]
    rows, columns = sum(part.rows for part in parts), sum(part.rows for part in w)
    if any(part.rows % ROWS for part in w[:-1]):
        raise ValueError(f"Parts of W must have a multiple of {ROWS} rows, "
                         f"not {[part.rows for part in w]}")
    whole = not isinstance(y, list)
    results = [y] if whole else y
    shape = [rows, columns] if whole else [rows, *(part.rows for part in w)]
    if shape[1:] != [t.columns for t in results] or any(t.rows != rows for t in results):
        raise ValueError(f"Y must have {rows} rows and {shape[1:]} columns, not "
                         f"{[(t.rows, t.columns) for t in results]}")
    launches, column = [], 0
    for number, weights in enumerate(w):
        die = die_of(weights)
        target = y if whole else y[number]
        copied = (copies or {}).get(die)
        mine, row = parts, 0
        if copied is not None:
            for part in parts:
                launches.append((die, copy(part, copied.slice(row, part.rows), pes=pes,
                                           local_lines=local_lines)))
                row += part.rows
            mine = [copied]
        # every die begins with its own part of X, and all pass on to the next ones in step
        starts = [sum(part.rows for part in mine[:n]) for n in range(len(mine))]
        begin = next((n for n, part in enumerate(mine) if die_of(part) == die), 0)
        for n in [*range(begin, len(mine)), *range(begin)]:
            place = Part(target, starts[n], mine[n].rows, column if whole else 0, weights.rows)
            launches.append((die, matmul(mine[n], weights, place, pes=pes,
                                         local_lines=local_lines)))
        column += weights.rows
    return launches


def launch(device, launches, *, watchdog=0):
    """Start launches, those of a die one after another, and wait for all.

    Copies and launches of all streams that were submitted before end first: operands may come from
    any of them.
    """
    device.synchronize()
    events = [device.launch(die, programs, stream=die % 4, watchdog=watchdog)
              for die, programs in launches]
    for event in events:
        event.wait()
