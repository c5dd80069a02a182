"""Reduction engine: finished columns, plus earlier partial sums, into local memory."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.attention.interfaces import factors_layout
from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.pe.frontend import UnitFrontend, events_since
from rtl.pe.interfaces import LINE_BITS, BufferPort, LocalRead, LocalWrite, UnitPort
from rtl.pe.line_path import LinePath
from rtl.pe.line_slots import LineSlots
from rtl.pe.reduction_command import OPERANDS
from rtl.pe.reduction_walk import ReductionWalk

# Lines under way. A line holds its slot from the cycle in which it is taken to that in which it
# is offered, at the earliest its latency later: at a line a cycle, latency + 1 slots.
DOT_DEPTH = 3 + 1       # read, add
WEIGH_DEPTH = 5 + 1     # read, factor, add, inverse
MINUS_ZERO = 0x80000000


class ReductionEngine(wiring.Component):
    """Carries out the second half of ``DOT``: writes a line for each column, or adds to one.

    With ``attention`` also that of ``WEIGH``, for each column or each two. With accumulate, the
    earlier line is multiplied by ``factor`` and the new one added; the line of a last block is then
    multiplied by ``inverse``. Every operation is rounded. Where no factor has ``moved`` from 1.0
    the first product is left out, which changes no bit: the adder makes NaN canonical too. After a
    block whose factors have ``state`` come two lines more: sums and maxima of the rows.

    ``REDUCE`` takes lines of the ring, of local memory, or the sums of both, and writes them or
    sends them on. No line is taken from the ring but for a command that wants it, so that nothing
    stays when a program is ended.

    Throughput is a line a cycle, with ``accumulate`` too; one cycle is lost between jobs. A line is
    offered to local memory or the ring 1 cycle after it came (from the ring: 2), 2 more with
    ``accumulate``, 1 more where factors have ``moved``, 1 more in a last block. A line that would
    overtake one of the job before waits. A line is not read before an earlier write to it was
    accepted. A ``WEIGH`` takes no line before its ``factors`` are there, and lets them go the cycle
    after its last line came, in a last block with accumulate 1 cycle later, or 2 where factors have
    ``moved``; the next ``WEIGH`` takes a line the cycle after that at the earliest.

    The command is refused with ``BAD_FIELD``, see :class:`ReductionDecoder`. Counters: busy, a line
    comes or is written; starved, no line or no factors are there; blocked, local memory or the ring
    refuses; word 4, lines written or sent.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    attention : bool
        Takes ``WEIGH`` too. Default: not.

    Members
    -------
    unit : Out(UnitPort())
        From the command processor; takes the same ``DOT`` and ``WEIGH`` commands as the
        dot-product engine.
    buffers : Out(BufferPort(lines=lines))
        To the table of circular buffers; operands 6 and 11.
    i : In(stream.Signature(512))
        Finished columns, from the dot-product engine.
    source : Out(LocalRead(lines=lines))
        Earlier sums.
    destination : Out(LocalWrite(lines=lines))
        Columns.
    ring_in : In(stream.Signature(512))
        Lines of the PE before. ``ready`` is a function of registers.
    ring_out : Out(stream.Signature(512))
        Lines for the PE after. A function of registers; withdrawn by ``unit.clear``.
    factors : In(stream.Signature(factors_layout()))
        One entry for each ``WEIGH``, two with ``state``, from the softmax unit; only with
        ``attention``.
    """

    def __init__(self, *, lines, attention=False):
        self.lines = lines
        self.attention = attention
        self.depth = WEIGH_DEPTH if attention else DOT_DEPTH
        members = {
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
            "i": In(stream.Signature(LINE_BITS)), "source": Out(LocalRead(lines=lines)),
            "destination": Out(LocalWrite(lines=lines)), "ring_in": In(stream.Signature(LINE_BITS)),
            "ring_out": Out(stream.Signature(LINE_BITS))}
        if attention:
            members["factors"] = In(stream.Signature(factors_layout()))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(lines=self.lines, operands=OPERANDS)
        connect(m, flipped(self.unit), frontend.unit)
        connect(m, flipped(self.buffers), frontend.buffers)
        core = Module()
        m.submodules.core = DomainRenamer("work")(ResetInserter(self.unit.clear)(core))
        core.submodules.walk = walk = ReductionWalk(lines=self.lines, attention=self.attention)
        core.submodules.slots = slots = LineSlots(lines=self.lines, depth=self.depth)
        core.submodules.path = path = LinePath(depth=self.depth, attention=self.attention)
        core.submodules.ring = ring = Queue(LINE_BITS)
        take, task = Signal(), walk.task
        connect(core, frontend.job, walk.job)
        core.d.comb += [
            walk.take.eq(take), walk.quiet.eq(slots.empty),
            frontend.fault.valid.eq(walk.fault.valid), frontend.fault.code.eq(walk.fault.code),
            frontend.fault.field.eq(walk.fault.field),
            ring.i.valid.eq(self.ring_in.valid & walk.wants),
            ring.i.payload.eq(self.ring_in.payload),
            self.ring_in.ready.eq(ring.i.ready & walk.wants),
            walk.received.eq(ring.i.valid & ring.i.ready),
        ]

        # where a line comes from: the array, the ring, nowhere (-0 is added to), the state
        line, offered = Signal(LINE_BITS), Signal()
        supplied = self._supply(core, walk, path, take)
        with core.If(walk.exports):
            core.d.comb += offered.eq(1)
            if self.attention:
                factors = self.factors.payload
                core.d.comb += line.eq(Mux(walk.ends, factors.factor, factors.inverse))
        with core.Elif(~task.reduce):
            core.d.comb += [offered.eq(self.i.valid), line.eq(self.i.payload)]
        with core.Elif(task.receive):
            core.d.comb += [offered.eq(ring.o.valid), line.eq(ring.o.payload)]
        with core.Else():
            core.d.comb += [offered.eq(1), line.eq(C(MINUS_ZERO, 32).replicate(LINE_BITS // 32))]
        adds = task.accumulate & ~walk.exports
        room = walk.open & slots.room & path.in_order & supplied
        address, read = self.source.address, Mux(task.reduce, walk.source, walk.place)
        goes = Mux(adds, address.valid & address.ready, room)
        core.d.comb += [
            slots.query.eq(read),
            address.valid.eq(offered & room & adds & ~slots.conflict), address.payload.eq(read),
            take.eq(offered & goes),
            self.i.ready.eq(goes & ~task.reduce & ~walk.exports),
            ring.o.ready.eq(goes & task.receive),
            slots.take.eq(take), slots.place.eq(walk.place), slots.send.eq(task.send),
            slots.final.eq(walk.ends & ~walk.continues),
            path.enter.eq(take), path.slot.eq(slots.head), path.line.eq(line),
            path.old.eq(self.source.data), slots.leave.eq(path.leave),
            slots.leave_slot.eq(path.o_slot), slots.leave_line.eq(path.o),
        ]
        connect(core, slots.destination, flipped(self.destination))
        connect(core, slots.ring, flipped(self.ring_out))
        written = slots.written
        core.d.comb += [
            frontend.done.eq(written & slots.ended), frontend.active.eq(take | written),
            frontend.starved.eq(walk.open & ~(offered & supplied) & slots.empty),
            frontend.blocked.eq(walk.open | ~slots.empty),
        ]
        moves, moved = Signal(), Signal()
        m.d.comb += moves.eq(
            frontend.job.valid | self.i.valid | ~slots.empty | walk.alone | ring.o.valid)
        m.d.sync += moved.eq(moves)     # a cycle more: every stage is empty then
        if self.attention:
            core.d.comb += path.rests.eq(~moves)
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.unit.clear | moves | moved)
        m.d.comb += frontend.extra[0].eq(events_since(m, self.unit.launch, written))
        return m

    def _supply(self, m, walk, path, take):
        """Tells the path what a line needs; gives whether the job has its factors.

        After a job's last line its factors stay until no line will need them.
        """
        task = walk.task
        m.d.comb += [path.kind.accumulate.eq(task.accumulate & ~walk.exports),
                     path.kind.last.eq(task.last & ~walk.exports)]
        if not self.attention:
            return C(1)
        factors, owed = self.factors, Signal()
        m.d.comb += [
            path.kind.moved.eq(path.kind.accumulate & task.weigh & factors.payload.moved),
            path.factor.eq(factors.payload.factor), path.inverse.eq(factors.payload.inverse),
            factors.ready.eq(owed & ~path.needs_inverse),
            walk.continues.eq(task.weigh & factors.payload.state & ~walk.exports),
        ]
        with m.If(take & walk.ends & task.weigh):
            m.d.sync += owed.eq(1)
        with m.Elif(factors.ready):
            m.d.sync += owed.eq(0)
        return ~task.weigh | (factors.valid & ~owed)
