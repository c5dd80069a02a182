"""Frames on their way out: header, payload, checksum."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.common.select import part_of
from rtl.link.crc import CRC_BITS, INITIAL, crc_next
from rtl.net.interfaces import (
    BEAT_BITS,
    HEADER_BEATS,
    QP_BITS,
    beat_layout,
    header_layout,
)
from rtl.net.nic.fetch import payload_beat_layout


class FrameSender(wiring.Component):
    """Makes beats of headers and payloads, with a CRC-32C behind them.

    Latency is 1 cycle from a header to its first beat, throughput a beat a cycle; between frames
    there is no gap. A frame whose payload has an error gets a wrong checksum.

    Members
    -------
    header : In(stream.Signature(header_layout()))
        ``length`` bytes of payload follow it.
    payload : In(stream.Signature(payload_beat_layout()))
        Beats of the payloads.
    o : Out(stream.Signature(beat_layout()))
        Frames.
    failed, failed_qp : Out(1), Out(16)
        High for one cycle at the end of a frame whose payload had an error; its ``source_qp``.
    active : Out(1)
        A frame is under way.
    """

    header: In(stream.Signature(header_layout()))
    payload: In(stream.Signature(payload_beat_layout()))
    o: Out(stream.Signature(beat_layout()))
    failed: Out(1)
    failed_qp: Out(QP_BITS)
    active: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(beat_layout())
        connect(m, queue.o, flipped(self.o))
        header, beat, payload = self.header.payload, queue.i.payload, self.payload.payload
        at, crc, bad = Signal(range(HEADER_BEATS)), Signal(CRC_BITS, init=INITIAL), Signal()
        sent = queue.i.valid & queue.i.ready
        body = Signal(BEAT_BITS)
        m.d.comb += [body.eq(beat.data), self.active.eq(
            self.header.valid | self.o.valid)]
        with m.If(sent):
            m.d.sync += crc.eq(crc_next(crc, body))
        with m.FSM():
            with m.State("HEADER"):
                padded = Cat(header.as_value(), C(0, BEAT_BITS))
                m.d.comb += [queue.i.valid.eq(self.header.valid), beat.data.eq(part_of(padded, at))]
                with m.If(sent):
                    m.d.sync += at.eq(at + 1)
                    with m.If(at == HEADER_BEATS - 1):
                        m.d.sync += at.eq(0)
                        m.next = "TRAILER"
                        with m.If(header.length != 0):
                            m.next = "PAYLOAD"
            with m.State("PAYLOAD"):
                m.d.comb += [queue.i.valid.eq(self.payload.valid), beat.data.eq(payload.data),
                             self.payload.ready.eq(queue.i.ready)]
                with m.If(sent):
                    m.d.sync += bad.eq(bad | payload.error)
                    with m.If(payload.last):
                        m.next = "TRAILER"
            with m.State("TRAILER"):
                m.d.comb += [queue.i.valid.eq(1), beat.last.eq(1),
                             beat.data.eq(Mux(bad, crc, ~crc)),
                             self.header.ready.eq(queue.i.ready),
                             self.failed.eq(bad & queue.i.ready), self.failed_qp.eq(
                                 header.source_qp)]
                with m.If(sent):
                    m.d.sync += [crc.eq(INITIAL), bad.eq(0)]
                    m.next = "HEADER"
        return m
