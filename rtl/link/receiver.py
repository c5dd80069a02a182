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
            "crc_errors": Out(32), "duplicates": Out(32), "gaps": Out(32), "received": Out(32)})

    def elaborate(self, platform):
        m = Module()
        phits = [Signal(PHIT_BITS, name=f"phit{n}") for n in range(PHITS)]
        trailer = data.View(trailer_layout(), phits[-1][-trailer_layout().size:])
        checked, good = self._check(m, phits)
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
        self._unpack(m, phits, accept)

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

    def _check(self, m, phits):
        """Collect phits; ``checked`` is high for a cycle after each flit, whole or broken."""
        checked, good = Signal(), Signal()
        index = Signal(range(PHITS))
        crc = Signal(32, init=INITIAL)
        last = index == PHITS - 1
        covered = Cat(self.rx_data[:-32], Mux(last, 0, self.rx_data[-32:]))
        value = Signal(32)
        m.d.comb += value.eq(crc_next(crc, covered))
        m.d.sync += checked.eq(0)
        with m.If(self.rx_valid):
            m.d.sync += [index.eq(index + 1), crc.eq(Mux(last, INITIAL, value))]
            with m.Switch(index):
                for n, phit in enumerate(phits):
                    with m.Case(n):
                        m.d.sync += phit.eq(self.rx_data)
            with m.If(last):
                m.d.sync += [checked.eq(1), good.eq(~value == self.rx_data[-32:])]
        with m.Elif(index != 0):
            m.d.sync += [index.eq(0), crc.eq(INITIAL), checked.eq(1), good.eq(0)]
        return checked, good

    def _unpack(self, m, phits, accept):
        """Write the slots, one a cycle from ``accept`` on: just ahead of the next flit's phits."""
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
            m.d.comb += Assert(~(write & chosen) | fifo.w_rdy, "Slot buffer overflow")
            total = Signal(self.sequence_bits)
            m.d.comb += freed.eq(total)
            with m.If(port.valid & port.ready):
                m.d.sync += total.eq(total + 1)
