"""Fabric interface, inward: memory to local memory."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.pe.frontend import OperandField, UnitFrontend
from rtl.pe.interfaces import (
    LINE_BYTES,
    AccessError,
    BufferPort,
    Group,
    Hint,
    LocalRead,
    LocalWrite,
    UnitPort,
    group_tag,
    request_layout,
    response_layout,
)
from rtl.pe.strided import IndexReader, RowWalk, fill_walk, refuse, rotated
from rtl.pe.transfers import Transfers

TAGS = 192      # reads under way; this project's choice


def landing_layout(*, lines):
    """Where the answer to a read goes, kept by its tag."""
    return data.StructLayout({"start": 6, "count": 7, "line": range(lines),
                              "next_line": range(lines), "byte": 6, "slot": 1, "hint": Hint})


class DmaIn(wiring.Component):
    """Copies rows of bytes from memory to local memory: ``DMA_IN`` and ``GATHER``.

    Rows are cut at the lines of the memory; one read a cycle, up to 192 under way. Answers may come
    in any order. An answer is written in one cycle if its bytes lie in one local line, else in
    two, so a row with the same alignment on both sides moves one line a cycle. The reads of a job
    start 1 cycle after the last read of the job before it, and 3 cycles after the job is handed
    out (``GATHER``: 6); a write leaves 1 cycle after its answer. Rows of a ``GATHER`` may be one
    line short and still follow each other every cycle, but for one cycle in 17.
    Source: this project's choice.

    Bits 3:2 of word 1 are a :class:`rtl.pe.interfaces.Group`: other PEs read the same lines in the
    same order, and each line is fetched once for all. Such reads start when those before have been
    answered, and those after them likewise; up to 64 are under way. Not with ``GATHER``.

    Bits 1:0 of word 1 are a :class:`rtl.pe.interfaces.Hint`, which goes with every read. With
    ``PREFETCH`` nothing is written: the operand names any CB, and the job ends when the prefetches
    have been answered.

    A bit of word 1 above the group, a group of a ``GATHER``, a byte offset or a row stride (if
    there are several rows) of the whole CB or more, an address of more than 48 bits, no row, rows
    of no byte, and a ``GATHER`` whose index operand is all zeros are refused: ``BAD_FIELD``. So is
    an index at or past a limit in word 11 that is not zero, with field 12, when its row would
    begin. After an error response no more requests are issued; the fault, which names the line,
    follows when all under way have been answered. ``clear`` with requests under way is safe: their
    answers are dropped, and new jobs wait for the last of them.

    Parameters
    ----------
    lines : int
        Size of local memory [line].

    Members
    -------
    unit : Out(UnitPort())
        Commands. Counter word 4: lines requested, 5: bytes requested.
    buffers : Out(BufferPort(lines=lines))
        Operands: 0 destination (word 2, producer), 1 indices (word 12, consumer, ``GATHER``).
    index : Out(LocalRead(lines=lines))
        Reads of indices.
    local : Out(LocalWrite(lines=lines))
        Data.
    request : Out(stream.Signature(request_layout()))
        Reads, tags 0 to 191. Registered; not withdrawn, whatever happens.
    response : In(stream.Signature(response_layout()))
        Their answers, in any order.
    outstanding : Out(1)
        A request was made (maybe not yet accepted) and its data are not yet in local memory.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
            "index": Out(LocalRead(lines=lines)), "local": Out(LocalWrite(lines=lines)),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())), "outstanding": Out(1)})

    def elaborate(self, platform):
        outer, m = Module(), Module()
        outer.submodules.frontend = frontend = UnitFrontend(lines=self.lines, operands=[
            OperandField(2, producer=True), OperandField(12, optional=True)])
        outer.submodules.core = DomainRenamer("work")(m)
        gated_domain(outer, name="work", enable=ResetSignal("sync") | self.unit.clear
                           | self.unit.launch | frontend.working | self.outstanding)
        m.submodules.transfers = transfers = Transfers(tags=TAGS)
        walk, reader = RowWalk(lines=self.lines, indexed=True), IndexReader(lines=self.lines)
        m.submodules.walk = ResetInserter(self.unit.clear)(walk)
        m.submodules.reader = ResetInserter(self.unit.clear)(reader)
        connect(outer, frontend.unit, flipped(self.unit))
        connect(outer, frontend.buffers, flipped(self.buffers))
        connect(m, reader.local, flipped(self.index))
        connect(m, reader.o, walk.indices)
        self._begin(m, frontend, transfers, walk, reader)
        landing = self._ask(m, transfers, walk)
        self._land(m, transfers, landing)

        moved = ((self.request.valid & self.request.ready)
                 | (self.response.valid & self.response.ready)
                 | (self.local.o.valid & self.local.o.ready))
        stalled = self.request.valid | self.local.o.valid
        m.d.comb += [
            transfers.clear.eq(self.unit.clear), transfers.launch.eq(self.unit.launch),
            frontend.done.eq(transfers.done), frontend.fault.eq(transfers.fault),
            frontend.active.eq(moved), frontend.blocked.eq(~moved & stalled),
            frontend.starved.eq(transfers.open & ~moved & ~stalled),
            frontend.extra[0].eq(transfers.moved_lines),
            frontend.extra[1].eq(transfers.moved_bytes),
            self.outstanding.eq(transfers.outstanding),
        ]
        return outer

    def _begin(self, m, frontend, transfers, walk, reader):
        """A job from the frontend goes to the walk, and its indices to the reader."""
        job, index = frontend.job.payload, frontend.job.payload.grants[1]
        fields, bad = fill_walk(job, walk.i.payload, job.grants[0], index=index, hints=Hint,
                                groups=Group)
        bad.append((1, walk.i.payload.indexed & (walk.i.payload.group != Group.ALONE)))
        refuse(m, transfers.refused, bad)
        indexed = walk.i.payload.indexed
        offered = frontend.job.valid & transfers.free
        taken = walk.i.ready & (reader.i.ready | ~indexed)
        m.d.comb += fields
        m.d.comb += [
            walk.i.payload.slot.eq(transfers.slot),
            reader.i.payload.line.eq(index.start), reader.i.payload.base.eq(index.base),
            reader.i.payload.limit.eq(index.limit), reader.i.payload.count.eq(walk.i.payload.rows),
            frontend.job.ready.eq(transfers.free & (transfers.refused.valid | taken)),
            walk.i.valid.eq(offered & ~transfers.refused.valid & (reader.i.ready | ~indexed)),
            reader.i.valid.eq(offered & ~transfers.refused.valid & indexed & walk.i.ready),
            transfers.begin.eq(frontend.job.valid & frontend.job.ready),
        ]

    def _ask(self, m, transfers, walk):
        """Chunks become requests; gives the read port of the landing places."""
        m.submodules.landings = landings = memory.Memory(
            shape=landing_layout(lines=self.lines), depth=TAGS, init=[])
        write, read = landings.write_port(), landings.read_port(domain="comb")
        chunk, request = walk.o.payload, self.request
        m.d.comb += [
            walk.o.ready.eq(transfers.tag_free & ~chunk.stray
                            & (~request.valid | request.ready)),
            transfers.stray.eq(walk.o.valid & chunk.stray & transfers.tag_free),
            transfers.stray_slot.eq(chunk.slot),
            transfers.issue.eq(walk.o.valid & walk.o.ready),
            transfers.shared.eq(chunk.group != Group.ALONE),
            transfers.shared_tag.eq(group_tag(chunk.address)),
            transfers.issue_slot.eq(chunk.slot), transfers.issue_last.eq(chunk.last),
            transfers.issue_bytes.eq(chunk.count), transfers.issue_line.eq(chunk.address[6:]),
            write.en.eq(transfers.issue), write.addr.eq(transfers.tag),
            read.addr.eq(self.response.payload.tag),
        ]
        m.d.comb += [write.data[name].eq(chunk[name]) for name, _ in write.data.shape()]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(transfers.issue):
            m.d.sync += [request.valid.eq(1), request.payload.address.eq(chunk.address),
                         request.payload.tag.eq(transfers.tag),
                         request.payload.hint.eq(chunk.hint),
                         request.payload.group.eq(chunk.group)]
        return read

    def _land(self, m, transfers, landing):
        """Answers are turned to the local alignment and written."""
        out, answer, at = self.local.o, self.response.payload, landing.data
        held, skip, slot, more = Signal(), Signal(), Signal(), Signal()
        tag = Signal.like(transfers.tag)
        error, next_line, next_mask = (Signal(AccessError), Signal(range(self.lines)),
                                       Signal(LINE_BYTES))
        mask = Signal(2 * LINE_BYTES)
        ended = held & (skip | (out.ready & ~more))
        m.d.comb += [
            out.valid.eq(held & ~skip),
            self.response.ready.eq(~held | ended),
            mask.eq((((1 << at.count) - 1) << at.byte)[:2 * LINE_BYTES]),
            transfers.answer.eq(self.response.valid & self.response.ready),
            transfers.answer_tag.eq(answer.tag), transfers.pending.eq(held),
            transfers.retire.eq(ended), transfers.retire_slot.eq(slot),
            transfers.retire_error.eq(error), transfers.retire_tag.eq(tag),
        ]
        with m.If(ended):
            m.d.sync += held.eq(0)
        with m.Elif(out.valid & out.ready):
            m.d.sync += [more.eq(0), out.payload.address.eq(next_line),
                         out.payload.mask.eq(next_mask)]
        with m.If(transfers.answer):
            m.d.sync += [
                held.eq(1), slot.eq(at.slot), tag.eq(answer.tag), error.eq(answer.error),
                skip.eq((answer.error != AccessError.NONE) | transfers.discard | self.unit.clear
                        | (at.hint == Hint.PREFETCH)),
                out.payload.data.eq(rotated(answer.data, (at.start - at.byte)[:6])),
                out.payload.address.eq(at.line), out.payload.mask.eq(mask[:LINE_BYTES]),
                next_line.eq(at.next_line), next_mask.eq(mask[LINE_BYTES:]),
                more.eq(mask[LINE_BYTES]),
            ]
