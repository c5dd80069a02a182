"""Attention with the keys shared out to the PEs of a die, merged over the reduction ring.

Every PE computes the sums, maxima and unscaled outputs of its blocks of keys. Then, for each tile
of 16 rows of Q: the largest maximum goes round the ring and back to all; each PE multiplies its
output and sums by 2^(its maximum - the largest), which is exact; the results are added from PE to
PE; the last one divides and writes O^T. Golden model: ``cosim.golden.attention.merge``.
"""
from host.isa import LINE, ROWS, Binary, Format, Function, Operand, Source1
from host.kernels.flash import KEYS, check, flash_program
from host.kernels.matmul import split, upper
from host.program import Program, use


def flash_split(head, ring, *, p=Format.E4M3, mask=None, scale=None, tiles=None, cap=None,
                sinks=None, local_lines=8192):
    """Programs by PE for one head; the keys are shared out by whole blocks of 128.

    Parameters
    ----------
    head, p, mask, scale, tiles, cap, sinks, local_lines
        As in :func:`host.kernels.flash.flash`.
    ring : list of int
        All PEs of the reduction ring, see ``Device.reduction_ring``. If there are fewer blocks than
        PEs, the last ones only pass the largest maximum on.
    """
    check(head, p, cap, sinks)
    tiles = range(upper(head.q.rows, ROWS)) if tiles is None else tiles
    pages = upper(head.keys, KEYS)
    count, programs = min(len(ring), pages), {}
    for at, (pe, span) in enumerate(zip(ring, split(pages, count), strict=False)):
        merge = RingMerge(at, count) if count > 1 else None
        programs[pe] = flash_program(
            head, p=p, mask=mask, scale=scale, cap=cap, sinks=None if at else sinks, tiles=tiles,
            local_lines=local_lines, span=span, merge=merge)
    for pe in ring[count:] if count > 1 else ():
        programs[pe] = program = Program(local_lines=local_lines)
        none = program.buffer(1)
        for _ in tiles:
            program.reduce(use(none), lines=1, receive=True, send=True)
    return programs


class RingMerge:
    """What the PE at a place of the ring does with the state of a tile."""

    def __init__(self, at, count):
        self.at, self.count = at, count
        self.final = at == count - 1

    def allocate(self, program, lines):
        """Allocate circular buffers for outputs of ``lines`` lines."""
        self.lines = lines
        self.own = program.buffer(2 * (lines + 2))      # outputs, sums, maxima
        self.peak, self.onward, self.top, self.factor = (program.buffer(2) for _ in range(4))
        self.scaled = program.buffer(lines + 1)
        if self.final:
            self.total, self.inverse = program.buffer(lines + 1), program.buffer(1)
            self.out = program.buffer(2 * lines)

    @property
    def state_lines(self):
        return self.lines + 2

    def emit(self, program, address):
        """Emit: the state in ``own`` is merged; the last PE writes O^T to ``address``."""
        self._largest(program)
        self._scale(program)
        size = self.lines + 1
        source = use(self.scaled, wait=size, release=size)
        if not self.final:
            program.reduce(use(self.scaled), lines=size, receive=self.at > 0, source=source,
                           send=True)
            return
        program.reduce(use(self.total, wait=size, release=size), lines=size, receive=True,
                       source=source)
        self._line(program, Operand(self.total, self.lines, size, 0), self.inverse,
                   function=Function.RECIP)
        program.simd(use(self.total, wait=size, release=size),
                     use(self.out, wait=self.lines, release=self.lines), rows=self.lines,
                     columns=ROWS, op=Binary.MUL, src1=use(self.inverse, wait=1, release=1),
                     mode=Source1.ROW)
        program.dma_out(use(self.out, wait=self.lines, release=self.lines), address,
                        row_bytes=self.lines * LINE)

    def _largest(self, program):
        """The largest maximum of all PEs, into ``top``: up the ring, then once more round it."""
        mine = Operand(self.own, self.lines + 1, self.state_lines, 0)
        one, onward = use(self.peak, wait=1, release=1), use(self.onward, wait=1, release=1)
        if self.at == 0:
            program.reduce(use(self.peak), lines=1, source=mine, send=True)
        else:
            program.reduce(one, lines=1, receive=True)
            larger = {"op": Binary.MAX, "src1": use(self.peak, wait=1, release=0)}
            if self.final:
                self._line(program, mine, self.top, **larger)
            self._line(program, mine, self.onward, **larger | {"src1": one})
            program.reduce(use(self.peak), lines=1, source=onward, send=True)
        if not self.final:
            program.reduce(one, lines=1, receive=True)
            if self.at < self.count - 2:
                self._line(program, use(self.peak, wait=1), self.onward)
                program.reduce(use(self.peak), lines=1, source=onward, send=True)
            self._line(program, one, self.top)

    def _scale(self, program):
        """Outputs and sums times 2^(maximum - largest), into ``scaled``."""
        size = self.lines + 1
        self._line(program, Operand(self.own, size, self.state_lines, 0), self.factor,
                   op=Binary.SUB, src1=use(self.top, wait=1, release=1), function=Function.EXP2)
        program.simd(Operand(self.own, 0, self.state_lines, self.state_lines),
                     use(self.scaled, wait=size, release=size), rows=size, columns=ROWS,
                     op=Binary.MUL, src1=use(self.factor, wait=1, release=1), mode=Source1.ROW)

    def _line(self, program, src, target, **options):
        """Emit a SIMD command of one line."""
        program.simd(src, use(target, wait=1, release=1), rows=1, columns=ROWS, **options)
