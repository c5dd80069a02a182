"""Fabric interface, outward: local memory to memory."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.pe.frontend import OperandField, UnitFrontend
from rtl.pe.interfaces import (
    LINE_BITS,
    LINE_BYTES,
    BufferPort,
    Hint,
    LocalRead,
    UnitPort,
    request_layout,
    response_layout,
)
from rtl.pe.strided import RowWalk, fill_walk, refuse
from rtl.pe.transfers import Transfers

TAGS = 32       # writes under way; this project's choice


class DmaOut(wiring.Component):
    """Copies rows of bytes from local memory to memory: ``DMA_OUT``.

    Rows are cut at the lines of the memory, each a masked write; up to 32 are under way, answered
    in any order. A write whose bytes lie in one local line takes one cycle, else two, so a row
    with the same alignment on both sides moves one line a cycle. A write leaves 2 cycles after its
    last line was read. The reads of a job start 1 cycle after the last read of the job before it,
    and 2 cycles after the job is handed out. A job ends when all its writes are answered.
    Source: this project's choice.

    Bits 1:0 of word 1 are a :class:`rtl.pe.interfaces.Hint`, ``NONE`` or ``NO_ALLOCATE``, which
    goes with every write; anything else in the word is refused.

    Other fields are refused, errors reported and ``clear`` survived as in :class:`DmaIn`. A read
    that local memory has not accepted is withdrawn by an error or ``clear``.

    Parameters
    ----------
    lines : int
        Size of local memory [line].

    Members
    -------
    unit : Out(UnitPort())
        Commands. Counter word 4: lines written, 5: bytes written.
    buffers : Out(BufferPort(lines=lines))
        Operand: 0 source (word 2, consumer).
    local : Out(LocalRead(lines=lines))
        Data.
    request : Out(stream.Signature(request_layout()))
        Writes, tags 0 to 31. Registered; not withdrawn, whatever happens.
    response : In(stream.Signature(response_layout()))
        Their answers, in any order; always ready.
    outstanding : Out(1)
        A write was made (maybe not yet accepted) and is not yet answered.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
            "local": Out(LocalRead(lines=lines)),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())), "outstanding": Out(1)})

    def elaborate(self, platform):
        outer, m = Module(), Module()
        outer.submodules.frontend = frontend = UnitFrontend(lines=self.lines,
                                                        operands=[OperandField(2)])
        outer.submodules.core = DomainRenamer("work")(m)
        gated_domain(outer, name="work", enable=ResetSignal("sync") | self.unit.clear
                           | self.unit.launch | frontend.working | self.outstanding)
        m.submodules.transfers = transfers = Transfers(tags=TAGS)
        walk = RowWalk(lines=self.lines, indexed=False)
        m.submodules.walk = ResetInserter(self.unit.clear)(walk)
        connect(outer, frontend.unit, flipped(self.unit))
        connect(outer, frontend.buffers, flipped(self.buffers))

        job = frontend.job
        fields, bad = fill_walk(job.payload, walk.i.payload, job.payload.grants[0],
                                hints=(Hint.NONE, Hint.NO_ALLOCATE))
        refuse(m, transfers.refused, bad)
        m.d.comb += fields
        m.d.comb += [
            walk.i.payload.slot.eq(transfers.slot),
            walk.i.valid.eq(job.valid & transfers.free & ~transfers.refused.valid),
            job.ready.eq(transfers.free & (transfers.refused.valid | walk.i.ready)),
            transfers.begin.eq(job.valid & job.ready),
        ]
        queue = self._load(m, transfers, walk)
        connect(m, queue.o, flipped(self.request))

        answer = self.response
        fetched = self.local.address.valid & self.local.address.ready
        moved = fetched | (self.request.valid & self.request.ready) | answer.valid
        stalled = self.request.valid | ~transfers.tag_free
        m.d.comb += [
            answer.ready.eq(1),
            transfers.answer.eq(answer.valid), transfers.answer_tag.eq(answer.payload.tag),
            transfers.retire.eq(answer.valid), transfers.retire_error.eq(answer.payload.error),
            transfers.retire_tag.eq(answer.payload.tag),
            transfers.retire_slot.eq(self._slot_of(m, transfers, walk, answer.payload.tag)),
            transfers.clear.eq(self.unit.clear), transfers.launch.eq(self.unit.launch),
            frontend.done.eq(transfers.done), frontend.fault.eq(transfers.fault),
            frontend.active.eq(moved),
            frontend.starved.eq(~moved & ~stalled & self.local.address.valid),
            frontend.blocked.eq(~moved & transfers.open),
            frontend.extra[0].eq(transfers.moved_lines),
            frontend.extra[1].eq(transfers.moved_bytes),
            self.outstanding.eq(transfers.outstanding),
        ]
        return outer

    def _slot_of(self, m, transfers, walk, tag):
        """Which of the two jobs a tag belongs to."""
        slots = Signal(1 << len(transfers.tag))
        with m.If(transfers.issue):
            m.d.sync += slots.bit_select(transfers.tag, 1).eq(walk.o.payload.slot)
        return slots.bit_select(tag[:len(transfers.tag)], 1)

    def _load(self, m, transfers, walk):
        """Chunks become reads of local memory, and what was read becomes requests."""
        m.submodules.queue = queue = Queue(request_layout())
        chunk, address, request = walk.o.payload, self.local.address, queue.i.payload
        second = Signal()               # of the two lines of a chunk
        crosses, room = Signal(), Signal()
        fetched, whole = address.valid & address.ready, second | ~crosses
        held = Signal(range(4))         # places of the queue that are full or spoken for
        arriving, partial, joined = Signal(), Signal(), Signal()
        first, turn = Signal(LINE_BITS), Signal(6)
        m.d.comb += [
            crosses.eq(chunk.byte + chunk.count > LINE_BYTES),
            held.eq(queue.o.valid + ~queue.i.ready + arriving
                    - (queue.o.valid & queue.o.ready)),
            room.eq((held < 2) & transfers.tag_free),
            address.valid.eq(walk.o.valid & room),
            address.payload.eq(Mux(second, chunk.next_line, chunk.line)),
            walk.o.ready.eq(address.ready & room & whole),
            transfers.issue.eq(fetched & whole), transfers.issue_slot.eq(chunk.slot),
            transfers.issue_last.eq(chunk.last), transfers.issue_bytes.eq(chunk.count),
            transfers.issue_line.eq(chunk.address[6:]),
        ]
        # The line read in the cycle before is on `data`. Byte k of the request is byte
        # k + byte - start of the two lines; where that is negative, the chunk lies in one line.
        following = Signal(request_layout())
        m.d.comb += [
            queue.i.valid.eq(arriving), request.eq(following),
            request.data.eq(Cat(Mux(joined, first, self.local.data), self.local.data)
                            >> Cat(Const(0, 3), turn)),
        ]
        m.d.sync += [arriving.eq(transfers.issue), partial.eq(fetched & ~whole)]
        with m.If(partial):
            m.d.sync += first.eq(self.local.data)
        with m.If(fetched):
            m.d.sync += second.eq(~whole)
        with m.If(transfers.issue):
            m.d.sync += [
                joined.eq(second), turn.eq(chunk.byte - chunk.start),
                following.address.eq(chunk.address), following.tag.eq(transfers.tag),
                following.write.eq(1), following.hint.eq(chunk.hint),
                following.mask.eq(((1 << chunk.count) - 1) << chunk.start)]
        with m.If(self.unit.clear):
            m.d.sync += second.eq(0)
        return queue
