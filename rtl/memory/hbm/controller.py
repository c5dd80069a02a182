"""Scheduler of one HBM pseudo-channel, in the clock domain of its commands."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from rtl.common.select import lowest, next_of, number_of
from rtl.memory.hbm.banks import EACH, HbmBanks
from rtl.memory.hbm.counters import Cause, HbmCounters
from rtl.memory.hbm.history import History
from rtl.memory.hbm.map import COLUMN_BITS, place_layout, place_of
from rtl.memory.hbm.partial import HbmPartial
from rtl.memory.hbm.refresh import AllRefresh, BankRefresh
from rtl.memory.hbm.returns import HbmReturns
from rtl.memory.hbm.runs import HbmRuns, entry_layout
from rtl.memory.hbm.timing import (
    BANKS,
    GROUPS,
    RowOp,
    access_layout,
    column_command_layout,
    row_command_layout,
)
from rtl.memory.hbm.turn import HbmTurn
from rtl.memory.hbm.writes import PARTIAL, HbmWrites
from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, AccessError

RUNS = 64               # rows with requests, at most
BANK_GROUP = (BANKS // GROUPS).bit_length() - 1


def order_layout(*, row_bits, name_bits):
    """A request as it reaches the controller.

    ``partial``: ``mask`` is not all ones. ``poison``: a whole line that is known to be wrong.
    """
    return data.StructLayout({"line": row_bits + 4 + COLUMN_BITS, "name": name_bits, "write": 1,
                              "registers": 1, "partial": 1, "poison": 1, "data": LINE_BITS,
                              "mask": LINE_BYTES})


def answer_layout(*, name_bits):
    """The answer to a read."""
    return data.StructLayout({"name": name_bits, "error": AccessError, "data": LINE_BITS})


class HbmController(wiring.Component):
    """Turns requests for lines into commands, see :class:`rtl.memory.hbm.channel.HbmChannel`.

    Parameters
    ----------
    timing, rows, depth, name_bits, patience, all_banks
        As those of the channel.
    answers : int
        Places for answers behind :attr:`answer`.

    Members
    -------
    order : In(stream.Signature(order_layout(...)))
        Requests.
    answer : Out(stream.Signature(answer_layout(...)))
        Answers to reads; always taken, as long as no more than ``answers`` are :attr:`waiting`.
    waiting : In(range(answers + 1))
        Answers that were given and not yet taken.
    due, tick, clocks : In(1), In(1), In(32)
        The time, see :class:`rtl.memory.hbm.refresh.BankRefresh`; all clocks so far.
    row_command, column_command, write_data, read_data
        The pins.
    active : Out(1)
        While it is low, and no request and no pulse of ``due`` comes, nothing changes.
    """

    def __init__(self, *, timing, rows, depth, name_bits, patience, all_banks, answers):
        self.timing, self.depth, self.patience = timing, depth, patience
        self.all_banks, self.answers, self.row_bits = all_banks, answers, bits_for(rows - 1)
        self.info = data.StructLayout({"name": name_bits, "partial": 1, "index": range(PARTIAL)})
        self.entry = entry_layout(row_bits=self.row_bits, slots=2 * depth, info=self.info)
        super().__init__({
            "order": In(stream.Signature(order_layout(row_bits=self.row_bits,
                                                      name_bits=name_bits))),
            "answer": Out(stream.Signature(answer_layout(name_bits=name_bits))),
            "waiting": In(range(answers + 1)), "due": In(1), "tick": In(1), "clocks": In(32),
            "row_command": Out(row_command_layout(row_bits=self.row_bits)),
            "column_command": Out(column_command_layout()), "write_data": Out(access_layout()),
            "read_data": In(access_layout()), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        depth = self.depth
        m.submodules.runs = self.runs = HbmRuns(runs=RUNS, entry=self.entry)
        m.submodules.banks = self.banks = HbmBanks(timing=self.timing)
        m.submodules.refresh = self.refresh = AllRefresh() if self.all_banks else BankRefresh()
        m.submodules.turn = self.turn = HbmTurn(
            most=depth + PARTIAL, low=max(1, depth // 8), high=depth // 2,
            full=depth - depth // 16, linger=16, patience=self.patience)
        m.submodules.writes = self.writes = HbmWrites(depth=depth)
        m.submodules.returns = self.returns = HbmReturns(info=self.info)
        m.submodules.partial = self.partial = HbmPartial(
            place=place_layout(row_bits=self.row_bits))
        m.submodules.count = self.count = HbmCounters(bl=self.timing.bl)
        runs, write = self.runs, self.turn.write
        self.has, self.hits, self.others, self.other_hits = (
            Signal(BANKS, name=name) for name in ("has", "hits", "others", "other_hits"))
        m.d.comb += [self.has.eq(Mux(write, runs.has1, runs.has0)),
                     self.hits.eq(Mux(write, runs.hits1, runs.hits0)),
                     self.others.eq(Mux(write, runs.has0, runs.has1)),
                     self.other_hits.eq(Mux(write, runs.hits0, runs.hits1))]
        self.busy = Signal(BANKS)       # banks of which a line's second half is to come
        self.flying = Signal(range(self.answers + 1))   # reads begun and not yet answered
        door = self._door(m)
        column = self._columns(m)
        row = self._rows(m)
        self._returns(m)
        quiet = (runs.has0 | runs.has1) == 0
        m.d.comb += [
            self.turn.read_hits.eq(runs.hits0.any()), self.turn.write_hits.eq(runs.hits1.any()),
            self.write_data.eq(self.writes.write_data), self.refresh.due.eq(self.due),
            self.refresh.tick.eq(self.tick),
            self.refresh.quiet.eq(quiet), self.refresh.pending.eq(runs.has0 | runs.has1),
            self.active.eq(door | column | row | ~quiet | self.refresh.active
                           | self.partial.active | self.banks.active | self.writes.active
                           | (self.flying != 0))]
        return m

    def _slots(self, m, name, take, give, slot):
        """Free slots of a direction; gives whether there is one, and its number."""
        free, first = Signal(self.depth, name=name, init=-1), Signal(self.depth)
        m.d.comb += first.eq(lowest(free))
        m.d.sync += free.eq((free & ~Mux(take, first, 0)) | Mux(give, 1 << slot, 0))
        return free.any(), number_of(first)

    def _door(self, m):
        """From the stream of requests into the runs."""
        runs, partial, order = self.runs, self.partial, self.order.payload
        held, again, parked = Signal(), Signal(), Signal()
        waiting, entry = Signal(self.entry), runs.entry
        load, loads_again, takes, aside = Signal(), Signal(), Signal(), Signal()
        self.popped, self.pop, self.sent = runs.popped, runs.pop, Signal()
        self.sent_slot = Signal(range(2 * self.depth))
        whole, some = order.write & ~order.partial, order.write & order.partial
        blocked = runs.conflict | (~again & partial.match)
        goes = Signal()
        w_room, w_slot = self._slots(
            m, "w_free", takes & whole, self.sent & ~self.sent_slot[-1], self.sent_slot[:-1])
        r_room, r_slot = self._slots(
            m, "r_free", takes & ~whole, self.pop & ~runs.pop_write, runs.popped.slot[:-1])
        self.answers_registers = self.order.valid & order.registers & ~self.returns.done & (
            self.waiting + self.flying < self.answers)
        m.d.comb += [
            goes.eq(held & runs.room & ~self.pop & ~blocked), runs.push.eq(goes),
            aside.eq(held & blocked & ~again & partial.again & ~parked),
            load.eq(~held | goes | aside), loads_again.eq(load & partial.again),
            takes.eq(load & ~partial.again & ~parked & self.order.valid & ~order.registers
                     & Mux(whole, w_room, r_room & (partial.room | ~some))),
            runs.load.eq(loads_again | takes | (load & parked)), partial.take.eq(loads_again),
            self.order.ready.eq(takes | self.answers_registers),
            partial.keep.eq(takes & some), partial.bytes.eq(order.data),
            partial.mask.eq(order.mask), partial.place.eq(runs.held.place),
            partial.start.eq(goes & ~again & runs.held.info.partial),
            partial.start_index.eq(runs.held.info.index),
            self.writes.put.eq(takes & whole), self.writes.put_slot.eq(w_slot),
            self.writes.put_data.eq(order.data), self.writes.put_poison.eq(order.poison)]
        with m.If(partial.again):
            m.d.comb += [entry.place.eq(partial.again_place), entry.write.eq(1),
                         entry.slot.eq(Cat(partial.again_index, C(0, len(w_slot) - 2), C(1, 1)))]
        with m.Elif(parked):
            m.d.comb += entry.eq(waiting)
        with m.Else():
            m.d.comb += [entry.place.eq(place_of(order.line, row_bits=self.row_bits)),
                         entry.write.eq(whole), entry.slot.eq(Mux(whole, w_slot, r_slot)),
                         entry.info.name.eq(order.name), entry.info.partial.eq(some),
                         entry.info.index.eq(partial.index)]
        with m.If(load):
            m.d.sync += [held.eq(runs.load), again.eq(partial.again)]
            with m.If(~partial.again):
                m.d.sync += parked.eq(0)
        with m.If(aside):
            m.d.sync += [waiting.eq(runs.held), parked.eq(1)]
        reads, writes = self.turn.reads, self.turn.writes
        for count, write in ((reads, 0), (writes, 1)):
            m.d.sync += count.eq(count + (goes & (runs.held.write == write))
                                 - (self.pop & (runs.pop_write == write)))
        m.d.comb += [
            self.turn.conflict.eq(held & blocked & (~runs.held.write | partial.match)),
            self.turn.ends.eq(runs.ends), self.turn.end_write.eq(runs.pop_write),
            self.turn.end_bank.eq(runs.pop_bank), self.turn.has0.eq(runs.has0),
            self.turn.has1.eq(runs.has1)]
        return held | parked

    def _rows(self, m):
        """The row command: of a refresh, of the bus's direction, of the other one."""
        runs, banks, refresh = self.runs, self.banks, self.refresh
        taken = refresh.precharge | refresh.refresh | refresh.refresh_all
        closable, behind = Signal(BANKS), Signal(BANKS)
        ours, theirs, opens, closes, chosen = (Signal(BANKS, name=name) for name in (
            "ours", "theirs", "opens", "closes", "chosen"))
        active, op = Signal(), Signal(RowOp)
        row, row_bank = Signal(self.row_bits), Signal(4)
        m.d.comb += [
            closable.eq(banks.opened & banks.can_precharge & ~self.busy),
            ours.eq(self.has & ~banks.opened & banks.can_activate & ~refresh.block),
            theirs.eq(self.others & ~self.has & ~banks.opened & banks.can_activate
                      & ~refresh.block),
            opens.eq(Mux(ours.any(), ours, theirs)),
            closes.eq(closable & ~refresh.block & (
                (self.has & ~self.hits) | (~self.has & self.others & ~self.other_hits))),
            chosen.eq(next_of(Mux(opens.any(), opens, closes), behind)),
            banks.activate.eq(~taken & opens.any()),
            banks.precharge.eq(refresh.precharge | (~taken & ~opens.any() & closes.any())),
            banks.refresh.eq(refresh.refresh), banks.refresh_all.eq(refresh.refresh_all),
            banks.row_bank.eq(Mux(taken, refresh.bank, number_of(chosen))),
            refresh.opened.eq(banks.opened), refresh.can_precharge.eq(closable),
            refresh.can_refresh.eq(banks.can_refresh),
            runs.opened.eq(banks.opened), runs.activate.eq(banks.activate),
            runs.precharge.eq(banks.precharge), runs.row_bank.eq(banks.row_bank),
            runs.row_write.eq(self.turn.write ^ ~(self.has & chosen).any())]
        with m.If(banks.activate):
            m.d.sync += behind.eq(~(chosen | (chosen - 1)))
        m.d.sync += [
            active.eq(taken | banks.activate | banks.precharge), row.eq(runs.row),
            row_bank.eq(banks.row_bank), op.eq(Mux(banks.activate, RowOp.ACTIVATE, Mux(
                banks.precharge, RowOp.PRECHARGE, Mux(
                    banks.refresh, RowOp.REFRESH_BANK, RowOp.REFRESH)))),
            self.row_command.valid.eq(active), self.row_command.op.eq(op),
            self.row_command.bank.eq(row_bank), self.row_command.row.eq(row)]
        m.d.comb += [
            self.count.activates.eq(banks.activate), self.count.precharges.eq(banks.precharge),
            self.count.bank_refreshes.eq(banks.refresh),
            self.count.refreshes.eq(banks.refresh_all),
            self.count.conflicts.eq(banks.precharge & ~refresh.precharge)]
        return active | self.row_command.valid

    def _columns(self, m):
        """The column command: the second half of a line, or the first one of another."""
        banks, turn = self.banks, self.turn
        pending, count = [Signal(4, name=f"pending{n}") for n in range(2)], Signal(range(3))
        direction, write = Signal(), Signal()       # of the pending halves; of this command
        groups, soon, ready, found, chosen, behind = (Signal(n, name=name) for name, n in (
            ("groups", GROUPS), ("soon", GROUPS), ("ready", BANKS), ("found", BANKS),
            ("chosen", BANKS), ("behind", BANKS)))
        first, second, credit = Signal(), Signal(), Signal()
        group = pending[0][:BANK_GROUP]
        m.d.comb += [
            write.eq(Mux(count == 0, turn.write, direction)),
            groups.eq(Mux(write, banks.groups_write, banks.groups_read)),
            soon.eq(Mux(write, banks.soon_write, banks.soon_read)),
            ready.eq(Mux(turn.write, banks.ready_write, banks.ready_read) & self.hits
                     & ~self.busy & ~self.refresh.block),
            credit.eq(turn.write | (self.waiting + self.flying < self.answers - 1)),
            found.eq(Mux(credit & (write == turn.write), ready & groups.replicate(EACH), 0)),
            second.eq((count != 0) & groups.bit_select(group, 1)),
            first.eq(~second & found.any() & (
                (count == 0) | ((count == 1) & ~soon.bit_select(group, 1)))),
            chosen.eq(next_of(found, behind)), banks.column.eq(first | second),
            banks.write.eq(write),
            banks.column_bank.eq(Mux(second, pending[0], number_of(chosen)))]
        with m.If(second):
            m.d.sync += pending[0].eq(pending[1])
        with m.If(first):
            m.d.sync += [pending[0].eq(Mux(count == 0, banks.column_bank, pending[0])),
                         pending[1].eq(banks.column_bank), direction.eq(write),
                         behind.eq(~(chosen | (chosen - 1)))]
        m.d.sync += [count.eq(count + first - second),
                     self.busy.eq((self.busy | Mux(first, chosen, 0))
                                  & ~Mux(second, 1 << pending[0], 0))]
        turned = Mux(turn.write, banks.write_turned, banks.read_turned)
        waits, cause = Signal(BANKS), Signal(Cause)
        refreshing = self.refresh.block | banks.refreshing
        m.d.comb += waits.eq(self.hits & Mux(turn.write, banks.ready_write, banks.ready_read))
        with m.If((self.has | self.others) == 0):
            m.d.comb += cause.eq(Cause.IDLE)
        with m.Elif((self.has == 0) | (waits.any() & ~turned)):
            m.d.comb += cause.eq(Cause.TURNAROUND)
        with m.Elif(waits.any()):
            m.d.comb += cause.eq(Mux(credit, Cause.GROUP, Cause.IDLE))
        with m.Else():
            m.d.comb += cause.eq(Mux((self.has & ~refreshing).any(), Cause.ROW, Cause.REFRESH))
        m.d.sync += self.count.cause.eq(cause)
        read = first & ~write
        m.d.sync += self.flying.eq(self.flying + read - self.returns.done)
        return (count != 0) | self._issue(m, first, second)

    def _issue(self, m, first, second):
        """The request of a column command is looked up and leaves the queue, one cycle later."""
        runs, banks, t = self.runs, self.banks, self.timing
        valid, is_second, write, bank = Signal(), Signal(), Signal(), Signal(4)
        m.d.sync += [valid.eq(first | second), is_second.eq(second), write.eq(banks.write),
                     bank.eq(banks.column_bank)]
        kept = runs.popped.shape()
        m.submodules.lines = lines = memory.Memory(shape=kept, depth=BANKS, init=[])
        keep, look, line = lines.write_port(), lines.read_port(domain="comb"), Signal(kept)
        event = data.StructLayout({"read": 1, "write": 1, "second": 1, "slot": self.entry["slot"]
                                   .shape, "info": self.info})
        m.submodules.events = events = History(event, ages=[t.cwl - 1, t.cl + 1])
        sends, due, column = events.past0, events.past1, self.column_command
        m.d.comb += [
            runs.pop.eq(valid & ~is_second), runs.pop_write.eq(write), runs.pop_bank.eq(bank),
            keep.en.eq(runs.pop), keep.addr.eq(bank), keep.data.eq(runs.popped),
            look.addr.eq(bank), line.eq(Mux(is_second, look.data, runs.popped)),
            events.now.read.eq(valid & ~write), events.now.write.eq(valid & write),
            events.now.second.eq(is_second), events.now.slot.eq(line.slot),
            events.now.info.eq(line.kept.info),
            self.writes.send.eq(sends.write), self.writes.slot.eq(sends.slot),
            self.writes.second.eq(sends.second), self.sent.eq(sends.write & sends.second),
            self.sent_slot.eq(sends.slot), self.partial.end.eq(self.sent & sends.slot[-1]),
            self.partial.end_index.eq(sends.slot), self.returns.due.eq(due.read),
            self.returns.second.eq(due.second), self.returns.info.eq(due.info),
            self.count.column.eq(valid), self.count.write.eq(write),
            self.count.partial.eq(line.kept.info.partial)]
        m.d.sync += column.valid.eq(valid)
        with m.If(valid):
            m.d.sync += [column.write.eq(write), column.bank.eq(bank),
                         column.column.eq(Cat(is_second, line.kept.column))]
        writing = Signal(range(t.cwl + 4))      # until its data have left
        with m.If(valid & write):
            m.d.sync += writing.eq(t.cwl + 3)
        with m.Elif(writing != 0):
            m.d.sync += writing.eq(writing - 1)
        return valid | column.valid | (writing != 0)

    def _returns(self, m):
        """Lines that were read, and answers."""
        returns, partial, answer = self.returns, self.partial, self.answer.payload
        lost = returns.poison.any()
        m.d.comb += [
            returns.read_data.eq(self.read_data), partial.line.eq(returns.line),
            partial.poison.eq(returns.poison), partial.return_index.eq(returns.line_info.index),
            partial.returned.eq(returns.done & returns.line_info.partial),
            self.writes.merge.eq(partial.merge), self.writes.merge_slot.eq(partial.merge_index),
            self.writes.merged.eq(partial.merged), self.count.clocks.eq(self.clocks),
            self.count.corrected.eq(returns.came & returns.corrected),
            self.count.uncorrectable.eq(returns.came & returns.uncorrectable),
            self.answer.valid.eq((returns.done & ~returns.line_info.partial)
                                 | self.answers_registers),
            answer.name.eq(Mux(returns.done, returns.line_info.name, self.order.payload.name)),
            answer.error.eq(Mux(returns.done & lost, AccessError.POISON, AccessError.NONE)),
            answer.data.eq(Mux(returns.done, returns.line, self.count.counters))]
