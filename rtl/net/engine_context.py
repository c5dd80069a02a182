"""Decides which entry of a message engine's program starts, and keeps which have not ended."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.arbiter import RoundRobin
from rtl.common.select import lowest, number_of, part_of
from rtl.net.engine_entry import Task, checked
from rtl.net.engine_fetch import subgraph_layout
from rtl.net.engine_interfaces import (
    INDEX_BITS,
    LABEL_BITS,
    SUBGRAPH_BITS,
    UNDER_WAY,
    end_layout,
    fault_layout,
    label,
)
from rtl.net.interfaces import EngineKind, Status, entry_layout
from rtl.pe.interfaces import LINE_BITS, ErrorCode

ROWS = 1 << INDEX_BITS


def mark_layout():
    """What is kept of an entry that has not ended."""
    return data.StructLayout({"open": 1, "receive": 1, "nic": 1, "fence": 1})


class Contexts(wiring.Component):
    """Starts the entries of each subgraph in order, as soon as their conditions hold.

    A start takes 3 cycles; subgraphs take turns. An entry that cannot start is looked at again
    after an entry has ended or something has become free. An end takes 2 cycles. Entries that have
    not ended are marked by subgraph and the 8 lower bits of their number; so an entry waits for
    that which is 256 before it.

    Parameters
    ----------
    subgraphs : int
        Subgraphs.

    Members
    -------
    loaded : In(subgraph_layout())
        A subgraph of the program.
    present, look, entry, take
        As of :class:`rtl.net.engine_fetch.EntryFetch`, from the other side.
    free : In(data.ArrayLayout(subgraphs, len(Task)))
        Of each task, subgraphs that could start one.
    start : Out(struct)
        An entry starts: its ``task``, ``label``, and the ``entry``. For one cycle.
    fault : Out(fault_layout())
        An entry that was to start is wrong, or one has ended with a bad status.
    ends : In(stream.Signature(end_layout()))
        Entries that end. Taken within 2 cycles, whatever else happens.
    ended, stray : Out(1)
        An entry has ended; the end was of no entry that is under way. For one cycle.
    finished : Out(subgraphs)
        Subgraphs of which all entries have ended, and those that there are not.
    hold : In(1)
        Nothing starts.
    seek : In(1)
        With ``hold``, until ``sought``: find the entry that the lowest unfinished subgraph waits
        for, the oldest that has not ended, else the next. At most 258 cycles.
    sought, awaited : Out(1), Out(16)
        Its label.
    wipe, wiped : In(1), Out(1)
        With ``hold``, until ``wiped``: forget all marks. 256 cycles.
    next : Out(16).array(subgraphs)
        Number of the entry that starts next.
    count : Out(5).array(subgraphs)
        Entries under way.
    active : Out(1)
        Some entry is to be looked at, or has ended. A function of registers.
    """

    def __init__(self, *, subgraphs):
        self.subgraphs = subgraphs
        super().__init__({
            "loaded": In(subgraph_layout()), "present": In(subgraphs), "entry": In(LINE_BITS),
            "look": Out(data.StructLayout({"valid": 1, "subgraph": SUBGRAPH_BITS})),
            "take": Out(subgraphs), "free": In(data.ArrayLayout(subgraphs, len(Task))),
            "start": Out(data.StructLayout({"valid": 1, "task": Task, "label": LABEL_BITS,
                                            "entry": entry_layout()})),
            "fault": Out(fault_layout()), "ends": In(stream.Signature(end_layout())),
            "ended": Out(1), "stray": Out(1), "finished": Out(subgraphs), "hold": In(1),
            "seek": In(1), "sought": Out(1), "awaited": Out(LABEL_BITS), "wipe": In(1),
            "wiped": Out(1), "next": Out(16).array(subgraphs), "count": Out(5).array(subgraphs),
            "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.marks = marks = memory.Memory(
            shape=data.ArrayLayout(mark_layout(), 1 << SUBGRAPH_BITS), depth=ROWS, init=[])
        end = self._end(m, marks.read_port())
        fenced, receives, left = self._count(m, end)
        self._schedule(m, marks, end, fenced, receives, left)
        return m

    def _end(self, m, past):
        """Ends one entry at a time. Gives the signals of the cycle in which it counts."""
        pending, end = Signal(), Signal(end_layout())
        row = data.View(past.data.shape(), past.data)
        mark = data.View(mark_layout(), part_of(row, end.subgraph))
        open_ = Signal()
        number = self._number(end.subgraph) - 1     # the last that has started
        m.d.comb += [
            self.ends.ready.eq(~pending), past.en.eq(self.ends.valid & ~pending),
            past.addr.eq(self.ends.payload.index),
            open_.eq(pending & mark.open & (~end.nic | mark.nic)),
            self.ended.eq(open_), self.stray.eq(pending & ~open_)]
        with m.If(open_ & (end.status != Status.OK)):
            m.d.comb += [
                self.fault.valid.eq(1), self.fault.code.eq(ErrorCode.NETWORK),
                self.fault.field.eq(end.status), self.fault.address.eq(end.address),
                self.fault.label.eq(label(end.subgraph,
                                          number - (number - end.index)[:INDEX_BITS]))]
        m.d.sync += pending.eq(past.en)
        with m.If(past.en):
            m.d.sync += end.eq(self.ends.payload)
        return {"open": open_, "mark": mark, "subgraph": end.subgraph, "index": end.index}

    def _number(self, subgraph):
        return Array(self.next)[subgraph]

    def _count(self, m, end):
        """Follows the subgraphs. Gives which are fenced, have receives, and entries to start."""
        fenced, receives, left = (Signal(self.subgraphs, name=name)
                                  for name in ("fenced", "receives", "left"))
        receive = self.start.entry.kind == EngineKind.RECV
        for n in range(self.subgraphs):
            entries = Signal(16, name=f"entries{n}")
            waits = Signal(5, name=f"receives{n}")
            ends, starts = end["open"] & (end["subgraph"] == n), self.take[n]
            with m.If(self.loaded.valid & (self.loaded.subgraph == n)):
                m.d.sync += entries.eq(self.loaded.entries)
            m.d.comb += [left[n].eq(self.next[n] != entries), receives[n].eq(waits != 0),
                         self.finished[n].eq(~left[n] & (self.count[n] == 0))]
            m.d.sync += [
                self.next[n].eq(self.next[n] + starts),
                self.count[n].eq(self.count[n] + starts - ends),
                waits.eq(waits + (starts & receive) - (ends & end["mark"].receive))]
            with m.If(starts & self.start.entry.fence):
                m.d.sync += fenced[n].eq(1)
            with m.Elif(ends & end["mark"].fence):
                m.d.sync += fenced[n].eq(0)
        return fenced, receives, left

    def _schedule(self, m, marks, end, fenced, receives, left):
        write = marks.write_port(granularity=1)
        back, own = marks.read_port(), marks.read_port()
        m.submodules.turns = turns = RoundRobin(self.subgraphs)
        ripe, chosen = Signal(self.subgraphs), Signal(SUBGRAPH_BITS)
        step, was_free = Signal(INDEX_BITS + 1), Signal(self.free.shape())
        again, entry = Signal(), data.View(entry_layout(), self.entry)
        number, start = self._number(chosen), self.start
        task, code, field = checked(m, entry)
        back_mark, own_mark = (data.View(mark_layout(), part_of(port.data, chosen))
                               for port in (back, own))
        holds = ~(
            fenced.bit_select(chosen, 1) | (Array(self.count)[chosen] == UNDER_WAY)
            | own_mark.open
            | (entry.back != 0) & back_mark.open
            | entry.rx_sync & receives.bit_select(chosen, 1)
            | entry.sync & (Array(self.count)[chosen] != 0))
        mark = Signal(mark_layout())
        m.d.comb += [
            turns.requests.eq(ripe & self.present & left), start.task.eq(task),
            start.label.eq(label(chosen, number)), start.entry.eq(entry),
            self.look.subgraph.eq(number_of(turns.grant)), mark.open.eq(1),
            mark.receive.eq(entry.kind == EngineKind.RECV), mark.nic.eq(task == Task.DOORBELL),
            mark.fence.eq(entry.fence), back.addr.eq(number - entry.back), own.addr.eq(number),
            self.take.eq(start.valid << chosen)]
        freed = (self.free.as_value() & ~was_free.as_value()).any()
        m.d.sync += [was_free.eq(self.free), again.eq(end["open"] | freed)]
        with m.If(end["open"]):
            m.d.comb += [write.en.eq(1 << end["subgraph"]), write.addr.eq(end["index"])]
        with m.FSM() as fsm:
            with m.State("CHOOSE"):
                m.d.comb += [turns.ready.eq(~self.hold),
                             self.look.valid.eq(turns.requests.any() & ~self.hold)]
                m.d.sync += [chosen.eq(self.look.subgraph), step.eq(0)]
                with m.If(self.look.valid):
                    m.next = "READ"
                with m.If(self.seek):
                    m.d.sync += chosen.eq(number_of(lowest(~self.finished)))
                    m.next = "SEEK"
                with m.If(self.wipe):
                    m.next = "WIPE"
            with m.State("READ"):
                m.d.comb += [back.en.eq(1), own.en.eq(1)]
                m.next = "DECIDE"
            with m.State("DECIDE"), m.If(~end["open"]):     # else the marks are written
                with m.If(~self.hold & holds & (code != ErrorCode.OK)):
                    m.d.comb += [self.fault.valid.eq(1), self.fault.code.eq(code),
                                 self.fault.field.eq(field), self.fault.label.eq(start.label)]
                with m.Elif(~self.hold & holds & self.free[task].bit_select(chosen, 1)):
                    m.d.comb += [start.valid.eq(1), write.en.eq(1 << chosen),
                                 write.addr.eq(number), write.data.as_value().eq(
                                     mark.as_value().replicate(1 << SUBGRAPH_BITS))]
                with m.Else():
                    m.d.sync += ripe.bit_select(chosen, 1).eq(0)
                m.next = "CHOOSE"
            with m.State("SEEK"):
                # Row `number + k` has the marks of `number - 256 + k`; it is here a cycle later.
                found = (step != 0) & own_mark.open
                m.d.comb += [
                    own.en.eq(1), own.addr.eq(number + step),
                    self.sought.eq(found | step[INDEX_BITS]),
                    self.awaited.eq(label(chosen, Mux(found, number + step - (ROWS + 1), number)))]
                m.d.sync += step.eq(step + 1)
                with m.If(self.sought):
                    m.next = "CHOOSE"
            with m.State("WIPE"):
                m.d.comb += [write.en.eq(~0), write.addr.eq(step), self.wiped.eq(step == ROWS - 1)]
                m.d.sync += step.eq(step + 1)
                with m.If(self.wiped):
                    m.next = "CHOOSE"
        with m.If(again | self.loaded.valid):
            m.d.sync += ripe.eq(~0)
        m.d.comb += self.active.eq(~fsm.ongoing("CHOOSE") | turns.requests.any() | again | freed)
