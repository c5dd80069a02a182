"""Reduction engine: finished columns, plus earlier partial sums, into local memory."""
from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.clockgate import gated_domain
from rtl.common.fp32 import Adder
from rtl.common.place import Place
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
from rtl.pe.operand_tensor import stride_fits

DEPTH = 4       # lines under way: covers read, add and write at a line a cycle
LANES = 16      # FP32 values of a line


class LineAdder(wiring.Component):
    """Adds two lines as 16 FP32 values each, every one rounded to nearest even.

    Latency is 1 cycle (the operands are registered), throughput a line a cycle.

    Members
    -------
    line, old : In(512)
        Terms.
    o : Out(512)
        Sums of the terms of the cycle before.
    """

    line: In(LINE_BITS)
    old: In(LINE_BITS)
    o: Out(LINE_BITS)

    def elaborate(self, platform):
        m = Module()
        line, old = Signal(LINE_BITS), Signal(LINE_BITS)
        m.d.sync += [line.eq(self.line), old.eq(self.old)]
        sums = []
        for i in range(LANES):
            m.submodules[f"add{i}"] = adder = Place(Adder())
            m.d.comb += [adder.a.eq(old.word_select(i, 32)), adder.b.eq(line.word_select(i, 32))]
            sums.append(adder.o)
        m.d.comb += self.o.eq(Cat(sums))
        return m


class ReductionEngine(wiring.Component):
    """Carries out the second half of ``DOT``: writes a line for each column, or adds to one.

    Throughput is a line a cycle, with ``accumulate`` too; one cycle is lost between jobs. A line is
    offered to local memory 1 cycle after it came, with ``accumulate`` 3 cycles. A line is not read
    before an earlier write to it was accepted.
    The command is refused with ``BAD_FIELD`` for word 8 (no columns) or 10 (stride). Counters:
    busy, a line comes or is written; starved, no column is finished; blocked, local memory
    refuses; word 4, lines written.

    Parameters
    ----------
    lines : int
        Size of local memory [line].

    Members
    -------
    unit : Out(UnitPort())
        From the command processor; takes the same ``DOT`` commands as the dot-product engine.
    buffers : Out(BufferPort(lines=lines))
        To the table of circular buffers; operand 6 alone.
    i : In(stream.Signature(512))
        Finished columns, from the dot-product engine.
    source : Out(LocalRead(lines=lines))
        Earlier sums.
    destination : Out(LocalWrite(lines=lines))
        Columns.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
            "i": In(stream.Signature(LINE_BITS)), "source": Out(LocalRead(lines=lines)),
            "destination": Out(LocalWrite(lines=lines))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.frontend = frontend = UnitFrontend(
            lines=self.lines, operands=[OperandField(6, producer=True)])
        connect(m, flipped(self.unit), frontend.unit)
        connect(m, flipped(self.buffers), frontend.buffers)
        core = Module()
        m.submodules.core = ResetInserter(self.unit.clear)(core)

        # Lines under way, in order: each has its slot from the cycle in which it is taken.
        count, head, tail = Signal(range(DEPTH + 1)), Signal(range(DEPTH)), Signal(range(DEPTH))
        pending, filled, final = Signal(DEPTH), Signal(DEPTH), Signal(DEPTH)
        places = Array(Signal(range(self.lines), name=f"place{i}") for i in range(DEPTH))
        core.submodules.store = store = memory.Memory(shape=LINE_BITS, depth=DEPTH, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")

        open_, accumulate, at, ends = self._walk(core, frontend, count)
        take = self.i.valid & self.i.ready
        conflict = Cat(pending[i] & (places[i] == at) for i in range(DEPTH)).any()
        room = open_ & (count != DEPTH)
        reading, adding = Signal(), Signal()        # the earlier sum arrives; it is added
        reading_slot, adding_slot = Signal(range(DEPTH)), Signal(range(DEPTH))
        address = self.source.address
        core.d.comb += [
            address.valid.eq(self.i.valid & room & accumulate & ~conflict),
            address.payload.eq(at),
            self.i.ready.eq(Mux(accumulate, address.valid & address.ready, room & ~adding)),
        ]
        core.d.sync += [reading.eq(take & accumulate), adding.eq(reading),
                        adding_slot.eq(reading_slot)]
        waiting = Signal(LINE_BITS)                 # a new line waits for the earlier sum
        with core.If(take & accumulate):
            core.d.sync += [waiting.eq(self.i.payload), reading_slot.eq(head)]

        gated_domain(core, name="adder", enable=ResetSignal("sync") | reading)
        core.submodules.adder = adder = Place(LineAdder(), domain="adder")
        core.d.comb += [
            adder.line.eq(waiting), adder.old.eq(self.source.data),
            write.en.eq(adding | (take & ~accumulate)),
            write.addr.eq(Mux(adding, adding_slot, head)),
            write.data.eq(Mux(adding, adder.o, self.i.payload)),
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
            frontend.starved.eq(open_ & ~self.i.valid & (count == 0)),
            frontend.blocked.eq(open_ | (count != 0)),
        ]
        core.d.sync += [
            count.eq(count + take - written), head.eq(head + take), tail.eq(tail + written)]
        for i in range(DEPTH):
            with core.If(take & (head == i)):
                core.d.sync += [places[i].eq(at), final[i].eq(ends), pending[i].eq(1)]
            with core.Elif(written & (tail == i)):
                core.d.sync += pending[i].eq(0)
            with core.If(write.en & (write.addr == i)):
                core.d.sync += filled[i].eq(1)
            with core.Elif(written & (tail == i)):
                core.d.sync += filled[i].eq(0)

        total = frontend.extra[0]
        with m.If(self.unit.launch):
            m.d.sync += total.eq(0)
        with m.Elif(written):
            m.d.sync += total.eq(total + 1)
        return m

    def _walk(self, m, frontend, count):
        """The job under way and the place of its next column."""
        words = [frontend.job.payload.command[32 * i:32 * (i + 1)] for i in range(16)]
        columns, job_stride = words[8][:16], words[10][:16]
        grant = frontend.job.payload.grants[0]
        open_, accumulate, refused = Signal(), Signal(), Signal()
        limit, size = Signal(range(self.lines + 1)), Signal(range(self.lines + 1))
        at, left, stride = Signal(range(self.lines)), Signal(16), Signal(16)
        target = Signal(17)
        take = self.i.valid & self.i.ready
        ends = left == 1
        bad_size = columns == 0
        bad = bad_size | ~stride_fits(job_stride, grant, columns)
        m.d.comb += [
            target.eq(at + stride),
            frontend.job.ready.eq(~open_ & ~refused),
            frontend.fault.valid.eq(refused & (count == 0)),
            frontend.fault.code.eq(ErrorCode.BAD_FIELD),
        ]
        with m.If(frontend.job.valid & frontend.job.ready):
            m.d.sync += [
                open_.eq(~bad), refused.eq(bad), frontend.fault.field.eq(Mux(bad_size, 8, 10)),
                accumulate.eq(words[1][9]), at.eq(grant.start), left.eq(columns),
                stride.eq(job_stride), limit.eq(grant.limit), size.eq(grant.limit - grant.base)]
        with m.Elif(take):
            m.d.sync += [left.eq(left - 1), open_.eq(~ends),
                         at.eq(Mux(target >= limit, target - size, target))]
        return open_, accumulate, at, ends
