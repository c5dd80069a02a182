"""Copies from a die to host memory."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.link.interfaces import SlotKind, response_layout
from rtl.pe.interfaces import LINE_BITS, AccessError, ErrorCode, error_code

from .axi import Bursts, beat_layout, burst_layout
from .jobs import copy_ended, copy_layout, done_layout, line_of, request_layout
from .realigner import Realigner, lines_of


class CopyOut(wiring.Component):
    """Reads lines of a die, shifts the bytes into place, writes host memory in bursts.

    One copy at a time; responses may come in any order. Throughput is one line a cycle less a
    cycle for each burst of 16, if ``2**tag_bits`` reads cover the round trip to the die. After an
    error of the die nothing more is written (the bursts go on, with no byte selected); ``done``
    names the line of the first error, or the burst that the host's memory refused.

    Parameters
    ----------
    tag_bits : int
        log2 of the reads that may be outstanding; the top bit of their tags is 0.

    Members
    -------
    job, done, request, response, response_valid, lost, active
        As in :class:`CopyIn`, with reads.
    writes, beats : Out(stream.Signature(...))
        See :class:`AxiMaster`.
    written, written_error : In(1)
        A burst was answered, and with an error.
    """

    def __init__(self, *, tag_bits=7):
        self.tag_bits = tag_bits
        super().__init__({
            "job": In(stream.Signature(copy_layout())),
            "done": Out(stream.Signature(done_layout())),
            "writes": Out(stream.Signature(burst_layout())),
            "beats": Out(stream.Signature(beat_layout())),
            "written": In(1), "written_error": In(1),
            "request": Out(stream.Signature(request_layout())),
            "response": In(response_layout()), "response_valid": In(1), "lost": In(16),
            "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bursts = bursts = Bursts()
        m.submodules.realigner = realigner = Realigner()
        job, outcome, start = Signal(copy_layout()), Signal(done_layout()), Signal()
        die, given, out = job.device[-4:], self.job.payload, realigner.o.payload
        dead = Signal()
        m.d.comb += dead.eq(self.lost.bit_select(die, 1))
        idle_reads, asked_line = self._read(m, realigner, start=start, die=die, dead=dead)
        ok = outcome.code == ErrorCode.OK

        # Bursts, their beats, and the answers to them.
        left, open_, unanswered = Signal(4), Signal(), Signal(8)
        issued = self.writes.valid & self.writes.ready
        beat = self.beats.valid & self.beats.ready
        failed = out.error | ~ok | dead
        m.d.comb += [
            bursts.i.valid.eq(start),
            bursts.i.payload.address.eq(Cat(Const(0, 6), given.host[6:])),
            bursts.i.payload.lines.eq(lines_of(given.host[:6], given.bytes)),
            realigner.start.valid.eq(start), realigner.start.payload.source.eq(given.device),
            realigner.start.payload.target.eq(given.host),
            realigner.start.payload.count.eq(given.bytes),
            self.writes.payload.eq(bursts.o.payload),
            self.writes.valid.eq(bursts.o.valid & ~open_ & ~unanswered[-1] & realigner.o.valid),
            bursts.o.ready.eq(self.writes.ready & ~open_ & ~unanswered[-1] & realigner.o.valid),
            self.beats.valid.eq(open_ & realigner.o.valid),
            realigner.o.ready.eq(open_ & self.beats.ready),
            self.beats.payload.data.eq(out.data), self.beats.payload.last.eq(left == 0),
            self.beats.payload.strobe.eq(Mux(failed, 0, out.mask))]
        with m.If(issued):
            m.d.sync += [open_.eq(1), left.eq(bursts.o.payload.length)]
        with m.If(beat):
            m.d.sync += [left.eq(left - 1), open_.eq(left != 0)]
        m.d.sync += unanswered.eq(unanswered + issued - self.written)

        burst = Signal(58)      # line of the host at which the next burst to be answered begins
        with m.If(self.written):
            m.d.sync += burst.eq(Cat(Const(0, 4), burst[4:] + 1))
        wrong = (self.response_valid & ~self.response.tag[7]
                 & (self.response.error != AccessError.NONE))
        with m.If(ok & (wrong | self.written & self.written_error)):
            m.d.sync += [
                outcome.code.eq(Mux(wrong, error_code(self.response.error),
                                    ErrorCode.BAD_ADDRESS)),
                outcome.host.eq(~wrong),
                outcome.address.eq(Mux(wrong, asked_line, burst) << 6)]
        m.d.comb += copy_ended(self.done.payload, outcome, dead)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += [self.job.ready.eq(1), start.eq(self.job.valid)]
                with m.If(self.job.valid):
                    m.d.sync += [job.eq(given), outcome.eq(0), outcome.stream.eq(given.stream),
                                 burst.eq(given.host[6:])]
                    m.next = "MOVE"
            with m.State("MOVE"):
                with m.If(beat & out.last):
                    m.next = "AWAIT"
            with m.State("AWAIT"):
                with m.If((unanswered == 0) & (idle_reads | dead)):
                    m.next = "TELL"
            with m.State("TELL"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"
        m.d.comb += self.active.eq(~fsm.ongoing("IDLE") | ~idle_reads)
        return m

    def _read(self, m, realigner, *, start, die, dead):
        """Ask for lines ahead, keep what comes at the place of its tag, give it on in order.

        Gives "nothing is asked for or kept" and the line of the present response.
        """
        m.submodules.lines = memory = Memory(
            shape=data.StructLayout({"data": LINE_BITS, "error": 1}), depth=1 << self.tag_bits,
            init=[])
        write, read = memory.write_port(), memory.read_port()
        here = Signal(1 << self.tag_bits)           # lines that have come
        tail, head = Signal(self.tag_bits), Signal(self.tag_bits)
        count = Signal(self.tag_bits + 1)           # tags in use
        line, left, ready = Signal(42), Signal(28), Signal()
        given, slot = self.job.payload, self.request.payload.slot
        asked = (left != 0) & ~count[-1] & (dead | self.request.ready)
        tag = self.response.tag[:self.tag_bits]
        come = self.response_valid & ~self.response.tag[7]

        m.d.comb += [
            self.request.valid.eq((left != 0) & ~count[-1] & ~dead),
            self.request.payload.die.eq(die), slot.kind.eq(SlotKind.READ),
            slot.body.read.address.eq(Cat(Const(0, 6), line)), slot.body.read.tag.eq(tail),
            write.en.eq(come), write.addr.eq(tag), write.data.data.eq(self.response.data),
            write.data.error.eq(self.response.error != AccessError.NONE)]
        with m.If(come):
            m.d.sync += here.bit_select(tag, 1).eq(1)
        with m.If(start):
            m.d.sync += [line.eq(given.device[6:]),
                         left.eq(lines_of(given.device[:6], given.bytes)), here.eq(0)]
        with m.Elif(asked):
            m.d.sync += [line.eq(line + 1), left.eq(left - 1), tail.eq(tail + 1)]

        taken = ready & realigner.i.ready
        fetch = (count != 0) & (here.bit_select(head, 1) | dead) & (~ready | taken)
        m.d.comb += [read.addr.eq(head), read.en.eq(fetch), realigner.i.payload.eq(read.data),
                     realigner.i.valid.eq(ready)]
        m.d.sync += [count.eq(count + asked - fetch), ready.eq(fetch | ready & ~taken)]
        with m.If(fetch):
            m.d.sync += [here.bit_select(head, 1).eq(0), head.eq(head + 1)]
        return (count == 0) & (left == 0), line_of(line, tail, tag)
