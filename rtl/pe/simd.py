"""SIMD engine: element-wise operations, row reductions, functions, quantisation."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.mx.formats import Format
from rtl.pe.frontend import UnitFrontend, events_since
from rtl.pe.interfaces import BufferPort, ErrorCode, LocalRead, LocalWrite, UnitPort
from rtl.pe.simd_command import (
    LANES,
    OPERANDS,
    SOURCE0,
    SOURCE1,
    Norm,
    Operation,
    Reduce,
    SimdChecker,
    Source1,
    is_mx,
    row_lines,
    settings_layout,
)
from rtl.pe.simd_datapath import SimdDatapath
from rtl.pe.simd_fetch import LineFetch, moved
from rtl.pe.simd_issue import GROUP, BeatIssue, Sweep
from rtl.pe.simd_lane import NarrowLane
from rtl.pe.simd_pack import SimdPack
from rtl.pe.simd_quantise import SimdQuantise, code_bytes
from rtl.pe.simd_reduce import SimdReduce
from rtl.pe.simd_sweep import SweepControl


class SimdEngine(wiring.Component):
    """Executes ``SIMD`` commands, see docs/programming-model.md.

    In steady state 16 elements a cycle, whatever the command does but for a norm. A command starts
    when the one before it has written its last line; from its start to its first result go 7 to 20
    cycles, more if local memory is not ready. A norm of R rows in G groups of 16, with B beats of
    16 elements a row, takes ``2 R B + 16 G + 10`` cycles (RMSNorm) or ``4 R B + 27 G + 10``
    (LayerNorm: sums, squares, and two cycles a beat of results) from its start to that of the next
    command; quantised, 4 more, and R more if B is odd. Between commands only the frontend is
    clocked; in a command, only the units of a lane that it uses. Counter word 4: beats issued (16
    elements, the pad of a block, or the addends of a LayerNorm). Source: this project's choice; the
    arithmetic is that of ``cosim/golden/simd.py`` and ``norm.py``.

    Parameters
    ----------
    lines : int
        Size of local memory [line]. :exc:`ValueError` unless at least 2.

    Members
    -------
    unit : Out(UnitPort())
        Commands, state, counters. Refused fields end in ``BAD_FIELD`` with the word's number, see
        :class:`SimdChecker`.
    buffers : Out(BufferPort(lines=lines))
        Port of the circular-buffer table.
    source0, source1 : Out(LocalRead(lines=lines))
        Read ports of local memory.
    destination : Out(LocalWrite(lines=lines))
        Write port of local memory, for elements and scales.
    """

    def __init__(self, *, lines=8192):
        if not isinstance(lines, int) or lines < 2:
            raise ValueError(f"Lines must be an integer of at least 2, not {lines!r}")
        self.lines = lines
        super().__init__({
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
            "source0": Out(LocalRead(lines=lines)), "source1": Out(LocalRead(lines=lines)),
            "destination": Out(LocalWrite(lines=lines))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(lines=self.lines, operands=OPERANDS)
        connect(m, flipped(self.unit), frontend.unit)
        connect(m, flipped(self.buffers), frontend.buffers)
        core, resting, accepted = Module(), Signal(), Signal()
        m.submodules.core = DomainRenamer("work")(ResetInserter(self.unit.clear)(core))
        gated_domain(m, name="work", enable=~resting | frontend.job.valid | self.unit.clear
                     | ResetSignal())
        gated_domain(m, name="settings", enable=accepted)
        core.submodules.fetch0 = fetch0 = LineFetch(lines=self.lines)
        core.submodules.fetch1 = fetch1 = LineFetch(lines=self.lines)
        core.submodules.sweeps = sweeps = SweepControl()
        core.submodules.issue = issue = BeatIssue()
        core.submodules.datapath = datapath = SimdDatapath()
        core.submodules.pack = pack = SimdPack(lines=self.lines)
        connect(core, fetch0.read, flipped(self.source0))
        connect(core, fetch1.read, flipped(self.source1))
        connect(core, fetch0.o, issue.i0)
        connect(core, fetch1.o, issue.i1)
        connect(core, pack.write, flipped(self.destination))

        settings = Signal(settings_layout(lines=self.lines), reset_less=True)
        command = settings.command
        start, running = Signal(), Signal()
        m.d.settings += settings.eq(frontend.job.payload)
        m.d.comb += accepted.eq(frontend.job.valid & resting)
        core.d.comb += [
            sweeps.start.eq(start), sweeps.command.eq(command), sweeps.advance.eq(pack.advance),
            sweeps.issuing.eq(issue.busy), issue.start.eq(sweeps.run), issue.rows.eq(sweeps.rows),
            issue.sweep.eq(sweeps.sweep), issue.finishes.eq(sweeps.finishes),
            issue.command.eq(command), datapath.command.eq(command),
            datapath.beat.eq(issue.o.payload), datapath.valid.eq(issue.o.valid),
            issue.o.ready.eq(pack.advance), datapath.advance.eq(pack.advance),
            pack.start.eq(start), pack.settings.eq(settings),
        ]
        self._sources(core, settings, start, fetch0, fetch1)
        under_way = self._results(core, command, start, datapath, sweeps, pack)
        quiet = ~(sweeps.busy | issue.busy | datapath.busy | under_way | pack.busy)
        self._control(core, frontend, settings, resting, start, running, quiet)

        issued = issue.o.valid & pack.advance
        core.d.comb += [
            frontend.active.eq(running & pack.advance & (~issue.busy | issue.o.valid)),
            frontend.starved.eq(running & pack.advance),
            frontend.blocked.eq(running),
        ]
        m.d.comb += frontend.extra[0].eq(events_since(m, self.unit.launch, issued))
        return m

    def _control(self, m, frontend, settings, resting, start, running, quiet):
        """One command at a time: check it, start it, wait until all is written."""
        m.submodules.checker = checker = SimdChecker(lines=self.lines)
        fault = frontend.fault
        m.d.comb += checker.settings.eq(settings)
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += [resting.eq(1), frontend.job.ready.eq(1)]
                with m.If(frontend.job.valid):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += start.eq(~checker.refused)
                with m.If(checker.refused):
                    m.d.comb += [fault.valid.eq(1), fault.code.eq(ErrorCode.BAD_FIELD),
                                 fault.field.eq(checker.field)]
                    m.next = "REFUSED"
                with m.Else():
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [running.eq(1), frontend.done.eq(quiet)]
                with m.If(quiet):
                    m.next = "TAKE"
            with m.State("REFUSED"):    # until the command processor clears the unit
                m.next = "REFUSED"

    def _sources(self, m, settings, start, fetch0, fetch1):
        """Jobs of the two readers."""
        command, grants = settings.command, settings.grants
        job0, job1 = fetch0.i.payload, fetch1.i.payload
        norm, layer = command.norm != Norm.NONE, command.norm == Norm.LAYER
        m.d.comb += [
            fetch0.i.valid.eq(start), job0.grant.eq(grants[SOURCE0]), job0.rows.eq(command.rows),
            job0.count.eq(row_lines(command.format0, command.columns)),
            job0.stride.eq(command.stride0), job0.step.eq(1),
            job0.group.eq(Mux(norm, GROUP, command.rows)),
            job0.sweeps.eq(Mux(norm, Mux(layer, 3, 2), 1)),
            fetch1.i.valid.eq(start & (norm | (command.operation != Operation.NONE))),
            job1.grant.eq(grants[SOURCE1]), job1.rows.eq(command.rows), job1.sweeps.eq(1),
            job1.count.eq(row_lines(command.format1, command.columns)), job1.step.eq(1),
            job1.stride.eq(Mux(command.mode == Source1.FULL, command.stride1, 0)),
        ]
        with m.If(layer):       # for each beat of a row a line of beta, then one of gamma before it
            size = job1.grant.limit - job1.grant.base
            m.d.comb += [
                job1.rows.eq((command.columns + LANES - 1) >> 4), job1.sweeps.eq(command.rows),
                job1.count.eq(2), job1.step.eq(size - command.stride1), job1.stride.eq(1),
                job1.grant.start.eq(moved(grants[SOURCE1], grants[SOURCE1].start,
                                          command.stride1)),
                job1.twice.eq(command.format1 != Format.FP32)]
        with m.Elif(command.mode == Source1.SCALAR):
            m.d.comb += [job1.rows.eq(1), job1.count.eq((command.rows + LANES - 1) >> 4)]
        m.d.comb += job1.group.eq(job1.rows)

    def _results(self, m, command, start, datapath, sweeps, pack):
        """From FP32 results to the packer, by way of reduction or quantiser; "under way"."""
        m.submodules.reduce = reduce = SimdReduce()
        m.submodules.quantise = quantise = SimdQuantise()
        mx, reduces = is_mx(command), command.reduce != Reduce.NONE
        plain, arrived = ~mx & ~reduces, datapath.o_valid
        for sink, used in ((reduce, reduces), (quantise, mx)):
            m.d.comb += [sink.advance.eq(pack.advance), sink.command.eq(command),
                         sink.valid.eq(arrived & used), sink.x.eq(datapath.o),
                         sink.tag.eq(datapath.tag)]
        with m.If(command.norm != Norm.NONE):
            m.d.comb += [reduce.valid.eq(datapath.term_valid), reduce.x.eq(datapath.term),
                         reduce.tag.eq(datapath.term_tag)]
        summed = (command.norm != Norm.NONE) & reduce.o_valid
        m.d.comb += [
            quantise.start.eq(start), sweeps.summed.eq(summed), datapath.sum_valid.eq(summed),
            datapath.sum.eq(reduce.o), datapath.sum_index.eq(sweeps.index),
            datapath.sum_squares.eq(sweeps.sweep == Sweep.SQUARE), datapath.fire.eq(sweeps.fire)]

        gated_domain(m, name="narrow", enable=pack.advance & arrived & plain)
        narrow_valid, narrow_last, narrow_final = Signal(), Signal(), Signal()
        with m.If(pack.advance):
            m.d.sync += [narrow_valid.eq(arrived & plain), narrow_last.eq(datapath.tag.last),
                         narrow_final.eq(datapath.tag.final)]
        words = []
        for i in range(LANES):
            m.submodules[f"narrow{i}"] = lane = Place(NarrowLane(), domain="narrow")
            m.d.comb += [lane.x.eq(datapath.o[32 * i:32 * i + 32]),
                         lane.format.eq(command.destination),
                         lane.keep.eq(~datapath.tag.ragged | (i < command.columns[:4]))]
            words.append(lane.o)
        halves = Cat(word[:16] for word in words)
        wide = command.destination == Format.FP32
        with m.If(reduces):
            m.d.comb += [pack.data.eq(reduce.o.replicate(LANES)), pack.size_log2.eq(0)]
        with m.Elif(mx):
            m.d.comb += [pack.data.eq(code_bytes(quantise.o, command.destination)),
                         pack.size_log2.eq(Mux(command.destination == Format.E2M1, 1, 2))]
        with m.Else():
            m.d.comb += [pack.data.eq(Mux(wide, Cat(words), halves.replicate(2))),
                         pack.size_log2.eq(Mux(wide, 4, 3))]
        m.d.comb += [
            pack.whole.eq(plain), pack.reduced.eq(reduces),
            pack.valid.eq(narrow_valid | quantise.o_valid | (reduces & reduce.o_valid)),
            pack.last.eq(Mux(mx, quantise.last, narrow_last)),
            pack.final.eq(Mux(reduces, reduce.o_final, Mux(mx, quantise.final, narrow_final))),
            pack.scale_valid.eq(quantise.o_valid & quantise.second),
            pack.scale.eq(quantise.scale),
        ]
        return narrow_valid | quantise.busy | reduce.busy
