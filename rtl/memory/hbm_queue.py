"""Queue of an HBM controller from which any of the oldest requests may leave."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.select import one_of
from rtl.memory.hbm_map import place_layout
from rtl.memory.hbm_timing import BANKS


def entry_layout(*, row_bits, slot_bits):
    """A request in a queue: its place, and where its data or its answer belong."""
    return data.StructLayout({"place": place_layout(row_bits=row_bits), "slot": slot_bits})


class HbmQueue(wiring.Component):
    """Keeps requests of one direction by age, and offers the oldest one that may go.

    Entry 0 is the oldest; when one leaves, the younger ones move up, so that age is the place in
    the queue. Each entry remembers whether its row is open, from the row commands that it sees.
    Latency 1 cycle, throughput one request a cycle. Empty after reset.

    Parameters
    ----------
    depth : int
        Entries [request].
    window : int
        Oldest entries that are looked at [request].
    row_bits, slot_bits : int
        Widths of the fields.
    recycle : bool
        The slot of a new entry is one that no other entry has (``free``), out of ``depth``;
        otherwise it comes with the entry.
    patience : int
        Clocks at the head after which an entry is :attr:`urgent`.

    Members
    -------
    push : In(1)
        Takes :attr:`entry`; only while the queue is not full.
    entry : In(entry_layout(...))
        A new request.
    hit : In(1)
        Its row will be open in the next cycle.
    free : Out(slot_bits)
        Slot of the next entry, if they are recycled.
    count : Out(range(depth + 1))
        Requests in the queue.
    pending : Out(16)
        Banks that some entry is for.
    look : In(place_layout(...))
        A place asked about.
    match : Out(1)
        Some entry is for it.
    activate, precharge, row_bank, row
        The row command of this cycle.
    rows : In(16)
        Banks that take an activate or a precharge.
    row_valid, row_place : Out(1), Out(place_layout(...))
        The oldest entry for one of them.
    columns : In(16)
        Banks that take a column command.
    column_valid, column_entry : Out(1), Out(entry_layout(...))
        The oldest entry for the open row of one of them.
    pop : In(1)
        It leaves.
    hits : Out(16)
        Banks with an open row that an entry is for.
    urgent : Out(1)
        The head has been the head for ``patience`` clocks.
    head_hit, head_bank : Out(1), Out(4)
        Its row is open; its bank.
    """

    def __init__(self, *, depth, window, row_bits, slot_bits, recycle, patience):
        self.depth, self.window, self.recycle = depth, min(window, depth), recycle
        self.patience = patience
        place = place_layout(row_bits=row_bits)
        entry = entry_layout(row_bits=row_bits, slot_bits=slot_bits)
        super().__init__({
            "push": In(1), "entry": In(entry), "hit": In(1), "free": Out(slot_bits),
            "count": Out(range(depth + 1)), "pending": Out(BANKS), "look": In(place),
            "match": Out(1), "activate": In(1), "precharge": In(1), "row_bank": In(4),
            "row": In(row_bits), "rows": In(BANKS), "row_valid": Out(1), "row_place": Out(place),
            "columns": In(BANKS), "column_valid": Out(1), "column_entry": Out(entry),
            "pop": In(1), "hits": Out(BANKS), "urgent": Out(1), "head_hit": Out(1),
            "head_bank": Out(4)})

    def elaborate(self, platform):
        m = Module()
        depth, window = self.depth, self.window
        layout = self.entry.shape()
        entries = [Signal(layout, name=f"entry{n}", init={"slot": n} if self.recycle else {})
                   for n in range(depth)]
        hit, valid = Signal(depth), Signal(depth)
        banks = [entry.place.bank for entry in entries]

        def oldest(name, allowed):
            """One-hot: the first entry of the window for which it holds."""
            found, first = Signal(window, name=name), Signal(window, name=f"{name}_first")
            m.d.comb += [found.eq(Cat(allowed)), first.eq(found & -found)]
            return found, first

        seen = valid[:window]
        row_found, row_first = oldest("row_found", (
            bit & self.rows.bit_select(bank, 1) for bit, bank in zip(seen, banks, strict=False)))
        found, first = oldest("found", (
            bit & self.columns.bit_select(bank, 1)
            for bit, bank in zip(seen & hit[:window], banks, strict=False)))
        m.d.comb += [
            self.row_valid.eq(row_found.any()),
            self.row_place.eq(one_of(row_first, [e.place for e in entries[:window]])),
            self.column_valid.eq(found.any()),
            self.column_entry.eq(one_of(first, entries[:window])),
            self.match.eq(Cat(bit & (entry.place == self.look)
                              for bit, entry in zip(valid, entries, strict=True)).any()),
            self.head_hit.eq(hit[0]), self.head_bank.eq(banks[0])]
        hits = Const(0, BANKS)
        for n in range(window):
            hits = hits | Mux(seen[n] & hit[n], (1 << banks[n])[:BANKS], 0)
        m.d.comb += self.hits.eq(hits)
        self._age(m, first)
        self._move(m, entries, hit, valid, first)
        self._pending(m)
        return m

    def _age(self, m, first):
        """How long the head has been the head."""
        age = Signal(range(self.patience + 1))
        m.d.comb += self.urgent.eq(age == self.patience)
        with m.If((self.count == 0) | (self.pop & first[0])):
            m.d.sync += age.eq(0)
        with m.Elif(~self.urgent):
            m.d.sync += age.eq(age + 1)

    def _move(self, m, entries, hit, valid, first):
        """Entries come, move up and see row commands."""
        depth = self.depth
        up, at, now = Signal(depth), Signal(depth), Signal(depth)
        kept, leaving = Signal(range(depth + 1)), Signal(depth)
        same = Cat(entry.place.bank == self.row_bank for entry in entries)
        opens = Cat(entry.place.row == self.row for entry in entries)
        m.d.comb += [
            leaving.eq(first),
            up.eq(Mux(self.pop, ~(leaving - 1)[:depth], 0)),    # this one and all younger ones
            kept.eq(self.count - self.pop),
            at.eq(Mux(self.push, 1 << kept, 0)),
            now.eq(Mux(self.activate, hit | (same & opens), hit & ~Mux(self.precharge, same, 0))),
        ]
        m.d.sync += [
            self.count.eq(kept + self.push),
            valid.eq((valid & ~up) | ((valid >> 1) & up) | at),
            hit.eq((now & ~up & ~at) | ((now >> 1) & up & ~at) | Mux(self.hit, at, 0))]
        for n, entry in enumerate(entries):
            younger = entries[n + 1] if n + 1 < depth else self.column_entry
            with m.If(up[n]):
                m.d.sync += entry.eq(younger)
            with m.If(at[n]):
                m.d.sync += entry.place.eq(self.entry.place)
                if not self.recycle:
                    m.d.sync += entry.slot.eq(self.entry.slot)
        if self.recycle:
            m.d.comb += self.free.eq(Array(entry.slot for entry in entries)[
                self.count[:max(1, (depth - 1).bit_length())]])

    def _pending(self, m):
        """Entries for each bank."""
        into, out = self.entry.place.bank, self.column_entry.place.bank
        for bank in range(BANKS):
            count = Signal(range(self.depth + 1), name=f"pending{bank}")
            m.d.sync += count.eq(count + (self.push & (into == bank))
                                 - (self.pop & (out == bank)))
            m.d.comb += self.pending[bank].eq(count != 0)
