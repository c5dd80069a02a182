"""A loader: fills the operand-A buffers of the dot-product engine."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.mx.formats import Format
from rtl.pe.a_buffer import AFill
from rtl.pe.frontend import OperandField, UnitFrontend, events_since
from rtl.pe.interfaces import BufferPort, ErrorCode, LocalRead, UnitPort
from rtl.pe.line_walk import LineWalk
from rtl.pe.operand_tensor import (
    BUFFER_LINES,
    BUFFER_SCALES,
    block_log2,
    is_mx,
    is_wide,
    row_lines,
    row_scales,
    scales_fit,
    stride_fits,
)
from rtl.pe.scale_fetch import ScaleFetch


class ALoader(wiring.Component):
    """Carries out ``LOAD_A``: copies rows of elements and their scales into a free A buffer.

    A command takes ``rows * (ceil(bytes / 64) + ceil(scales / 64)) + 6`` cycles from the job on,
    where a row has ``bytes`` bytes of elements and ``scales`` scales, if its buffer is free and
    local memory never refuses. ``blocks`` of an MX format are read as whole blocks, as far as the
    buffer goes: only the DOT knows whether its other operand makes them half blocks.
    The command is refused with ``BAD_FIELD`` for word 1 (format), 8 (no or too many rows or
    blocks: a row of half blocks does not fit) or 9 (a stride). Counters: busy, a line or word
    moves; starved, it waits for local memory; blocked, for a free buffer; word 4, element lines.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    rows : int
        Rows of operand A, 1 to 16.
    mx4 : bool
        MX4 is a format.

    Members
    -------
    unit : Out(UnitPort())
        From the command processor.
    buffers : Out(BufferPort(lines=lines))
        To the table of circular buffers.
    source : Out(LocalRead(lines=lines))
        Elements and scales.
    fill : Out(AFill())
        To the A buffers.
    """

    def __init__(self, *, lines, rows=16, mx4=True):
        if not isinstance(rows, int) or not 1 <= rows <= 16:
            raise ValueError(f"Rows must be in 1 to 16, not {rows!r}")
        self.lines = lines
        self.rows = rows
        self.mx4 = mx4
        super().__init__({"unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
                          "source": Out(LocalRead(lines=lines)), "fill": Out(AFill())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(
            lines=self.lines, operands=[OperandField(2), OperandField(4)])
        connect(m, flipped(self.unit), frontend.unit)
        connect(m, flipped(self.buffers), frontend.buffers)
        core = Module()
        m.submodules.core = DomainRenamer("work")(ResetInserter(self.unit.clear)(core))
        core.submodules.walk = walk = LineWalk(lines=self.lines, lanes=1)
        core.submodules.scales = scales = ScaleFetch(lines=self.lines, lanes=1)

        bad, field, mx = self._decode(core, frontend.job, walk, scales)
        loading, refused, arriving = Signal(), Signal(), Signal()
        start = frontend.job.valid & ~loading & self.fill.free
        core.d.comb += [
            frontend.job.ready.eq(start),
            walk.i.valid.eq(start & ~bad),
            scales.i.valid.eq(start & ~bad & mx),
            frontend.fault.valid.eq(loading & refused),
            frontend.fault.code.eq(ErrorCode.BAD_FIELD),
        ]
        with core.If(start):
            core.d.sync += [loading.eq(1), refused.eq(bad), frontend.fault.field.eq(field)]

        # Scales come first in the port: they leave gaps, in which lines of elements are read.
        scaling, stalled, was_scaling = Signal(), Signal(), Signal()
        core.d.sync += [stalled.eq(self.source.address.valid & ~self.source.address.ready),
                        was_scaling.eq(scaling)]
        core.d.comb += [
            scaling.eq(Mux(stalled, was_scaling, scales.read.address.valid)),
            scales.room.eq(1),
            self.source.address.valid.eq(walk.o.valid | scales.read.address.valid),
            self.source.address.payload.eq(Mux(scaling, scales.read.address.payload,
                                             walk.o.payload.address)),
            scales.read.address.ready.eq(self.source.address.ready & scaling),
            walk.o.ready.eq(self.source.address.ready & ~scaling),
            scales.read.data.eq(self.source.data),
            self.fill.element_valid.eq(arriving),
            self.fill.elements.eq(self.source.data),
            self.fill.scale_valid.eq(scales.valid),
            self.fill.scale_row.eq(scales.word.row),
            self.fill.word.eq(scales.word.index),
            self.fill.scales.eq(scales.word.data),
        ]
        core.d.sync += [arriving.eq(walk.o.valid & walk.o.ready),
                        self.fill.row.eq(walk.o.payload.row),
                        self.fill.line.eq(walk.o.payload.index)]
        finished = loading & ~refused & ~walk.o.valid & ~arriving & ~scales.busy
        core.d.comb += [self.fill.full.eq(finished), frontend.done.eq(finished)]
        with core.If(finished):
            core.d.sync += loading.eq(0)

        moved = self.source.address.valid & self.source.address.ready
        core.d.comb += [
            frontend.active.eq(moved | arriving | scales.valid),
            frontend.starved.eq(loading),
            frontend.blocked.eq(frontend.job.valid & ~self.fill.free),
        ]
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.unit.clear | start | loading
                     | stalled | arriving)
        m.d.comb += frontend.extra[0].eq(events_since(m, self.unit.launch, arriving))
        return m

    def _decode(self, m, job, walk, scales):
        """Fill in the jobs of the walks; tell whether and where it is bad, and if MX."""
        words = [job.payload.command[32 * i:32 * (i + 1)] for i in range(16)]
        format, rows, blocks = words[1][:4], words[8][:16], words[8][16:]
        stride, scale_stride = words[9][:16], words[9][16:]
        grants = job.payload.grants
        content = Signal.like(self.fill.content)
        count = Signal(16)      # scales of a row, read as whole blocks
        log2 = Signal(2)
        m.d.comb += [
            log2.eq(block_log2(format, 0)),
            content.format.eq(format), content.rows.eq(rows), content.blocks.eq(blocks),
            content.whole.eq(~is_mx(format) | scales_fit(scale_stride, blocks)),
            count.eq(Mux(blocks > BUFFER_SCALES, BUFFER_SCALES, blocks)),
        ]
        needed = row_lines(blocks, log2)
        m.d.comb += [
            walk.i.payload.grant.eq(grants[0]), walk.i.payload.stride_lines.eq(stride),
            walk.i.payload.rows.eq(rows),
            walk.i.payload.count.eq(Mux(needed > BUFFER_LINES, BUFFER_LINES, needed)),
            scales.i.payload.walk.grant.eq(grants[1]),
            scales.i.payload.walk.stride_lines.eq(scale_stride[6:]),
            scales.i.payload.walk.stride_bytes.eq(scale_stride[:6]),
            scales.i.payload.walk.rows.eq(rows),
            scales.i.payload.scales.eq(count),
        ]
        with m.If(job.valid & job.ready):
            m.d.sync += self.fill.content.eq(content)
        bad_format = ~is_mx(format) & ~is_wide(format)
        if not self.mx4:
            bad_format |= format == Format.E2M1
        fit = row_lines(blocks, block_log2(format, is_mx(format))) <= BUFFER_LINES
        bad_size = (rows == 0) | (rows > self.rows) | (blocks == 0) | ~fit
        bad_stride = ~stride_fits(stride, grants[0], rows) | (is_mx(format) & ~(
            scales_fit(scale_stride, row_scales(blocks, 1))
            & stride_fits(scale_stride[6:], grants[1], rows)))
        return (bad_format | bad_size | bad_stride,
                Mux(bad_format, 1, Mux(bad_size, 8, 9)), is_mx(format))
