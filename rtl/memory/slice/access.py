"""The cycle after an access to the data array: answers, corrections, merges and write-backs."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.memory.slice.interfaces import (
    WORD_BYTES,
    WORDS,
    memory_request_layout,
    slice_response_layout,
    task_layout,
)
from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, AccessError


class Access(wiring.Component):
    """Ends an access whose line stands at the output of the data array.

    A task is answered, its line sent to memory, in the cycle after it was taken, at the earliest;
    a line with errors takes one cycle more. In its last cycle the line is stored, if it is to be,
    and the next task may be taken. A write of a part of a word with an uncorrectable error leaves
    the word poisoned, and is answered with ``POISON``. Idle after reset.
    Source: this project's choice.

    Parameters
    ----------
    places : int
        Size of the data array [line].
    name_bits, memory_name_bits : int
        Width of the name of a request, and of one to memory [bit].

    Members
    -------
    task : In(stream.Signature(task_layout(...)))
        Whose line is read, if at all, in the cycle in which it is taken.
    response : Out(stream.Signature(slice_response_layout(...)))
        Answers.
    evict : Out(stream.Signature(memory_request_layout(...)))
        Lines for memory.
    data, wrong, fix, corrected, bad, poisoned
        As in :class:`rtl.memory.slice.array.DataArray`.
    store, store_line, store_words, store_data, store_poison : Out
        A write to the array; takes place whatever else is wanted.
    busy : Out(1)
        A task is under way.
    evicting : Out(1)
        A line is to go to memory, maybe not yet in this cycle: no later request may go before it.
    mending : Out(1)
        The task is to store what it read, corrected: nobody else may write that line meanwhile.
    merging : Out(1)
        The clock of the domain ``merge`` must pass the coming edge: what a line is merged with is
        kept there, so that nothing of it moves otherwise.
    found_corrected, found_bad : Out(1)
        For one cycle: a line had wrong bits, corrected or not (not counting poisoned words).
    """

    def __init__(self, *, places, name_bits, memory_name_bits):
        self.places = places
        super().__init__({
            "task": In(stream.Signature(task_layout(places=places, name_bits=name_bits))),
            "response": Out(stream.Signature(slice_response_layout(name_bits=name_bits))),
            "evict": Out(stream.Signature(memory_request_layout(name_bits=memory_name_bits))),
            "data": In(LINE_BITS), "wrong": In(1), "fix": Out(1), "corrected": In(WORDS),
            "bad": In(WORDS), "poisoned": In(WORDS),
            "store": Out(1), "store_line": Out(range(places)), "store_words": Out(WORDS),
            "store_data": Out(LINE_BITS), "store_poison": Out(WORDS), "busy": Out(1),
            "evicting": Out(1), "mending": Out(1), "merging": Out(1),
            "found_corrected": Out(1), "found_bad": Out(1)})

    def elaborate(self, platform):
        m = Module()
        plain = {name: self.task.payload[name] for name, _ in self.task.payload.shape()
                 if name not in ("data", "mask")}
        task = {name: Signal.like(value, name=name) for name, value in plain.items()}
        held, data, mask = self.busy, Signal(LINE_BITS), Signal(LINE_BYTES)
        answered, evicted, looked = Signal(), Signal(), Signal()
        response, evict, bits = self.response, self.evict, Signal(LINE_BITS)
        wrong = task["read"] & self.wrong
        done = (held & ~wrong & (~task["respond"] | answered | response.ready)
                & (~task["evict"] | evicted | evict.ready))
        touched = Cat(mask[n:n + WORD_BYTES].any() for n in range(0, LINE_BYTES, WORD_BYTES))
        whole = Cat(mask[n:n + WORD_BYTES].all() for n in range(0, LINE_BYTES, WORD_BYTES))
        lost = Mux(task["read"], self.bad, 0)
        mends = task["scrub"] & (self.corrected.any())
        m.d.comb += [
            self.task.ready.eq(~held | done),
            self.fix.eq(held & wrong), self.mending.eq(held & task["scrub"]),
            response.valid.eq(held & ~wrong & task["respond"] & ~answered),
            response.payload.name.eq(task["name"]), response.payload.write.eq(task["write"]),
            response.payload.data.eq(self.data), response.payload.error.eq(task["error"]),
            self.evicting.eq(held & task["evict"] & ~evicted),
            evict.valid.eq(self.evicting & ~wrong),
            evict.payload.line.eq(task["victim"]), evict.payload.write.eq(1),
            evict.payload.poison.eq(lost.any()), evict.payload.data.eq(self.data),
            evict.payload.mask.eq(~0),
            self.store.eq(done & Mux(task["scrub"], mends, task["store"])),
            self.store_line.eq(task["place"]),
            self.store_words.eq(Mux(task["scrub"], self.corrected, touched)),
            self.store_poison.eq(Mux(task["scrub"], 0, lost & ~whole)),
            bits.eq(Cat(byte.replicate(8) for byte in mask)),
            self.store_data.eq((data & bits) | (self.data & ~bits)),
            self.found_corrected.eq(held & looked & self.corrected.any()),
            self.found_bad.eq(held & looked & (self.bad & ~self.poisoned).any()),
        ]
        # A read wants all of its line, a write only the words that it keeps parts of.
        with m.If(~task["evict"] & task["read"]
                  & Mux(task["write"], lost & touched & ~whole, lost).any()):
            m.d.comb += response.payload.error.eq(AccessError.POISON)
        m.d.sync += looked.eq(self.fix)
        with m.If(response.valid & response.ready):
            m.d.sync += answered.eq(1)
        with m.If(evict.valid & evict.ready):
            m.d.sync += evicted.eq(1)
        with m.If(self.task.ready):
            m.d.sync += [held.eq(self.task.valid), answered.eq(0), evicted.eq(0)]
        m.d.comb += self.merging.eq(
            self.task.valid & self.task.ready
            & (self.task.payload.store | self.task.payload.scrub))
        with m.If(self.task.valid & self.task.ready):
            m.d.sync += [task[name].eq(value) for name, value in plain.items()]
        with m.If(self.merging):
            m.d.merge += [data.eq(self.task.payload.data), mask.eq(self.task.payload.mask)]
        return m
