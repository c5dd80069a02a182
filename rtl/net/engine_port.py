"""The way of a message engine to memory and doorbells."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.arbiter import RoundRobin
from rtl.common.queue import Queue
from rtl.common.select import one_of
from rtl.net.engine_interfaces import (
    LABEL_BITS,
    LINE_NUMBER_BITS,
    answer_layout,
    fault_layout,
    read_layout,
    write_layout,
)
from rtl.pe.interfaces import TAG_BITS, AccessError, error_code, request_layout, response_layout


class EnginePort(wiring.Component):
    """Merges the accesses of a message engine, and tells which entry an error belongs to.

    A request leaves 1 cycle after it was granted, one a cycle; those who ask take turns. The tags
    of requests under way are different: who asks sees to that. An error is told 1 cycle after its
    answer, and that answer goes to nobody.

    Parameters
    ----------
    readers, writers : int
        Streams to merge.

    Members
    -------
    reads : In(stream.Signature(read_layout())).array(readers)
    writes : In(stream.Signature(write_layout())).array(writers)
        Who asks.
    stop : In(1)
        Nothing more is taken.
    request, response : Out(stream.Signature(request_layout())), In(...)
        To memory; always ready for answers.
    answer : Out(answer_layout())
        Answers without an error, as they come.
    fault : Out(fault_layout())
        An answer with an error.
    outstanding : Out(1)
        A request is not answered. A function of registers.
    """

    def __init__(self, *, readers, writers):
        self.readers, self.writers = readers, writers
        super().__init__({
            "reads": In(stream.Signature(read_layout())).array(readers),
            "writes": In(stream.Signature(write_layout())).array(writers), "stop": In(1),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())), "answer": Out(answer_layout()),
            "fault": Out(fault_layout()), "outstanding": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(request_layout())
        connect(m, queue.o, flipped(self.request))
        askers = [*self.reads, *self.writes]
        m.submodules.turns = turns = RoundRobin(len(askers))
        taken = queue.i.ready & ~self.stop
        m.d.comb += [turns.requests.eq(Cat(asker.valid for asker in askers)),
                     turns.ready.eq(taken), queue.i.valid.eq(turns.requests.any() & ~self.stop)]
        m.d.comb += [asker.ready.eq(taken & granted)
                     for asker, granted in zip(askers, turns.grant, strict=True)]

        head = data.StructLayout({"line": LINE_NUMBER_BITS, "tag": TAG_BITS, "label": LABEL_BITS})
        asked = Signal(head)
        request, reads = queue.i.payload, turns.grant[:self.readers].any()
        m.d.comb += [
            asked.eq(one_of(turns.grant, [
                Cat(asker.payload[name] for name in ("line", "tag", "label"))
                for asker in askers])),
            request.address.eq(Cat(C(0, 6), asked.line)), request.tag.eq(asked.tag),
            request.write.eq(~reads)]
        for name in ("data", "mask"):
            value = one_of(turns.grant[self.readers:],
                           [asker.payload[name] for asker in self.writes])
            m.d.comb += request[name].eq(Mux(reads, 0, value))

        answer, bad = self.response.payload, Signal()
        m.d.comb += [
            self.response.ready.eq(1), bad.eq(answer.error != AccessError.NONE),
            self.answer.valid.eq(self.response.valid & ~bad),
            self.answer.tag.eq(answer.tag), self.answer.data.eq(answer.data)]
        m.submodules.owners = owners = memory.Memory(shape=head, depth=1 << TAG_BITS, init=[])
        write, read = owners.write_port(), owners.read_port()
        error = Signal(AccessError)
        under_way = Signal(TAG_BITS + 1)
        m.d.comb += [
            write.en.eq(queue.i.valid & queue.i.ready), write.addr.eq(asked.tag),
            write.data.eq(asked), read.en.eq(self.response.valid & bad),
            read.addr.eq(answer.tag), self.outstanding.eq(under_way != 0),
            self.fault.code.eq(error_code(error)), self.fault.label.eq(read.data.label),
            self.fault.address.eq(Cat(C(0, 6), read.data.line))]
        m.d.sync += [self.fault.valid.eq(self.response.valid & bad),
                     under_way.eq(under_way + write.en - self.response.valid)]
        with m.If(self.response.valid & bad):
            m.d.sync += error.eq(answer.error)
        return m
