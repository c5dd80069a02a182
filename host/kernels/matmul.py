"""Matrix product of any shape on the PEs of one die: Y[M, N] = X[M, K] x W[N, K]^T."""
from math import inf, lcm

from host.isa import LINE, ROWS, Format, Group, Operand, Region, blocks
from host.kernels.dots import Panel, k_chunks, load, load_a, panel_lines
from host.kernels.schedule import Die, Load, Work, cuts, duration, fill_cycles, interleave, upper
from host.program import Program, use

PLANS = {}      # how products were cut, by their sizes
BUFFERS = 64    # lines kept free for rounding when local memory is divided
TRAFFIC = 0.5   # cycles that a line loaded counts when shares are compared
FILLING = 0.43  # cycles that products lose for each line brought into a buffer of operand A
                # (measured): both read local memory
DRAIN = 4       # rows, about, of the last product: what is still to be written when it ends


def lanes(a, b, die=Die()):     # noqa: B008, a constant
    """Rows of operand B that the dot-product engine takes at once."""
    return max(die.mx4_lanes, 1) if a == b == Format.E2M1 else 1


def split(total, parts):
    """Cut ``range(total)`` into ``parts`` runs whose sizes differ by at most one."""
    bounds = [total * i // parts for i in range(parts + 1)]
    return list(zip(bounds, bounds[1:], strict=False))


def partition(m, n, pes, group, time=None):
    """Rows of X and tiles of W for each PE, so that the busiest one ends first.

    ``time(rows, tiles)``: how long a share takes; without it, products alone count. Returns one
    ``((m0, m1), (tile0, tile1))`` per PE; ranges may be empty.
    """
    tiles = -(-n // ROWS)

    def cost(m_parts):
        rows = upper(upper(m, m_parts), group) * group
        share = upper(tiles, pes // m_parts)
        return time(min(rows, m), share) if time else rows * share, share * ROWS + rows
    factors = [f for f in range(1, pes + 1) if pes % f == 0]
    m_parts = min(factors, key=cost)
    row_runs = [(a * group, min(b * group, m)) for a, b in split(-(-m // group), m_parts)]
    tile_runs = split(tiles, pes // m_parts)
    return [(rows, tile) for rows in row_runs for tile in tile_runs]


def matmul(x, w, y, *, pes, die=Die(), grid=None, local_lines=8192):   # noqa: B008
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
    die : Die
        What they are part of.
    grid : tuple of int
        Rows and columns of the die's PEs, if ``pes`` are all of them: they read together what they
        share, X along a row, W along a column, so a row of PEs brings each line once. Without it
        each reads alone, and the work is shared out so that the busiest PE ends first.
        :exc:`ValueError` if shares would not be of equal size.
    """
    if x.columns != w.columns or y.rows != x.rows or y.columns != w.rows:
        raise ValueError(f"Shapes {x.rows}x{x.columns}, {w.rows}x{w.columns} and "
                         f"{y.rows}x{y.columns} do not make a product")
    if y.format != Format.FP32:
        raise ValueError(f"A product is written in FP32, not {y.format.name}")
    programs = {}
    spans = shares(x, w, len(pes), local_lines, die) if grid is None else even_shares(x, w, *grid)
    for pe, (rows, tiles) in zip(pes, spans, strict=True):
        if rows[0] < rows[1] and tiles[0] < tiles[1]:
            program = programs[pe] = Program(local_lines=local_lines)
            product = Product(x, w, y, rows, tiles, pes=len(pes), budget=local_lines, die=die,
                              together=grid is not None)
            product.allocate(program)
            product.emit(program)
    return programs


def even_shares(x, w, rows, columns):
    """Rows of X for each row of PEs, tiles of W for each column, row-major."""
    if x.rows % rows or w.rows % (columns * ROWS):
        raise ValueError(f"{rows} rows and {columns} columns of PEs share out a multiple of {rows} "
                         f"rows and of {columns * ROWS} columns, not {x.rows} and {w.rows}")
    tiles = split(w.rows // ROWS, columns)
    return [(run, tile) for run in split(x.rows, rows) for tile in tiles]


def shares(x, w, pes, budget, die=Die()):   # noqa: B008
    """Rows of X and tiles of W for each of ``pes`` PEs."""
    def time(rows, tiles):
        try:
            share = Product(x, w, None, (0, rows), (0, tiles), pes=pes, budget=budget, die=die)
            return share.cycles + TRAFFIC * sum(load.lines for load in share.loads)
        except ValueError:      # this share does not fit; another may
            return inf
    return partition(x.rows, w.rows, pes, lanes(w.format, x.format, die), time)


class Product:
    """One PE's share of a product: which rows of X meet which tiles of W, and when.

    Rows come in runs, tiles in passes: a run meets all tiles of a pass before the next run. What
    fits into local memory is loaded once. The first runs are short, and the first tile meets the
    first run piece by piece, so that products start as soon as a few rows have come; how short is
    best, a model of the time tells (``cycles``). The last product is cut so that little is left to
    be written when it ends.

    Parameters
    ----------
    x, w, y : host.tensor.Tensor
        Operands and result.
    rows, tiles : tuple of int
        First and one past the last.
    pes : int
        PEs that load from the die's memory at the same time.
    budget : int
        Lines of local memory. :exc:`ValueError` if a tile does not fit.
    loaded : int
        Tiles of W that :meth:`load_tile` brings before :meth:`emit`, all or none.
    die : Die
        What the PEs are part of.
    together : bool
        PEs of a row have the same rows, those of a column the same tiles, and all have shares of
        one size: they load these together.
    """

    def __init__(self, x, w, y, rows, tiles, *, pes, budget, loaded=0, die=Die(),   # noqa: B008
                 together=False):
        self.x, self.w, self.y, self.rows, self.tiles = x, w, y, rows, tiles
        self.group, self.loaded = lanes(w.format, x.format, die), loaded
        self.sharing = (Group.ROW, Group.COLUMN) if together else (Group.ALONE,) * 2
        self.rate = die.rate(1 if together else pes, Region(x.address >> 40 & 15))
        self.chunks = k_chunks(x.columns, w.format, x.format)
        self.row_lines = sum(sum(panel_lines(x.format, c, 16)) for c in self.chunks) / 16
        self.tile_lines = sum(sum(panel_lines(w.format, c, ROWS)) for c in self.chunks)
        self.row_cycles = sum(blocks(c.columns, w.format, x.format)
                              for c in self.chunks) / self.group
        strides = [max(Panel(x.format, c.columns).scale_stride, 1) for c in self.chunks]
        self.unit = lcm(self.group, *(LINE // min(s, LINE) if x.format.is_mx else 1
                                      for s in strides))
        key = (x.columns, x.format, w.format, rows[1] - rows[0], tiles[1] - tiles[0], self.rate,
               self.group, budget, loaded)
        if key not in PLANS:
            PLANS[key] = min(self._plans(budget), key=lambda plan: self._timed(*plan)[0])
        fit, *plan = PLANS[key]
        plan = [[(a + rows[0], b + rows[0]) for a, b in part] for part in plan]
        self.cycles, self.loads, self.works = self._timed(fit, *plan)
        _, self.held, self.copies = fit

    def _plans(self, budget):
        """Ways to cut the product: what local memory holds, runs, pieces of the first run."""
        m = self.rows[1] - self.rows[0]
        for fit in self._fits(budget):
            step, held, copies = fit
            stay = copies == 1 and held < self.tiles[1] - self.tiles[0]
            for runs in [((0, m),)] if stay else cuts(m, step, self.unit, self.group):
                for pieces in ((runs[0],), self._ramp(*runs[0])):
                    yield fit, runs, pieces

    def _fits(self, budget):
        """Rows of a run at most, tiles of a pass, and how many such runs local memory holds.

        Either all fits; or tiles stay and runs pass, two at a time; or all rows stay, one run, and
        tiles pass, two at a time. :exc:`ValueError` if nothing does.
        """
        m, tiles = self.rows[1] - self.rows[0], self.tiles[1] - self.tiles[0]
        if tiles * self.tile_lines + m * (self.row_lines + 2) + BUFFERS <= budget:
            return [(m, tiles, 1)]
        fits = []
        if not self.loaded and 2 * self.tile_lines + m * (self.row_lines + 2) + BUFFERS <= budget:
            fits.append((m, 1, 1))
        for held in range(tiles, 0, -1):
            weights = held * self.tile_lines * (1 if held == tiles else 2)
            rows = int((budget - weights - BUFFERS) // (2 * self.row_lines + 4))
            rows = rows // self.group * self.group
            if rows >= min(m, 8 * self.group):
                return [*fits, (min(rows, m), held, 2)]
        if not fits:
            raise ValueError("A tile of the product does not fit into local memory")
        return fits

    def _ramp(self, r0, r1):
        """Pieces of the first run: each arrives while the one before it is multiplied."""
        growth = min(max(self.rate[1] * self.row_cycles / self.row_lines, 1.0), 2.0)
        size = float(self.unit * upper(48, int(self.row_cycles * self.unit) + 1))
        bounds = [r0]
        while bounds[-1] < r1:
            piece = int(size) // self.unit * self.unit
            if r1 - bounds[-1] < 2 * piece:
                piece = r1 - bounds[-1]
            bounds.append(bounds[-1] + piece)
            size *= growth
        return list(zip(bounds, bounds[1:], strict=False))

    def _tail(self, r0, r1):
        """Pieces of the last run's last product: a short one at the end."""
        short = upper(DRAIN, self.unit) * self.unit
        cuts = [r1 - (r1 - r0) % self.unit - n * short for n in (4, 1)]
        bounds = [r0, *(c for c in cuts if c - r0 >= short), r1]
        return list(zip(bounds, bounds[1:], strict=False))

    def _timed(self, fit, runs, first):
        """Loads and products for these runs, and how long they take; ``first``: its pieces."""
        (t0, t1), (_, held, copies) = self.tiles, fit
        passes = [(t, min(t + held, t1)) for t in range(t0, t1, held)]
        steps = [(span, run) for span in passes for run in runs]
        per_load = 2 * len(self.chunks)
        fill = fill_cycles(self.tile_lines)
        slower = FILLING * self.tile_lines
        loads, works, ends, arrived, parts = [], [], [], {}, []
        for at, (span, (r0, r1)) in enumerate(steps):
            number = at // len(runs)
            pieces = first if at == 0 else [(r0, r1)]
            stay = copies == 1 and number > 0       # rows that came for the first pass
            parts = parts if stay else []
            for tile in range(*span):
                mine = pieces if tile == span[0] else [(r0, r1)]
                if at == len(steps) - 1 and tile == span[1] - 1:
                    mine = [*mine[:-1], *self._tail(*mine[-1])]
                if (number, tile) not in arrived:
                    arrived[number, tile] = -1
                    if number or tile - t0 >= self.loaded:
                        after = ends[(number - 1) * len(runs) - 1] if number > 1 else -1
                        arrived[number, tile] = len(loads)
                        loads.append(Load(("tile", tile), self.tile_lines,
                                          per_load, after, fill))
                for a, b in mine:
                    if tile == span[0] and not stay:
                        after = ends[at - 2] if copies == 2 and at > 1 else -1
                        parts.append((a, len(loads)))
                        loads.append(Load(("rows", a, b), (b - a) * self.row_lines, per_load,
                                          after))
                    fills = a == r0 or len(self.chunks) > 1
                    cycles = (b - a) * self.row_cycles + slower * fills
                    works.append(Work((span, (r0, r1), tile, (a, b)),
                                      max(cycles, fill) if a == r0 else cycles,
                                      (arrived[number, tile],
                                       max(n for first, n in parts if first < b))))
            ends.append(len(works) - 1)
        return duration(loads, works, self.rate), loads, works

    def allocate(self, program):
        """Allocate circular buffers."""
        largest = max(run[1] - run[0] for _, run, _, _ in (w.what for w in self.works))
        runs = {run for _, run, _, _ in (w.what for w in self.works)}
        tiles = self.held * (1 if self.held == self.tiles[1] - self.tiles[0] else 2)
        self.buffers = []
        for chunk in self.chunks:
            we, ws = panel_lines(self.w.format, chunk, ROWS)
            sizes = [panel_lines(self.x.format, chunk, b - a) for a, b in runs]
            if self.copies == 1:
                xe, xs = (sum(s[i] for s in sizes) for i in (0, 1))
            else:
                xe, xs = (2 * n for n in panel_lines(self.x.format, chunk, largest))
            self.buffers.append(tuple(program.buffer(n) for n in (we * tiles, ws * tiles, xe, xs)))
        self.out = program.buffer(2 * largest if self.copies == 1 else 4 * largest)

    def emit(self, program):
        """Emit loads and products."""
        for item in interleave(self.loads, self.works):
            if isinstance(item, Work):
                self._multiply(program, *item.what)
            elif item.what[0] == "tile":
                self.load_tile(program, item.what[1])
            else:
                for chunk, (_, _, xe, xs) in zip(self.chunks, self.buffers, strict=True):
                    load(program, self.x, chunk, xe, xs, first=item.what[1],
                         rows=item.what[2] - item.what[1], group=self.sharing[0])

    def load_tile(self, program, tile):
        """Emit the load of a tile of W; tiles come in ascending order."""
        for chunk, (we, ws, _, _) in zip(self.chunks, self.buffers, strict=True):
            load(program, self.w, chunk, we, ws, first=tile * ROWS, rows=self._tile_rows(tile),
                 group=self.sharing[1])

    def _tile_rows(self, tile):
        return min(ROWS, self.w.rows - tile * ROWS)

    def _multiply(self, program, span, run, tile, piece):
        """One tile of W against rows of X in local memory, all chunks of K; result to memory."""
        (r0, r1), (a, b), rows = run, piece, piece[1] - piece[0]
        # an A buffer serves all pieces of a run if it holds the whole of K
        keep = len(self.chunks) == 1
        last = self.copies == 2 or span[1] == self.tiles[1]
        done = last and tile == span[1] - 1 and b == r1
        drop = tile == span[1] - 1 and r1 == self.rows[1] and (keep or b == r1)
        for i, (chunk, (we, ws, xe, xs)) in enumerate(zip(self.chunks, self.buffers, strict=True)):
            if a == r0 or not keep:
                self._load_a(program, span, tile, chunk, we, ws, drop=drop)
            panel = Panel(self.x.format, chunk.columns)
            skip, upto = (panel_lines(self.x.format, chunk, n - r0) for n in (a, b))
            whole = panel_lines(self.x.format, chunk, r1 - r0)
            program.dot(
                Operand(xe, skip[0], upto[0], whole[0] if done else 0),
                Operand(xs, skip[1], upto[1], whole[1] if done else 0)
                if self.x.format.is_mx else None,
                Operand(self.out, 0, rows, rows if i == len(self.chunks) - 1 else 0),
                a=self.w.format, b=self.x.format, columns=rows,
                blocks=blocks(chunk.columns, self.w.format, self.x.format),
                stride=panel.row_lines, scale_stride=panel.scale_stride, out_stride=1,
                release_a=b == r1 or not keep, accumulate=i > 0)
        y, columns = self.y, min(ROWS, self.w.rows - tile * ROWS)
        program.dma_out(use(self.out, wait=rows, release=rows), y.row(a) + tile * ROWS * 4,
                        rows=rows, row_bytes=columns * 4, remote_stride=y.row_bytes,
                        local_stride=LINE)

    def _load_a(self, program, span, tile, chunk, we, ws, *, drop):
        size, scale_size = panel_lines(self.w.format, chunk, ROWS)
        of_pass = [panel_lines(self.w.format, chunk, self._tile_rows(t)) for t in range(*span)]
        load_a(program, self.w.format, self.x.format, chunk, we, ws, rows=self._tile_rows(tile),
               offset=(tile - span[0]) * size, scale_offset=(tile - span[0]) * scale_size,
               release=sum(s[0] for s in of_pass) if drop else 0,
               scale_release=sum(s[1] for s in of_pass) if drop else 0)
