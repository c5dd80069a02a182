"""What message engines, NICs and hosts say to each other: work requests, completions, frames.

All layouts are this project's choice; see docs/network.md for the rules that go with them.
"""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import (
    ADDRESS_BITS,
    LINE_BITS,
    launch_layout,
    report_layout,
    request_layout,
    response_layout,
)

QP_BITS = 16            # of the number of a queue pair on a wire and in a work request
PSN_BITS = 24
MAC_BITS = 48
COOKIE_BITS = 16
BEAT_BYTES = 16         # of a MAC port of a simulated package
BEAT_BITS = 8 * BEAT_BYTES
HEADER_BEATS = 3
TRAILER_BEATS = 1
MTU_BYTES = 4096        # of payload in a frame
ETHER_TYPE = 0x88B5     # local experimental; source: IEEE 802, clause 9.2.4
NETWORK_WINDOW_LOG2 = 24    # bytes of the window of a link to a network chiplet, in its region
NIC_WINDOW_LOG2 = 20        # and of a NIC in it


class Opcode(enum.Enum, shape=8):
    """What a work request asks for, and, in a completion, what has happened."""

    NONE = 0
    SEND = 1
    WRITE = 2
    WRITE_IMM = 3       # a write that consumes a receive of the peer, which gets ``immediate``
    READ = 4
    READ_RESPONSE = 5   # a NIC's own
    RECV = 0x10         # completion: a SEND came
    RECV_IMM = 0x11     # completion: a WRITE_IMM came


class Status(enum.Enum, shape=8):
    """How a work request ended."""

    OK = 0
    LOCAL_PROTECTION = 1    # own memory: not registered, wrong key or domain, past the region
    REMOTE_PROTECTION = 2   # the same of the peer's
    REMOTE_MEMORY = 3       # the peer's memory answered with an error
    LENGTH = 4              # a message is longer than the receive it came for
    NOT_READY = 5           # the peer posted no receive, also after all tries
    UNREACHABLE = 6         # no answer, after all tries
    FLUSHED = 7             # the queue pair went to its error state before
    STATE = 8               # the queue pair is not ready
    OVERRUN = 9             # more requests than the queue has places
    FIELD = 10              # unknown opcode, or a length or address that cannot be
    MEMORY = 11             # own memory answered with an error
    REMOTE_FIELD = 12       # the peer cannot do such a request


def work_layout():
    """A work request, written to a doorbell of a queue pair: one line.

    ``length``, ``local`` address and ``remote`` address [byte]; ``local_key`` and ``remote_key``:
    keys of the regions that hold them. ``cookie`` comes back in the completion.
    """
    return data.StructLayout({
        "opcode": Opcode, "flags": 8, "cookie": COOKIE_BITS, "length": 32,
        "local": 64, "remote": 64, "local_key": 32, "remote_key": 32, "immediate": 32,
        "_unused": LINE_BITS - 288})


def completion_layout():
    """How a work request ended: one line, written where the queue pair says.

    ``length``: bytes received. ``address``: of the failed access, if there is one.
    """
    return data.StructLayout({
        "opcode": Opcode, "status": Status, "cookie": COOKIE_BITS, "qp": QP_BITS, "_gap": 16,
        "length": 32, "immediate": 32, "address": 64, "_unused": LINE_BITS - 192})


class QpState(enum.Enum, shape=2):
    """State of a queue pair."""

    RESET = 0
    READY = 1
    ERROR = 2


def qp_layout():
    """Context of a queue pair as the host writes it: one line.

    ``state``: RESET forgets everything, READY starts, ERROR stops and leaves the rest as it is.
    ``domain``: protection domain. ``timeout_log2``: patience for an answer [cycle]. ``tries``:
    repetitions without progress. ``window``: frames under way at most, at least 1.
    ``completions``: address of the ring of completions, ``ring_log2`` its lines.
    """
    return data.StructLayout({
        "state": QpState, "_a": 6, "domain": 8, "peer_qp": QP_BITS, "peer_mac": MAC_BITS, "_b": 48,
        "completions": 64, "ring_log2": 8, "timeout_log2": 8, "tries": 8, "window": 8,
        "send_psn": 32, "receive_psn": 32, "_unused": LINE_BITS - 288})


def region_layout():
    """A registered region as the host writes it: one line. ``key`` 0: there is none.

    The lower bits of a key are the number of its line. ``remote_read``, ``remote_write``: what the
    peers of queue pairs of the ``domain`` may do.
    """
    return data.StructLayout({
        "key": 32, "domain": 8, "remote_read": 1, "remote_write": 1, "_a": 22,
        "base": 64, "length": 64, "_unused": LINE_BITS - 192})


class FrameKind(enum.Enum, shape=8):
    """What a frame is."""

    NONE = 0
    SEND = 1
    WRITE = 2
    WRITE_IMM = 3
    READ_REQUEST = 4
    READ_RESPONSE = 5
    ACK = 8
    NAK = 9


class Syndrome(enum.Enum, shape=8):
    """Why a frame was not taken."""

    NONE = 0
    SEQUENCE = 1        # an earlier one is missing
    NOT_READY = 2       # no receive is posted
    PROTECTION = 3
    MEMORY = 4
    LENGTH = 5
    FIELD = 6


def header_layout():
    """The first three beats of a frame, byte 0 lowest.

    Fields of more than a byte are little-endian but for the MAC addresses and the type, which
    stand as IEEE 802.3 has them: here their bytes are in the order of the wire. ``mark`` is set by
    switches on congestion, and is no part of the checksum. ``psn`` of an ACK or NAK: the next one
    that is expected. ``length`` of this frame's payload; ``total`` of the message.
    ``echo``: an ACK says that a mark came. ``ask``: the sender wants an ACK.
    """
    return data.StructLayout({
        "destination": MAC_BITS, "source": MAC_BITS, "type": 16, "kind": FrameKind,
        "first": 1, "last": 1, "echo": 1, "ask": 1, "_a": 4, "qp": QP_BITS, "source_qp": QP_BITS,
        "psn": PSN_BITS, "mark": 8, "length": 32, "key": 32, "address": 48, "syndrome": 8, "_b": 8,
        "immediate": 32, "total": 32})


def beat_layout():
    """A beat of a frame on its way."""
    return data.StructLayout({"data": BEAT_BITS, "last": 1})


class MacPort(wiring.Signature):
    """AXI-Stream towards a MAC, seen by the NIC.

    A frame has a whole number of beats: every ``tkeep`` is all ones. ``rx_tready`` is always high:
    what finds no place is lost, and sent again. ``rx_tuser`` at the last beat: the MAC found an
    error. Source: AMBA AXI4-Stream; frames: IEEE 802.3, without preamble and check sequence.
    """

    def __init__(self):
        super().__init__({
            "tx_tdata": Out(BEAT_BITS), "tx_tkeep": Out(BEAT_BYTES), "tx_tvalid": Out(1),
            "tx_tready": In(1), "tx_tlast": Out(1), "tx_tuser": Out(1),
            "rx_tdata": In(BEAT_BITS), "rx_tkeep": In(BEAT_BYTES), "rx_tvalid": In(1),
            "rx_tready": Out(1), "rx_tlast": In(1), "rx_tuser": In(1)})

    def __eq__(self, other):
        return isinstance(other, MacPort)


class EngineKind(enum.Enum, shape=8):
    """Kinds of work-queue entries of a message engine."""

    NONE = 0
    SEND = 1
    WRITE = 2
    WRITE_IMM = 3
    READ = 4
    RECV = 0x10
    WAIT = 0x20         # until the comparison with a word of memory holds
    SET = 0x21          # write a word of memory
    REDUCE = 0x22       # S = A + B
    COPY = 0x23         # S = A
    ARRIVE = 0x24       # join the barrier of the work packet, wait until all have come


class MessageEnginePort(wiring.Signature):
    """What leaves a message engine, seen by the engine: members as those of a PE's ``PePort``.

    All outputs are functions of registers. Responses are taken without waiting for requests, and
    accesses are answered without waiting for either.
    """

    def __init__(self):
        super().__init__({
            "launch": In(stream.Signature(launch_layout())), "go": In(1), "drop": In(1),
            "report": Out(stream.Signature(report_layout())),
            "arrive": Out(1), "proceed": In(1), "abort": In(1),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "access": In(stream.Signature(request_layout())),
            "access_response": Out(stream.Signature(response_layout())), "idle": Out(1)})

    def __eq__(self, other):
        return isinstance(other, MessageEnginePort)


class Compare(enum.Enum, shape=4):
    """Comparison of a WAIT: word of memory, under the mask, with the value; all unsigned."""

    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2
    AT_LEAST = 3


def entry_layout():
    """A work-queue entry: one line of memory.

    The conditions for its start: ``back``, if not 0, that the entry so many before has ended
    (``wqe_sync``), ``rx_sync`` that all receives before have, ``sync`` that all before have. With
    ``fence`` nothing after it starts until it has ended.

    NIC kinds: ``local``, ``remote``, keys, ``length``, ``immediate`` as of :func:`work_layout`;
    ``third``: address of the doorbell. REDUCE and COPY: ``length`` bytes from ``remote`` (A) and
    ``third`` (B) to ``local`` (S); for MX formats the scale bytes stand at the same address plus
    ``scales_s``, ``scales_a`` or ``scales_b``. WAIT: the word at ``local``, ``immediate`` the
    value, ``local_key`` the mask. SET: the word at ``local`` becomes ``immediate``.
    """
    return data.StructLayout({
        "kind": EngineKind, "fence": 1, "rx_sync": 1, "sync": 1, "_a": 5, "back": 8, "compare": 4,
        "format": 4, "length": 32, "local": 64, "remote": 64, "third": 64, "local_key": 32,
        "remote_key": 32, "immediate": 32, "rule": 4, "_b": 28, "scales_s": 32, "scales_a": 32,
        "scales_b": 32, "_unused": 32})


assert work_layout().size == completion_layout().size == qp_layout().size == LINE_BITS
assert region_layout().size == entry_layout().size == LINE_BITS
assert header_layout().size == HEADER_BEATS * BEAT_BITS and ADDRESS_BITS <= 64
