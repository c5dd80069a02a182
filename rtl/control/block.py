"""The control block of a compute chiplet: runs work packets on its PEs."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.arbiter import RoundRobin
from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.control.context import MASK_FIELD, ContextState, PacketContext
from rtl.control.launcher import TABLE_FIELD, Launcher
from rtl.control.registers import RegisterLines
from rtl.link import interfaces as link
from rtl.link.interfaces import LAUNCH_STREAM_BITS
from rtl.memory.slice.interfaces import inject_layout
from rtl.noc.address import control_lines
from rtl.pe.interfaces import (
    LINE_BITS,
    LINE_BYTES,
    ErrorCode,
    launch_layout,
    report_layout,
    request_layout,
    response_layout,
)

MAGIC = int.from_bytes(b"MXLT", "little")
VERSION = 1


def identity_layout():
    """What a compute die is: line 0 of its control registers from word 2 on."""
    return data.StructLayout({"die": 32, "rows": 32, "columns": 32, "sram_kib": 32,
                              "hbm_channels": 32, "hbm_mib": 32, "engines": 32, "networks": 32})


CONFIGURATION_LINE = 7      # of the control registers
MASK_LINE = 24              # of those of a large die: masks of all its PEs
COLUMNS = 16                # of PEs at most
MOST_RATE, MOST_BURST = 256, 255    # of a PE's requests


def configuration_layout():
    """Registers that the host sets: line 7 of the control registers, words 0 and up.

    ``repair``: for each column of PEs, 1 + the row of its bad PE, 0 if it has none. ``cache_ways``:
    ways of each SRAM slice that are last-level cache. ``scrub_log2``: log2 of the cycles from one
    step of the scrubbers to the next, 0: they rest. ``flush``: write changed lines back. ``open``:
    PEs are listened to, once ``repair`` tells which.
    ``rate``, ``burst``: shape of the requests of each PE, see :class:`rtl.noc.shaper.LeakyBucket`.
    ``inject``: invert bits of the next word written in slice ``tile``, see :func:`inject_layout`.
    A change of ``flush`` or of ``inject.valid`` does so once.
    """
    return data.StructLayout({
        "repair": data.ArrayLayout(4, COLUMNS), "cache_ways": 8, "scrub_log2": 8, "flush": 7,
        "open": 1, "tile": 8, "rate": 16, "burst": 16, "inject": inject_layout()})


class ControlBlock(wiring.Component):
    """Takes work packets, starts their PEs, serves their barriers, tells how they ended.

    Up to ``contexts`` packets are under way, further ones wait outside. Packets whose ids have the
    same lower 2 bits are of one stream: each starts when the one before it has ended, however.
    Packets of different streams that share a PE start in the order in which they came, but one that
    waits for its stream lets others pass. A packet starts on all its PEs in the same cycle, when
    each has ended what it ran.

    A PE holds one program beside the one that it runs. A packet is given to its PEs ahead of its
    start when each of them has that place free and, if it waits for its stream, all of them run the
    packets that it waits for. ``go`` then follows 3 cycles after the last report that the packet
    waits for, or 4 if that is of its stream.

    A packet is refused, with no effect on any PE, if its mask is empty or names a PE that the die
    does not have, or PEs are not open (``BAD_FIELD``, field 8), if its table is not at a line
    (``BAD_FIELD``, field 2) or cannot be read (as :class:`AccessError` says, field 2), or if it
    needs a PE that was given up (``WATCHDOG``, field 8). What is said of PEs holds for the message
    engine as well: it is one more bit of the mask, behind theirs, and so in all arrays. See
    :class:`rtl.control.context.PacketContext` for barriers and time-outs. The configuration can be
    written while no packet is here, only with rows that there are, and it cannot close PEs again;
    else the write is answered with an error. The clock of all but a counter of time
    stops while no packet is there, and while packets only run or wait. Source: this project's
    choice.

    Parameters
    ----------
    pes : int
        PEs of the die.
    engines : int
        Message engines of the die. :exc:`ValueError` if these are in all not 1 to 80 with the PEs.
    rows : int
        Rows of PEs, the spare one included, that a repair may name.
    tiles, ways : int
        Memory tiles, at most 16, and ways of their slices that may be cache.
    contexts : int
        Packets under way.
    patience_log2 : int
        See :class:`rtl.control.context.PacketContext`.
    peers : int
        Links to other compute dies. :exc:`ValueError` unless in 0 to 2.
    networks : int
        Links to network chiplets. :exc:`ValueError` unless in 0 to 2.

    Members
    -------
    packets : In(stream.Signature(link.launch_layout()))
        Work packets.
    aborts : In(stream.Signature(link.abort_layout()))
        Packets to be ended; always ready. One that is not under way is ignored.
    completions : Out(stream.Signature(link.completion_layout()))
        One for each packet.
    request, response : Out(stream.Signature(request_layout())), In(...)
        To memory, for program tables.
    access, access_response : In(stream.Signature(request_layout())), Out(...)
        To the control registers (see docs/programming-model.md).
    launches, reports : Out(stream.Signature(launch_layout())).array(pes + engines), In(...)
        To and from the PEs. All outputs to the PEs are functions of registers.
    arrive, idle : In(pes + engines)
        As in :class:`rtl.pe.interfaces.PePort`, a bit for each PE.
    go, drop, proceed, abort : Out(pes + engines)
        As well.
    identity : In(identity_layout())
        Constant; shown in the registers.
    counters : In(data.ArrayLayout(32, 16))
        Counters of the die, shown in the registers.
    link_counters : In(512)
        The line of the link's counters, shown in the registers.
    noc_counters : In(15 * 32)
        What the meshes carried and lost, shown in the registers beside a counter of time.
    peer_counters : In(512).array(peers)
        The lines of the links to other compute dies, shown in the registers.
    network_counters : In(512).array(networks)
        The lines of the links to network chiplets, shown in the registers: last line first.
    tile_counters : In(512).array(tiles)
        The lines of the memory tiles, shown in the registers.
    configuration : Out(configuration_layout())
        Registers.
    states : Out(3 * contexts)
        State of each context.
    awake : Out(1)
        The registers take the coming edge of the clock.
    """

    def __init__(self, *, pes, rows=1, contexts=8, patience_log2=6, peers=0, tiles=0, ways=0,
                 engines=0, networks=0):
        if not isinstance(pes, int) or not 1 <= pes <= link.MASK_BITS - engines:
            raise ValueError(f"PEs must be an integer in 1 to {link.MASK_BITS - engines}, "
                             f"not {pes!r}")
        if not isinstance(contexts, int) or not 1 <= contexts <= 8:
            raise ValueError(f"Contexts must be an integer in 1 to 8, not {contexts!r}")
        for name, value in (("Peers", peers), ("Networks", networks)):
            if not isinstance(value, int) or not 0 <= value <= 2:
                raise ValueError(f"{name} must be an integer in 0 to 2, not {value!r}")
        self.pes, self.rows, self.contexts = pes, rows, contexts
        if not isinstance(tiles, int) or not 0 <= tiles <= 16:
            raise ValueError(f"Tiles must be an integer in 0 to 16, not {tiles!r}")
        self.patience_log2, self.peers = patience_log2, peers
        self.tiles, self.ways, self.engines, self.networks = tiles, ways, engines, networks
        self.targets = targets = pes + engines  # of a work packet
        super().__init__({
            "packets": In(stream.Signature(link.launch_layout())),
            "aborts": In(stream.Signature(link.abort_layout())),
            "completions": Out(stream.Signature(link.completion_layout())),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "access": In(stream.Signature(request_layout())),
            "access_response": Out(stream.Signature(response_layout())),
            "launches": Out(stream.Signature(launch_layout())).array(targets),
            "reports": In(stream.Signature(report_layout())).array(targets),
            "arrive": In(targets), "idle": In(targets), "go": Out(targets), "drop": Out(targets),
            "proceed": Out(targets), "abort": Out(targets),
            "identity": In(identity_layout()), "counters": In(data.ArrayLayout(32, 16)),
            "link_counters": In(LINE_BITS), "noc_counters": In(LINE_BITS - 32),
            "peer_counters": In(LINE_BITS).array(peers),
            "network_counters": In(LINE_BITS).array(networks),
            "tile_counters": In(LINE_BITS).array(tiles),
            "configuration": Out(configuration_layout()),
            "states": Out(3 * contexts), "awake": Out(1)})

    def elaborate(self, platform):
        top, m, now = Module(), Module(), Signal(32)
        top.submodules.core = DomainRenamer("work")(m)
        gated_domain(top, name="work", enable=ResetSignal("sync") | self.awake)
        top.d.sync += now.eq(now + 1)
        m.submodules.launcher = launcher = Launcher(pes=self.targets, contexts=self.contexts)
        contexts = [PacketContext(pes=self.targets, patience_log2=self.patience_log2)
                    for _ in range(self.contexts)]
        lost = Signal(self.targets)     # those that were given up
        sent = Signal(self.targets)     # those that an abort was sent to
        stop = self._any(context.stop for context in contexts)
        blocked = self._admit(m, contexts, launcher, lost)
        self._go(m, contexts, launcher, blocked, held=stop | self.abort | lost)
        reports = self._report(m, contexts)
        self._complete(m, contexts)
        self._registers(m, contexts, lost, now)
        m.d.comb += self.awake.eq(Cat(
            self.packets.valid, self.aborts.valid, self.access.valid, self.access_response.valid,
            self.arrive, reports, (context.active for context in contexts), launcher.active,
            launcher.eligible, (context.go for context in contexts), self.go, self.abort,
            sent).any())

        for i, context in enumerate(contexts):
            m.submodules[f"context{i}"] = context
            m.d.comb += [launcher.packets[i].eq(context.pending),
                         context.start.eq(launcher.start[i]), context.arrived.eq(self.arrive),
                         context.started.eq(launcher.started[i]), context.now.eq(now),
                         context.fail.eq(launcher.fail[i]),
                         context.gone.eq((context.pending.pe_mask & lost).any()),
                         context.abort.eq(self.aborts.valid
                                          & (self.aborts.payload.id == context.pending.id)),
                         self.states[3 * i:3 * i + 3].eq(context.state)]
        connect(m, launcher.request, flipped(self.request))
        connect(m, flipped(self.response), launcher.response)
        for i in range(self.targets):
            connect(m, launcher.launches[i], flipped(self.launches[i]))
        m.d.comb += [self.aborts.ready.eq(1), launcher.lost.eq(lost),
                     self.proceed.eq(self._any(context.proceed for context in contexts)),
                     self.drop.eq(self._any(context.drop for context in contexts))]
        m.d.sync += [self.abort.eq(stop & ~sent), sent.eq(stop),
                     lost.eq(lost | self._any(context.lost for context in contexts))]
        return top

    @staticmethod
    def _any(values):
        total = 0
        for value in values:
            total = total | value
        return total

    def _admit(self, m, contexts, launcher, lost):
        """A packet goes to a free context, and to its PEs when nothing before it is in its way.

        Gives which packets wait for another of their stream.
        """
        packet, count = self.packets.payload, len(contexts)
        states = [context.state for context in contexts]
        free = Cat(context.packet.ready for context in contexts)
        waiting = Cat(state == ContextState.WAIT for state in states)
        runs = Cat(state == ContextState.RUN for state in states)
        live = ~free & ~Cat(state == ContextState.COMPLETE for state in states)
        masks = [context.pending.pe_mask for context in contexts]
        given = self._any(
            Mux((state == ContextState.LAUNCH) | (state == ContextState.READY), mask, 0)
            for state, mask in zip(states, masks, strict=True))
        kin = Cat(context.pending.id[:LAUNCH_STREAM_BITS] == packet.id[:LAUNCH_STREAM_BITS]
                  for context in contexts)
        outside = packet.pe_mask[self.targets:].any() | (packet.pe_mask == 0) | (
            ~self.configuration.open)
        misplaced = packet.table % LINE_BYTES != 0
        gone = (packet.pe_mask & lost).any()
        m.d.comb += self.packets.ready.eq(free.any())
        before, blocked, candidates = [], Signal(count), Signal(count)
        for i, context in enumerate(contexts):
            older, follows = Signal(count, name=f"older{i}"), Signal(count, name=f"follows{i}")
            here = self.packets.valid & free[i] & ~free[:i].any()
            awaited = self._any(Mux(follows[j], contexts[j].running, 0) for j in range(count))
            before.append(self._any(
                Mux(older[j] & candidates[j], masks[j], 0) for j in range(count)))
            m.d.comb += [
                context.packet.payload.eq(packet), context.packet.valid.eq(here),
                context.refused.eq(outside | misplaced | gone),
                blocked[i].eq((follows & live).any()),
                # Its predecessor runs on all its PEs: it takes a place from nobody.
                candidates[i].eq(waiting[i] & (~blocked[i] | (
                    ((follows & live & ~runs) == 0) & ((masks[i] & ~awaited) == 0))))]
            with m.If(context.fail):
                m.d.comb += context.refusal.eq(launcher.refusal)
            with m.Else():
                m.d.comb += [
                    context.refusal.code.eq(Mux(outside | misplaced, ErrorCode.BAD_FIELD,
                                                ErrorCode.WATCHDOG)),
                    context.refusal.field.eq(Mux(outside | gone, MASK_FIELD, TABLE_FIELD))]
            m.d.sync += [older.eq(Mux(here, live, older & live)),
                         follows.eq(Mux(here, live & kin, follows & live))]
        for i, mask in enumerate(masks):
            m.d.comb += launcher.eligible[i].eq(
                candidates[i] & ~(mask & (given | before[i] | lost)).any())
        return blocked

    def _go(self, m, contexts, launcher, blocked, *, held):
        """A packet that its PEs have taken runs when they and its stream are free.

        ``held``: PEs that an abort may be on its way to, and those given up.
        """
        busy = self._any(context.running for context in contexts) | held
        for i, context in enumerate(contexts):
            mask = context.pending.pe_mask
            m.d.comb += [
                context.taken.eq(~(mask & launcher.launching).any()),
                context.go.eq(context.ready & context.taken & ~blocked[i]
                              & ~(mask & busy).any())]
        m.d.sync += self.go.eq(self._any(
            Mux(context.go, context.pending.pe_mask, 0) for context in contexts))

    def _report(self, m, contexts):
        """Reports are taken one at a time. Gives which stand at the inputs and in the queues."""
        m.submodules.reporter = reporter = RoundRobin(self.targets)
        report, queues = Signal(report_layout()), []
        for pe in range(self.targets):
            m.submodules[f"reports{pe}"] = queue = Queue(report_layout())
            connect(m, flipped(self.reports[pe]), queue.i)
            m.d.comb += queue.o.ready.eq(reporter.grant[pe])
            with m.If(reporter.grant[pe]):
                m.d.comb += report.eq(queue.o.payload)
            queues.append(queue)
        m.d.comb += [reporter.requests.eq(Cat(queue.o.valid for queue in queues)),
                     reporter.ready.eq(1)]
        for context in contexts:
            m.d.comb += [context.reporting.eq(reporter.grant), context.report.eq(report)]
        return Cat(queue.i.valid | queue.o.valid for queue in queues)

    def _complete(self, m, contexts):
        m.submodules.completer = completer = RoundRobin(len(contexts))
        m.d.comb += [completer.requests.eq(Cat(c.completion.valid for c in contexts)),
                     completer.ready.eq(self.completions.ready),
                     self.completions.valid.eq(completer.requests.any())]
        for i, context in enumerate(contexts):
            m.d.comb += context.completion.ready.eq(completer.grant[i] & self.completions.ready)
            with m.If(completer.grant[i]):
                m.d.comb += self.completions.payload.eq(context.completion.payload)

    def _registers(self, m, contexts, lost, now):
        """Lines: who this is, PEs and contexts, counters of the die, of links; configuration."""
        layout = configuration_layout()
        m.submodules.registers = registers = RegisterLines(
            count=control_lines(pes=self.pes, tiles=self.tiles, networks=self.networks),
            stored=CONFIGURATION_LINE, stored_bits=layout.size)
        offer = data.View(layout, registers.offer)
        active = Cat(c.state != ContextState.FREE for c in contexts).any()
        unknown = Cat(offer.repair[n] > self.rows for n in range(COLUMNS)).any() | (
            offer.cache_ways > self.ways) | (offer.rate > MOST_RATE) | (
            offer.burst > MOST_BURST)
        closes = self.configuration.open & ~offer.open
        m.d.comb += [self.configuration.as_value().eq(registers.value),
                     registers.refuse.eq(active | self.packets.valid | unknown | closes)]
        connect(m, flipped(self.access), registers.access)
        connect(m, registers.access_response, flipped(self.access_response))
        ended, failed = Signal(32), Signal(32)
        taken = self.completions.valid & self.completions.ready
        m.d.sync += ended.eq(ended + taken)
        m.d.sync += failed.eq(failed + (taken & (self.completions.payload.code != ErrorCode.OK)))
        words = [self.idle[:32], lost[:32], ended, failed]
        words += [Cat(c.pending.id, C(0, 5), c.state, c.pending.pe_mask[:16]) for c in contexts]
        m.d.comb += [
            registers.lines[0].eq(Cat(C(MAGIC, 32), C(VERSION, 32), self.identity)),
            registers.lines[1].eq(Cat(Cat(word, C(0, 32 - len(word))) for word in words)),
            registers.lines[2].eq(self.counters), registers.lines[3].eq(self.link_counters),
            registers.lines[6].eq(Cat(now, self.noc_counters))]
        m.d.comb += [registers.lines[4 + n].eq(line) for n, line in enumerate(self.peer_counters)]
        m.d.comb += [registers.lines[8 + n].eq(line) for n, line in enumerate(self.tile_counters)]
        m.d.comb += [registers.lines[-1 - n].eq(line)
                     for n, line in enumerate(self.network_counters)]
        if registers.count > MASK_LINE:
            masks = [self.idle, lost, *(context.pending.pe_mask for context in contexts)]
            m.d.comb += [registers.lines[MASK_LINE + n // 4][n % 4 * 128:][:len(mask)].eq(mask)
                         for n, mask in enumerate(masks)]
