"""Runs of a SIMD command over its rows: one, or for a norm several over each group of rows."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.pe.interfaces import LINE_BITS
from rtl.pe.simd_command import LANES, Norm, command_layout
from rtl.pe.simd_issue import GROUP, Sweep

MEAN_CYCLES = 2     # from the sums of a group to its means
SCALE_CYCLES = 7    # from the sums of squares to the scales: affine and function
SETTLE = 4          # of these pass before the results' first beat: it meets its scale after 3 more


class SweepControl(wiring.Component):
    """Starts the runs of a command.

    Without norm one run, with ``start``. A norm sweeps groups of 16 rows: LayerNorm SUM, SQUARE,
    RESULT, RMSNorm SQUARE, RESULT. The squares start in the cycle after that in which the last sum
    was taken, results 4 cycles later, the next group in the cycle after the last beat was issued.
    Idle after reset.

    Members
    -------
    start : In(1)
        A command begins.
    command : In(command_layout())
        The command, which holds from then on.
    advance : In(1)
        The datapath moves.
    issuing : In(1)
        A run has beats to come.
    summed : In(1)
        A row's sum is there, taken if ``advance``.
    run, rows : Out(1), Out(16)
        Begin a run over so many rows.
    sweep : Out(Sweep)
        What the run is for, from the cycle after ``run``.
    finishes : Out(1)
        It is the command's last, likewise.
    index : Out(range(GROUP))
        Row of the group whose sum is there.
    fire : Out(1)
        All sums are there: make statistics of them. Only with ``advance``.
    busy : Out(1)
        There are runs to come, or one of a norm is under way.
    """

    start: In(1)
    command: In(command_layout())
    advance: In(1)
    issuing: In(1)
    summed: In(1)
    run: Out(1)
    rows: Out(16)
    sweep: Out(Sweep)
    finishes: Out(1)
    index: Out(range(GROUP))
    fire: Out(1)
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        norm, layer = self.command.norm != Norm.NONE, self.command.norm == Norm.LAYER
        resting = Signal()
        beyond = Signal(16)                 # rows after this group
        group, count = Signal(range(GROUP + 1)), Signal(range(GROUP + 1))
        fresh, size = Signal(), Signal(range(GROUP + 1))    # a group begins, with so many rows
        available = Mux(resting, self.command.rows, beyond)
        m.d.comb += [
            size.eq(Mux(available < GROUP, available, GROUP)), self.busy.eq(~resting),
            self.rows.eq(Mux(~norm, self.command.rows, Mux(fresh, size, group))),
            self.finishes.eq((self.sweep == Sweep.RESULT) & (~norm | (beyond == 0))),
            self.index.eq(count),
        ]
        with m.If(fresh):
            m.d.comb += self.run.eq(1)
            m.d.sync += [group.eq(size), beyond.eq(available - size), count.eq(0),
                         self.sweep.eq(Mux(layer, Sweep.SUM, Sweep.SQUARE))]
        with m.FSM():
            with m.State("REST"):
                m.d.comb += [resting.eq(1), fresh.eq(self.start & norm), self.run.eq(self.start)]
                with m.If(fresh):
                    m.next = "SUM"
            with m.State("SUM"):
                with m.If(self.advance & self.summed):
                    m.d.sync += count.eq(count + 1)
                with m.If(self.advance & (count == group)):
                    m.d.comb += self.fire.eq(1)
                    m.d.sync += count.eq(0)
                    with m.If(self.sweep == Sweep.SUM):
                        m.d.comb += self.run.eq(1)
                        m.d.sync += self.sweep.eq(Sweep.SQUARE)
                    with m.Else():
                        m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(self.advance):
                    m.d.sync += count.eq(count + 1)
                    with m.If(count == SETTLE - 1):
                        m.d.comb += self.run.eq(1)
                        m.d.sync += self.sweep.eq(Sweep.RESULT)
                        m.next = "RESULT"
            with m.State("RESULT"):
                with m.If(~self.issuing):
                    m.next = "REST"
                    with m.If(beyond != 0):
                        m.d.comb += fresh.eq(1)
                        m.next = "SUM"
        return m


class Statistics(wiring.Component):
    """Holds a group's sums, then its means or scales in their place.

    Latency is 0 cycles for a look, 1 cycle for what is stored. No reset: every number is stored
    before it is looked at.

    Members
    -------
    store : In(1)
        A row's sum comes.
    index, sum : In(range(GROUP)), In(32)
        Its row, and the sum.
    squares : In(1)
        It is one of squares; and so are the sums on ``sums``.
    sums : Out(512)
        Sums of all rows.
    replace_means, replace_scales : In(1)
        What was made of the sums comes.
    statistics : In(512)
        The means or scales of all rows.
    mean_row, scale_row : In(range(GROUP))
        Rows to look at.
    mean, scale : Out(32)
        Their statistics.
    """

    store: In(1)
    index: In(range(GROUP))
    sum: In(32)
    squares: In(1)
    sums: Out(LINE_BITS)
    replace_means: In(1)
    replace_scales: In(1)
    statistics: In(LINE_BITS)
    mean_row: In(range(GROUP))
    scale_row: In(range(GROUP))
    mean: Out(32)
    scale: Out(32)

    def elaborate(self, platform):
        m = Module()
        for name, mine, replaced, row, o in (
                ("means", ~self.squares, self.replace_means, self.mean_row, self.mean),
                ("scales", self.squares, self.replace_scales, self.scale_row, self.scale)):
            stores = self.store & mine
            gated_domain(m, name=name, enable=stores | replaced)
            held = Signal(LINE_BITS, name=f"held_{name}", reset_less=True)
            with m.If(replaced):
                m.d[name] += held.eq(self.statistics)
            with m.Else():
                for lane in range(LANES):
                    with m.If(self.index == lane):
                        m.d[name] += held[32 * lane:32 * lane + 32].eq(self.sum)
            m.d.comb += o.eq(held.word_select(row, 32))
            with m.If(mine):
                m.d.comb += self.sums.eq(held)
        return m
