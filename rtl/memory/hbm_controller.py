"""Memory controller of one HBM channel."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.memory.hbm_answers import HbmAnswers
from rtl.memory.hbm_banks import HbmBanks
from rtl.memory.hbm_counters import HbmCounters, counters_layout
from rtl.memory.hbm_map import place_of
from rtl.memory.hbm_queue import HbmQueue
from rtl.memory.hbm_refresh import HbmRefresh
from rtl.memory.hbm_timing import (
    BANKS,
    COLUMNS,
    HbmTiming,
    RowOp,
    column_command_layout,
    row_command_layout,
)
from rtl.memory.hbm_turn import HbmTurn
from rtl.pe.interfaces import (
    LINE_BITS,
    LINE_BYTES,
    AccessError,
    request_layout,
    response_layout,
)

OFFSET_BITS = 40        # of an address, see docs/programming-model.md
WINDOW = 32             # oldest requests of a direction that are scheduled


class HbmController(wiring.Component):
    """Turns requests for lines into commands of one HBM channel, and answers them in order.

    A line of 64 bytes is 32 bytes on each of the channel's two pseudo-channels, which work in lock
    step. Reads and writes wait in a queue each. One row command and one column command are given a
    clock, each for the oldest request of the bus's direction that may have it (of the other
    direction for rows, in banks where the first has nothing to do); so open rows are used before
    they are closed. See :class:`HbmTurn` for the direction, :class:`HbmRefresh` for the refreshes
    of single banks, :func:`rtl.memory.hbm_map.place_of` for the address map. Answers, and what
    reads find, are those of the order of acceptance: a request for a line for which one of the
    other direction is queued waits at the door, behind it all later ones. Partial writes use the
    device's byte mask, there is no ECC yet, and the whole controller runs on the clock of the
    commands. All of it but the timer of the refreshes stops while there is no request, no refresh
    owed and no wait for a bank.

    With nothing else under way a read is answered ``cl + 4`` clocks after its acceptance if its row
    is open, ``rcdrd + cl + 4`` if its bank is closed, ``rp + rcdrd + cl + 4`` if another row is
    open. At best one line every ``ccds`` clocks. A request that has been the oldest of its queue
    for ``patience`` clocks is urgent: no younger one gets in the way of its row, and the bus turns
    to it unless the oldest of the other direction is urgent too; so the oldest waits at most
    ``patience + 2 * (rtw + cwl + bl + wr + rp + rcdrd + rfcpb)`` clocks. After reset all banks are
    closed. Source: JESD238 for the
    commands; the rest is this project's choice, docs/decisions/0009-hbm-controller.md.

    Parameters
    ----------
    timing : HbmTiming
        Least distances between commands [clock].
    rows : int
        Rows of a bank, 2 KiB each. :exc:`ValueError` unless a power of two, at least 2.
    depth : int
        Reads queued, and writes queued. Four times as many requests may wait for their answer to
        be taken. :exc:`ValueError` unless a power of two, at least 4.
    patience : int
        See above [clock]. :exc:`ValueError` unless positive.

    Members
    -------
    request : In(stream.Signature(request_layout()))
        ``address`` in bytes from the start of the channel; only bits 39:0 count. One past the end
        is answered with ``AccessError.ADDRESS`` and does nothing.
    response : Out(stream.Signature(response_layout()))
        One for each request, in order; that of a write does not wait for the device.
    row_command, column_command : Out(row_command_layout(...)), Out(column_command_layout())
        To both pseudo-channels. Registers. Each is one clock long.
    write_data, write_mask : Out(512), Out(64)
        Stand beside a write command (the PHY delays them by ``cwl``).
    read_data : In(512)
        Both pseudo-channels' data, ``cl`` clocks after the cycle of their read command.
    counters : Out(counters_layout())
        Where the time went.
    awake : Out(1)
        The registers take the coming edge of the clock.
    """

    def __init__(self, *, timing=None, rows, depth=64, patience=1024):
        self.timing = HbmTiming() if timing is None else timing
        if not isinstance(self.timing, HbmTiming):
            raise TypeError(f"Timing must be an HbmTiming, not {timing!r}")
        if not isinstance(rows, int) or rows < 2 or rows & (rows - 1):
            raise ValueError(f"Rows must be a power of two of at least 2, not {rows!r}")
        if not isinstance(depth, int) or depth < 4 or depth & (depth - 1):
            raise ValueError(f"Depth must be a power of two of at least 4, not {depth!r}")
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"Patience must be a positive integer, not {patience!r}")
        self.rows, self.depth, self.patience = rows, depth, patience
        super().__init__({
            "request": In(stream.Signature(request_layout())),
            "response": Out(stream.Signature(response_layout())),
            "row_command": Out(row_command_layout(row_bits=exact_log2(rows))),
            "column_command": Out(column_command_layout()),
            "write_data": Out(LINE_BITS), "write_mask": Out(LINE_BYTES),
            "read_data": In(LINE_BITS), "counters": Out(counters_layout()), "awake": Out(1)})

    def elaborate(self, platform):
        top, m = Module(), Module()
        top.submodules.core = DomainRenamer("work")(m)
        gated_domain(top, name="work", enable=ResetSignal("sync") | self.awake)
        period = self.timing.refi // BANKS
        timer = Signal(range(period), init=period - 1)
        due = timer == 0
        top.d.sync += timer.eq(Mux(due, period - 1, timer - 1))

        depth, row_bits = self.depth, exact_log2(self.rows)
        m.submodules.door = door = Queue(request_layout())
        m.submodules.banks = banks = HbmBanks(timing=self.timing, rows=self.rows)
        m.submodules.refresh = refresh = HbmRefresh()
        m.submodules.answers = answers = HbmAnswers(depth=4 * depth, cl=self.timing.cl)
        m.submodules.turn = turn = HbmTurn(depth=depth, low=max(1, depth // 8), high=depth // 2,
                                           linger=16)
        slots = exact_log2(4 * depth), exact_log2(depth)
        m.submodules.reads, m.submodules.writes = queues = [HbmQueue(
            depth=depth, window=WINDOW, row_bits=row_bits, slot_bits=bits, recycle=recycle,
            patience=self.patience) for bits, recycle in zip(slots, (False, True), strict=True)]
        reads, writes = queues
        connect(m, flipped(self.request), door.i)
        connect(m, answers.response, flipped(self.response))
        self._accept(m, door.o, queues, banks, answers, turn)
        self._rows(m, queues, banks, refresh, turn)
        self._columns(m, queues, banks, refresh, turn, answers)
        self._count(m, queues, banks, refresh, turn)
        m.d.comb += [
            refresh.due.eq(due), refresh.pending.eq(reads.pending | writes.pending),
            refresh.quiet.eq((reads.count == 0) & (writes.count == 0)),
            turn.reads.eq(reads.count), turn.writes.eq(writes.count),
            turn.read_hits.eq(reads.hits.any()), turn.write_hits.eq(writes.hits.any()),
            turn.read_urgent.eq(reads.urgent), turn.write_urgent.eq(writes.urgent),
            answers.read_data.eq(self.read_data)]
        top.d.comb += self.awake.eq(Cat(
            self.request.valid, door.o.valid, due, ~refresh.quiet, refresh.active, answers.active,
            banks.active, self.row_command.valid, self.column_command.valid).any())
        return top

    def _accept(self, m, door, queues, banks, answers, turn):
        """From the door into a queue, and a slot for the answer."""
        reads, writes = queues
        request, row_bits = door.payload, exact_log2(self.rows)
        line = request.address[exact_log2(LINE_BYTES):OFFSET_BITS]
        outside = line[9 + row_bits:].any()
        m.submodules.lines = lines = memory.Memory(shape=data.StructLayout({
            "data": LINE_BITS, "mask": LINE_BYTES}), depth=self.depth, init=[])
        write = lines.write_port()
        self.line = lines.read_port(domain="comb")
        accepted = door.valid & door.ready
        m.d.comb += [
            door.ready.eq(~answers.full & (outside | Mux(
                request.write, (writes.count != self.depth) & ~reads.match,
                (reads.count != self.depth) & ~writes.match))),
            turn.conflict.eq(door.valid & ~outside & ~request.write & writes.match),
            answers.give.eq(accepted), answers.name.tag.eq(request.tag),
            answers.name.write.eq(request.write),
            answers.name.error.eq(Mux(outside, AccessError.ADDRESS, AccessError.NONE)),
            reads.push.eq(accepted & ~outside & ~request.write),
            writes.push.eq(accepted & ~outside & request.write),
            reads.entry.slot.eq(answers.slot), banks.look_bank.eq(reads.look.bank),
            banks.look_row.eq(reads.look.row),
            write.en.eq(writes.push), write.addr.eq(writes.free),
            write.data.data.eq(request.data), write.data.mask.eq(request.mask)]
        for queue in queues:
            m.d.comb += [queue.look.eq(place_of(line, row_bits=row_bits)),
                         queue.entry.place.eq(queue.look), queue.hit.eq(banks.hit)]

    def _rows(self, m, queues, banks, refresh, turn):
        """The row command: of a refresh, of the bus's direction, of the other one."""
        reads, writes = queues
        taken = refresh.precharge | refresh.refresh
        free = Signal(BANKS)        # banks that take a row command
        choice = Signal.like(reads.row_place)
        self.urgent = [Signal(BANKS, name=f"urgent_{n}") for n in ("reads", "writes")]
        m.d.comb += free.eq(Mux(taken, 0, ~refresh.block & (
            (banks.opened & banks.can_precharge) | (~banks.opened & banks.can_activate))))
        for queue, other, own, urgent in zip(
                queues, queues[::-1], (~turn.write, turn.write), self.urgent, strict=True):
            m.d.comb += urgent.eq(Mux(own & queue.urgent & (queue.count != 0) & ~queue.head_hit,
                                      1 << queue.head_bank, 0))
            kept = banks.opened & queue.hits & ~urgent
            m.d.comb += queue.rows.eq(free & ~kept & Mux(own, ~C(0, BANKS), ~other.pending))
        first = Mux(turn.write, writes.row_valid, reads.row_valid)
        m.d.comb += choice.eq(Mux(turn.write == first, writes.row_place, reads.row_place))
        some, opened = reads.row_valid | writes.row_valid, banks.opened.bit_select(choice.bank, 1)
        m.d.comb += [
            refresh.opened.eq(banks.opened), refresh.can_precharge.eq(banks.can_precharge),
            refresh.can_refresh.eq(banks.can_refresh), banks.refresh.eq(refresh.refresh),
            banks.activate.eq(some & ~opened), banks.precharge.eq(refresh.precharge
                                                                 | (some & opened)),
            banks.row_bank.eq(Mux(taken, refresh.bank, choice.bank)), banks.row.eq(choice.row)]
        for queue in queues:
            m.d.comb += [queue.activate.eq(banks.activate), queue.precharge.eq(banks.precharge),
                         queue.row_bank.eq(banks.row_bank), queue.row.eq(banks.row)]
        row = self.row_command
        m.d.sync += row.valid.eq(taken | some)
        with m.If(taken | some):
            m.d.sync += [row.bank.eq(banks.row_bank), row.row.eq(banks.row),
                         row.op.eq(Mux(banks.activate, RowOp.ACTIVATE, Mux(
                             banks.precharge, RowOp.PRECHARGE, RowOp.REFRESH_BANK)))]

    def _columns(self, m, queues, banks, refresh, turn, answers):
        """The column command."""
        reads, writes = queues
        command, chosen = self.column_command, Signal.like(reads.row_place)
        m.d.comb += [
            reads.columns.eq(Mux(turn.write, 0, banks.can_read & ~refresh.block & ~self.urgent[0])),
            writes.columns.eq(Mux(turn.write, banks.can_write & ~refresh.block & ~self.urgent[1],
                                  0)),
            reads.pop.eq(reads.column_valid), writes.pop.eq(writes.column_valid),
            chosen.eq(Mux(turn.write, writes.column_entry.place, reads.column_entry.place)),
            banks.column.eq(reads.pop | writes.pop), banks.write.eq(turn.write),
            banks.column_bank.eq(chosen.bank),
            answers.issued.eq(reads.pop), answers.issued_slot.eq(reads.column_entry.slot),
            self.line.addr.eq(writes.column_entry.slot)]
        m.d.sync += command.valid.eq(banks.column)
        with m.If(banks.column):
            m.d.sync += refresh.ended.bit_select(chosen.bank, 1).eq(chosen.column == COLUMNS - 1)
            m.d.sync += [command.write.eq(banks.write), command.bank.eq(chosen.bank),
                         command.column.eq(chosen.column)]
        with m.If(writes.pop):
            m.d.sync += [self.write_data.eq(self.line.data.data),
                         self.write_mask.eq(self.line.data.mask)]

    def _count(self, m, queues, banks, refresh, turn):
        """Where the time goes."""
        reads, writes = queues
        m.submodules.count = count = HbmCounters(bl=self.timing.bl)
        refreshed, head = Signal(BANKS), Mux(turn.write, writes.head_bank, reads.head_bank)
        for command, value in ((banks.refresh, 1), (banks.activate, 0)):
            with m.If(command):
                m.d.sync += refreshed.bit_select(banks.row_bank, 1).eq(value)
        m.d.comb += [
            count.column.eq(banks.column), count.queued.eq(~refresh.quiet),
            count.empty.eq(Mux(turn.write, writes.count == 0, reads.count == 0)),
            count.ready.eq((~refresh.block & Mux(
                turn.write, writes.hits & banks.ready_write, reads.hits & banks.ready_read)).any()),
            count.turned.eq(Mux(turn.write, banks.write_turned, banks.read_turned)),
            count.refreshing.eq((refreshed | refresh.block).bit_select(head, 1)),
            self.counters.eq(count.counters)]
