"""Frames that come in: stored, checked, and only then told of."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.common.queue import Queue
from rtl.link.crc import CRC_BITS, INITIAL, crc_next
from rtl.net.interfaces import (
    BEAT_BITS,
    BEAT_BYTES,
    ETHER_TYPE,
    HEADER_BEATS,
    MAC_BITS,
    MTU_BYTES,
    header_layout,
)

MARK_BIT = 8 * 7    # of the second beat: byte 23 of the frame is under no checksum
WIRE_TYPE = int.from_bytes(ETHER_TYPE.to_bytes(2, "big"), "little")


def frame_counters_layout():
    """Frames since reset: taken; with a wrong checksum or form; for others; without a place."""
    return data.StructLayout({name: 32 for name in ("taken", "wrong", "foreign", "overflow")})


class FrameReceiver(wiring.Component):
    """Stores each frame, and gives it on once its checksum has proved right; others are dropped.

    Latency is 3 cycles from the last beat of a frame to its header, throughput a beat a cycle.
    A frame is dropped, and counted, whose checksum, type or length is wrong, that is for another
    address, or that finds no place. Nothing comes of it then.

    Parameters
    ----------
    beats : int
        Beats of payload that can wait. :exc:`ValueError` unless a power of two that holds two of
        the longest payloads.
    frames : int
        Frames that can wait.

    Members
    -------
    i_valid, i_data, i_last, i_error : In(1), In(128), In(1), In(1)
        Beats from the MAC; ``i_error`` at the last: the frame is wrong.
    mac : In(48)
        Address of this NIC.
    o : Out(stream.Signature(header_layout()))
        Headers of frames.
    payload : Out(stream.Signature(128))
        Their payloads: as many beats for each header as its ``length`` needs.
    counters : Out(frame_counters_layout())
        Counts.
    active : Out(1)
        A frame is here, or a part of one.
    """

    def __init__(self, *, beats=1024, frames=16):
        if not isinstance(beats, int) or beats & (beats - 1) or beats < 2 * MTU_BYTES // BEAT_BYTES:
            raise ValueError("Beats must be a power of two of at least "
                             f"{2 * MTU_BYTES // BEAT_BYTES}, not {beats!r}")
        self.beats, self.frames = beats, frames
        super().__init__({
            "i_valid": In(1), "i_data": In(BEAT_BITS), "i_last": In(1), "i_error": In(1),
            "mac": In(MAC_BITS), "o": Out(stream.Signature(header_layout())),
            "payload": Out(stream.Signature(BEAT_BITS)),
            "counters": Out(frame_counters_layout()), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        headers = SyncFIFOBuffered(width=header_layout().size, depth=self.frames)
        m.submodules.headers = headers
        written, committed, read = (Signal(range(2 * self.beats), name=name)
                                    for name in ("written", "committed", "taken"))
        part = self._take(m, headers, written, committed, read)
        waiting = self._give(m, committed, read)
        m.d.comb += [self.o.valid.eq(headers.r_rdy), headers.r_en.eq(self.o.ready),
                     self.o.payload.as_value().eq(headers.r_data),
                     self.active.eq(self.i_valid | part | waiting | (headers.level != 0))]
        return m

    def _take(self, m, headers, written, committed, read):
        """A frame comes in; gives whether a part of one is here."""
        m.submodules.store = self.store = Memory(shape=BEAT_BITS, depth=self.beats, init=[])
        write = self.store.write_port()
        header, count = Signal(header_layout()), Signal(range(HEADER_BEATS + self.beats))
        crc, lost = Signal(CRC_BITS, init=INITIAL), Signal()
        beat, full = Signal(BEAT_BITS), (written - read)[:len(read)] == self.beats
        in_header = count < HEADER_BEATS
        m.d.comb += [
            beat.eq(self.i_data), write.addr.eq(written), write.data.eq(self.i_data),
            write.en.eq(self.i_valid & ~in_header & ~self.i_last & ~full)]
        with m.If(count == 1):
            m.d.comb += beat[MARK_BIT:MARK_BIT + 8].eq(0)
        with m.If(self.i_valid):
            m.d.sync += [count.eq(Mux(count == HEADER_BEATS + self.beats - 1, count, count + 1)),
                         crc.eq(crc_next(crc, beat)), written.eq(written + write.en)]
            with m.If(in_header):
                m.d.sync += header.as_value().eq(Cat(header.as_value()[BEAT_BITS:], self.i_data))
            with m.Elif(full & ~self.i_last):
                m.d.sync += lost.eq(1)
        self._judge(m, headers, header, crc, lost, count, written, committed)
        return count != 0

    def _judge(self, m, headers, header, crc, lost, count, written, committed):
        """At its last beat a frame is taken or dropped."""
        payload_beats = (header.length[:16] + BEAT_BYTES - 1) >> 4
        fits = (header.length <= MTU_BYTES) & (count == payload_beats + HEADER_BEATS)
        right = ~self.i_error & (self.i_data[:CRC_BITS] == ~crc) & (header.type == WIRE_TYPE)
        mine, room = header.destination == self.mac, headers.w_rdy & ~lost
        ends = self.i_valid & self.i_last
        taken = right & mine & room & fits
        m.d.comb += [headers.w_data.eq(header), headers.w_en.eq(ends & taken)]
        with m.If(ends):
            m.d.sync += [count.eq(0), crc.eq(INITIAL), lost.eq(0),
                         written.eq(Mux(taken, written, committed)),
                         committed.eq(Mux(taken, written, committed))]
            for name, event in (("taken", taken), ("wrong", ~lost & ~(right & fits)),
                                ("foreign", right & fits & ~lost & ~mine),
                                ("overflow", lost | right & fits & mine & ~room)):
                with m.If(event):
                    m.d.sync += self.counters[name].eq(self.counters[name] + 1)

    def _give(self, m, committed, read):
        """Payload of the frames that were taken; gives whether there is some."""
        m.submodules.queue = queue = Queue(BEAT_BITS)
        port = self.store.read_port(domain="comb")
        waiting = read != committed
        m.d.comb += [
            port.addr.eq(read), queue.i.payload.eq(port.data), queue.i.valid.eq(waiting),
            self.payload.payload.eq(queue.o.payload), self.payload.valid.eq(queue.o.valid),
            queue.o.ready.eq(self.payload.ready)]
        m.d.sync += read.eq(read + (waiting & queue.i.ready))
        return waiting | queue.o.valid
