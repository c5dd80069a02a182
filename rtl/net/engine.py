"""The message engine of a compute chiplet: posts work requests, moves and adds lines of memory."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.arbiter import RoundRobin
from rtl.common.clockgate import gated_domain
from rtl.common.select import one_of
from rtl.net.engine_context import Contexts
from rtl.net.engine_entry import Task, work_request
from rtl.net.engine_fetch import EntryFetch
from rtl.net.engine_interfaces import (
    INDEX_BITS,
    LABEL_BITS,
    SUBGRAPH_BITS,
    SUBGRAPHS,
    Tags,
    end_layout,
)
from rtl.net.engine_moves import Moves
from rtl.net.engine_port import EnginePort
from rtl.net.engine_program import ProgramControl
from rtl.net.engine_window import EngineWindow
from rtl.net.engine_words import POLL_CYCLES, LinePoster, WordPoller
from rtl.net.interfaces import EngineKind
from rtl.pe.interfaces import (
    ErrorCode,
    UnitState,
    launch_layout,
    report_layout,
    request_layout,
    response_layout,
)


class MessageEngine(wiring.Component):
    """Runs programs of subgraphs of work-queue entries, see docs/network.md, "Message engine".

    From the start of a program to the first start of an entry: two reads of memory, one after
    another, and about 10 cycles. An entry of a subgraph starts 3 cycles after the one before if its
    conditions hold; REDUCE and COPY are done one after another, a line of S in 3 and in 2 requests
    (:class:`rtl.net.engine_moves.Moves`). A WAIT reads its word every 16 cycles. A subgraph has one
    WAIT, one SET and one unanswered doorbell at a time, and the engine one ARRIVE: the next one
    waits for its end, and all entries behind it. The golden model is
    ``cosim/golden/message_engine.py``. Source: message engines with work-queue entries, their
    conditions and near-memory sums, as published for the MTIA 300 (ISCA 2026); formats and the rest
    are this project's choice.

    Parameters
    ----------
    subgraphs : int
        Most subgraphs of a program. :exc:`ValueError` unless in 1 to 7.

    Members
    -------
    launch, go, drop, report, arrive, proceed, abort, idle
        As of :class:`rtl.pe.interfaces.PePort`; nothing is read of a program before it starts.
    request : Out(stream.Signature(request_layout()))
        Its accesses to memory and to doorbells.
    response : In(stream.Signature(response_layout()))
        Their answers, in any order, by tag; always ready.
    access : In(stream.Signature(request_layout()))
        Accesses of others to its window (:class:`rtl.net.engine_window.EngineWindow`). A completion
        is taken whatever becomes of the engine's own requests.
    access_response : Out(stream.Signature(response_layout()))
        Their answers, in order.
    states : Out(4)
        What it did in the cycle before: ``UnitState`` of the moves, 1 for a doorbell that was sent,
        1 for a completion that came. A register.
    awake : Out(1)
        The registers take the coming edge of the clock.
    """

    def __init__(self, *, subgraphs=SUBGRAPHS):
        if not isinstance(subgraphs, int) or not 1 <= subgraphs <= SUBGRAPHS:
            raise ValueError(f"Subgraphs must be an integer in 1 to {SUBGRAPHS}, "
                             f"not {subgraphs!r}")
        self.subgraphs = subgraphs
        super().__init__({
            "launch": In(stream.Signature(launch_layout())), "go": In(1), "drop": In(1),
            "report": Out(stream.Signature(report_layout())),
            "arrive": Out(1), "proceed": In(1), "abort": In(1), "idle": Out(1),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "access": In(stream.Signature(request_layout())),
            "access_response": Out(stream.Signature(response_layout())),
            "states": Out(4), "awake": Out(1)})

    def elaborate(self, platform):
        top, m = Module(), Module()
        top.submodules.core = DomainRenamer("work")(m)
        gated_domain(top, name="work", enable=ResetSignal("sync") | self.awake)
        m.submodules.program = program = ProgramControl()
        m.submodules.port = port = EnginePort(readers=4, writers=2)
        m.submodules.window = window = EngineWindow()
        fetch, contexts = EntryFetch(subgraphs=self.subgraphs), Contexts(subgraphs=self.subgraphs)
        poller = WordPoller(subgraphs=self.subgraphs)
        poster, moves = LinePoster(subgraphs=self.subgraphs), Moves()
        clear = ResetInserter(program.clear)
        for name, part in (("fetch", fetch), ("contexts", contexts), ("poller", poller),
                           ("poster", poster)):
            m.submodules[name] = clear(part)
        top.submodules.moves = DomainRenamer("moves")(clear(moves))
        gated_domain(top, name="moves", enable=ResetSignal("sync") | program.clear | moves.i.valid
                     | moves.active)
        connect(m, flipped(self.launch), program.launch)
        connect(m, program.report, flipped(self.report))
        connect(m, port.request, flipped(self.request))
        connect(m, flipped(self.response), port.response)
        connect(m, flipped(self.access), window.access)
        connect(m, window.access_response, flipped(self.access_response))
        for asker, taker in zip(
                (fetch.request, poller.request, *moves.reads, poster.request, moves.writes),
                (*port.reads, *port.writes), strict=True):
            connect(m, asker, taker)
        self._control(m, program, port, fetch, contexts)
        standing, more = self._start(m, program, contexts, poller, poster, moves)
        stale = self._end(m, program, contexts, window, [moves.end, poller.end, poster.end, *more])
        progress = contexts.ended | moves.end.valid | standing
        for part in (fetch, poller, poster, moves):
            m.d.comb += part.answer.eq(port.answer)
        written = port.answer.valid & (port.answer.tag >> 6 == Tags.RESULTS >> 6)
        expired = self._time(top, program, poller, progress=progress | written)
        self._registers(m, top, program, contexts, window, port, moves, stale)
        m.d.comb += [program.expired.eq(expired), self.awake.eq(Cat(
            self.launch.valid, self.go, self.drop, self.proceed, self.abort, self.arrive,
            self.response.valid, self.access.valid, self.request.valid, self.report.valid,
            window.busy, program.active, expired, program.finished & program.running,
            fetch.asking, contexts.active, contexts.ended, contexts.ends.valid, poller.asking,
            poller.request.valid, poster.request.valid, moves.active, port.fault.valid).any())]
        return top

    def _control(self, m, program, port, fetch, contexts):
        """The program's state, and who follows it."""
        faults = [contexts.fault, port.fault, fetch.fault]
        first = Cat(faults[0].valid, ~faults[0].valid & faults[1].valid,
                    ~(faults[0].valid | faults[1].valid) & faults[2].valid)
        m.d.comb += [
            program.go.eq(self.go), program.drop.eq(self.drop), program.abort.eq(self.abort),
            self.idle.eq(program.idle), program.fault.eq(one_of(first, faults)),
            program.finished.eq(fetch.complete & contexts.finished.all() & ~port.outstanding),
            program.outstanding.eq(port.outstanding), program.sought.eq(contexts.sought),
            program.awaited.eq(contexts.awaited), program.wiped.eq(contexts.wiped),
            port.stop.eq(program.hold), contexts.hold.eq(program.hold),
            contexts.seek.eq(program.seek), contexts.wipe.eq(program.wipe),
            contexts.loaded.eq(fetch.loaded), contexts.present.eq(fetch.present),
            contexts.entry.eq(fetch.entry), fetch.look.eq(contexts.look),
            fetch.take.eq(contexts.take), fetch.start.eq(program.start)]

    def _start(self, m, program, contexts, poller, poster, moves):
        """Hands entries out. Gives whether one stands at a barrier, and the ends of those and of
        moves of no bytes.
        """
        start, free = contexts.start, contexts.free
        entry, task = start.entry, start.task
        everyone = self.subgraphs
        ends = [stream.Signature(LABEL_BITS).create() for _ in range(2)]
        arrived, nothing = ends
        standing, stands, empty = Signal(), Signal(LABEL_BITS), Signal(LABEL_BITS)
        m.d.comb += [
            free[Task.MOVE.value].eq(moves.i.ready.replicate(everyone)),
            free[Task.WAIT.value].eq(poller.free),
            free[Task.SET.value].eq(Mux(poster.free, poster.sets_free, 0)),
            free[Task.DOORBELL.value].eq(Mux(poster.free, poster.doorbells_free, 0)),
            free[Task.ARRIVE.value].eq((~(standing | arrived.valid)).replicate(everyone)),
            free[Task.NOTHING.value].eq((~nothing.valid).replicate(everyone))]

        def begins(*tasks):
            return start.valid & Cat(task == name for name in tasks).any()

        wait, post, move = poller.start.wait, poster.start, moves.i.payload
        cookie = Cat(start.label[:INDEX_BITS], start.label[12:], program.epoch)
        doorbell = task == Task.DOORBELL
        m.d.comb += [
            poller.start.valid.eq(begins(Task.WAIT)), wait.address.eq(entry.local),
            wait.mask.eq(entry.local_key), wait.value.eq(entry.immediate),
            wait.compare.as_value().eq(entry.compare), wait.label.eq(start.label),
            post.valid.eq(begins(Task.SET, Task.DOORBELL)), post.doorbell.eq(doorbell),
            post.address.eq(Mux(doorbell, entry.third, entry.local)),
            post.data.eq(Mux(doorbell, work_request(entry, cookie), entry.immediate)),
            post.label.eq(start.label),
            moves.i.valid.eq(begins(Task.MOVE)), move.copy.eq(entry.kind == EngineKind.COPY),
            move.format.eq(entry.format), move.rule.eq(entry.rule), move.label.eq(start.label),
            move.length.eq(entry.length), move.s.eq(entry.local >> 6), move.a.eq(entry.remote),
            move.b.eq(entry.third)]
        for name, base in (("s", entry.local), ("a", entry.remote), ("b", entry.third)):
            m.d.comb += move[f"scales_{name}"].eq((base + entry[f"scales_{name}"]) >> 6)
        m.d.sync += self.arrive.eq(begins(Task.ARRIVE))
        m.d.comb += [arrived.payload.eq(stands), nothing.payload.eq(empty)]
        for end in ends:
            with m.If(end.ready):
                m.d.sync += end.valid.eq(0)
        with m.If(begins(Task.ARRIVE)):
            m.d.sync += [standing.eq(1), stands.eq(start.label)]
        with m.If(standing & self.proceed):
            m.d.sync += [standing.eq(0), arrived.valid.eq(1)]
        with m.If(begins(Task.NOTHING)):
            m.d.sync += [nothing.valid.eq(1), empty.eq(start.label)]
        with m.If(program.clear):
            m.d.sync += [standing.eq(0), arrived.valid.eq(0), nothing.valid.eq(0)]
        return standing, ends

    def _end(self, m, program, contexts, window, ends):
        """Ends reach the contexts one at a time. Gives whether a completion is dropped."""
        m.submodules.turns = turns = RoundRobin(len(ends) + 1)
        arrival, arrivals = window.arrivals.payload, window.arrivals
        cookie = arrival.cookie
        ours = program.running & ~cookie[11] & (cookie[12:] == program.epoch)
        completion, taken = Signal(end_layout()), contexts.ends.ready
        m.d.comb += [
            completion.index.eq(cookie), completion.subgraph.eq(cookie[INDEX_BITS:]),
            completion.nic.eq(1), completion.status.eq(arrival.status),
            completion.address.eq(arrival.address),
            turns.requests.eq(Cat(arrivals.valid & ours, (end.valid for end in ends))),
            turns.ready.eq(taken), contexts.ends.valid.eq(turns.requests.any()),
            contexts.ends.payload.eq(one_of(turns.grant, [
                completion, *(self._ended(m, n, end.payload) for n, end in enumerate(ends))])),
            arrivals.ready.eq(Mux(ours, turns.grant[0] & taken, 1))]
        m.d.comb += [end.ready.eq(granted & taken)
                     for end, granted in zip(ends, turns.grant[1:], strict=True)]
        return arrivals.valid & ~ours

    @staticmethod
    def _ended(m, number, label):
        end = Signal(end_layout(), name=f"end{number}")
        m.d.comb += [end.subgraph.eq(label[12:]), end.index.eq(label)]
        return end

    def _time(self, top, program, poller, *, progress):
        """Counts the patience, and when words are read again. Gives whether it has run out."""
        gated_domain(top, name="time", enable=ResetSignal("sync") | program.start.valid
                     | program.running)
        left, phase = Signal(32), Signal(range(POLL_CYCLES))
        top.d.time += [phase.eq(phase + 1),
                       left.eq(Mux(progress | program.start.valid, program.watchdog, left - 1))]
        top.d.comb += poller.tick.eq(Cat(
            program.running & (phase == 2 * n) for n in range(self.subgraphs)))
        return program.running & (left == 0) & ~progress

    def _registers(self, m, top, program, contexts, window, port, moves, stale):
        """Counters, states of the subgraphs, the last report."""
        request, answer = self.request.payload, port.answer
        sent, kind = self.request.valid & self.request.ready, request.tag >> SUBGRAPH_BITS
        told = program.report.valid & program.report.ready
        bell = sent & (kind == Tags.DOORBELLS >> SUBGRAPH_BITS)
        arrived = window.arrivals.valid & window.arrivals.ready
        state = Mux(moves.active, moves.state, UnitState.IDLE)
        report = program.report.payload
        events = [
            told, told & (report.code != ErrorCode.OK), contexts.ended,
            sent & ~request.tag[7], sent & (request.tag >> 6 == Tags.RESULTS >> 6), bell, arrived,
            stale, contexts.stray, sent & (kind == Tags.WORDS >> SUBGRAPH_BITS),
            answer.valid, port.fault.valid,
            *(state == name for name in (UnitState.BUSY, UnitState.STARVED, UnitState.BLOCKED))]
        counters, last = Signal(data.ArrayLayout(32, len(events))), Signal(report_layout())
        for n, event in enumerate(events):
            with m.If(event):
                m.d.sync += counters[n].eq(counters[n] + 1)
        with m.If(told):
            m.d.sync += last.eq(report)
        subgraphs = [Cat(number, count, C(0, 11))
                     for number, count in zip(contexts.next, contexts.count, strict=True)]
        subgraphs += [C(0, 32)] * (SUBGRAPHS - self.subgraphs)
        m.d.comb += [window.lines[0].eq(counters), window.lines[1].eq(Cat(
            program.epoch, C(0, 4), program.running, C(0, 23), *subgraphs, last.code, last.field,
            last.tag, last.address))]
        top.d.sync += self.states.eq(Cat(state, bell, arrived))
