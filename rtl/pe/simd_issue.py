"""Turns the lines of the two sources into beats of 16 elements."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.select import part_of
from rtl.mx.formats import Format
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.simd_command import LANES, Norm, Operation, Source1, command_layout, is_mx

GROUP = 16      # rows that a norm sweeps at a time: one statistic a lane


class Sweep(enum.Enum, shape=2):
    """What becomes of the beats of a run over rows."""

    RESULT = 0      # they make results
    SUM = 1         # they are added up
    SQUARE = 2      # the squares, for LayerNorm of what is left of them without the mean, are


def tag_layout():
    """What goes with a beat: first and last of its row, last of the command; in a ``ragged`` beat
    not all lanes hold elements, in a ``pad`` beat none. ``sweep`` and ``row`` of its run, modulo
    16; ``addend``: no beat, but the addends of the elements of the next one, in source 1.
    """
    return data.StructLayout({"first": 1, "last": 1, "final": 1, "ragged": 1, "pad": 1,
                              "sweep": Sweep, "row": range(GROUP), "addend": 1})


def beat_layout():
    """Sixteen elements of both sources, as their formats have them, in the low bits of 32."""
    return data.StructLayout({"a": LINE_BITS, "b": LINE_BITS, "tag": tag_layout()})


class BeatIssue(wiring.Component):
    """Issues the beats of a run over rows in order, row by row.

    Latency is 0 cycles from lines to beat, throughput 1 beat a cycle. A row that is quantised has
    an even number of beats: a pad beat is added if need be. In the results of a LayerNorm a beat
    takes two cycles: source 1 brings a line with its addends, then one with its factors. Idle after
    reset. Source: this project's choice.

    Members
    -------
    start : In(1)
        Begin a run; only while not ``busy``.
    rows : In(16)
        Its rows, taken with ``start``.
    command : In(command_layout())
        The command, which holds until the last beat.
    sweep : In(Sweep)
        What the run is for, which holds likewise.
    finishes : In(1)
        It is the command's last, which holds likewise.
    i0, i1 : In(stream.Signature(512))
        Lines of the sources; source 1 is not looked at where it is not used.
    o : Out(stream.Signature(beat_layout()))
        Beats.
    busy : Out(1)
        There are beats to come.
    """

    start: In(1)
    rows: In(16)
    command: In(command_layout())
    sweep: In(Sweep)
    finishes: In(1)
    i0: In(stream.Signature(LINE_BITS))
    i1: In(stream.Signature(LINE_BITS))
    o: Out(stream.Signature(beat_layout()))
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        command, tag = self.command, self.o.payload.tag
        left, rows = Signal(12), Signal(16)         # beats and rows to come after this one
        upper, padding, fresh = Signal(), Signal(), Signal()
        scalar_index = Signal(range(LANES))         # also the row of the run
        prepared = Signal()                         # the addends of this beat were issued

        beats = Signal(13)
        m.d.comb += beats.eq((command.columns + LANES - 1) >> 4)
        results, norm = self.sweep == Sweep.RESULT, command.norm != Norm.NONE
        padded = is_mx(command) & beats[0] & results
        binary = (command.operation != Operation.NONE) | (norm & results)
        scalar = command.mode == Source1.SCALAR
        wide0, wide1 = (format == Format.FP32 for format in (command.format0, command.format1))
        fired = self.o.valid & self.o.ready
        row_ends = (left == 0) & ~padding           # the row's last elements
        twofold = (command.norm == Norm.LAYER) & results & ~padding
        addends = twofold & ~prepared
        m.d.comb += [
            self.o.valid.eq(self.busy & (padding | ((self.i0.valid | addends)
                                                    & (self.i1.valid | ~binary)))),
            self.i0.ready.eq(fired & ~padding & ~addends & (wide0 | upper | row_ends)),
            self.i1.ready.eq(fired & ~padding & binary & Mux(
                scalar, row_ends & ((scalar_index == LANES - 1) | (rows == 0)),
                wide1 | upper | row_ends | twofold)),
            tag.first.eq(fresh), tag.last.eq(padding | (row_ends & ~padded)),
            tag.final.eq(tag.last & (rows == 0) & self.finishes), tag.pad.eq(padding),
            tag.ragged.eq(row_ends & (command.columns[:4] != 0)),
            tag.sweep.eq(self.sweep), tag.row.eq(scalar_index), tag.addend.eq(addends),
        ]

        with m.If(fired):
            m.d.sync += prepared.eq(addends)
        with m.If(fired & ~addends):
            m.d.sync += [upper.eq(~upper & ~row_ends & ~padding), fresh.eq(tag.last),
                         padding.eq(row_ends & padded)]
            with m.If(~row_ends & ~padding):
                m.d.sync += left.eq(left - 1)
            with m.If(tag.last):
                m.d.sync += [left.eq(beats - 1), rows.eq(rows - 1), self.busy.eq(rows != 0),
                             scalar_index.eq(scalar_index + 1)]
        with m.If(self.start):
            m.d.sync += [left.eq(beats - 1), rows.eq(self.rows - 1), self.busy.eq(1),
                         upper.eq(0), padding.eq(0), fresh.eq(1), scalar_index.eq(0)]

        number = Signal(32)
        m.d.comb += number.eq(part_of(self.i1.payload, scalar_index))
        half0, half1 = (Signal(LINE_BITS // 2, name=name) for name in ("half0", "half1"))
        m.d.comb += [half0.eq(part_of(self.i0.payload, upper)),
                     half1.eq(part_of(self.i1.payload, upper))]
        with m.If(wide0):
            m.d.comb += self.o.payload.a.eq(self.i0.payload)
        with m.Else():
            m.d.comb += self.o.payload.a.eq(spread(half0))
        with m.If(scalar):
            m.d.comb += self.o.payload.b.eq(number.replicate(LANES))
        with m.Elif(wide1):
            m.d.comb += self.o.payload.b.eq(self.i1.payload)
        with m.Else():
            m.d.comb += self.o.payload.b.eq(spread(half1))
        return m


def spread(halves):
    """16-bit elements in the low halves of 32-bit words."""
    return Cat(Cat(halves[16 * lane:16 * lane + 16], C(0, 16)) for lane in range(LANES))
