"""Memory controller of one HBM channel."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.clockgate import gated_domain
from rtl.memory.hbm_banks import HbmBanks
from rtl.memory.hbm_timing import (
    BANKS,
    HbmTiming,
    RowOp,
    column_command_layout,
    row_command_layout,
)
from rtl.pe.interfaces import (
    LINE_BITS,
    LINE_BYTES,
    TAG_BITS,
    AccessError,
    request_layout,
    response_layout,
)

OFFSET_BITS = 40        # of an address, see docs/programming-model.md


class HbmController(wiring.Component):
    """Turns requests for lines into commands of one HBM channel, and answers them in order.

    A line of 64 bytes is 32 bytes on each of the channel's two pseudo-channels, which work in lock
    step. Rows stay open. Requests wait in a queue, and three places move along it in order: the
    first precharges banks that have another row open, the second activates rows, the third reads
    and writes; so rows open while earlier data still flow. All banks are refreshed every ``refi``
    clocks, after the activated requests are done; a refresh is due at most the time of ``depth``
    requests late. Reads and writes are not regrouped, partial writes use the device's byte mask,
    there is no ECC yet, and the whole controller runs on the clock of the commands. All of it but
    the timer of the refreshes stops while no request and no wait for a bank is there.

    Address map, from the lowest bit of the line number: 2 bits bank group, 5 column, 2 bank in
    the group, then the row; so a sequential stream changes its bank group with every line.

    The first read after reset takes ``rcdrd + cl + 4`` clocks to its answer. At best one line every
    ``ccds`` clocks. After reset all banks are closed. Source: JESD238 for the commands; queue and
    address map are this project's choice (the map after a measurement with Ramulator 2.1: the
    column lowest would halve the throughput).

    Parameters
    ----------
    timing : HbmTiming
        Least distances between commands [clock].
    rows : int
        Rows of a bank, 2 KiB each. :exc:`ValueError` unless a power of two, at least 2.
    depth : int
        Requests in the queue, and answers behind it. :exc:`ValueError` unless a power of two, at
        least 4.

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
    awake : Out(1)
        The registers take the coming edge of the clock.
    """

    def __init__(self, *, timing=None, rows, depth=32):
        self.timing = HbmTiming() if timing is None else timing
        if not isinstance(self.timing, HbmTiming):
            raise TypeError(f"Timing must be an HbmTiming, not {timing!r}")
        if not isinstance(rows, int) or rows < 2 or rows & (rows - 1):
            raise ValueError(f"Rows must be a power of two of at least 2, not {rows!r}")
        if not isinstance(depth, int) or depth < 4 or depth & (depth - 1):
            raise ValueError(f"Depth must be a power of two of at least 4, not {depth!r}")
        self.rows = rows
        self.depth = depth
        super().__init__({
            "request": In(stream.Signature(request_layout())),
            "response": Out(stream.Signature(response_layout())),
            "row_command": Out(row_command_layout(row_bits=exact_log2(rows))),
            "column_command": Out(column_command_layout()),
            "write_data": Out(LINE_BITS), "write_mask": Out(LINE_BYTES),
            "read_data": In(LINE_BITS), "awake": Out(1)})

    def elaborate(self, platform):
        top, m = Module(), Module()
        top.submodules.core = DomainRenamer("work")(m)
        gated_domain(top, name="work", enable=ResetSignal("sync") | self.awake)
        timer = Signal(range(self.timing.refi), init=self.timing.refi - 1)
        due = timer == 0
        top.d.sync += timer.eq(Mux(due, self.timing.refi - 1, timer - 1))

        m.submodules.banks = banks = HbmBanks(timing=self.timing)
        # Places in the queue, with one bit more: new requests, and the three that move along it.
        tail, precharge, activate, column = (
            Signal(exact_log2(self.depth) + 1, name=name)
            for name in ("tail", "precharge", "activate", "column"))
        entries = self._queue(m, tail, (precharge, activate, column))
        drain = Signal()                    # a refresh is due: open no more rows
        busy = self._activate(m, banks, entries[1], activate, (activate != precharge) & ~drain)
        issued, answering = self._access(m, banks, entries[2], column, column != activate)
        self._precharge(m, banks, entries[0], precharge, (precharge != tail) & ~drain, busy,
                        entries[2], issued)
        self._refresh(m, banks, due, drain, column == activate)

        row = self.row_command
        top.d.comb += self.awake.eq(Cat(
            self.request.valid, due, drain, tail != column, answering, banks.active,
            row.valid, self.column_command.valid).any())
        ops = ((banks.activate, RowOp.ACTIVATE), (banks.precharge, RowOp.PRECHARGE),
               (banks.precharge_all, RowOp.PRECHARGE_ALL), (banks.refresh, RowOp.REFRESH))
        m.d.comb += banks.row_bank.eq(Mux(banks.activate, entries[1].bank, entries[0].bank))
        m.d.sync += row.valid.eq(Cat(given for given, _ in ops).any())
        for given, op in ops:
            with m.If(given):
                m.d.sync += [row.op.eq(op), row.bank.eq(banks.row_bank),
                             row.row.eq(entries[1].row)]
        return top

    def _queue(self, m, tail, places):
        """Requests come in; gives the entries at the places."""
        row_bits = exact_log2(self.rows)
        m.submodules.entries = store = memory.Memory(shape=data.StructLayout({
            "bank": 4, "column": 5, "row": row_bits, "outside": 1, "write": 1, "tag": TAG_BITS}),
            depth=self.depth, init=[])
        m.submodules.lines = lines = memory.Memory(shape=data.StructLayout({
            "data": LINE_BITS, "mask": LINE_BYTES}), depth=self.depth, init=[])
        write, request = store.write_port(), self.request.payload
        line = request.address[exact_log2(LINE_BYTES):OFFSET_BITS]
        taken = self.request.valid & self.request.ready
        ports = [store.read_port(domain="comb") for _ in places]
        line_write, line_read = lines.write_port(), lines.read_port(domain="comb")
        m.d.comb += [
            self.request.ready.eq((tail - places[-1])[:len(tail)] != self.depth),
            write.en.eq(taken), write.addr.eq(tail),
            write.data.bank.eq(Cat(line[:2], line[7:9])), write.data.column.eq(line[2:7]),
            write.data.row.eq(line[9:]), write.data.outside.eq(line[9 + row_bits:].any()),
            write.data.write.eq(request.write), write.data.tag.eq(request.tag),
            line_write.en.eq(taken & request.write), line_write.addr.eq(tail),
            line_write.data.data.eq(request.data), line_write.data.mask.eq(request.mask),
            line_read.addr.eq(places[-1]),
        ]
        m.d.comb += [port.addr.eq(place) for port, place in zip(ports, places, strict=True)]
        m.d.sync += tail.eq(tail + taken)
        self.line = line_read.data
        return [port.data for port in ports]

    def _precharge(self, m, banks, entry, place, present, busy, leaving, issued):
        """First place: its bank will have its row, at the latest by an activate."""
        m.submodules.planned = planned = memory.Memory(shape=len(entry.row), depth=BANKS, init=[])
        known = Signal(BANKS)               # banks that have a planned row
        pending = Array(Signal(range(self.depth + 1), name=f"pending{n}") for n in range(BANKS))
        read, write = planned.read_port(domain="comb"), planned.write_port()
        same, passes = Signal(), Signal()
        unused = pending[entry.bank] == 0   # nobody ahead wants the row that is open
        m.d.comb += [
            banks.look_precharge.eq(entry.bank), read.addr.eq(entry.bank),
            same.eq(known.bit_select(entry.bank, 1) & (read.data == entry.row)),
            banks.precharge.eq(present & ~entry.outside & ~same & unused & banks.precharge_open
                               & banks.can_precharge & ~busy),
            passes.eq(present & (entry.outside | same | banks.precharge
                                 | (unused & ~banks.precharge_open))),
            write.en.eq(passes & ~entry.outside), write.addr.eq(entry.bank),
            write.data.eq(entry.row),
        ]
        m.d.sync += place.eq(place + passes)
        with m.If(write.en):
            m.d.sync += known.bit_select(entry.bank, 1).eq(1)
        for bank, count in enumerate(pending):
            m.d.sync += count.eq(count + (write.en & (entry.bank == bank))
                                 - (issued & ~leaving.outside & (leaving.bank == bank)))

    def _activate(self, m, banks, entry, place, present):
        """Second place: the planned row of its bank is open, or is activated."""
        m.d.comb += [banks.look_activate.eq(entry.bank),
                     banks.activate.eq(present & ~entry.outside & ~banks.activate_open
                                       & banks.can_activate)]
        m.d.sync += place.eq(place + (present & (entry.outside | banks.activate_open
                                                 | banks.activate)))
        return banks.activate

    def _access(self, m, banks, entry, place, present):
        """Third place: reads and writes, and the answers to them.

        Gives whether one is issued, and whether answers are awaited or not yet taken.
        """
        m.submodules.names = names = memory.Memory(shape=data.StructLayout({
            "tag": TAG_BITS, "write": 1, "error": AccessError}), depth=self.depth, init=[])
        m.submodules.answers = answers = memory.Memory(shape=LINE_BITS, depth=self.depth, init=[])
        name_write, name_read = names.write_port(), names.read_port(domain="comb")
        data_write, data_read = answers.write_port(), answers.read_port(domain="comb")
        given, arrived, gone = (Signal.like(place, name=n) for n in ("given", "arrived", "gone"))
        due = Signal(self.timing.cl + 1)    # bit n: the access of n cycles before
        issued, command, response = Signal(), self.column_command, self.response
        legal = entry.outside | Mux(entry.write, banks.can_write, banks.can_read)
        m.d.comb += [
            issued.eq(present & legal & ((given - gone)[:len(place)] != self.depth)),
            banks.look_column.eq(entry.bank), banks.column_bank.eq(entry.bank),
            banks.write.eq(entry.write), banks.column.eq(issued & ~entry.outside),
            name_write.en.eq(issued), name_write.addr.eq(given), name_write.data.tag.eq(entry.tag),
            name_write.data.write.eq(entry.write),
            name_write.data.error.eq(Mux(entry.outside, AccessError.ADDRESS, AccessError.NONE)),
            data_write.en.eq(due[-1]), data_write.addr.eq(arrived),
            data_write.data.eq(self.read_data),
            response.valid.eq(gone != arrived), name_read.addr.eq(gone), data_read.addr.eq(gone),
            response.payload.tag.eq(name_read.data.tag),
            response.payload.write.eq(name_read.data.write),
            response.payload.error.eq(name_read.data.error),
            response.payload.data.eq(data_read.data),
        ]
        m.d.sync += [
            place.eq(place + issued), given.eq(given + issued), arrived.eq(arrived + due[-1]),
            gone.eq(gone + (response.valid & response.ready)), due.eq(Cat(issued, due)),
            command.valid.eq(banks.column)]
        with m.If(banks.column):
            m.d.sync += [command.write.eq(entry.write), command.bank.eq(entry.bank),
                         command.column.eq(entry.column)]
            with m.If(entry.write):
                m.d.sync += [self.write_data.eq(self.line.data), self.write_mask.eq(self.line.mask)]
        return issued, given != gone

    def _refresh(self, m, banks, due, drain, quiet):
        """When it is due: closes all banks when nobody waits for an open row, refreshes."""
        m.d.comb += [
            banks.precharge_all.eq(drain & quiet & banks.any_open & banks.can_precharge_all),
            banks.refresh.eq(drain & quiet & banks.can_refresh)]
        with m.If(banks.refresh):
            m.d.sync += drain.eq(0)
        with m.If(due):
            m.d.sync += drain.eq(1)
