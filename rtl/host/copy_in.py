"""Copies from host memory to a die."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.link.interfaces import SlotKind, response_layout
from rtl.pe.interfaces import LINE_BITS, AccessError, ErrorCode, error_code

from .axi import Bursts, burst_layout
from .jobs import copy_ended, copy_layout, done_layout, line_of, request_layout
from .realigner import Realigner, lines_of


class CopyIn(wiring.Component):
    """Reads host memory in bursts, shifts the bytes into place, writes lines to the die.

    One copy at a time. Throughput is one line a cycle, if ``buffer_lines`` cover the latency of
    the host's memory and ``2**tag_bits`` writes the round trip to the die. After an error of
    either side nothing more is written; ``done`` names the line of the first.

    Parameters
    ----------
    buffer_lines : int
        Lines that may be asked for ahead [line].
    tag_bits : int
        log2 of the writes that may be outstanding; the top bit of their tags is 1.

    Members
    -------
    job : In(stream.Signature(copy_layout()))
        Copies.
    done : Out(stream.Signature(done_layout()))
        Their ends, in order.
    reads, beat, beat_valid
        See :class:`AxiMaster`.
    request : Out(stream.Signature(request_layout()))
        Writes.
    response, response_valid : In(response_layout()), In(1)
        Answers to writes.
    lost : In(16)
        Dies whose link is down: nothing is awaited from them.
    active : Out(1)
        While it is low, nothing changes until a job or a beat comes.
    """

    def __init__(self, *, buffer_lines=256, tag_bits=7):
        self.buffer_lines = buffer_lines
        self.tag_bits = tag_bits
        super().__init__({
            "job": In(stream.Signature(copy_layout())),
            "done": Out(stream.Signature(done_layout())),
            "reads": Out(stream.Signature(burst_layout())),
            "beat": In(data.StructLayout({"data": LINE_BITS, "error": 1})), "beat_valid": In(1),
            "request": Out(stream.Signature(request_layout())),
            "response": In(response_layout()), "response_valid": In(1), "lost": In(16),
            "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bursts = bursts = Bursts()
        m.submodules.realigner = realigner = Realigner()
        m.submodules.buffer = buffer = SyncFIFOBuffered(width=LINE_BITS + 1,
                                                        depth=self.buffer_lines)
        job, line = Signal(copy_layout()), Signal(42)
        outcome = Signal(done_layout())
        source, bad_source, spoilt = Signal(58), Signal(58), Signal()   # lines of the host
        tag, busy = Signal(self.tag_bits), Signal(1 << self.tag_bits)
        outstanding, reserved = Signal(self.tag_bits + 1), Signal(range(self.buffer_lines + 1))
        die = job.device[-4:]
        dead = self.lost.bit_select(die, 1)

        start, out = Signal(), realigner.o.payload
        asked = bursts.o.payload.length + 1
        roomy = reserved + asked <= self.buffer_lines
        given = self.job.payload
        m.d.comb += [
            bursts.i.valid.eq(start), bursts.i.payload.address.eq(
                Cat(Const(0, 6), given.host[6:])),
            bursts.i.payload.lines.eq(lines_of(given.host[:6], given.bytes)),
            realigner.start.valid.eq(start), realigner.start.payload.source.eq(given.host),
            realigner.start.payload.target.eq(given.device),
            realigner.start.payload.count.eq(given.bytes),
            self.reads.payload.eq(bursts.o.payload), self.reads.valid.eq(bursts.o.valid & roomy),
            bursts.o.ready.eq(self.reads.ready & roomy),
            buffer.w_data.eq(self.beat), buffer.w_en.eq(self.beat_valid),
            realigner.i.payload.eq(buffer.r_data), realigner.i.valid.eq(buffer.r_rdy),
            buffer.r_en.eq(realigner.i.ready)]
        m.d.sync += reserved.eq(
            reserved + Mux(self.reads.valid & self.reads.ready, asked, 0)
            - (buffer.r_rdy & buffer.r_en))

        slot = self.request.payload.slot
        ok = outcome.code == ErrorCode.OK
        drop = out.error | ~ok | dead
        free = ~busy.bit_select(tag, 1)
        sent = self.request.valid & self.request.ready
        m.d.comb += [
            self.request.valid.eq(realigner.o.valid & ~drop & free),
            realigner.o.ready.eq(drop | free & self.request.ready),
            self.request.payload.die.eq(die), slot.kind.eq(SlotKind.WRITE),
            slot.body.write.data.eq(out.data), slot.body.write.mask.eq(out.mask),
            slot.body.write.address.eq(Cat(Const(0, 6), line)),
            slot.body.write.tag.eq(Cat(tag, Const(1 << 7 - self.tag_bits, 8 - self.tag_bits)))]
        back = self.response.tag[:self.tag_bits]
        answered = self.response_valid & self.response.tag[7] & busy.bit_select(back, 1)
        m.d.sync += outstanding.eq(outstanding + sent - answered)
        with m.If(answered):
            m.d.sync += busy.bit_select(back, 1).eq(0)
        with m.If(sent):
            m.d.sync += [busy.bit_select(tag, 1).eq(1), tag.eq(tag + 1)]
        with m.If(realigner.o.valid & realigner.o.ready):
            m.d.sync += line.eq(line + 1)

        with m.If(realigner.i.valid & realigner.i.ready):
            m.d.sync += source.eq(source + 1)
            with m.If(realigner.i.payload.error & ~spoilt):
                m.d.sync += [spoilt.eq(1), bad_source.eq(source)]
        wrong = answered & (self.response.error != AccessError.NONE)
        with m.If(ok & (wrong | realigner.o.valid & out.error)):
            m.d.sync += [
                outcome.code.eq(Mux(wrong, error_code(self.response.error),
                                    ErrorCode.BAD_ADDRESS)),
                outcome.host.eq(~wrong),
                outcome.address.eq(Mux(wrong, line_of(line, tag, back), bad_source) << 6)]
        m.d.comb += copy_ended(self.done.payload, outcome, dead)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += [self.job.ready.eq(1), start.eq(self.job.valid)]
                with m.If(self.job.valid):
                    m.d.sync += [job.eq(given), line.eq(given.device[6:]), outcome.eq(0),
                                 outcome.stream.eq(given.stream), source.eq(given.host[6:]),
                                 spoilt.eq(0)]
                    m.next = "MOVE"
            with m.State("MOVE"):
                with m.If(realigner.o.valid & realigner.o.ready & out.last):
                    m.next = "AWAIT"
            with m.State("AWAIT"):
                with m.If((outstanding == 0) | dead):
                    m.next = "TELL"
            with m.State("TELL"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.d.sync += [busy.eq(0), outstanding.eq(0)]     # not zero if the die is lost
                    m.next = "IDLE"
        m.d.comb += self.active.eq(~fsm.ongoing("IDLE") | (buffer.level != 0))
        return m
