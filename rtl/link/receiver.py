"""Receiving side of a die-to-die link."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from .crc import INITIAL, crc_next
from .flit import PHITS, ROUND_BITS, SLOTS, acknowledgement_layout, trailer_layout
from .interfaces import PHIT_BITS, SLOT_BITS, SlotKind, slot_layout


class LinkReceiver(wiring.Component):
    """Checks flits, drops bad, lost-behind and repeated ones, and unpacks their slots in order.

    Phits of a flit come in consecutive cycles; the cycle after a pause starts a new flit, so a
    lost phit is repaired by the pause that a going-back sender makes. A flit is taken when its
    CRC holds and its number is the one awaited. Of the others, a bad one and one that is too new
    ask once for a go-back (again if the sender went back and the awaited one was lost again).

    Latency is 3 cycles from the last phit to the first slot, throughput one phit a cycle. Slots
    wait in a buffer for each class; the sender's credits keep them from overflowing.

    Parameters
    ----------
    sequence_bits : int
        Width of sequence numbers [bit].
    credits : int
        Depth of each of the two slot buffers [slot].

    Members
    -------
    rx_valid, rx_data : In(1), In(512)
        Phits.
    request, response : Out(stream.Signature(slot_layout()))
        Slots by class.
    heard : Out(struct)
        High ``valid`` for one cycle for each good flit, with what it said.
    tell, pending : Out(acknowledgement_layout()), Out(1)
        What the next flit sent has to say, and whether a flit must be sent for that alone.
    told : In(1)
        ``tell`` was put into a flit.
    active : Out(1)
        A function of registers. While it is low, nothing changes until a phit comes.
    crc_errors, duplicates, gaps, received : Out(32)
        Counts of bad, repeated, too new, and taken flits.
    """

    def __init__(self, *, sequence_bits, credits):
        self.sequence_bits = sequence_bits
        self.credits = credits
        slots = stream.Signature(slot_layout())
        heard = {"valid": 1, "acknowledgement": acknowledgement_layout()}
        super().__init__({
            "rx_valid": In(1), "rx_data": In(PHIT_BITS), "request": Out(slots),
            "response": Out(slots), "heard": Out(data.StructLayout(heard)),
            "tell": Out(acknowledgement_layout()), "pending": Out(1), "told": In(1),
            "active": Out(1),
            "crc_errors": Out(32), "duplicates": Out(32), "gaps": Out(32), "received": Out(32)})

    def elaborate(self, platform):
        m = Module()
        phits = [Signal(PHIT_BITS, name=f"phit{n}") for n in range(PHITS)]
        newest = Signal(PHIT_BITS)
        trailer = data.View(trailer_layout(), newest[-trailer_layout().size:])
        checked, good, collecting = self._check(m, phits, newest)
        expected = Signal(self.sequence_bits)
        last_round, nak_round = Signal(ROUND_BITS), Signal(ROUND_BITS)
        nak_sent = Signal()

        ahead = Signal(self.sequence_bits)
        m.d.comb += ahead.eq(trailer.sequence - expected)
        sequenced = checked & good & trailer.sequenced
        accept = Signal()
        m.d.comb += accept.eq(sequenced & (ahead == 0))
        duplicate = sequenced & ahead[-1]
        gap = sequenced & ~ahead[-1] & (ahead != 0)
        lost_again = nak_sent & gap & (trailer.round != nak_round)
        bad = checked & ~good

        m.d.comb += [
            self.heard.valid.eq(checked & good),
            self.heard.acknowledgement.ack.eq(trailer.ack),
            self.heard.acknowledgement.requests.eq(trailer.requests),
            self.heard.acknowledgement.responses.eq(trailer.responses),
            self.heard.acknowledgement.nak.eq(trailer.nak),
            self.tell.ack.eq(expected)]
        stored = self._unpack(m, phits, accept)
        m.d.comb += self.active.eq(collecting | stored | self.pending)

        with m.If(self.told):
            m.d.sync += [self.pending.eq(0), self.tell.nak.eq(0)]
        with m.If(checked & good):
            m.d.sync += last_round.eq(trailer.round)
        with m.If(bad):
            m.d.sync += self.crc_errors.eq(self.crc_errors + 1)
        with m.If((bad | gap) & ~nak_sent | lost_again):
            m.d.sync += [nak_sent.eq(1), self.tell.nak.eq(1), self.pending.eq(1),
                         nak_round.eq(Mux(good, trailer.round, last_round))]
        with m.If(gap):
            m.d.sync += self.gaps.eq(self.gaps + 1)
        with m.If(duplicate):
            m.d.sync += [self.duplicates.eq(self.duplicates + 1), self.pending.eq(1)]
        with m.If(accept):
            m.d.sync += [expected.eq(expected + 1), nak_sent.eq(0), self.tell.nak.eq(0),
                         self.received.eq(self.received + 1), self.pending.eq(1)]
        freed = (self.request.valid & self.request.ready) | (
            self.response.valid & self.response.ready)
        with m.If(freed | checked & good & trailer.poll):
            m.d.sync += self.pending.eq(1)
        return m

    def _check(self, m, phits, newest):
        """Collect phits; ``checked`` is high for a cycle after each flit, whole or broken.

        The CRC of a phit is taken from its register: no logic but that register sees the pins.
        Gives ``checked``, ``good`` and whether a flit is being collected or checked.
        """
        fresh, broken = Signal(), Signal()      # in `newest`: a phit; instead of it, a pause
        index, place = Signal(range(PHITS)), Signal(range(PHITS))   # of the next phit; of `newest`
        crc, value = Signal(32, init=INITIAL), Signal(32)
        last = place == PHITS - 1
        covered = Cat(newest[:-32], Mux(last, 0, newest[-32:]))
        m.d.comb += value.eq(crc_next(crc, covered))
        m.d.sync += [fresh.eq(self.rx_valid), broken.eq(~self.rx_valid & (index != 0))]
        with m.If(self.rx_valid):
            m.d.sync += [newest.eq(self.rx_data), place.eq(index), index.eq(index + 1)]
        with m.Else():
            m.d.sync += index.eq(0)
        with m.If(fresh):
            m.d.sync += crc.eq(Mux(last, INITIAL, value))
            with m.Switch(place):
                for n, phit in enumerate(phits):
                    with m.Case(n):
                        m.d.sync += phit.eq(newest)
        with m.If(broken):
            m.d.sync += crc.eq(INITIAL)
        good = fresh & (~value == newest[-32:])
        return fresh & last | broken, good, fresh | broken | (index != 0)

    def _unpack(self, m, phits, accept):
        """Write the slots, one a cycle from ``accept`` on: just ahead of the next flit's phits.

        The last phit is there when its slot is written. Gives whether a slot is being written or
        waits.
        """
        m.submodules.requests = requests = SyncFIFOBuffered(width=SLOT_BITS, depth=self.credits)
        m.submodules.responses = responses = SyncFIFOBuffered(width=SLOT_BITS, depth=self.credits)
        flit, step = Cat(phits), Signal(range(SLOTS))
        slot = Signal(slot_layout())
        with m.Switch(step):
            for n in range(SLOTS):
                with m.Case(n):
                    m.d.comb += slot.as_value().eq(flit[n * SLOT_BITS:(n + 1) * SLOT_BITS])
        write = (accept | (step != 0)) & (slot.kind != SlotKind.NONE)
        with m.If(accept | (step != 0)):
            m.d.sync += step.eq(Mux(step == SLOTS - 1, 0, step + 1))
        is_response = slot.kind.as_value()[-1]
        for fifo, chosen, port, freed in (
                (requests, ~is_response, self.request, self.tell.requests),
                (responses, is_response, self.response, self.tell.responses)):
            m.d.comb += [fifo.w_data.eq(slot), fifo.w_en.eq(write & chosen),
                         port.payload.as_value().eq(fifo.r_data), port.valid.eq(fifo.r_rdy),
                         fifo.r_en.eq(port.ready)]
            overflow, total = Signal(), Signal(self.sequence_bits)
            m.d.sync += overflow.eq(write & chosen & ~fifo.w_rdy)   # settled when it is looked at
            m.d.comb += Assert(~overflow, "Slot buffer overflow")
            m.d.comb += freed.eq(total)
            with m.If(port.valid & port.ready):
                m.d.sync += total.eq(total + 1)
        return (step != 0) | (requests.level != 0) | (responses.level != 0)
