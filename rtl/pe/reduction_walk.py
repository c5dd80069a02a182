"""The job of the reduction engine that is under way, and the places of its lines."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.isa import word
from rtl.pe.frontend import fault_layout, job_layout
from rtl.pe.interfaces import ErrorCode
from rtl.pe.reduction_command import (
    DESTINATION,
    OPERANDS,
    SOURCE,
    ReductionDecoder,
    task_layout,
)

STATE_LINES = 2     # sums, maxima


class ReductionWalk(wiring.Component):
    """Takes one job after another and counts its lines.

    A job is open the cycle after it was accepted; one cycle is lost between jobs. A job that
    ``continues`` after its last line is open again, 2 cycles later, for the two lines of its state.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    attention : bool
        Whether jobs may continue.

    Members
    -------
    job : In(stream.Signature(job_layout(...)))
        From the frontend.
    take : In(1)
        A line is taken; only while ``open``.
    open, task, ends : Out
        A job lacks lines; what it is; the next line is its last.
    place, source : Out(range(lines))
        Where the next line is to be written, and the line of its source.
    continues, exports : In(1), Out(1)
        The state comes after this job's last line; the job is open for its state.
    wants, received : Out(1), In(1)
        Lines of the ring are to be accepted; one was. ``wants`` is a register's.
    alone : Out(1)
        It goes on without the dot-product engine's lines.
    quiet : In(1)
        No line is under way: a refusal may be told.
    fault : Out(fault_layout())
        The job is refused.
    """

    def __init__(self, *, lines, attention):
        self.lines, self.attention = lines, attention
        super().__init__({
            "job": In(stream.Signature(job_layout(lines=lines, operands=OPERANDS))),
            "take": In(1), "open": Out(1), "task": Out(task_layout()), "ends": Out(1),
            "place": Out(range(lines)), "source": Out(range(lines)), "continues": In(1),
            "exports": Out(1), "wants": Out(1), "received": In(1), "alone": Out(1),
            "quiet": In(1), "fault": Out(fault_layout())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = ReductionDecoder(lines=self.lines,
                                                          attention=self.attention)
        job, command = self.job.payload, self.job.payload.command
        refused, field = Signal(), Signal(8)
        left, wanted = Signal(16), Signal(16)
        start = self.job.valid & self.job.ready
        m.d.comb += [
            decoder.command.eq(command),
            *(mine.eq(its) for mine, its in zip(decoder.grants, job.grants, strict=True)),
            self.job.ready.eq(~self.open & ~self.exports & ~refused),
            self.ends.eq(left == 1), self.wants.eq(wanted != 0),
            self.alone.eq((self.open & self.task.reduce) | self.exports),
            self.fault.valid.eq(refused & self.quiet), self.fault.code.eq(ErrorCode.BAD_FIELD),
            self.fault.field.eq(field),
        ]
        with m.If(start):
            m.d.sync += [
                self.open.eq(~decoder.refused), refused.eq(decoder.refused),
                field.eq(decoder.field), self.task.eq(decoder.task), left.eq(decoder.rows),
                wanted.eq(Mux(decoder.task.receive & ~decoder.refused, decoder.rows, 0))]
        with m.Elif(self.take):
            m.d.sync += [left.eq(left - 1), self.open.eq(~self.ends)]
            if self.attention:
                with m.If(self.ends):
                    m.d.sync += [self.exports.eq(self.continues), left.eq(STATE_LINES)]
        if self.attention:
            with m.Elif(self.exports & ~self.open):
                m.d.sync += self.open.eq(1)
        with m.If(~start & self.received):
            m.d.sync += wanted.eq(wanted - 1)
        for at, grant, stride, own in (
                (self.place, job.grants[DESTINATION], word(command, 10)[:16], "place"),
                (self.source, job.grants[SOURCE], word(command, 9)[:16], "source")):
            self._step(m, at, grant, stride, start, own)
        return m

    def _step(self, m, at, grant, job_stride, start, own):
        """Moves a place through its circular buffer, line by line."""
        limit, size = (Signal(range(self.lines + 1), name=f"{own}_{n}") for n in ("limit", "size"))
        stride, target = Signal(16, name=f"{own}_stride"), Signal(17, name=f"{own}_target")
        m.d.comb += target.eq(at + stride)
        with m.If(start):
            m.d.sync += [at.eq(grant.start), stride.eq(job_stride), limit.eq(grant.limit),
                         size.eq(grant.limit - grant.base)]
        with m.Elif(self.take):
            m.d.sync += at.eq(Mux(target >= limit, target - size, target))
