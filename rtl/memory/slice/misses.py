"""Lines under way from memory, and the requests that wait for them."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from rtl.common.select import lowest, one_of
from rtl.memory.slice.interfaces import (
    LINE_NUMBER_BITS,
    WORD_BYTES,
    WORDS,
    memory_response_layout,
    slice_response_layout,
)
from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, AccessError

WRITES_BITS = 10    # width of the number of unanswered writes


class Misses(wiring.Component):
    """Keeps an entry for each line under way, and for each entry a list of requests.

    When its line comes the requests are answered in the order in which they came, one a cycle:
    reads with the line, writes change it. In the cycle in which the last one, if a read, is
    answered, or in the next, the line goes to the data array, and the entry is free. So a line
    for which one read waits takes one cycle. A line that comes with an error is kept with all of
    its words poisoned, but for those that a waiting write replaces wholly. Empty after reset.
    Source: this project's choice.

    Parameters
    ----------
    places, ways : int
        Size of the data array [line], and its ways.
    mshrs : int
        Entries: lines under way.
    targets : int
        Requests that can wait, of all entries together.
    name_bits : int
        Width of the name of a request [bit].

    Members
    -------
    line, set : In(34), In(range(places // ways))
        Of the request at hand.
    match, match_fill : Out(1)
        Its line is under way, and has a place in the cache.
    locked : Out(ways)
        Ways of its set whose lines are under way.
    free, free_name : Out(1), Out(range(mshrs))
        There is an entry, and its number, which is the name of the request to memory.
    slot_free : Out(1)
        There is room for one more request that waits.
    allocate, fill, place, with_target : In
        The entry is taken for the line; that line will have a place; and a request waits for it.
    join : In(1)
        The request waits for the line under way.
    name, write, data, mask : In
        That request.
    wrote : In(1)
        A write went to memory; only while ``can_write``.
    can_write : Out(1)
        Not too many of them are unanswered.
    memory_response : In(stream.Signature(memory_response_layout(...)))
        From memory; ready depends on ``response.ready`` and ``can_store``.
    response : Out(stream.Signature(slice_response_layout(...)))
        Answers.
    store, can_store, store_line, store_data, store_poison
        A whole line for the data array, taken if ``can_store``.
    active, writing, moving : Out(1)
        A line is under way; a write is unanswered; an answer of memory is at hand.
    failed : Out(1)
        For one cycle: memory answered with an error.
    """

    def __init__(self, *, places, ways, mshrs, targets, name_bits):
        self.places, self.ways, self.mshrs, self.targets = places, ways, mshrs, targets
        memory_name_bits = ceil_log2(mshrs)
        super().__init__({
            "line": In(LINE_NUMBER_BITS), "set": In(range(places // ways)),
            "match": Out(1), "match_fill": Out(1), "locked": Out(ways),
            "free": Out(1), "free_name": Out(memory_name_bits), "slot_free": Out(1),
            "allocate": In(1), "fill": In(1), "place": In(range(places)), "with_target": In(1),
            "join": In(1), "name": In(name_bits), "write": In(1), "data": In(LINE_BITS),
            "mask": In(LINE_BYTES), "wrote": In(1), "can_write": Out(1),
            "memory_response": In(stream.Signature(
                memory_response_layout(name_bits=memory_name_bits))),
            "response": Out(stream.Signature(slice_response_layout(name_bits=name_bits))),
            "store": Out(1), "can_store": In(1), "store_line": Out(range(places)),
            "store_data": Out(LINE_BITS), "store_poison": Out(WORDS),
            "active": Out(1), "writing": Out(1), "moving": Out(1), "failed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        slot = ceil_log2(self.targets)
        entries = [Signal(data.StructLayout({
            "active": 1, "line": LINE_NUMBER_BITS, "place": range(self.places), "fill": 1,
            "empty": 1, "head": slot, "tail": slot}), name=f"entry{n}")
            for n in range(self.mshrs)]
        busy = Signal(self.targets)         # slots that hold a request
        new, number = Signal(self.targets), Signal(slot)    # a free one, and its number
        m.d.comb += [new.eq(lowest(~busy)), number.eq(self._number(new))]
        tail = Signal(slot)
        free, matches = Signal(self.mshrs), Signal(self.mshrs)
        m.d.comb += [
            free.eq(lowest(~Cat(e.active for e in entries))),
            self.free.eq(free.any()), self.free_name.eq(self._number(free)),
            self.slot_free.eq(new.any()),
            matches.eq(Cat(e.active & (e.line == self.line) for e in entries)),
            self.match.eq(matches.any()),
            self.match_fill.eq((matches & Cat(e.fill for e in entries)).any()),
            self.active.eq(Cat(e.active for e in entries).any() | self.moving)]
        for way in range(self.ways):
            m.d.comb += self.locked[way].eq(Cat(
                e.active & e.fill & (e.place == Cat(self.set, C(way, exact_log2(self.ways))))
                for e in entries).any())
        adds = self.join | (self.allocate & self.with_target)
        m.d.comb += tail.eq(one_of(list(matches), [e.tail for e in entries]))
        appends = self.join & ~(matches & Cat(e.empty for e in entries)).any()
        target, current, pop, finished, follower = self._line(m, entries, matches, number, adds,
                                                              tail, appends)
        joined = Signal(self.mshrs)
        m.d.comb += joined.eq(Mux(self.join, matches, 0))
        m.d.sync += busy.eq((busy | Mux(adds, new, 0)) & ~Mux(pop, 1 << current.head, 0))
        for n, e in enumerate(entries):
            mine = self._chosen(n)
            with m.If(joined[n]):
                m.d.sync += [e.tail.eq(number), e.empty.eq(0)]
                with m.If(e.empty):
                    m.d.sync += e.head.eq(number)
            with m.If(pop & mine):
                with m.If(e.head != e.tail):
                    m.d.sync += e.head.eq(follower)
                with m.Elif(joined[n]):
                    m.d.sync += e.head.eq(number)
                with m.Else():
                    m.d.sync += e.empty.eq(1)
            with m.If(finished & mine):
                m.d.sync += e.active.eq(0)
            with m.If(self.allocate & free[n]):
                m.d.sync += [e.active.eq(1), e.line.eq(self.line), e.place.eq(self.place),
                             e.fill.eq(self.fill), e.empty.eq(~self.with_target),
                             e.head.eq(number), e.tail.eq(number)]
        writes = Signal(WRITES_BITS)
        ended = self.moving & self.taken.write
        m.d.sync += writes.eq(writes + self.wrote - ended)
        m.d.comb += [self.writing.eq(writes.any()), self.can_write.eq(~writes[1:].all())]
        return m

    def _number(self, chosen):
        """Number of the bit that is high."""
        return Cat(Cat(chosen[k] for k in range(len(chosen)) if k >> n & 1).any()
                   for n in range(ceil_log2(len(chosen))))

    def _chosen(self, n):
        """Whether the line at hand is that of entry ``n``."""
        return self.taken.name == n

    def _line(self, m, entries, matches, number, adds, tail, appends):
        """The line that came: answers its requests, and goes to the array.

        Gives the request at the head of its list, its entry, whether that request is done, and
        whether the entry is; and the slot of the next request.
        """
        name_bits = len(self.name)
        m.submodules.waiting = waiting = Memory(shape=data.StructLayout({
            "name": name_bits, "write": 1, "data": LINE_BITS, "mask": LINE_BYTES}),
            depth=self.targets, init=[])
        m.submodules.order = order = Memory(shape=len(number), depth=self.targets, init=[])
        put, get = waiting.write_port(), waiting.read_port(domain="comb")
        link, follow = order.write_port(), order.read_port(domain="comb")
        taken = self.taken = Signal(data.StructLayout({
            "name": len(self.free_name), "write": 1, "error": AccessError, "data": LINE_BITS}))
        poison, current = Signal(WORDS), Signal(entries[0].shape())
        target, response = get.data, self.response
        pop, finished, bits = Signal(), Signal(), Signal(LINE_BITS)
        at_hand = self.moving & ~taken.write
        words = [target.mask[n:n + WORD_BYTES] for n in range(0, LINE_BYTES, WORD_BYTES)]
        whole, parts = Cat(w.all() for w in words), Cat(w.any() & ~w.all() for w in words)
        spoilt = Mux(target.write, poison & parts, poison).any()
        joins = self.join & matches.bit_select(taken.name, 1)
        emptied = current.empty | (pop & ~target.write & (current.head == current.tail))
        ended = at_hand & emptied & ~joins
        m.d.comb += [
            current.eq(Array(entries)[taken.name]),
            put.en.eq(adds), put.addr.eq(number), put.data.name.eq(self.name),
            put.data.write.eq(self.write), put.data.data.eq(self.data),
            put.data.mask.eq(self.mask), get.addr.eq(current.head),
            link.en.eq(appends), link.addr.eq(tail), link.data.eq(number),
            follow.addr.eq(current.head),
            response.valid.eq(at_hand & ~current.empty),
            response.payload.name.eq(target.name), response.payload.write.eq(target.write),
            response.payload.data.eq(taken.data),
            response.payload.error.eq(Mux(spoilt, taken.error, AccessError.NONE)),
            pop.eq(response.valid & response.ready),
            self.store.eq(ended & current.fill), finished.eq(ended & (~current.fill
                                                                      | self.can_store)),
            self.store_line.eq(current.place), self.store_data.eq(taken.data),
            self.store_poison.eq(poison),
            self.memory_response.ready.eq(~self.moving | taken.write | finished),
            self.failed.eq(self.memory_response.valid & self.memory_response.ready
                           & (self.memory_response.payload.error != AccessError.NONE)),
            bits.eq(Cat(byte.replicate(8) for byte in target.mask)),
        ]
        with m.If(pop & target.write):
            m.d.sync += [taken.data.eq((target.data & bits) | (taken.data & ~bits)),
                         poison.eq(poison & ~whole)]
        with m.If(self.memory_response.ready):
            m.d.sync += self.moving.eq(self.memory_response.valid)
            with m.If(self.memory_response.valid):
                came = self.memory_response.payload
                m.d.sync += [
                    taken.eq(came), poison.eq(Mux(came.error == AccessError.NONE, 0, ~0))]
        return target, current, pop, finished, follow.data
