"""The command processor of a PE: runs a program, and ends it on an error."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.isa import (
    CONFIG_BASE,
    CONFIG_BUFFER,
    CONFIG_SIZE,
    OPCODE,
    ROUTES,
    TAG,
    Opcode,
    word,
)
from rtl.pe.circular_buffers import configure_layout
from rtl.pe.interfaces import (
    BUFFERS,
    DEFAULT_WATCHDOG,
    AccessError,
    ErrorCode,
    Unit,
    UnitPort,
    UnitState,
    error_code,
    launch_layout,
    report_layout,
    request_layout,
    response_layout,
)
from rtl.pe.program_queue import ProgramQueue

UNITS = tuple(unit for unit in Unit if unit is not Unit.COMMAND_PROCESSOR)
NO_BUFFER = 255                 # field of a report: no circular buffer was waited for


class CommandProcessor(wiring.Component):
    """Fetches programs, hands their commands to the units, executes those for itself.

    While a program runs, the next one is taken and its first lines are fetched. It starts when the
    one before has ended, nothing is outstanding and ``go`` was given: its first command is executed
    in the second cycle after ``report`` was taken, if ``go`` and the command were there by then.
    A command takes 2 cycles and goes to a unit in the second, as soon as the unit's queue has
    room; ``CB_CONFIG``, ``FENCE``, ``BARRIER`` and ``END`` first wait until all units are idle.
    A start forgets all circular buffers. The first error of a unit (the lowest unit if several
    come at once), of a fetch, of a command, an ``abort`` or the watchdog ends the program: the
    units and the circular buffers are cleared, and it is reported when nothing is outstanding, or
    after ``watchdog`` more cycles. If a program that may start cannot, as something is outstanding
    for as long again, it is reported with ``WATCHDOG`` and not executed.

    The watchdog ends a program when for ``watchdog`` cycles no unit was busy, no command was
    handed out and the program did not stand at a barrier. It names, in this order: the command
    processor if it waits for a command, the lowest unit that waits for a circular buffer, the
    lowest unit that is not idle; the field is the circular buffer, or 255 if none is waited for.
    Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    units : sequence of Unit
        Units that are there; the commands of others are unknown.

    Members
    -------
    launch : In(stream.Signature(launch_layout()))
        The next program; ready while none waits. ``ready`` is a function of registers.
    go, drop : In(1)
        One cycle, from the cycle after the program was taken on: it may start; it is forgotten.
    report : Out(stream.Signature(report_layout()))
        How it ended. Registered.
    arrive, proceed : Out(1), In(1)
        One cycle each: at a barrier; leave it. ``arrive`` is registered.
    abort : In(1)
        Ends the program that runs or may start with ``ABORTED``; without effect if there is none.
    units : In(UnitPort()).array(8)
        Ports to the units 1 to 8, in this order.
    configure : Out(configure_layout(lines=lines)), forget : Out(1)
        To the table of circular buffers.
    request, response : Out(stream.Signature(request_layout())), In(...)
        Fetches.
    outstanding : In(1)
        A unit's transfer is under way.
    counters : Out(data.ArrayLayout(32, 16))
        0 busy, 1 starved (waits for a command), 2 blocked (waits for units, a barrier),
        3 commands, 4 cycles since launch, 5 last error: code 7:0, unit 11:8, field 23:16.
    state : Out(UnitState)
        What it did in the cycle before.
    idle : Out(1)
        No program runs or may start, no report waits and nothing is fetched. A function of
        registers and ``go``.
    """

    def __init__(self, *, lines, units=UNITS):
        self.lines = lines
        self.present = tuple(units)
        super().__init__({
            "launch": In(stream.Signature(launch_layout())), "go": In(1), "drop": In(1),
            "report": Out(stream.Signature(report_layout())),
            "arrive": Out(1), "proceed": In(1), "abort": In(1),
            "units": In(UnitPort()).array(len(UNITS)),
            "configure": Out(configure_layout(lines=lines)), "forget": Out(1),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())), "outstanding": In(1),
            "counters": Out(data.ArrayLayout(32, 16)), "state": Out(UnitState), "idle": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = ProgramQueue()
        connect(m, flipped(self.launch), queue.launch)
        connect(m, queue.request, flipped(self.request))
        connect(m, flipped(self.response), queue.response)

        command = Signal(512)
        pending, taken = Signal(len(UNITS)), Signal(len(UNITS))     # units yet to take the command
        outcome, reason = Signal(report_layout()), Signal(report_layout())
        stop, progress, busy, waits, quiet, cleared, doomed = (Signal() for _ in range(7))
        units_idle = Cat(unit.idle for unit in self.units).all()
        m.d.comb += [
            command.eq(queue.o.payload.command), quiet.eq(~queue.outstanding & ~self.outstanding),
            queue.go.eq(self.go), queue.drop.eq(self.drop), self.report.payload.eq(outcome),
        ]
        for index, unit in enumerate(self.units):
            m.d.comb += [unit.command.payload.eq(command), unit.launch.eq(queue.take),
                         unit.command.valid.eq(pending[index]),
                         taken[index].eq(pending[index] & unit.command.ready)]
        m.d.sync += [pending.eq(pending & ~taken), self.arrive.eq(0)]
        with m.If(self.report.ready):
            m.d.sync += self.report.valid.eq(0)
        abort = self.abort | doomed
        patience, expired = self._watch(m, stop, reason, progress, waits, command[TAG], abort)

        def consume():
            m.d.comb += [queue.o.ready.eq(1), progress.eq(1)]
            m.next = "NEXT"

        def refuse(code, field=0, tag=command[TAG], address=0):
            m.d.sync += [outcome.eq(0), outcome.code.eq(code), outcome.tag.eq(tag),
                         outcome.field.eq(field), outcome.address.eq(address)]
            m.next = "STOP"

        def stopped():
            """Guards a state of a running program; its work follows in ``m.Elif``."""
            with m.If(stop):
                m.d.sync += outcome.eq(reason)
                m.next = "STOP"

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += [queue.take.eq(queue.released), self.forget.eq(queue.released),
                             progress.eq(1), self.idle.eq(~queue.released & queue.resting)]
                with m.If(queue.released):
                    m.d.sync += patience.eq(
                        Mux(queue.watchdog == 0, DEFAULT_WATCHDOG, queue.watchdog))
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += [waits.eq(~queue.o.valid), busy.eq(queue.o.valid)]
                stopped()
                with m.Elif(queue.o.valid):
                    self._decode(m, queue.o.payload, pending, consume, refuse)
            with m.State("ISSUE"):
                m.d.comb += [busy.eq(taken.any()), progress.eq(taken.any())]
                stopped()
                with m.Elif((pending & ~taken) == 0):
                    consume()
            with m.State("FENCE"):
                stopped()
                with m.Elif(units_idle):
                    with m.Switch(command[OPCODE]):
                        with m.Case(Opcode.CB_CONFIG):
                            self._configure(m, command, consume, refuse)
                        with m.Case(Opcode.FENCE):
                            consume()
                        with m.Case(Opcode.BARRIER):
                            m.d.sync += self.arrive.eq(1)
                            m.next = "BARRIER"
                        with m.Case(Opcode.END):
                            consume()
                            refuse(ErrorCode.OK)
                            m.d.sync += self.report.valid.eq(1)
                            m.next = "SETTLE"
            with m.State("BARRIER"):
                m.d.comb += progress.eq(1)
                stopped()
                with m.Elif(self.proceed):
                    consume()
            with m.State("STOP"):
                m.d.comb += [Cat(unit.clear for unit in self.units).eq(~0), self.forget.eq(1)]
                m.d.sync += [pending.eq(0), cleared.eq(1)]
                with m.If((quiet & cleared) | expired):
                    m.d.sync += [cleared.eq(0), self.report.valid.eq(1)]
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(quiet & (~self.report.valid | self.report.ready)):
                    m.next = "IDLE"
                with m.Elif(expired & queue.released & ~self.report.valid):
                    m.d.comb += queue.drop.eq(1)
                    refuse(ErrorCode.WATCHDOG, NO_BUFFER, 0)
                    m.d.sync += self.report.valid.eq(1)
                    m.next = "SETTLE"
        between = fsm.ongoing("SETTLE") | fsm.ongoing("IDLE")
        running = ~between & ~fsm.ongoing("STOP")
        m.d.sync += doomed.eq(Mux(between, abort & queue.released, doomed & running))
        m.d.comb += queue.stop.eq(fsm.ongoing("STOP") | fsm.ongoing("SETTLE"))
        self._count(m, busy, waits, running, queue.o.valid & queue.o.ready, outcome, queue.take)
        return m

    def _decode(self, m, fetched, pending, consume, refuse):
        """Work of the state "NEXT" with a command at hand."""
        with m.If(fetched.error != AccessError.NONE):
            refuse(error_code(fetched.error), tag=0, address=fetched.address)
        with m.Else():
            with m.Switch(fetched.command[OPCODE]):
                with m.Case(Opcode.NOP):
                    consume()
                with m.Case(Opcode.CB_CONFIG, Opcode.FENCE, Opcode.BARRIER, Opcode.END):
                    m.next = "FENCE"
                for route in ROUTES:
                    if not route.open_to(self.present):
                        continue
                    with m.Case(route.opcode):
                        m.d.sync += pending.eq(sum(1 << UNITS.index(u) for u in route.units))
                        m.next = "ISSUE"
                with m.Default():
                    refuse(ErrorCode.BAD_COMMAND)

    def _configure(self, m, command, consume, refuse):
        """``CB_CONFIG``, when all units are idle."""
        buffer, base, size = (word(command, w) for w in (CONFIG_BUFFER, CONFIG_BASE, CONFIG_SIZE))
        m.d.comb += [self.configure.buffer.eq(buffer), self.configure.base.eq(base),
                     self.configure.size.eq(size)]
        with m.If(buffer >= BUFFERS):
            refuse(ErrorCode.BAD_FIELD, CONFIG_BUFFER)
        with m.Elif(base >= self.lines):
            refuse(ErrorCode.BAD_FIELD, CONFIG_BASE)
        with m.Elif((size == 0) | (size > self.lines - base)):
            refuse(ErrorCode.BAD_FIELD, CONFIG_SIZE)
        with m.Else():
            m.d.comb += self.configure.valid.eq(1)
            consume()

    def _watch(self, m, stop, reason, progress, waits, tag, abort):
        """Why a running program has to end, if it has to; the watchdog."""
        patience, timer, expired = Signal(32), Signal(32), Signal()
        moving = progress | Cat(unit.state == UnitState.BUSY for unit in self.units).any()
        m.d.comb += expired.eq(timer == patience)
        m.d.sync += timer.eq(Mux(moving | expired, 0, timer + 1))
        errors = [unit.error for unit in self.units]
        m.d.comb += stop.eq(Cat(e.valid for e in errors).any() | abort | expired)

        def blame(cases, code=None):
            """Fills ``reason`` for the first case that holds: (condition, unit, field, tag)."""
            for index, (condition, unit, field, of) in enumerate(cases):
                with (m.If if index == 0 else m.Elif)(condition):
                    m.d.comb += [reason.unit.eq(unit), reason.field.eq(field), reason.tag.eq(of)]

        with m.If(Cat(e.valid for e in errors).any()):
            blame([(e.valid, unit, e.field, e.tag) for unit, e in zip(UNITS, errors, strict=True)])
            for e in reversed(errors):
                with m.If(e.valid):
                    m.d.comb += [reason.code.eq(e.code), reason.address.eq(e.address)]
        with m.Elif(abort):
            m.d.comb += [reason.code.eq(ErrorCode.ABORTED), reason.tag.eq(Mux(waits, 0, tag))]
        with m.Else():
            m.d.comb += reason.code.eq(ErrorCode.WATCHDOG)
            ports = list(zip(UNITS, self.units, strict=True))
            blame([(waits, Unit.COMMAND_PROCESSOR, NO_BUFFER, 0)]
                  + [(p.waiting, unit, p.waiting_buffer, p.waiting_tag) for unit, p in ports]
                  + [(~p.idle, unit, NO_BUFFER, 0) for unit, p in ports]
                  + [(1, Unit.COMMAND_PROCESSOR, NO_BUFFER, tag)])
        return patience, expired

    def _count(self, m, busy, waits, running, consumed, outcome, start):
        """Counters and state."""
        counts = [Signal(32, name=n) for n in ("busy", "starved", "blocked", "commands", "cycles")]
        state = Signal(UnitState)
        with m.If(running):
            m.d.comb += state.eq(Mux(busy, UnitState.BUSY,
                                     Mux(waits, UnitState.STARVED, UnitState.BLOCKED)))
        steps = [state == UnitState.BUSY, state == UnitState.STARVED, state == UnitState.BLOCKED,
                 consumed, running]
        for counter, step in zip(counts, steps, strict=True):
            with m.If(start):
                m.d.sync += counter.eq(0)
            with m.Elif(step):
                m.d.sync += counter.eq(counter + 1)
        m.d.sync += self.state.eq(state)
        error = Cat(outcome.code, outcome.unit, C(0, 4), outcome.field, C(0, 8))
        m.d.comb += self.counters.eq(Cat(*counts, error))
