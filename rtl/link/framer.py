"""Slots and a trailer to phits, with the CRC."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .crc import CRC_BITS, INITIAL, crc_next
from .flit import PHITS, trailer_layout
from .interfaces import PHIT_BITS, SLOT_BITS, slot_layout


class FlitFramer(wiring.Component):
    """Makes four phits of three slots and a trailer that come in four cycles, and adds the CRC.

    Latency is 2 cycles from a slot to its first phit, throughput one phit a cycle.

    Members
    -------
    active, phase : In(1), In(2)
        A flit is under way, and which cycle of it this is.
    slot : In(slot_layout())
        Slot of phases 0, 1, 2.
    trailer : In(trailer_layout())
        Trailer, in phase 3; its field ``crc`` is zero.
    tx_valid, tx_data : Out(1), Out(512)
        Phits.
    busy : Out(1)
        A function of registers: phits are under way or stand at the output.
    """

    active: In(1)
    phase: In(2)
    slot: In(slot_layout())
    trailer: In(trailer_layout())
    tx_valid: Out(1)
    tx_data: Out(PHIT_BITS)
    busy: Out(1)

    def elaborate(self, platform):
        m = Module()
        slot, held = self.slot.as_value(), Signal(SLOT_BITS)    # held: the slot before
        phit, valid, last = Signal(PHIT_BITS), Signal(), Signal()
        carried = SLOT_BITS - PHIT_BITS     # bits that each slot leaves to the following phits
        m.d.sync += valid.eq(self.active)
        with m.If(self.active):
            m.d.sync += [held.eq(slot), last.eq(self.phase == PHITS - 1)]
            with m.Switch(self.phase):
                for n in range(PHITS - 1):
                    with m.Case(n):
                        m.d.sync += phit.eq(Cat(held[SLOT_BITS - n * carried:], slot))
                with m.Default():
                    m.d.sync += phit.eq(Cat(held[SLOT_BITS - (PHITS - 1) * carried:],
                                            self.trailer))

        crc, value = Signal(CRC_BITS, init=INITIAL), Signal(CRC_BITS)
        m.d.comb += value.eq(crc_next(crc, phit))
        m.d.comb += self.busy.eq(valid | self.tx_valid)
        m.d.sync += self.tx_valid.eq(valid)
        with m.If(valid):
            m.d.sync += [crc.eq(Mux(last, INITIAL, value)), self.tx_data.eq(phit)]
            with m.If(last):
                m.d.sync += self.tx_data[-CRC_BITS:].eq(~value)
        return m
