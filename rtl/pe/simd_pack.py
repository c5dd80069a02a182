"""Packs results of the SIMD engine into lines of local memory, elements and scales."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, LocalWrite
from rtl.pe.simd_command import DESTINATION, SCALES, settings_layout
from rtl.pe.simd_fetch import moved

SECTIONS = 16       # parts of a line that are filled apart: 4 bytes, one reduced row


class SimdPack(wiring.Component):
    """Collects results into lines, and scale bytes into lines of their own; writes both.

    A line is offered to ``write`` 2 cycles after its last result. Throughput is 1 line a cycle;
    ``advance`` is low while a line has to wait. Only bytes that hold results are written, unless
    ``whole``. Idle after reset. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].

    Members
    -------
    start : In(1)
        A command begins.
    settings : In(settings_layout(lines=lines))
        The command and its grants, which hold from ``start`` on.
    whole : In(1)
        Lines are written whole, padded with zeros.
    reduced : In(1)
        Results follow each other without regard of rows.
    advance : Out(1)
        A result can be taken.
    valid : In(1)
        There is a result; it is taken if ``advance``.
    data : In(512)
        The result, repeated over the line.
    size_log2 : In(range(5))
        Its size in sections of 4 bytes.
    last, final : In(1)
        It is the last one of its row, or of the command.
    scale_valid, scale : In(1), In(8)
        With the result comes a scale byte.
    write : Out(LocalWrite(lines=lines))
        Port of local memory.
    busy : Out(1)
        Lines wait to be written.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({
            "start": In(1), "settings": In(settings_layout(lines=lines)), "whole": In(1),
            "reduced": In(1), "advance": Out(1), "valid": In(1), "data": In(LINE_BITS),
            "size_log2": In(range(5)), "last": In(1), "final": In(1), "scale_valid": In(1),
            "scale": In(8), "write": Out(LocalWrite(lines=lines)), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(self.write.o.payload.shape())
        connect(m, queue.o, flipped(self.write.o))
        line_full, scale_full = Signal(), Signal()
        take = self.valid & self.advance
        out = queue.i
        m.d.comb += [
            self.advance.eq(~(line_full & ~out.ready)
                            & ~(scale_full & (line_full | ~out.ready))),
            out.valid.eq(line_full | scale_full),
            self.busy.eq(line_full | scale_full | queue.o.valid),
        ]
        with m.If(out.ready):
            m.d.sync += line_full.eq(0)
            with m.If(~line_full):
                m.d.sync += scale_full.eq(0)
        gated_domain(m, name="line", enable=take)
        gated_domain(m, name="scale", enable=take & self.scale_valid)
        line, mask, address = self._elements(m, take, line_full)
        scales, scale_mask, scale_address = self._scales(m, take & self.scale_valid, scale_full)
        with m.If(line_full):
            m.d.comb += [out.payload.data.eq(line), out.payload.address.eq(address),
                         out.payload.mask.eq(Cat(bit.replicate(LINE_BYTES // SECTIONS)
                                                 for bit in mask))]
        with m.Else():
            m.d.comb += [out.payload.data.eq(scales), out.payload.address.eq(scale_address),
                         out.payload.mask.eq(scale_mask)]
        return m

    def _elements(self, m, take, full):
        """The line being filled, the sections filled, and the address of the line that is full."""
        command, grant = self.settings.command, self.settings.grants[DESTINATION]
        position, size = Signal(range(SECTIONS)), Signal(range(SECTIONS + 1))
        row, at, address = (Signal(range(self.lines), name=name)
                            for name in ("row", "at", "address"))
        next_row = Signal(range(self.lines))
        line = Signal(LINE_BITS, reset_less=True)
        mask, filled = Signal(SECTIONS), Signal(SECTIONS)
        ends = Mux(self.reduced, self.final, self.last)
        complete = position + size == SECTIONS
        m.d.comb += [size.eq(1 << self.size_log2), next_row.eq(moved(grant, row, command.stride)),
                     filled.eq(((1 << size) - 1) << position)]
        for i in range(SECTIONS):
            part = slice(32 * i, 32 * i + 32)
            with m.If(filled[i]):
                m.d.line += line[part].eq(self.data[part])
            with m.Elif(position == 0):
                m.d.line += line[part].eq(0)
        with m.If(take):
            m.d.sync += mask.eq(filled | Mux(position == 0, 0, mask) | self.whole.replicate(
                SECTIONS))
            with m.If(ends | complete):
                m.d.sync += [full.eq(1), position.eq(0), address.eq(at)]
                with m.If(ends & ~self.reduced):
                    m.d.sync += [row.eq(next_row), at.eq(next_row)]
                with m.Else():
                    m.d.sync += at.eq(moved(grant, at, 1))
            with m.Else():
                m.d.sync += position.eq(position + size)
        with m.If(self.start):
            m.d.sync += [row.eq(grant.start), at.eq(grant.start), position.eq(0)]
        return line, mask, address

    def _scales(self, m, take, full):
        """The line of scales being filled, its byte mask, the address of the line that is full."""
        stride, grant = self.settings.command.scale_stride, self.settings.grants[SCALES]
        row_byte, byte = Signal(range(LINE_BYTES)), Signal(range(LINE_BYTES))
        row, at, address = (Signal(range(self.lines), name=f"scale_{name}")
                            for name in ("row", "at", "address"))
        next_row, next_byte = Signal(range(self.lines)), Signal(range(2 * LINE_BYTES))
        scales = Signal(LINE_BITS, reset_less=True)
        mask, fresh = Signal(LINE_BYTES), Signal()
        m.d.scale += scales.word_select(byte, 8).eq(self.scale)
        m.d.comb += [next_byte.eq(row_byte + stride[:6]),
                     next_row.eq(moved(grant, row, stride[6:] + next_byte[6]))]
        leaves = self.last & (stride[6:].any() | next_byte[6])  # the next row is in another line
        with m.If(take):
            m.d.sync += [mask.eq(Mux(fresh, 0, mask) | (C(1, LINE_BYTES) << byte)), fresh.eq(0)]
            with m.If(leaves | self.final | (byte == LINE_BYTES - 1)):
                m.d.sync += [full.eq(1), address.eq(at), fresh.eq(1)]
            with m.If(self.last):
                m.d.sync += [row.eq(next_row), at.eq(next_row), row_byte.eq(next_byte),
                             byte.eq(next_byte)]
            with m.Else():
                m.d.sync += byte.eq(byte + 1)
                with m.If(byte == LINE_BYTES - 1):
                    m.d.sync += at.eq(moved(grant, at, 1))
        with m.If(self.start):
            m.d.sync += [row.eq(grant.start), at.eq(grant.start), row_byte.eq(0), byte.eq(0),
                         fresh.eq(1)]
        return scales, mask, address
