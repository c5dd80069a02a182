"""The queue of an HBM pseudo-channel: runs of requests for the same row."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from rtl.common.clockgate import gated_domain
from rtl.common.select import lowest, number_of
from rtl.memory.hbm.map import COLUMN_BITS, place_layout
from rtl.memory.hbm.timing import BANKS, LINES


def entry_layout(*, row_bits, slots, info):
    """A request to be queued: where to, which direction, and what is kept with it."""
    return data.StructLayout({"place": place_layout(row_bits=row_bits), "write": 1,
                              "slot": range(slots), "info": info})


class RowTags(wiring.Component):
    """The rows of all runs; says which ones are the row that was asked for last.

    The answer stands from the cycle after :attr:`ask` on. The clock of the comparison runs only
    in cycles with ``ask`` or ``set``.

    Parameters
    ----------
    runs, bits : int
        Number of runs, width of a row with its bank.

    Members
    -------
    ask, tag : In(1), In(bits)
        Compare this row.
    set : In(runs)
        Run, one-hot, that now is of the row asked for last.
    same : Out(runs)
        The answer.
    """

    def __init__(self, *, runs, bits):
        self.runs, self.bits = runs, bits
        super().__init__({"ask": In(1), "tag": In(bits), "set": In(runs), "same": Out(runs)})

    def elaborate(self, platform):
        m = Module()
        gated_domain(m, name="tags", enable=ResetSignal("sync") | self.ask | self.set.any())
        rows = [Signal(self.bits, name=f"row{n}") for n in range(self.runs)]
        asked = Signal(self.bits)
        with m.If(self.ask):
            m.d.tags += asked.eq(self.tag)
        for row, chosen in zip(rows, self.set, strict=True):
            with m.If(chosen):
                m.d.tags += row.eq(asked)
        m.d.comb += self.same.eq(Cat(row == asked for row in rows))
        return m


class HbmRuns(wiring.Component):
    """Keeps requests in lists: a run is those of one direction for one row, oldest first.

    A bank has two lists of runs, of reads and of writes, oldest first, and offers the first run of
    each. A request joins the run of its row if there is one, so rows that are open are used before
    they are closed; but a run that has had ``limit`` requests is sealed, and the next one begins a
    new run behind the others of its bank. All but the rows of the runs is in RAM, so what the
    queue costs hardly depends on its size. A request is loaded and then pushed, at best one every
    cycle, but not in a cycle with a :attr:`pop`. Empty after reset.

    Parameters
    ----------
    runs : int
        Runs at a time.
    entry : data.StructLayout
        A request, see :func:`entry_layout`.
    limit : int
        Requests of a run.

    Members
    -------
    load, entry : In(1), In(entry)
        Take the next request; only if none is held, or it is pushed in the same cycle.
    held : Out(entry)
        The request.
    conflict : Out(1)
        A request of the other direction for the same line may be queued.
    room : Out(1)
        The request can be pushed.
    push : In(1)
        Queue it.
    pop, pop_write, pop_bank : In(1), In(1), In(4)
        Take the first request of the first run of this bank.
    popped : Out({"slot", "column", "info"})
        That request; no longer queued in the next cycle.
    ends : Out(1)
        It is the last one of its run.
    activate, row_write, row_bank : In(1), In(1), In(4)
        The row of the first run of this bank, direction ``row_write``, is opened; ``row_bank``
        stands for ``precharge`` too.
    precharge : In(1)
        The row is closed.
    row : Out(row_bits)
        That row.
    opened : In(16)
        Banks with an open row.
    has0, has1 : Out(16)
        Banks that a read, a write is queued for.
    hits0, hits1 : Out(16)
        Of these, the ones with the row of the first run open.
    """

    def __init__(self, *, runs, entry, limit=32):
        self.runs, self.limit, self.run_bits = runs, limit, ceil_log2(runs)
        self.slot_bits, self.row_bits = entry["slot"].width, entry["place"].shape["row"].width
        self.kept = data.StructLayout({"column": COLUMN_BITS, "info": entry["info"].shape})
        super().__init__({
            "load": In(1), "entry": In(entry), "held": Out(entry), "conflict": Out(1),
            "room": Out(1), "push": In(1), "pop": In(1), "pop_write": In(1), "pop_bank": In(4),
            "popped": Out(data.StructLayout({"slot": self.slot_bits, "kept": self.kept})),
            "ends": Out(1),
            "activate": In(1), "row_write": In(1), "row_bank": In(4), "precharge": In(1),
            "row": Out(self.row_bits), "opened": In(BANKS),
            **{f"{name}{n}": Out(BANKS) for name in ("has", "hits") for n in (0, 1)}})

    def elaborate(self, platform):
        m = Module()
        runs, held = self.runs, self.held
        live, writes, sealed, found, own, other, fresh = (
            Signal(runs, name=name)
            for name in ("live", "writes", "sealed", "found", "own", "other", "fresh"))
        joins, begins, gone, run = Signal(), Signal(), Signal(), Signal(self.run_bits)
        with m.If(self.load):
            m.d.sync += held.eq(self.entry)
        place = self.entry.place
        m.submodules.tags = tags = RowTags(runs=runs, bits=4 + self.row_bits)
        m.d.comb += [tags.ask.eq(self.load), tags.tag.eq(Cat(place.bank, place.row)),
                     tags.set.eq(Mux(begins, fresh, 0)), fresh.eq(lowest(~live))]

        state = data.StructLayout({
            "first": self.slot_bits, "last": self.slot_bits, "count": self.slot_bits + 1,
            "taken": ceil_log2(self.limit + 1), "columns": LINES, "twice": 1})
        m.submodules.states = states = memory.Memory(shape=state, depth=runs, init=[])
        write, mine, theirs = (states.write_port(), states.read_port(domain="comb"),
                               states.read_port(domain="comb"))
        old, new, column, popped = mine.data, write.data, Signal(LINES), Signal(LINES)
        first = self._lists(m, run, begins, gone)
        after = self._slots(m, old, joins)
        m.d.comb += [
            found.eq(tags.same & live), own.eq(found & ~(writes ^ held.write.replicate(runs))),
            other.eq(found & ~own), joins.eq((own & ~sealed).any()),
            self.room.eq(joins | ~live.all()), begins.eq(self.push & ~joins),
            theirs.addr.eq(number_of(other & ~sealed)),
            column.eq(1 << held.place.column), popped.eq(1 << self.popped.kept.column),
            self.conflict.eq((other & sealed).any() | (
                other.any() & (theirs.data.columns & column).any())),
            run.eq(Mux(self.pop, first, Mux(joins, number_of(own & ~sealed), number_of(fresh)))),
            mine.addr.eq(run), write.addr.eq(run), write.en.eq(self.pop | self.push),
            gone.eq(self.pop & (old.count == 1)), self.ends.eq(gone), new.eq(old)]
        with m.If(self.pop):
            m.d.comb += [new.first.eq(after), new.count.eq(old.count - 1),
                         new.columns.eq(Mux(old.twice, old.columns, old.columns & ~popped))]
        with m.Elif(joins):
            m.d.comb += [new.last.eq(held.slot), new.count.eq(old.count + 1),
                         new.taken.eq(old.taken + 1), new.columns.eq(old.columns | column),
                         new.twice.eq(old.twice | (old.columns & column).any())]
        with m.Else():
            m.d.comb += [new.first.eq(held.slot), new.last.eq(held.slot), new.count.eq(1),
                         new.taken.eq(1), new.columns.eq(column), new.twice.eq(0)]
        with m.If(gone):
            m.d.sync += live.eq(live & ~(1 << run)[:runs])
        with m.If(begins):
            m.d.sync += [live.eq(live | fresh), sealed.eq(sealed & ~fresh),
                         writes.eq(Mux(held.write, writes | fresh, writes & ~fresh))]
        with m.If(self.push & joins & (new.taken == self.limit)):
            m.d.sync += sealed.eq(sealed | own)
        return m

    def _slots(self, m, old, joins):
        """What is kept with the requests of a run, and the run's order; gives its second one."""
        held, depth = self.held, 2 << self.slot_bits
        m.submodules.slots = slots = memory.Memory(shape=self.kept, depth=depth, init=[])
        m.submodules.slot_order = order = memory.Memory(shape=self.slot_bits, depth=depth, init=[])
        keep, look = slots.write_port(), slots.read_port(domain="comb")
        link, after = order.write_port(), order.read_port(domain="comb")
        first = Cat(old.first, self.pop_write)
        m.d.comb += [
            keep.en.eq(self.push), keep.addr.eq(Cat(held.slot, held.write)),
            keep.data.column.eq(held.place.column), keep.data.info.eq(held.info),
            link.en.eq(self.push & joins), link.addr.eq(Cat(old.last, held.write)),
            link.data.eq(held.slot), look.addr.eq(first), after.addr.eq(first),
            self.popped.slot.eq(old.first), self.popped.kept.eq(look.data)]
        return after.data

    def _lists(self, m, run, begins, gone):
        """The runs of the banks, and which rows are open; gives the first run of ``pop_bank``."""
        held = self.held
        ends = data.StructLayout({"first": self.run_bits, "last": self.run_bits})
        m.submodules.banks = banks = memory.Memory(shape=ends, depth=2 * BANKS, init=[])
        m.submodules.order = order = memory.Memory(shape=self.run_bits, depth=self.runs, init=[])
        m.submodules.rows = rows = memory.Memory(shape=self.row_bits, depth=self.runs, init=[])
        m.submodules.open = opens = memory.Memory(shape=self.row_bits, depth=BANKS, init=[])
        update, ours, opening, others = (banks.write_port(), *(
            banks.read_port(domain="comb") for _ in range(3)))
        link, after = order.write_port(), order.read_port(domain="comb")
        keep, opened_row, others_row, after_row = (rows.write_port(), *(
            rows.read_port(domain="comb") for _ in range(3)))
        opened, there = opens.write_port(), opens.read_port(domain="comb")
        has, hits = (self.has0, self.has1), (self.hits0, self.hits1)
        bank, write = Signal(4), Signal()
        here, row_here, alone, more = Signal(BANKS), Signal(BANKS), Signal(), Signal()
        m.d.comb += [
            bank.eq(Mux(self.pop, self.pop_bank, held.place.bank)),
            write.eq(Mux(self.pop, self.pop_write, held.write)),
            here.eq(1 << bank), row_here.eq(1 << self.row_bank),
            alone.eq((Mux(write, has[1], has[0]) & here) == 0),
            ours.addr.eq(Cat(bank, write)), update.addr.eq(ours.addr),
            more.eq(ours.data.first != ours.data.last), after.addr.eq(ours.data.first),
            update.en.eq(begins | (gone & more)),
            update.data.last.eq(Mux(self.pop, ours.data.last, run)),
            update.data.first.eq(Mux(self.pop, after.data, Mux(alone, run, ours.data.first))),
            link.en.eq(begins & ~alone), link.addr.eq(ours.data.last), link.data.eq(run),
            keep.en.eq(begins), keep.addr.eq(run), keep.data.eq(held.place.row),
            opening.addr.eq(Cat(self.row_bank, self.row_write)),
            others.addr.eq(Cat(self.row_bank, ~self.row_write)),
            opened_row.addr.eq(opening.data.first), others_row.addr.eq(others.data.first),
            self.row.eq(opened_row.data), opened.en.eq(self.activate),
            opened.addr.eq(self.row_bank), opened.data.eq(self.row), there.addr.eq(bank),
            after_row.addr.eq(after.data)]
        begins_open = Mux(self.activate & (self.row_bank == bank), self.row == held.place.row,
                          ((self.opened & here) != 0) & ~(self.precharge & (self.row_bank == bank))
                          & (there.data == held.place.row))
        for n in (0, 1):
            change = write == n
            with m.If(begins & change):
                m.d.sync += has[n].eq(has[n] | here)
            with m.If(gone & change & ~more):
                m.d.sync += has[n].eq(has[n] & ~here)
            both = (self.row_write == n) | (
                (has[n] & row_here).any() & (others_row.data == self.row))
            lost = Mux(self.precharge, row_here, 0) | Mux(gone & change, here, 0)
            won = (Mux(self.activate & both, row_here, 0)
                   | Mux(begins & change & alone & begins_open, here, 0)
                   | Mux(gone & change & more & (after_row.data == there.data), here, 0))
            m.d.sync += hits[n].eq((hits[n] & ~lost) | won)
        return ours.data.first
