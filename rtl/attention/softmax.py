"""Softmax unit: scores of the dot-product engine to P buffers, and the factors of each block."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.attention.interfaces import LINE_BITS, PFill, factors_layout
from rtl.attention.softmax_cap import SoftCap
from rtl.attention.softmax_command import LANES, ScoreChecker, cap_layout
from rtl.attention.softmax_exponential import ExponentialPass
from rtl.attention.softmax_maximum import MaximumPass
from rtl.attention.softmax_store import ScoreStore
from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.pe.frontend import RUNNING, OperandField, UnitFrontend, events_since
from rtl.pe.interfaces import BufferPort, ErrorCode, LocalRead, UnitPort

SINK = OperandField(6, optional=True)


class SoftmaxUnit(wiring.Component):
    """Carries out the second half of ``SCORE``: online softmax over blocks of keys.

    Two passes work on two blocks at once. The first takes a line a cycle, the second makes P from
    it: a block of ``n`` lines, whose keys lack ``z`` words of a whole number of groups of 32, has
    ``p.full`` ``n + z + 10`` cycles after the second pass started, which is 4 cycles (with
    ``pair`` 5) after its last line was taken, or when P buffer, queue of factors and second pass
    are free. Its entry in ``factors`` comes ``n + 10`` cycles after that start, that of a last
    block ``n + 16 + pair``; one with the state ``1 + pair`` after that of its block. In steady
    state a block takes ``n + z + 11`` cycles, a last one ``max(n + z + 11, n + 16 + pair)``, one
    that exports its state ``max(n + z + 11, n + 11 + pair)``. With a soft cap the first pass takes
    a line in 4 cycles, and the second one starts 14 cycles later. A block with sinks counts as one
    of ``n + 1`` lines in the second pass; the first one takes its lines from the cycle after it has
    the sinks on.

    The command is refused with ``BAD_FIELD`` for a word that :class:`ScoreChecker` names. The
    first block after a reset restarts the state whatever its command says. Only the frontend is
    clocked between commands. Counters: busy, a line is taken or the second pass moves; starved, a
    block waits for lines; blocked, one waits for the P buffer or the queue of factors; word 4,
    lines taken. Source: this project's choice; the arithmetic is that of
    ``cosim/golden/attention.py``.

    Parameters
    ----------
    lines : int
        Size of local memory [line]. :exc:`ValueError` unless at least 2.
    rows : int
        Rows of operand A. :exc:`ValueError` unless in 1 to 16.

    Members
    -------
    unit : Out(UnitPort())
        From the command processor; takes the same ``SCORE`` commands as the dot-product engine.
    buffers : Out(BufferPort(lines=lines))
        To the table of circular buffers; operand 6 alone, the sinks.
    source : Out(LocalRead(lines=lines))
        The sinks: the first line of their operand.
    i : In(stream.Signature(512))
        Scores of a key for 16 rows, FP32; with ``pair`` of two keys for 8 rows.
    p : Out(PFill(rows=rows))
        To the P buffers.
    factors : Out(stream.Signature(factors_layout()))
        One entry a block, two of one that exports its state, for the reduction engine.
    """

    def __init__(self, *, lines, rows=LANES):
        if not isinstance(lines, int) or lines < 2:
            raise ValueError(f"Lines must be an integer of at least 2, not {lines!r}")
        if not isinstance(rows, int) or not 1 <= rows <= LANES:
            raise ValueError(f"Rows must be in 1 to {LANES}, not {rows!r}")
        self.lines = lines
        self.rows = rows
        super().__init__({
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
            "source": Out(LocalRead(lines=lines)), "i": In(stream.Signature(LINE_BITS)),
            "p": Out(PFill(rows=rows)),
            "factors": Out(stream.Signature(factors_layout()))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(lines=self.lines, operands=[SINK])
        connect(m, flipped(self.unit), frontend.unit)
        connect(m, flipped(self.buffers), frontend.buffers)
        core, always = Module(), ResetSignal("sync") | self.unit.clear
        m.submodules.core = DomainRenamer("work")(ResetInserter(self.unit.clear)(core))
        pop = self.factors.valid & self.factors.ready
        gated_domain(m, name="work", enable=always | frontend.working | pop)
        core.submodules.maximum = maximum = MaximumPass()
        core.submodules.cap = cap = SoftCap()
        core.submodules.store = store = ScoreStore()
        core.submodules.exponential = exponential = ExponentialPass(rows=self.rows)
        connect(core, maximum.o, exponential.i)
        connect(core, exponential.p, flipped(self.p))
        core.d.comb += [
            maximum.i.valid.eq(self.i.valid), maximum.i.payload.eq(self.i.payload),
            cap.i.valid.eq(self.i.valid), cap.i.payload.eq(self.i.payload),
            self.i.ready.eq(maximum.i.ready | cap.i.ready),     # never both
            cap.hold.eq(maximum.sinking), maximum.capped.eq(cap.o),
            store.write.eq(maximum.write), store.write_bank.eq(maximum.bank),
            store.write_line.eq(maximum.line), store.x.eq(maximum.x),
            store.read.eq(exponential.read), store.read_bank.eq(exponential.bank),
            store.read_line.eq(exponential.line), exponential.x.eq(store.o),
        ]
        queue = Queue(factors_layout())
        core.submodules.queue = queue
        connect(m, exponential.factors, queue.i)
        connect(m, queue.o, flipped(self.factors))

        core.submodules.checker = checker = ScoreChecker()
        jobs, refused = Signal(range(RUNNING + 1)), Signal()    # jobs that are not refused
        accepted, job = frontend.job.valid & frontend.job.ready, frontend.job.payload
        begin, command = accepted & ~checker.refused, checker.command
        core.d.comb += [checker.command.eq(job.command)] + [
            line for part in (maximum, cap)
            for line in (part.command.eq(job.command), part.start.eq(begin))]
        self._fetch_sinks(core, begin, job, command, maximum)
        gated_domain(m, name="settings", enable=begin & command.soft_cap)
        settings = Signal(cap_layout(), reset_less=True)
        m.d.settings += settings.eq(Cat(command.scale, command.cap_offset, command.cap_slope))
        core.d.comb += cap.settings.eq(settings)
        core.d.comb += [
            frontend.job.ready.eq(~maximum.open & ~refused),
            frontend.done.eq(exponential.done),
            frontend.fault.valid.eq(refused & (jobs == 0)),
            frontend.fault.code.eq(ErrorCode.BAD_FIELD),
        ]
        core.d.sync += jobs.eq(jobs + begin - exponential.done)
        with core.If(accepted & checker.refused):
            core.d.sync += [refused.eq(1), frontend.fault.field.eq(checker.field)]

        take, moves = self.i.valid & self.i.ready, exponential.busy & exponential.advance
        waits = maximum.open & (~self.i.valid | maximum.sinking)
        core.d.comb += [
            frontend.active.eq(take | cap.busy | moves), frontend.starved.eq(waits),
            frontend.blocked.eq(exponential.busy | maximum.o.valid),
        ]
        m.d.comb += frontend.extra[0].eq(events_since(m, self.unit.launch, take))
        return m

    def _fetch_sinks(self, m, begin, job, command, maximum):
        """Read the line of sinks of a block that begins, if it has one."""
        address = self.source.address
        with m.If(begin):
            m.d.sync += [address.valid.eq(command.sink.any()),
                         address.payload.eq(job.grants[0].start)]
        with m.Elif(address.ready):
            m.d.sync += address.valid.eq(0)
        m.d.comb += [maximum.sink_valid.eq(self.source.valid), maximum.sink.eq(self.source.data)]
