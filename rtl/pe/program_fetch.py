"""Fetches the commands of a program ahead of their execution."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.common.isa import OPCODE, Opcode
from rtl.pe.interfaces import (
    ADDRESS_BITS,
    LINE_BITS,
    LINE_BYTES,
    AccessError,
    request_layout,
    response_layout,
)

AHEAD = 8       # lines requested and not executed (this project's choice)


def fetched_layout():
    """A command, or how its fetch failed, and where it is."""
    return data.StructLayout({"command": LINE_BITS, "error": AccessError,
                              "address": ADDRESS_BITS})


class ProgramFetch(wiring.Component):
    """Reads a program line by line, up to 8 lines ahead, and gives its commands in order.

    The first request leaves 1 cycle after ``start``; a command stands 1 cycle after its answer.
    One command a cycle. No line is requested after ``END`` or an error came back, or ``stop``. The
    clock stops while nothing is asked for, comes or goes.

    Members
    -------
    start : In(data.StructLayout({"valid": 1, "address": 48}))
        Begins a program; only while nothing is ``outstanding``.
    stop : In(1)
        Ends it.
    request : Out(stream.Signature(request_layout()))
        Reads, tags 0 to 7; withdrawn by ``stop``.
    response : In(stream.Signature(response_layout()))
        Their answers, in any order; always ready.
    o : Out(stream.Signature(fetched_layout()))
        Commands.
    outstanding : Out(1)
        A request is not answered.
    """

    def __init__(self):
        super().__init__({
            "start": In(data.StructLayout({"valid": 1, "address": ADDRESS_BITS})),
            "stop": In(1), "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "o": Out(stream.Signature(fetched_layout())), "outstanding": Out(1)})

    def elaborate(self, platform):
        outer, m = Module(), Module()
        outer.submodules.core = DomainRenamer("work")(m)
        gated_domain(outer, name="work", enable=Cat(
            ResetSignal("sync"), self.start.valid, self.stop, self.request.valid,
            self.response.valid, self.o.valid & self.o.ready).any())
        m.submodules.lines = store = memory.Memory(
            shape=data.StructLayout({"command": LINE_BITS, "error": AccessError}), depth=AHEAD,
            init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        line = Signal(ADDRESS_BITS - 6)
        head, tail = Signal(range(AHEAD)), Signal(range(AHEAD))
        held = Signal(range(AHEAD + 1))         # requested, not given on
        unanswered = Signal(range(AHEAD + 1))
        filled, running = Signal(AHEAD), Signal()

        answer, request = self.response.payload, self.request.payload
        asked = self.request.valid & self.request.ready
        given = self.o.valid & self.o.ready
        last = (answer.data[OPCODE] == Opcode.END) | (answer.error != AccessError.NONE)
        m.d.comb += [
            self.request.valid.eq(running & (held != AHEAD)),
            request.address.eq(line * LINE_BYTES), request.tag.eq(tail),
            self.response.ready.eq(1),
            write.en.eq(self.response.valid), write.addr.eq(answer.tag),
            write.data.command.eq(answer.data), write.data.error.eq(answer.error),
            read.addr.eq(head), self.o.payload.command.eq(read.data.command),
            self.o.payload.error.eq(read.data.error),
            self.o.payload.address.eq((line - held) << 6),
            self.o.valid.eq(filled.bit_select(head, 1)),
            self.outstanding.eq(unanswered != 0),
        ]
        m.d.sync += [held.eq(held + asked - given), head.eq(head + given), tail.eq(tail + asked),
                     unanswered.eq(unanswered + asked - self.response.valid), line.eq(line + asked),
                     filled.eq((filled | (self.response.valid << answer.tag[:3]))
                               & ~(given << head))]
        with m.If(self.stop | (self.response.valid & last)):
            m.d.sync += running.eq(0)
        with m.If(self.start.valid):
            m.d.sync += [running.eq(1), line.eq(self.start.address >> 6), filled.eq(0),
                         head.eq(0), tail.eq(0), held.eq(0)]
        return outer
