"""Messages that cross a die-to-die link, and the ports of a link on its two sides.

A message is one **slot** of 640 bits. Slots belong to one of two classes with credits of their
own, so that waiting requests never hold up the responses that would end them:

======== ============================================ =========================================
class    kinds                                        rule
======== ============================================ =========================================
request  WRITE, READ, LAUNCH, ABORT, PING             may wait for any response
response RESPONSE, COMPLETION                         taken without waiting for any request
======== ============================================ =========================================

Every WRITE and READ is answered by one RESPONSE with its tag, in any order; every LAUNCH by one
COMPLETION with its id. An ABORT is not answered: the completion of its launch tells. A PING has no
body, does nothing and is not answered: a link that cannot deliver it goes down. Order is kept
inside a class, not between the classes. All formats are this project's choice.
"""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import ADDRESS_BITS, LINE_BITS, LINE_BYTES, TAG_BITS, AccessError, ErrorCode

SLOT_BITS = 640
PHIT_BITS = 512
LAUNCH_ID_BITS = 8
MASK_BITS = 80              # PEs of a die at most
LAUNCH_STREAM_BITS = 2      # the lower bits of an id: packets of one stream run one after another


class SlotKind(enum.Enum, shape=4):
    """What a slot holds: the member of the same name of its ``body``."""

    NONE = 0        # nothing; also fills a flit
    WRITE = 1       # request: bytes of a line
    READ = 2        # request: a line
    LAUNCH = 3      # request: start a work packet
    ABORT = 4       # request: end a work packet
    PING = 5        # request: nothing
    RESPONSE = 8    # response: to a WRITE or READ
    COMPLETION = 9  # response: to a LAUNCH


def write_layout():
    """Bytes of a line that ``mask`` selects, to be written at ``address`` (of the whole line)."""
    return data.StructLayout({"data": LINE_BITS, "address": ADDRESS_BITS, "tag": TAG_BITS,
                              "mask": LINE_BYTES})


def read_layout():
    """A line to be read; the fields stand where those of :func:`write_layout` do."""
    return data.StructLayout({"_unused": LINE_BITS, "address": ADDRESS_BITS, "tag": TAG_BITS})


def response_layout():
    """The answer to a WRITE or READ; ``data`` is zero where nothing was read."""
    return data.StructLayout({"data": LINE_BITS, "write": 1, "error": AccessError,
                              "tag": TAG_BITS})


def launch_layout():
    """A work packet: its PEs, its program table (device address), its watchdog [cycle].

    The lower bits of the ``id`` are the stream, the others tell its packets apart.
    """
    return data.StructLayout({"pe_mask": MASK_BITS, "table": ADDRESS_BITS, "watchdog": 32,
                              "id": LAUNCH_ID_BITS})


def abort_layout():
    """The work packet to be ended with code ABORTED; no effect if it has ended already."""
    return data.StructLayout({"id": LAUNCH_ID_BITS})


def completion_layout():
    """How a work packet ended: the first error of the lowest PE that failed, or code OK.

    ``unit``, ``field`` and ``command_tag`` are those of the report of PE ``failed_pe``;
    ``failed_mask`` has a bit for each PE that failed; ``cycles`` run from launch to completion.
    ``address``, with ``BAD_ADDRESS``, ``POISON`` and ``LINK_DOWN``: of the line whose access
    failed; else 0.
    """
    return data.StructLayout({"id": LAUNCH_ID_BITS, "code": ErrorCode, "unit": 4, "field": 8,
                              "command_tag": 16, "failed_pe": 8, "failed_mask": MASK_BITS,
                              "cycles": 32, "address": ADDRESS_BITS})


def slot_layout():
    """One message: 640 bits. The line of a WRITE and of a RESPONSE stands at the same place."""
    return data.StructLayout({
        "kind": SlotKind,
        "body": data.UnionLayout({
            "write": write_layout(), "read": read_layout(), "response": response_layout(),
            "launch": launch_layout(), "abort": abort_layout(),
            "completion": completion_layout(), "raw": SLOT_BITS - SlotKind.as_shape().width})})


class LinkPort(wiring.Signature):
    """Port of a link towards its die, seen by the die's logic (the bridge).

    Members are four streams of :func:`slot_layout`: ``o_request`` and ``o_response`` go to the
    far die, ``i_request`` and ``i_response`` come from it. A slot stands on the stream of its
    class. ``i_response`` must be taken without waiting for any of the other three.
    """

    def __init__(self):
        slots = stream.Signature(slot_layout())
        super().__init__({"o_request": Out(slots), "o_response": Out(slots),
                          "i_request": In(slots), "i_response": In(slots)})

    def __eq__(self, other):
        return isinstance(other, LinkPort)


class PhitPort(wiring.Signature):
    """Pins of a link, seen by the die: one phit of 64 bytes a cycle each way, registered.

    Without ``tx_valid`` nothing is on the wires. There is no back-pressure: credits and the
    replay of flits stand above. Between two dies the channel has a fixed latency.
    """

    def __init__(self):
        super().__init__({"tx_valid": Out(1), "tx_data": Out(PHIT_BITS),
                          "rx_valid": In(1), "rx_data": In(PHIT_BITS)})

    def __eq__(self, other):
        return isinstance(other, PhitPort)
