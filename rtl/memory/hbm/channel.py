"""Memory controller of one HBM pseudo-channel, between two clocks."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out, connect
from amaranth.utils import bits_for

from rtl.common.clockgate import ClockGate, gated_domain
from rtl.common.crossing import Crossing
from rtl.common.queue import Queue
from rtl.memory.hbm.controller import HbmController, answer_layout, order_layout
from rtl.memory.hbm.map import COLUMN_BITS
from rtl.memory.hbm.timing import (
    BANKS,
    HbmTiming,
    access_layout,
    column_command_layout,
    row_command_layout,
)
from rtl.memory.interfaces import (
    CHANNEL_LINE_BITS,
    channel_request_layout,
    channel_response_layout,
)
from rtl.pe.interfaces import AccessError

TICKS = 4               # between two refreshes; a bank without requests for so long rests
ORDERS = 8              # requests between the clocks
ANSWERS = 32            # answers between the clocks, and reads under way


class HbmChannel(wiring.Component):
    """Turns requests for lines of 64 bytes into commands of one HBM pseudo-channel.

    A line is two accesses of 32 bytes to an open row. Requests wait in :class:`HbmRuns`, reads and
    writes in lists for each bank; one row command and one column command are given a clock. Banks
    take turns: a second half is given as soon as it may, then the next line of a bank whose first
    run has its row open; a row is opened, or closed for the next run, wherever the lists of the
    bus's direction want it, and in other banks for the other direction. See :class:`HbmTurn` for
    the direction, :class:`BankRefresh` for the refreshes, :func:`place_of` for the address map.

    Every request is answered once, in any order. What reads find is that of the order of
    acceptance: a request for a line for which one of the other direction is queued waits at the
    door, behind it all later ones. A write is answered at once. SECDED over each access, see
    :func:`access_layout`: one wrong bit is corrected (and counted, not written back), two are
    answered with ``AccessError.POISON``. A partial write is read, merged and written here, up to
    four at a time; a half line that was lost stays marked as lost until all of its bytes are
    written. Where the time goes is counted, see :func:`counters_layout`.

    Each side has its clock, both stop while nothing is to be done, but for the timer of the
    refreshes and the synchronisers. With nothing else under way, and clocks of equal rate, a read
    is answered ``cl + ccdl + 13`` clocks after its acceptance if its row is open, ``rcdrd`` more
    if its bank is closed, and ``rp`` more again if another row is open; 4 of the 13 are clocks of
    ``clk``, and other ratios shift the crossings by up to 2. A write is answered after 2 clocks of
    ``clk``. At best a line every ``2 * bl`` clocks of ``hbm_clk``.

    Every request is served in the end. A run takes at most 32 requests, and the runs of a bank
    and direction are served in the order in which they began; a direction with a bank whose first
    run has not ended for one to two periods of ``patience`` clocks gets the bus and keeps it until
    that run has ended, unless the other one has such a bank too, which then ends first; a bank is
    taken for its refresh for at most ``rfcpb`` (``rfc``) clocks at a time, and banks with open rows
    take turns. So each run ahead of a request costs at most four periods and what its row and its
    requests need. A request at the door waits only for queued ones. After reset all banks are
    closed. ``rst`` must last for two clocks of ``clk`` and one of ``hbm_clk``. Source: JESD238 for
    the commands; the rest is this project's choice, docs/decisions/0009-hbm-controller.md.

    Parameters
    ----------
    rows : int
        Rows of a bank, 1 KiB each. :exc:`ValueError` unless in 2 to 2**22.
    depth : int
        Lines to be read that are queued, and lines to be written. :exc:`ValueError` unless a power
        of two, at least 4.
    timing : HbmTiming
        Least distances between commands [clock of ``hbm_clk``].
    name_bits : int
        Width of names. :exc:`ValueError` unless positive.
    patience : int
        See above [clock of ``hbm_clk``]. :exc:`ValueError` unless positive.
    all_banks : bool
        Refresh all banks at once instead of one after the other. :exc:`TypeError` if it is none.

    Members
    -------
    request : In(stream.Signature(channel_request_layout(...)))
        ``line`` counts from the start of the pseudo-channel. One past the end is answered with
        ``AccessError.ADDRESS`` and does nothing. ``registers``: a read of line 0 gives
        :func:`counters_layout`; every other access to registers ``AccessError.ADDRESS``.
    response : Out(stream.Signature(channel_response_layout(...)))
        One for each request, in any order.
    hbm_clk : In(1)
        Clock of the commands.
    row_command, column_command : Out(row_command_layout(...)), Out(column_command_layout())
        Registers. Each is one clock long.
    write_data : Out(access_layout())
        Stands ``cwl`` clocks after its command.
    read_data : In(access_layout())
        Comes ``cl`` clocks after the clock of its command.
    awake, hbm_awake : Out(1)
        The next edge of ``clk``, ``hbm_clk`` changes something; asynchronous. While it is low, the
        clock may be left out.
    hbm_rest : Out(...)
        So many clocks of ``hbm_clk`` at most, while ``hbm_awake`` is low.
    hbm_skipped : In(...)
        Clocks of ``hbm_clk`` that were left out before this one; 0 if that is not done.
    """

    def __init__(self, *, rows, depth=128, timing=None, name_bits=20, patience=1024,
                 all_banks=False):
        self.timing = HbmTiming() if timing is None else timing
        if not isinstance(self.timing, HbmTiming):
            raise TypeError(f"Timing must be an HbmTiming, not {timing!r}")
        most = 1 << (CHANNEL_LINE_BITS - 4 - COLUMN_BITS)
        if not isinstance(rows, int) or not 2 <= rows <= most:
            raise ValueError(f"Rows must be an integer in 2 to {most}, not {rows!r}")
        if not isinstance(all_banks, bool):
            raise TypeError(f"All banks must be True or False, not {all_banks!r}")
        if not isinstance(depth, int) or depth < 4 or depth & (depth - 1):
            raise ValueError(f"Depth must be a power of two of at least 4, not {depth!r}")
        for name, value in (("Name bits", name_bits), ("Patience", patience)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        self.rows, self.depth, self.name_bits = rows, depth, name_bits
        self.patience, self.all_banks = patience, all_banks
        self.period = self.timing.refi // BANKS
        super().__init__({
            "request": In(stream.Signature(channel_request_layout(name_bits=name_bits))),
            "response": Out(stream.Signature(channel_response_layout(name_bits=name_bits))),
            "hbm_clk": In(1), "hbm_skipped": In(range(self.period)),
            "row_command": Out(row_command_layout(row_bits=bits_for(rows - 1))),
            "column_command": Out(column_command_layout()), "write_data": Out(access_layout()),
            "read_data": In(access_layout()), "awake": Out(1), "hbm_awake": Out(1),
            "hbm_rest": Out(range(self.period))})

    def elaborate(self, platform):
        m = Module()
        m.domains.hbm = hbm = ClockDomain("hbm", local=True)
        m.d.comb += hbm.clk.eq(self.hbm_clk)
        m.submodules.reset = ResetSynchronizer(ResetSignal("sync"), domain="hbm")
        row_bits = bits_for(self.rows - 1)
        m.submodules.orders = orders = Crossing(
            order_layout(row_bits=row_bits, name_bits=self.name_bits), depth=ORDERS,
            w="port", w_free="sync", r="work", r_free="hbm")
        m.submodules.answers = answers = Crossing(
            answer_layout(name_bits=self.name_bits), depth=ANSWERS,
            w="work", w_free="hbm", r="port", r_free="sync")
        core = HbmController(timing=self.timing, rows=self.rows, depth=self.depth,
                             name_bits=self.name_bits, patience=self.patience,
                             all_banks=self.all_banks, answers=ANSWERS)
        m.submodules.core = DomainRenamer("work")(core)
        connect(m, orders.o, core.order)
        connect(m, core.answer, answers.i)
        m.d.comb += [
            core.waiting.eq(answers.level), self.row_command.eq(core.row_command),
            self.column_command.eq(core.column_command), self.write_data.eq(core.write_data),
            core.read_data.eq(self.read_data)]
        self._port(m, orders, answers)
        self._time(m, core)
        m.domains.work = work = ClockDomain("work", local=True)
        m.submodules.work_gate = gate = DomainRenamer("hbm")(ClockGate())
        busy = Signal()
        m.d.comb += [
            busy.eq(ResetSignal("hbm") | core.due | orders.pending | orders.o.valid
                    | core.active),
            gate.enable.eq(busy), work.clk.eq(gate.clk), work.rst.eq(ResetSignal("hbm")),
            self.hbm_awake.eq(busy | ResetSignal("sync") | orders.r_moves | answers.w_moves)]
        return m

    def _port(self, m, orders, answers):
        """The side of the chip's clock: what it answers itself, and the rest."""
        request, order = self.request.payload, orders.i.payload
        outside = request.line[4 + COLUMN_BITS:] >= self.rows
        refused = Mux(request.registers, request.write | (request.line != 0), outside)
        own = data.StructLayout({"name": self.name_bits, "write": 1, "error": AccessError})
        m.submodules.own = queue = DomainRenamer("port")(Queue(own))
        taken = self.request.valid & self.request.ready
        response, answer = self.response.payload, answers.o.payload
        moves, ours = self.response.ready | ~self.response.valid, Signal()
        m.d.comb += [
            self.request.ready.eq((orders.level != ORDERS) & queue.i.ready),
            orders.i.valid.eq(taken & ~refused), order.line.eq(request.line),
            order.name.eq(request.name), order.write.eq(request.write),
            order.registers.eq(request.registers), order.poison.eq(request.poison),
            order.partial.eq(~request.mask.all()),
            order.data.eq(request.data), order.mask.eq(request.mask),
            queue.i.valid.eq(taken & (refused | request.write)),
            queue.i.payload.name.eq(request.name), queue.i.payload.write.eq(request.write),
            queue.i.payload.error.eq(Mux(refused, AccessError.ADDRESS, AccessError.NONE)),
            queue.o.ready.eq(moves & ours), answers.o.ready.eq(moves & ~ours)]
        last = Signal()     # the last response was one of our own
        m.d.comb += ours.eq(queue.o.valid & ~(answers.o.valid & last))
        busy = (self.request.valid | queue.o.valid | answers.pending | answers.o.valid
                | self.response.valid)
        gated_domain(m, name="port", enable=ResetSignal("sync") | busy)
        with m.If(moves):
            m.d.port += [self.response.valid.eq(queue.o.valid | answers.o.valid), last.eq(ours)]
            with m.If(ours):
                m.d.port += [response.name.eq(queue.o.payload.name),
                             response.write.eq(queue.o.payload.write),
                             response.error.eq(queue.o.payload.error)]
            with m.Elif(answers.o.valid):
                m.d.port += [response.name.eq(answer.name), response.write.eq(0),
                             response.error.eq(answer.error), response.data.eq(answer.data)]
        m.d.comb += self.awake.eq(busy | orders.w_moves | answers.r_moves)

    def _time(self, m, core):
        """The clock that never stops: refreshes that come to be owed, and all clocks."""
        left, now = Signal(range(self.period), init=self.period - 1), Signal(range(self.period))
        clocks = Signal(32)
        m.d.comb += [
            now.eq(left - self.hbm_skipped), core.due.eq(now == 0), self.hbm_rest.eq(left),
            core.tick.eq(Cat(now == self.period * n // TICKS for n in range(TICKS)).any()),
            core.clocks.eq(clocks)]
        m.d.hbm += [left.eq(Mux(core.due, self.period - 1, now - 1)),
                    clocks.eq(clocks + self.hbm_skipped + 1)]
