"""Fetches the entries of the subgraphs of a message engine's program."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.arbiter import RoundRobin
from rtl.common.select import number_of
from rtl.net.engine_interfaces import (
    LINE_NUMBER_BITS,
    SUBGRAPH_BITS,
    Tags,
    answer_layout,
    fault_layout,
    label,
    read_layout,
)
from rtl.pe.interfaces import ADDRESS_BITS, LINE_BITS, ErrorCode

AHEAD_LOG2 = 2      # entries of a subgraph that are asked for and not taken
FIRST_WORD = 2      # of the program's first line: the address of subgraph 0


def subgraph_layout():
    """A subgraph: the line of its first entry, and their number."""
    return data.StructLayout({"valid": 1, "subgraph": SUBGRAPH_BITS, "entries": 16})


class EntryFetch(wiring.Component):
    """Reads the first line of a program, then the entries of its subgraphs, up to 4 ahead of each.

    The first request leaves 1 cycle after the start; from its answer on, one cycle for each
    subgraph. Subgraphs take turns. A program of no subgraph or too many, a subgraph of no entry or
    not at a line end in ``BAD_FIELD`` with the word of that line.

    Parameters
    ----------
    subgraphs : int
        Subgraphs that a program may have.

    Members
    -------
    start : In(data.StructLayout({"valid": 1, "address": 48}))
        Begins a program; only from the reset state.
    loaded : Out(subgraph_layout())
        A subgraph of the program, for one cycle.
    complete : Out(1)
        All subgraphs were told. A function of registers.
    fault : Out(fault_layout())
        What is wrong with the first line.
    present : Out(subgraphs)
        Subgraphs of which the next entry is here. A function of registers.
    look : In(data.StructLayout({"valid": 1, "subgraph": 3}))
        Shows the next entry of a subgraph from the next cycle on.
    entry : Out(512)
        The entry that was looked at last.
    take : In(subgraphs)
        The next entry of a subgraph was taken.
    request : Out(stream.Signature(read_layout()))
        Reads.
    answer : In(answer_layout())
        Answers to all requests of the engine.
    asking : Out(1)
        Something is to be read or told. A function of registers.
    """

    def __init__(self, *, subgraphs):
        self.subgraphs = subgraphs
        super().__init__({
            "start": In(data.StructLayout({"valid": 1, "address": ADDRESS_BITS})),
            "loaded": Out(subgraph_layout()), "complete": Out(1), "fault": Out(fault_layout()),
            "present": Out(subgraphs), "entry": Out(LINE_BITS), "take": In(subgraphs),
            "look": In(data.StructLayout({"valid": 1, "subgraph": SUBGRAPH_BITS})),
            "request": Out(stream.Signature(read_layout())), "answer": In(answer_layout()),
            "asking": Out(1)})

    def elaborate(self, platform):
        m = Module()
        begin, first = Signal(), Signal(LINE_NUMBER_BITS)   # a subgraph is told in this cycle
        busy = self._table(m, begin, first)
        wants, heads = self._subgraphs(m, begin)
        m.submodules.turns = turns = RoundRobin(self.subgraphs)
        m.submodules.bases = bases = memory.Memory(
            shape=LINE_NUMBER_BITS, depth=1 << SUBGRAPH_BITS, init=[])
        base_write, base = bases.write_port(), bases.read_port(domain="comb")
        m.submodules.lines = lines = memory.Memory(
            shape=LINE_BITS, depth=1 << SUBGRAPH_BITS + AHEAD_LOG2, init=[])
        write, read = lines.write_port(), lines.read_port()
        chosen, asked = number_of(turns.grant), self.request.payload
        number = wants["number"][chosen]
        table = busy["table"]
        mine = (self.answer.tag >> SUBGRAPH_BITS + AHEAD_LOG2) == (
            Tags.ENTRIES >> SUBGRAPH_BITS + AHEAD_LOG2)
        m.d.comb += [
            turns.requests.eq(wants["asks"]), turns.ready.eq(self.request.ready),
            base_write.en.eq(begin), base_write.addr.eq(self.loaded.subgraph),
            base_write.data.eq(first), base.addr.eq(chosen),
            self.request.valid.eq(table | turns.requests.any()),
            asked.line.eq(Mux(table, busy["line"], base.data + number)),
            asked.tag.eq(Mux(table, Tags.TABLE,
                             Tags.ENTRIES | Cat(number[:AHEAD_LOG2], chosen))),
            asked.label.eq(Mux(table, 0, label(chosen, number))),
            wants["asked"].eq(Mux(self.request.ready & ~table, turns.grant, 0)),
            write.en.eq(self.answer.valid & mine), write.addr.eq(self.answer.tag),
            write.data.eq(self.answer.data),
            read.en.eq(self.look.valid), self.entry.eq(read.data),
            read.addr.eq(Cat(heads[self.look.subgraph], self.look.subgraph)),
            self.asking.eq(self.request.valid | busy["telling"])]
        return m

    def _table(self, m, begin, first):
        """Reads the first line and tells the subgraphs one after another."""
        line, left = Signal(LINE_NUMBER_BITS), Signal(LINE_BITS)
        table, telling = Signal(), Signal()
        told, count = self.loaded.subgraph, Signal(SUBGRAPH_BITS)
        came = self.answer.valid & (self.answer.tag == Tags.TABLE)
        here = left[32 * FIRST_WORD:32 * (FIRST_WORD + 2)]
        wrong, empty = here[:6].any(), here[ADDRESS_BITS:] == 0
        many = (self.answer.data[:32] == 0) | (self.answer.data[:32] > self.subgraphs)
        misplaced = Signal()
        fault = self.fault
        m.d.comb += [
            self.loaded.valid.eq(begin), self.loaded.entries.eq(here[ADDRESS_BITS:]),
            begin.eq(telling & ~wrong & ~empty), first.eq(here[6:ADDRESS_BITS]),
            fault.valid.eq(misplaced | came & many | telling & (wrong | empty)),
            fault.code.eq(ErrorCode.BAD_FIELD)]
        with m.If(telling):
            m.d.comb += [fault.label.eq(label(told, C(0, 12))),
                         fault.field.eq(FIRST_WORD + 2 * told + ~wrong)]
            m.d.sync += [left.eq(left >> 64), told.eq(told + 1)]
            with m.If(fault.valid | (told == count - 1)):
                m.d.sync += [telling.eq(0), self.complete.eq(~fault.valid)]
        m.d.sync += misplaced.eq(self.start.valid & self.start.address[:6].any())
        with m.If(self.start.valid):
            m.d.sync += [table.eq(~self.start.address[:6].any()), line.eq(self.start.address[6:])]
        with m.If(table & self.request.ready):
            m.d.sync += table.eq(0)
        with m.If(came):
            m.d.sync += [left.eq(self.answer.data), count.eq(self.answer.data), told.eq(0),
                         telling.eq(~many)]
        return {"table": table, "line": line, "telling": telling | misplaced}

    def _subgraphs(self, m, begin):
        """What is asked for and here of each subgraph. Gives who asks, and places of heads."""
        asks, asked = Signal(self.subgraphs), Signal(self.subgraphs)
        numbers, heads = [], []
        for n in range(self.subgraphs):
            number = Signal(16, name=f"number{n}")      # of the next entry to ask for
            left = Signal(16, name=f"left{n}")
            head = Signal(AHEAD_LOG2, name=f"head{n}")
            held = Signal(AHEAD_LOG2 + 1, name=f"held{n}")
            filled = Signal(1 << AHEAD_LOG2, name=f"filled{n}")
            tag, kind = self.answer.tag, (Tags.ENTRIES >> AHEAD_LOG2) + n
            came = self.answer.valid & (tag[AHEAD_LOG2:] == kind)
            m.d.comb += [asks[n].eq((left != 0) & ~held[AHEAD_LOG2]),
                         self.present[n].eq(filled.bit_select(head, 1))]
            m.d.sync += [
                held.eq(held + asked[n] - self.take[n]), head.eq(head + self.take[n]),
                number.eq(number + asked[n]), left.eq(left - asked[n]),
                filled.eq((filled | (came << tag[:AHEAD_LOG2])) & ~(self.take[n] << head))]
            with m.If(begin & (self.loaded.subgraph == n)):
                m.d.sync += left.eq(self.loaded.entries)
            numbers.append(number)
            heads.append(head)
        return {"asks": asks, "asked": asked, "number": Array(numbers)}, Array(heads)
