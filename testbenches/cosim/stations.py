"""A small chiplet with a MAC port, to test the fabric with: sends frames, checks what comes."""
from functools import cache

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from cosim import engine
from cosim.build import model
from rtl.net.interfaces import BEAT_BITS, MAC_BITS, MacPort
from testbenches.cosim.parts import next_random

MARK_BYTE = 7       # of beat 1


def address(rank, nic):
    """MAC address of a station, with its bytes in the order of the wire."""
    return Cat(C(2, 8), nic, C(0, MAC_BITS - 24), rank)


def content(number, source, target, beat):
    """Beat of a frame but for the first: a function of all that tells frames apart."""
    word = Cat(number, source, target)
    spread = (word ^ (beat * 0x9E37)[:32])[:32]
    return Cat(spread, ~spread[::-1], spread ^ 0x5A5A5A5A, spread.rotate_left(11))


class Station(wiring.Component):
    """Sends ``frames`` frames of 3 to ``3 + spread`` beats, checks and tells what it receives.

    Targets are ranks 0 to ``peers - 1`` in turn, beginning after its own, or ``only`` that of
    ``target``. With ``gaps``, beats are late at random.

    ``sent`` changes as the first beat of a frame goes: target, 16 bits number, 1 bit that
    alternates. ``got`` changes after the last beat of one: source, number, then bits: marked,
    whole, error of the MAC, alternating. ``whole`` holds for the frame that was sent to this
    station; all of its bits but the mark were looked at. ``idle``: all were sent.

    Broken ways: ``abort`` says of every frame that it is wrong, ``short`` that its beats are not
    full, ``deaf`` that nothing can be received.
    """

    nic0: Out(MacPort())
    rank: In(8)
    nic: In(8)
    peers: In(8)
    only: In(1)
    target: In(8)
    frames: In(16)
    spread: In(9)
    gaps: In(1)
    abort: In(1)
    short: In(1)
    deaf: In(1)
    idle: Out(1)
    sent: Out(32)
    got: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [self.nic0.tx_tkeep.eq(Mux(self.short, 1, ~0)),
                     self.nic0.rx_tready.eq(~self.deaf), self.nic0.tx_tuser.eq(self.abort)]
        self._send(m)
        self._receive(m)
        return m

    def _send(self, m):
        port, random = self.nic0, Signal(32, init=0xACE1)
        active, begun, first = Signal(), Signal(), Signal()
        number, beat, length, turn, target = (Signal(w) for w in (16, 16, 16, 8, 8))
        slot, go, last = Signal(), Signal(), Signal()
        m.d.sync += random.eq(next_random(random) ^ self.rank)
        m.d.comb += [slot.eq(~port.tx_tvalid | port.tx_tready),
                     go.eq(active & ~(self.gaps & random[3])), last.eq(beat + 1 == length)]
        with m.If(~begun):
            m.d.sync += [begun.eq(1), turn.eq(Mux(self.rank + 1 < self.peers, self.rank + 1, 0))]
        with m.If(slot):
            m.d.sync += [port.tx_tvalid.eq(go), port.tx_tlast.eq(last), first.eq(beat == 0)]
            with m.If(beat == 0):
                m.d.sync += port.tx_tdata.eq(Cat(address(target, self.nic),
                                                 address(self.rank, self.nic), number, length))
            with m.Else():
                m.d.sync += port.tx_tdata.eq(content(number, self.rank, target, beat))
                with m.If(beat == 1):
                    m.d.sync += port.tx_tdata.word_select(MARK_BYTE, 8).eq(0)
            with m.If(go):
                m.d.sync += beat.eq(beat + 1)
                with m.If(last):
                    m.d.sync += active.eq(0)
        m.d.comb += self.idle.eq(begun & ~active & (number == self.frames) & ~port.tx_tvalid)
        with m.If(port.tx_tvalid & port.tx_tready & first):
            m.d.sync += self.sent.eq(Cat(target, number, ~self.sent[24]))
        with m.If(begun & ~active & (number != self.frames) & slot):
            m.d.sync += [active.eq(1), beat.eq(0), number.eq(number + 1),
                         length.eq(3 + (random[8:17] & self.spread)),
                         target.eq(Mux(self.only, self.target, turn)),
                         turn.eq(Mux(turn + 1 == self.peers, 0, turn + 1))]

    def _receive(self, m):
        port, beat = self.nic0, Signal(16)
        source, number, length, whole, mark = (Signal(w) for w in (8, 16, 16, 1, 1))
        expected, mask = Signal(BEAT_BITS), Signal(BEAT_BITS)
        fine = Signal()
        m.d.comb += [expected.eq(content(number, source, self.rank, beat)), mask.eq(~0)]
        with m.If(beat == 1):
            m.d.comb += mask.word_select(MARK_BYTE, 8).eq(0)
        with m.If(beat == 0):
            named = port.rx_tdata[2 * MAC_BITS - 8:2 * MAC_BITS]
            m.d.comb += fine.eq(port.rx_tdata[:2 * MAC_BITS] == Cat(
                address(self.rank, self.nic), address(named, self.nic)))
        with m.Else():
            m.d.comb += fine.eq(whole & (((port.rx_tdata ^ expected) & mask) == 0))
        with m.If(port.rx_tvalid):
            m.d.sync += [whole.eq(fine), beat.eq(Mux(port.rx_tlast, 0, beat + 1))]
            with m.If(beat == 0):
                m.d.sync += Cat(source, number, length).eq(port.rx_tdata[2 * MAC_BITS - 8:])
            with m.If(beat == 1):
                m.d.sync += mark.eq(port.rx_tdata.word_select(MARK_BYTE, 8).any())
            with m.If(port.rx_tlast):
                m.d.sync += self.got.eq(Cat(
                    source, number, mark, fine & (beat + 1 == length) & ~port.rx_tuser,
                    port.rx_tuser, ~self.got[27]))


@cache
def built():
    return model.build(Station())


def die(name, rank, nic=0, **settings):
    """A station as a die; ``settings`` are its inputs."""
    ties = {("top", port): int(value) for port, value in (settings | {
        "rank": rank, "nic": nic}).items()}
    return engine.Die(name, {"top": built()}, ties=ties,
                      gates={"top": engine.Gate(linger_cycles=0, wake="valid")},
                      lanes={"sent": ("top", "sent"), "got": ("top", "got")})
