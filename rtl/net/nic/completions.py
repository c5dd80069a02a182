"""Writes completions into the rings of their queue pairs."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.common.arbiter import RoundRobin
from rtl.common.queue import Queue
from rtl.common.select import one_of
from rtl.net.interfaces import completion_layout
from rtl.pe.interfaces import ADDRESS_BITS, LINE_BITS, AccessError

RING_BITS = 16          # log2 of the lines of the longest ring
UNDER_WAY = 15          # writes of completions at once


def ring_layout():
    """Where the completions of a queue pair go, and the number of the next one."""
    return data.StructLayout({"base": ADDRESS_BITS - 6, "log2": 5, "index": RING_BITS})


class CompletionWriter(wiring.Component):
    """Writes each completion to the next line of its queue pair's ring.

    Latency is 3 cycles to the write, throughput one in 2 cycles. Completions of one source for one
    queue pair are written in their order. A write that fails is counted: nobody can be told.

    Parameters
    ----------
    qps : int
        Queue pairs.
    sources : int
        Streams of completions.

    Members
    -------
    i : In(stream.Signature(completion_layout())).array(sources)
        Completions.
    set_valid, set_qp, set_base, set_log2 : In
        A ring is set up and starts at its first line; only while no completion stands.
    request : Out(stream.Signature({"address": 48, "data": 512}))
        Writes.
    answered, error : In(1), In(AccessError)
        One of them has ended.
    failures : Out(32)
        Writes that failed.
    active : Out(1)
        A completion or its write is under way.
    """

    def __init__(self, *, qps, sources=2):
        self.qps, self.sources = qps, sources
        super().__init__({
            "i": In(stream.Signature(completion_layout())).array(sources),
            "set_valid": In(1), "set_qp": In(range(qps)), "set_base": In(ADDRESS_BITS),
            "set_log2": In(5),
            "request": Out(stream.Signature(data.StructLayout(
                {"address": ADDRESS_BITS, "data": LINE_BITS}))),
            "answered": In(1), "error": In(AccessError), "failures": Out(32), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.turn = turn = RoundRobin(self.sources)
        m.submodules.queue = queue = Queue(completion_layout())
        m.submodules.rings = rings = Memory(shape=ring_layout(), depth=self.qps, init=[])
        write, read = rings.write_port(), rings.read_port()
        loaded, under_way = Signal(), Signal(range(UNDER_WAY + 1))
        m.d.comb += [turn.requests.eq(Cat(i.valid for i in self.i)),
                     turn.ready.eq(queue.i.ready), queue.i.valid.eq(turn.requests.any()),
                     queue.i.payload.eq(one_of(turn.grant, [i.payload for i in self.i]))]
        for n, i in enumerate(self.i):
            m.d.comb += i.ready.eq(turn.grant[n] & queue.i.ready)
        ring, o = read.data, self.request.payload
        sent = self.request.valid & self.request.ready
        within = ring.index & ((1 << ring.log2) - 1)[:RING_BITS]
        m.d.comb += [
            read.addr.eq(queue.o.payload.qp), queue.o.ready.eq(sent),
            self.request.valid.eq(queue.o.valid & loaded & (under_way != UNDER_WAY)),
            o.address.eq(Cat(C(0, 6), (ring.base + within)[:ADDRESS_BITS - 6])),
            o.data.eq(queue.o.payload)]
        m.d.sync += [loaded.eq(queue.o.valid & ~sent),
                     under_way.eq(under_way + sent - self.answered)]
        with m.If(self.set_valid):
            m.d.comb += [write.en.eq(1), write.addr.eq(self.set_qp),
                         write.data.base.eq(self.set_base[6:]), write.data.log2.eq(self.set_log2),
                         write.data.index.eq(0)]
        with m.Else():
            m.d.comb += [write.en.eq(sent), write.addr.eq(queue.o.payload.qp),
                         write.data.eq(ring), write.data.index.eq(ring.index + 1)]
        with m.If(self.answered & (self.error != AccessError.NONE)):
            m.d.sync += self.failures.eq(self.failures + 1)
        m.d.comb += self.active.eq(Cat((i.valid for i in self.i), queue.o.valid, loaded,
                                       under_way != 0).any())
        return m
