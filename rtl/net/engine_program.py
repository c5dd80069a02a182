"""The program that a message engine runs, from its launch to its report."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.net.engine_interfaces import LABEL_BITS, fault_layout
from rtl.pe.interfaces import (
    ADDRESS_BITS,
    DEFAULT_WATCHDOG,
    MESSAGE_ENGINE,
    ErrorCode,
    launch_layout,
    report_layout,
)

EPOCH_BITS = 4


class ProgramControl(wiring.Component):
    """Holds the next program, starts it, and reports how it ended.

    A program starts 2 cycles after ``go`` if none runs. After its last entry has ended and all
    requests were answered the report stands 1 cycle later. An error, an ``abort`` or the watchdog
    holds everything back; the report waits until all requests were answered, for the watchdog until
    the entry was found as well. After an error, and after reset, the marks of entries are wiped.

    Members
    -------
    launch, go, drop, report, abort, idle
        As of :class:`rtl.pe.interfaces.PePort`.
    clear : Out(1)
        For one cycle after each program: all parts return to their reset state.
    start : Out(data.StructLayout({"valid": 1, "address": 48}))
        For one cycle: a program starts.
    watchdog : Out(32)
        Its patience [cycle], not 0.
    epoch : Out(4)
        Number of the program that runs, or ran last.
    running, hold : Out(1)
        Entries may start; nothing more may start or be asked for.
    fault : In(fault_layout())
        Ends the program.
    expired, finished, outstanding : In(1)
        The watchdog has run out; all entries have ended; a request is not answered.
    seek, sought, awaited, wipe, wiped
        As of :class:`rtl.net.engine_context.Contexts`, from the other side.
    active : Out(1)
        The state may change though nothing comes. A function of registers.
    """

    def __init__(self):
        super().__init__({
            "launch": In(stream.Signature(launch_layout())), "go": In(1), "drop": In(1),
            "report": Out(stream.Signature(report_layout())), "abort": In(1), "idle": Out(1),
            "clear": Out(1),
            "start": Out(data.StructLayout({"valid": 1, "address": ADDRESS_BITS})),
            "watchdog": Out(32), "epoch": Out(EPOCH_BITS), "running": Out(1), "hold": Out(1),
            "fault": In(fault_layout()), "expired": In(1), "finished": In(1), "outstanding": In(1),
            "seek": Out(1), "sought": In(1), "awaited": In(LABEL_BITS), "wipe": Out(1),
            "wiped": In(1), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.reports = reports = Queue(report_layout())
        connect(m, reports.o, flipped(self.report))
        held, permitted, doomed, next_ = Signal(), Signal(), Signal(), Signal(launch_layout())
        outcome = Signal(report_layout())
        m.d.comb += [self.launch.ready.eq(~held), reports.i.payload.eq(outcome)]
        with m.If(self.launch.valid & ~held):
            m.d.sync += [held.eq(1), next_.eq(self.launch.payload)]
        with m.If(self.go & held):
            m.d.sync += permitted.eq(1)
        begins = Signal()
        with m.If(self.drop | begins):
            m.d.sync += [held.eq(0), permitted.eq(0)]

        ends = self.fault.valid | self.abort | doomed | self.expired
        with m.FSM(init="WIPE") as fsm:
            with m.State("IDLE"):
                with m.If(held & permitted):
                    m.d.comb += begins.eq(1)
                    m.d.sync += [
                        self.epoch.eq(self.epoch + 1), self.start.address.eq(next_.program),
                        self.watchdog.eq(Mux(next_.watchdog == 0, DEFAULT_WATCHDOG,
                                             next_.watchdog)),
                        outcome.eq(0), outcome.unit.eq(C(MESSAGE_ENGINE, 4))]
                    m.next = "START"
            with m.State("START"):
                m.d.comb += self.start.valid.eq(1)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(ends):
                    m.next = "DRAIN"
                with m.Elif(self.finished):
                    m.next = "REPORT"
                with m.If(self.fault.valid):
                    m.d.sync += [outcome.code.eq(self.fault.code), outcome.tag.eq(self.fault.label),
                                 outcome.field.eq(self.fault.field),
                                 outcome.address.eq(self.fault.address)]
                with m.Elif(self.abort | doomed):
                    m.d.sync += outcome.code.eq(ErrorCode.ABORTED)
                with m.Elif(self.expired):
                    m.d.sync += outcome.code.eq(ErrorCode.WATCHDOG)
            with m.State("DRAIN"):
                with m.If(~self.outstanding):
                    m.next = "REPORT"
                    with m.If(outcome.code == ErrorCode.WATCHDOG):
                        m.next = "SEEK"
            with m.State("SEEK"):
                m.d.comb += self.seek.eq(1)
                with m.If(self.sought):
                    m.d.sync += outcome.tag.eq(self.awaited)
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += reports.i.valid.eq(1)
                with m.If(reports.i.ready):
                    m.d.comb += self.clear.eq(1)
                    m.next = "IDLE"
                    with m.If(outcome.code != ErrorCode.OK):
                        m.next = "WIPE"
            with m.State("WIPE"):
                m.d.comb += self.wipe.eq(1)
                with m.If(self.wiped):
                    m.next = "IDLE"
        idle, starts = fsm.ongoing("IDLE"), fsm.ongoing("START")
        between = idle | fsm.ongoing("REPORT") | fsm.ongoing("WIPE")
        m.d.sync += doomed.eq(Mux(between, doomed | self.abort & held & (permitted | self.go),
                                  starts & (doomed | self.abort)))
        m.d.comb += [
            self.hold.eq(~(starts | self.running)), self.idle.eq(idle & ~permitted),
            self.active.eq(~(idle & ~permitted | self.running & ~doomed))]
        return m
