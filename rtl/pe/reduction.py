"""Reduction engine: finished columns, plus earlier partial sums, into local memory."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.attention.interfaces import factors_layout
from rtl.common.clockgate import gated_domain
from rtl.common.isa import OPCODE, Opcode
from rtl.pe.frontend import OperandField, UnitFrontend
from rtl.pe.interfaces import (
    LINE_BITS,
    LINE_BYTES,
    BufferPort,
    ErrorCode,
    LocalRead,
    LocalWrite,
    UnitPort,
)
from rtl.pe.line_path import LinePath
from rtl.pe.operand_tensor import stride_fits

# Lines under way. A line holds its slot from the cycle in which it is taken to that in which it
# is offered, at the earliest its latency later: at a line a cycle, latency + 1 slots.
DOT_DEPTH = 3 + 1       # read, add
WEIGH_DEPTH = 5 + 1     # read, factor, add, inverse


class ReductionEngine(wiring.Component):
    """Carries out the second half of ``DOT``: writes a line for each column, or adds to one.

    With ``attention`` also that of ``WEIGH``, for each column or each two. With accumulate, the
    earlier line is multiplied by ``factor`` and the new one added; the line of a last block is then
    multiplied by ``inverse``. Every operation is rounded. Where no factor has ``moved`` from 1.0
    the first product is left out, which changes no bit: the adder makes NaN canonical too.

    Throughput is a line a cycle, with ``accumulate`` too; one cycle is lost between jobs. A line is
    offered to local memory 1 cycle after it came, 2 more with ``accumulate``, 1 more where factors
    have ``moved``, 1 more in a last block. A line that would overtake one of the job before waits.
    A line is not read before an earlier write to it was accepted. A ``WEIGH`` takes no line before
    its ``factors`` are there, and lets them go the cycle after its last line came, in a last block
    with accumulate 1 cycle later, or 2 where factors have ``moved``; the next ``WEIGH`` takes a
    line the cycle after that at the earliest.

    The command is refused with ``BAD_FIELD`` for word 8 (no columns) or 10 (stride). Counters:
    busy, a line comes or is written; starved, no column is finished or no factors are there;
    blocked, local memory refuses; word 4, lines written.

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
        To the table of circular buffers; operand 6 alone.
    i : In(stream.Signature(512))
        Finished columns, from the dot-product engine.
    source : Out(LocalRead(lines=lines))
        Earlier sums.
    destination : Out(LocalWrite(lines=lines))
        Columns.
    factors : In(stream.Signature(factors_layout()))
        One entry for each ``WEIGH``, from the softmax unit; only with ``attention``.
    """

    def __init__(self, *, lines, attention=False):
        self.lines = lines
        self.attention = attention
        self.depth = WEIGH_DEPTH if attention else DOT_DEPTH
        members = {
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
            "i": In(stream.Signature(LINE_BITS)), "source": Out(LocalRead(lines=lines)),
            "destination": Out(LocalWrite(lines=lines))}
        if attention:
            members["factors"] = In(stream.Signature(factors_layout()))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(
            lines=self.lines, operands=[OperandField(6, producer=True)])
        connect(m, flipped(self.unit), frontend.unit)
        connect(m, flipped(self.buffers), frontend.buffers)
        core = Module()
        m.submodules.core = DomainRenamer("work")(ResetInserter(self.unit.clear)(core))

        # Lines under way, in order: each has its slot from the cycle in which it is taken.
        depth = self.depth
        count, head, tail = Signal(range(depth + 1)), Signal(range(depth)), Signal(range(depth))
        pending, filled, final = Signal(depth), Signal(depth), Signal(depth)
        places = Array(Signal(range(self.lines), name=f"place{i}") for i in range(depth))
        core.submodules.store = store = memory.Memory(shape=LINE_BITS, depth=depth, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")

        open_, kind, at, ends = self._walk(core, frontend, count)
        take = self.i.valid & self.i.ready
        conflict = Cat(pending[i] & (places[i] == at) for i in range(depth)).any()
        core.submodules.path = path = LinePath(depth=depth, attention=self.attention)
        supplied = self._supply(core, path, kind, take & ends)
        room = open_ & (count != depth) & path.in_order & supplied
        address = self.source.address
        core.d.comb += [
            address.valid.eq(self.i.valid & room & kind.accumulate & ~conflict),
            address.payload.eq(at),
            self.i.ready.eq(Mux(kind.accumulate, address.valid & address.ready, room)),
            path.enter.eq(take), path.slot.eq(head), path.line.eq(self.i.payload),
            path.old.eq(self.source.data),
            write.en.eq(path.leave), write.addr.eq(path.o_slot), write.data.eq(path.o),
        ]

        output = self.destination.o
        written = output.valid & output.ready
        core.d.comb += [
            read.addr.eq(tail),
            output.valid.eq(filled.bit_select(tail, 1)),
            output.payload.address.eq(places[tail]),
            output.payload.data.eq(read.data),
            output.payload.mask.eq((1 << LINE_BYTES) - 1),
            frontend.done.eq(written & final.bit_select(tail, 1)),
            frontend.active.eq(take | written),
            frontend.starved.eq(open_ & ~(self.i.valid & supplied) & (count == 0)),
            frontend.blocked.eq(open_ | (count != 0)),
        ]
        core.d.sync += count.eq(count + take - written)
        for pointer, moves in ((head, take), (tail, written)):
            with core.If(moves):
                core.d.sync += pointer.eq(Mux(pointer == depth - 1, 0, pointer + 1))
        for i in range(depth):
            with core.If(take & (head == i)):
                core.d.sync += [places[i].eq(at), final[i].eq(ends), pending[i].eq(1)]
            with core.Elif(written & (tail == i)):
                core.d.sync += pending[i].eq(0)
            with core.If(write.en & (write.addr == i)):
                core.d.sync += filled[i].eq(1)
            with core.Elif(written & (tail == i)):
                core.d.sync += filled[i].eq(0)

        moves, moved = frontend.job.valid | self.i.valid | (count != 0), Signal()
        m.d.sync += moved.eq(moves)     # a cycle more: every stage is empty then
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.unit.clear | moves | moved)
        total = frontend.extra[0]
        with m.If(self.unit.launch):
            m.d.sync += total.eq(0)
        with m.Elif(written):
            m.d.sync += total.eq(total + 1)
        return m

    def _supply(self, m, path, kind, ended):
        """Tells the path what a line needs; gives whether the job has its factors.

        ``ended``: the job's last line is taken. Its factors stay until no line will need them.
        """
        m.d.comb += [path.kind.accumulate.eq(kind.accumulate), path.kind.last.eq(kind.last)]
        if not self.attention:
            return C(1)
        factors, owed = self.factors, Signal()
        m.d.comb += [
            path.kind.moved.eq(kind.weigh & kind.accumulate & factors.payload.moved),
            path.factor.eq(factors.payload.factor), path.inverse.eq(factors.payload.inverse),
            factors.ready.eq(owed & ~path.needs_inverse),
        ]
        with m.If(ended & kind.weigh):
            m.d.sync += owed.eq(1)
        with m.Elif(factors.ready):
            m.d.sync += owed.eq(0)
        return ~kind.weigh | (factors.valid & ~owed)

    def _walk(self, m, frontend, count):
        """The job under way, what its lines need, and the place of the next of them."""
        words = [frontend.job.payload.command[32 * i:32 * (i + 1)] for i in range(16)]
        columns, job_stride = words[8][:16], words[10][:16]
        grant = frontend.job.payload.grants[0]
        open_, refused = Signal(), Signal()
        kind = Signal(data.StructLayout({"accumulate": 1, "weigh": 1, "last": 1}))
        weigh = words[0][OPCODE] == Opcode.WEIGH if self.attention else C(0)
        rows = Mux(weigh & words[1][10], (columns + 1) >> 1, columns)   # two columns a line
        limit, size = Signal(range(self.lines + 1)), Signal(range(self.lines + 1))
        at, left, stride = Signal(range(self.lines)), Signal(16), Signal(16)
        target = Signal(17)
        take = self.i.valid & self.i.ready
        ends = left == 1
        bad_size = columns == 0
        bad = bad_size | ~stride_fits(job_stride, grant, rows)
        m.d.comb += [
            target.eq(at + stride),
            frontend.job.ready.eq(~open_ & ~refused),
            frontend.fault.valid.eq(refused & (count == 0)),
            frontend.fault.code.eq(ErrorCode.BAD_FIELD),
        ]
        with m.If(frontend.job.valid & frontend.job.ready):
            m.d.sync += [
                open_.eq(~bad), refused.eq(bad), frontend.fault.field.eq(Mux(bad_size, 8, 10)),
                kind.eq(Cat(words[1][9], weigh, weigh & words[1][12])),
                at.eq(grant.start), left.eq(rows),
                stride.eq(job_stride), limit.eq(grant.limit), size.eq(grant.limit - grant.base)]
        with m.Elif(take):
            m.d.sync += [left.eq(left - 1), open_.eq(~ends),
                         at.eq(Mux(target >= limit, target - size, target))]
        return open_, kind, at, ends
