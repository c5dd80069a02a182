"""Layout of a flit: three slots and a trailer, in four phits.

======== ============================================================
bytes    content
======== ============================================================
0-239    slots 0, 1, 2 (80 bytes each, kind NONE where not used)
240-251  trailer without CRC
252-255  CRC-32C of the flit with these four bytes zero; it covers the sequence number
======== ============================================================

A flit that carries slots is **sequenced**: kept by the sender until acknowledged. One without is
a **control** flit: never repeated, carries only the fields about the other direction. These are
absolute (a sequence number, totals of freed slots), so a lost one does no harm, nor does one so
late that meanwhile fewer slots were freed than a total counts beyond the credits.
"""
from amaranth.lib import data

from .crc import CRC_BITS
from .interfaces import PHIT_BITS, SLOT_BITS

PHITS = 4
SLOTS = 3
FLIT_BITS = PHITS * PHIT_BITS
TRAILER_BITS = FLIT_BITS - SLOTS * SLOT_BITS
ROUND_BITS = 2
COUNT_BITS = 16     # width of the fields of sequence numbers and totals


def trailer_layout():
    """Last 16 bytes of a flit.

    ``sequence``: number of a sequenced flit. ``round``: grows with every go-back of the sender,
    modulo 4. ``ack``: the sequence number awaited from the other side; all earlier ones arrived.
    ``nak``: go back to ``ack``. ``poll``: send a flit, the sender may have missed some.
    ``requests``, ``responses``: slots of each class taken out of the buffer since reset.
    """
    fields = {"sequence": COUNT_BITS, "ack": COUNT_BITS, "requests": COUNT_BITS,
              "responses": COUNT_BITS, "sequenced": 1, "nak": 1, "poll": 1, "round": ROUND_BITS}
    reserved = TRAILER_BITS - CRC_BITS - data.StructLayout(fields).size
    return data.StructLayout(fields | {"reserved": reserved, "crc": CRC_BITS})


def acknowledgement_layout():
    """What a flit says about the other direction (see :func:`trailer_layout`)."""
    return data.StructLayout({"ack": COUNT_BITS, "requests": COUNT_BITS, "responses": COUNT_BITS,
                              "nak": 1})
