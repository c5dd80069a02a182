"""One work packet under way in the control block."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.link.interfaces import MASK_BITS, completion_layout, launch_layout
from rtl.pe.interfaces import ADDRESS_BITS, DEFAULT_WATCHDOG, ErrorCode, report_layout

MASK_FIELD = 8      # word of a submission entry that holds the mask of PEs


class ContextState(enum.Enum, shape=3):
    """What a context does, as seen in the control registers."""

    FREE = 0
    WAIT = 1        # for its place in the queues of its PEs
    LAUNCH = 2      # the program table is read and the PEs are given their programs
    RUN = 3
    COMPLETE = 4    # the completion waits to be taken
    READY = 5       # waits for its PEs, and for packets of its stream


def refusal_layout():
    """Why a work packet could not be started: the completion's code, field and address."""
    return data.StructLayout({"code": ErrorCode, "field": 8, "address": ADDRESS_BITS})


class PacketContext(wiring.Component):
    """Follows one work packet from its arrival to its completion, and serves its barriers.

    A barrier opens 2 cycles after its last PE arrived or ended. If some PE stands at a barrier for
    ``watchdog << patience_log2`` cycles in which no PE of the packet arrives or ends, the packet
    is aborted with ``WATCHDOG``, and the PEs that did not arrive have failed. A PE that has not
    ended after the same time from an abort is given up: ``lost``. A packet that does not run yet is
    taken back from its PEs if it is aborted, or if one of them was given up (``WATCHDOG``, field
    8). After reset the context is free.
    Source: this project's choice.

    Parameters
    ----------
    pes : int
        PEs of the die. :exc:`ValueError` unless in 1 to 80.
    patience_log2 : int
        Patience at barriers, in watchdog times (a PE's own watchdog looks after its units).

    Members
    -------
    packet : In(stream.Signature(launch_layout()))
        The work packet; ready while the context is free.
    refused : In(1)
        With ``packet``: it is completed at once with ``refusal``.
    refusal : In(refusal_layout())
        Why it was refused, or why ``fail``.
    start : In(1)
        High for one cycle: from now on the launcher is at work for this packet.
    started, fail : In(1)
        High for one cycle: the launcher offers all PEs their programs, or none, because of
        ``refusal``.
    taken, go, gone : In(1)
        All PEs have taken theirs; they run from now on (only while ``ready``); one of them was
        given up.
    abort : In(1)
        High for one cycle: the packet is to be ended with ``ABORTED``.
    now : In(32)
        Time [cycle].
    arrived : In(pes)
        PEs that arrive at a barrier in this cycle.
    reporting, report : In(pes), In(report_layout())
        The PE, one-hot, whose report is taken in this cycle, and the report.
    proceed, stop : Out(pes)
        Registers. PEs that may leave their barrier (one cycle), and PEs to be aborted (level,
        until each has ended).
    drop : Out(pes)
        Register, for one cycle: PEs that forget the packet's programs.
    lost : Out(pes)
        High for one cycle: PEs that were given up.
    ready : Out(1)
        Waits for ``go``.
    running : Out(pes)
        PEs that run the packet. A function of registers.
    state : Out(ContextState)
        What the context does.
    active : Out(1)
        A function of registers and ``gone``. While it is low, nothing changes until a packet, an
        abort, a report, an arrival, ``start`` or ``go`` comes.
    pending : Out(launch_layout())
        The work packet, as it came.
    completion : Out(stream.Signature(completion_layout()))
        One for each packet.
    """

    def __init__(self, *, pes, patience_log2=6):
        if not isinstance(pes, int) or not 1 <= pes <= MASK_BITS:
            raise ValueError(f"PEs must be an integer in 1 to {MASK_BITS}, not {pes!r}")
        if not isinstance(patience_log2, int) or patience_log2 < 0:
            raise ValueError(f"Patience must be a non-negative integer, not {patience_log2!r}")
        self.pes, self.patience_log2 = pes, patience_log2
        super().__init__({
            "packet": In(stream.Signature(launch_layout())), "refused": In(1),
            "refusal": In(refusal_layout()), "start": In(1), "started": In(1), "fail": In(1),
            "taken": In(1), "go": In(1), "gone": In(1), "drop": Out(pes), "running": Out(pes),
            "ready": Out(1), "abort": In(1), "now": In(32), "arrived": In(pes),
            "reporting": In(pes), "report": In(report_layout()), "proceed": Out(pes),
            "stop": Out(pes),
            "lost": Out(pes), "state": Out(ContextState), "active": Out(1),
            "pending": Out(launch_layout()),
            "completion": Out(stream.Signature(completion_layout()))})

    def elaborate(self, platform):
        m = Module()
        pes, result, state = self.pes, self.completion.payload, self.state
        here, ended = Signal(pes), Signal(pes)      # at a barrier; no longer running
        aborted, expired_once = Signal(), Signal()
        patience, begun = Signal(32 + self.patience_log2), Signal(32)
        mask = self.pending.pe_mask[:pes]
        running = state == ContextState.RUN
        reporting, arrived = self.reporting & self.running, self.arrived & self.running
        complete = running & (ended == mask)
        proceed = here.any() & ((here | ended) == mask) & running & ~complete & ~aborted
        moved = arrived.any() | reporting.any() | proceed
        limit = Mux(self.pending.watchdog == 0, DEFAULT_WATCHDOG,
                    self.pending.watchdog) << self.patience_log2
        waiting = running & ~complete & (here.any() | aborted)
        expired = waiting & ~moved & (patience >= limit)
        absent = mask & ~here & ~ended

        def fail(who, code, *, unit=0, field=0, tag=0, address=0):
            """The lowest PE that failed tells why; of one PE, the first failure."""
            lowest = (who & (~who + 1))[:pes]
            before = result.failed_mask
            first = (before == 0) | (lowest < (before & (~before + 1))[:MASK_BITS])
            with m.If(first):
                m.d.sync += [result.code.eq(code), result.unit.eq(unit), result.field.eq(field),
                             result.command_tag.eq(tag), result.address.eq(address)]
                with m.Switch(lowest):
                    for pe in range(pes):
                        with m.Case(1 << pe):
                            m.d.sync += result.failed_pe.eq(pe)
            m.d.sync += result.failed_mask.eq(result.failed_mask | who)

        m.d.comb += [self.packet.ready.eq(state == ContextState.FREE),
                     self.completion.valid.eq(state == ContextState.COMPLETE),
                     self.running.eq(Mux(running, mask & ~ended, 0)),
                     self.ready.eq((state == ContextState.READY) & ~aborted & ~self.gone)]
        quiet = ((state == ContextState.FREE) | (running & ~complete & ~waiting)
                 | ((state == ContextState.WAIT) | (state == ContextState.READY))
                 & ~aborted & ~self.gone)
        pulses = self.proceed | self.lost | self.stop | self.drop
        m.d.comb += self.active.eq(~quiet | pulses.any() | (patience != 0))
        m.d.sync += [self.proceed.eq(Mux(proceed, here, 0)), self.lost.eq(0), self.drop.eq(0),
                     self.stop.eq(Mux(running & aborted, mask & ~ended, 0)),
                     patience.eq(Mux(waiting & ~moved, patience + 1, 0))]
        with m.If((state != ContextState.FREE) & (state != ContextState.COMPLETE)):
            m.d.sync += result.cycles.eq(self.now - begun)
        with m.If(running):
            m.d.sync += [here.eq((here | arrived) & ~ended & ~proceed.replicate(pes)),
                         ended.eq(ended | reporting)]
        with m.If(self.abort & (state != ContextState.FREE) & (state != ContextState.COMPLETE)):
            m.d.sync += aborted.eq(1)
        with m.If(reporting.any() & (self.report.code != ErrorCode.OK) & ~expired_once):
            fail(reporting, self.report.code, unit=self.report.unit, field=self.report.field,
                 tag=self.report.tag, address=self.report.address)
        with m.Elif(expired & ~expired_once):
            fail(Mux(aborted, mask & ~ended, absent), ErrorCode.WATCHDOG)
        with m.If(expired):
            m.d.sync += [aborted.eq(1), expired_once.eq(1), patience.eq(0)]
            with m.If(aborted):  # they do not even obey an abort
                m.d.sync += [ended.eq(mask), self.lost.eq(mask & ~ended)]

        def cancel():
            """It will not run."""
            m.d.sync += [result.code.eq(Mux(aborted, ErrorCode.ABORTED, ErrorCode.WATCHDOG)),
                         result.field.eq(Mux(aborted, 0, MASK_FIELD)),
                         state.eq(ContextState.COMPLETE)]

        with m.Switch(state):
            with m.Case(ContextState.FREE):
                with m.If(self.packet.valid):
                    m.d.sync += [self.pending.eq(self.packet.payload), here.eq(0), ended.eq(0),
                                 aborted.eq(0), expired_once.eq(0), begun.eq(self.now),
                                 result.eq(0), result.id.eq(self.packet.payload.id),
                                 state.eq(ContextState.WAIT)]
            with m.Case(ContextState.WAIT):
                with m.If(self.start):
                    m.d.sync += state.eq(ContextState.LAUNCH)
                with m.Elif(aborted | self.gone):
                    cancel()
            with m.Case(ContextState.LAUNCH):
                with m.If(self.started):
                    m.d.sync += state.eq(ContextState.READY)
            with m.Case(ContextState.READY):
                with m.If(self.go):
                    m.d.sync += state.eq(ContextState.RUN)
                with m.Elif((aborted | self.gone) & self.taken):
                    cancel()
                    m.d.sync += self.drop.eq(mask)
            with m.Case(ContextState.RUN):
                with m.If(complete):
                    m.d.sync += state.eq(ContextState.COMPLETE)
            with m.Case(ContextState.COMPLETE):
                with m.If(self.completion.ready):
                    m.d.sync += state.eq(ContextState.FREE)
        with m.If(self.fail | (self.refused & self.packet.valid & self.packet.ready)):
            m.d.sync += [result.code.eq(self.refusal.code), result.field.eq(self.refusal.field),
                         result.address.eq(self.refusal.address), state.eq(ContextState.COMPLETE)]
        return m
