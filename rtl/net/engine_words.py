"""Words of memory that are read until they fit, and writes of words and doorbells."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.common.select import lowest, number_of, part_of
from rtl.net.engine_interfaces import (
    LABEL_BITS,
    SUBGRAPH_BITS,
    Tags,
    answer_layout,
    read_layout,
    write_layout,
)
from rtl.net.interfaces import Compare
from rtl.pe.interfaces import ADDRESS_BITS, LINE_BITS, LINE_BYTES

WORDS = LINE_BITS // 32
POLL_CYCLES = 16    # from one read of a word to the next (this project's choice)


def belongs(answer, kind):
    """Whether the answer is for one of the 8 tags of that kind."""
    return answer.valid & (answer.tag[SUBGRAPH_BITS:] == kind >> SUBGRAPH_BITS)


def wait_layout():
    """A comparison: byte ``address`` of the word, ``mask``, ``value`` to compare with."""
    return data.StructLayout({"address": ADDRESS_BITS, "mask": 32, "value": 32,
                              "compare": Compare, "label": LABEL_BITS})


class WordPoller(wiring.Component):
    """Reads words until their comparisons hold: one for each subgraph.

    The first read leaves 2 cycles after the start, each later one after ``tick``. An end stands 1
    cycle after the answer for which the comparison holds.

    Parameters
    ----------
    subgraphs : int
        Words at once.

    Members
    -------
    start : In(data.StructLayout({"valid": 1, "wait": wait_layout()}))
        A comparison; only while its subgraph is ``free``.
    free : Out(subgraphs)
        Nothing is compared. A function of registers.
    tick : In(subgraphs)
        Read again.
    request : Out(stream.Signature(read_layout()))
        Reads.
    answer : In(answer_layout())
        Answers to all requests of the engine.
    end : Out(stream.Signature(16))
        Label of a comparison that holds.
    asking : Out(subgraphs)
        A word is to be read. A function of registers and ``tick``.
    """

    def __init__(self, *, subgraphs):
        self.subgraphs = subgraphs
        super().__init__({
            "start": In(data.StructLayout({"valid": 1, "wait": wait_layout()})),
            "free": Out(subgraphs), "tick": In(subgraphs),
            "request": Out(stream.Signature(read_layout())), "answer": In(answer_layout()),
            "end": Out(stream.Signature(LABEL_BITS)), "asking": Out(subgraphs)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.waits = waits = memory.Memory(shape=wait_layout(), depth=1 << SUBGRAPH_BITS,
                                                   init=[])
        write = waits.write_port()
        asked, compared, ended = (waits.read_port(domain="comb") for _ in range(3))
        waiting, wanted, idle, done = (Signal(self.subgraphs, name=name)
                                       for name in ("waiting", "wanted", "idle", "done"))
        started = self.start.wait.label[12:12 + SUBGRAPH_BITS]
        answer, came = self.answer, belongs(self.answer, Tags.WORDS)
        here = answer.tag[:SUBGRAPH_BITS]
        m.submodules.queue = queue = Queue(read_layout())
        connect(m, queue.o, flipped(self.request))
        m.d.comb += [
            write.en.eq(self.start.valid), write.addr.eq(started), write.data.eq(self.start.wait),
            asked.addr.eq(number_of(lowest(wanted))), compared.addr.eq(here),
            ended.addr.eq(number_of(lowest(done))),
            queue.i.valid.eq(wanted.any()), queue.i.payload.line.eq(asked.data.address[6:]),
            queue.i.payload.tag.eq(Tags.WORDS | asked.addr),
            queue.i.payload.label.eq(asked.data.label),
            self.end.valid.eq(done.any()), self.end.payload.eq(ended.data.label),
            self.free.eq(~(waiting | done)),
            self.asking.eq(wanted | self.tick & waiting & idle)]

        wait, word, holds = compared.data, Signal(32), Signal()
        m.d.comb += word.eq(part_of(answer.data, wait.address[2:6]) & wait.mask)
        with m.Switch(wait.compare):
            with m.Case(Compare.EQUAL):
                m.d.comb += holds.eq(word == wait.value)
            with m.Case(Compare.NOT_EQUAL):
                m.d.comb += holds.eq(word != wait.value)
            with m.Case(Compare.LESS):
                m.d.comb += holds.eq(word < wait.value)
            with m.Case(Compare.AT_LEAST):
                m.d.comb += holds.eq(word >= wait.value)
        for n in range(self.subgraphs):
            begun = self.start.valid & (started == n)
            sent = queue.i.valid & queue.i.ready & (asked.addr == n)
            with m.If(sent):
                m.d.sync += [wanted[n].eq(0), idle[n].eq(0)]
            with m.Elif(begun | (self.tick[n] & waiting[n] & idle[n])):
                m.d.sync += wanted[n].eq(1)
            with m.If(begun):
                m.d.sync += [waiting[n].eq(1), idle[n].eq(1)]
            with m.If(came & (here == n)):
                m.d.sync += [idle[n].eq(1), waiting[n].eq(~holds), done[n].eq(holds)]
            with m.If(self.end.ready & (ended.addr == n)):
                m.d.sync += done[n].eq(0)
        return m


class LinePoster(wiring.Component):
    """Writes words and doorbells: one of each for a subgraph at a time.

    A write stands at the port 1 cycle after its start.

    Parameters
    ----------
    subgraphs : int
        Subgraphs.

    Members
    -------
    start : In(data.StructLayout({"valid": 1, "doorbell": 1, "address": 48, "data": 512, ...}))
        A write of the word at the address with the lowest word of ``data``, or of a doorbell with
        all of it; only while ``free``.
    free : Out(1)
        No write waits for the port. A function of registers.
    sets_free, doorbells_free : Out(subgraphs)
        Subgraphs of which no such write is under way. A function of registers.
    request : Out(stream.Signature(write_layout()))
        Writes.
    answer : In(answer_layout())
        Answers to all requests of the engine.
    end : Out(stream.Signature(16))
        Label of a word that was written.
    """

    def __init__(self, *, subgraphs):
        self.subgraphs = subgraphs
        super().__init__({
            "start": In(data.StructLayout({
                "valid": 1, "doorbell": 1, "address": ADDRESS_BITS, "data": LINE_BITS,
                "label": LABEL_BITS})),
            "free": Out(1), "sets_free": Out(subgraphs), "doorbells_free": Out(subgraphs),
            "request": Out(stream.Signature(write_layout())), "answer": In(answer_layout()),
            "end": Out(stream.Signature(LABEL_BITS))})

    def elaborate(self, platform):
        m = Module()
        start, request = self.start, self.request.payload
        subgraph = start.label[12:12 + SUBGRAPH_BITS]
        labels = Array(Signal(LABEL_BITS, name=f"label{n}") for n in range(self.subgraphs))
        sets, doorbells, done = (Signal(self.subgraphs, name=name)
                                 for name in ("sets", "doorbells", "done"))
        ended = number_of(lowest(done))
        m.d.comb += [self.free.eq(~self.request.valid), self.sets_free.eq(~(sets | done)),
                     self.doorbells_free.eq(~doorbells), self.end.valid.eq(done.any()),
                     self.end.payload.eq(labels[ended])]
        with m.If(self.request.ready):
            m.d.sync += self.request.valid.eq(0)
        with m.If(start.valid):
            word = start.address[2:6]
            m.d.sync += [
                self.request.valid.eq(1), request.line.eq(start.address[6:]),
                request.label.eq(start.label),
                request.tag.eq(Mux(start.doorbell, Tags.DOORBELLS, Tags.SETS) | subgraph),
                request.data.eq(Mux(start.doorbell, start.data, start.data[:32].replicate(WORDS))),
                request.mask.eq(Mux(start.doorbell, (1 << LINE_BYTES) - 1, Cat(
                    (word == n).replicate(4) for n in range(WORDS))))]
        for n in range(self.subgraphs):
            begun, answer = start.valid & (subgraph == n), self.answer
            here = answer.tag[:SUBGRAPH_BITS] == n
            with m.If(begun & start.doorbell):
                m.d.sync += doorbells[n].eq(1)
            with m.If(begun & ~start.doorbell):
                m.d.sync += [sets[n].eq(1), labels[n].eq(start.label)]
            with m.If(belongs(answer, Tags.DOORBELLS) & here):
                m.d.sync += doorbells[n].eq(0)
            with m.If(belongs(answer, Tags.SETS) & here):
                m.d.sync += [sets[n].eq(0), done[n].eq(1)]
            with m.If(self.end.ready & (ended == n)):
                m.d.sync += done[n].eq(0)
        return m
