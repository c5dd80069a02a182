"""What the parts of a NIC say to each other, and the contexts that they keep."""
from amaranth import *
from amaranth.lib import data, enum
from amaranth.utils import exact_log2

from rtl.common.select import next_of, number_of
from rtl.net.interfaces import (
    COOKIE_BITS,
    MAC_BITS,
    MTU_BYTES,
    PSN_BITS,
    QP_BITS,
    FrameKind,
    Opcode,
    QpState,
    Status,
    Syndrome,
    work_layout,
)
from rtl.pe.interfaces import ADDRESS_BITS

SLOTS = 64              # of a queue: requests, and as many answers to READs of the peer
POSTS = 24              # requests that may stand in a queue; source: MTIA 300, 24,576 in 1,024
TIME_BITS = 32
MTU_LOG2 = exact_log2(MTU_BYTES)
LONGEST = 1 << 31       # of a message [byte]


def post_layout():
    """A work request for a queue pair. ``own``: the NIC's, the answer to a READ."""
    return data.StructLayout({"qp": QP_BITS, "own": 1, "work": work_layout()})


def entry_layout():
    """A work request in a queue: what is needed of it once it was found good."""
    return data.StructLayout({"opcode": Opcode, "cookie": COOKIE_BITS, "length": 32,
                              "local": ADDRESS_BITS, "remote": ADDRESS_BITS, "remote_key": 32,
                              "immediate": 32})


class AnswerKind(enum.Enum, shape=2):
    """What the receiving side tells the sending side."""

    ACK = 0
    NAK = 1
    READ_DONE = 2       # all that the oldest READ asked for is in memory
    READ_GOES_ON = 3    # READs wait, and the peer is there


def answer_layout():
    """An answer for a queue pair's sending side."""
    return data.StructLayout({"kind": AnswerKind, "qp": QP_BITS, "psn": PSN_BITS,
                              "syndrome": Syndrome, "echo": 1})


def read_start_layout():
    """A READ that goes out: where its answer belongs."""
    return data.StructLayout({"qp": QP_BITS, "address": ADDRESS_BITS, "length": 32})


def send_context_layout():
    """What the sending side knows of a queue pair.

    ``head``, ``send``, ``tail``: the oldest entry, that which is being sent, one past the youngest,
    each with a bit for the lap. ``frame``: of the entry that is being sent. ``head_psn``: number of
    the first frame of the head. ``oldest``, ``next``, ``highest``: number of the oldest frame
    without an answer, of the next, and of the next that was never sent. ``limit``: frames under
    way at most; ``grown``: frames acknowledged since it grew; ``recover``: it does not shrink
    before this frame again. ``left``: tries. ``stamp``: when there was progress. ``held``: the peer
    had no receive. ``reads_done``: READs whose answers are there, but that have not ended.
    """
    pointer = range(2 * SLOTS)
    return data.StructLayout({
        "state": QpState, "domain": 8, "peer_qp": QP_BITS, "peer_mac": MAC_BITS,
        "timeout_log2": 5, "tries": 8, "window": 8,
        "head": pointer, "send": pointer, "tail": pointer, "frame": 20, "head_psn": PSN_BITS,
        "oldest": PSN_BITS, "next": PSN_BITS, "highest": PSN_BITS, "recover": PSN_BITS, "limit": 8,
        "grown": 8, "left": 8, "stamp": TIME_BITS, "held": 1, "reads_done": pointer})


def receive_layout():
    """A receive in a queue."""
    return data.StructLayout({"cookie": COOKIE_BITS, "length": 32, "address": ADDRESS_BITS})


def receive_context_layout():
    """What the receiving side knows of a queue pair.

    ``closing``: it takes no frames any more, and is in error as soon as what came before is told.
    ``head``, ``tail``: the oldest receive, one past the youngest, each with a bit for the lap.
    ``psn``: number of the next frame. ``asked``: a NAK was sent for it. ``inside``: a message of
    ``kind``, whose next byte belongs at ``address`` and of which ``left`` bytes are to come.
    ``read_head``, ``read_tail``: READs whose answers are to come, as the receives.
    """
    pointer = range(2 * SLOTS)
    return data.StructLayout({
        "state": QpState, "closing": 1, "domain": 8, "peer_qp": QP_BITS, "peer_mac": MAC_BITS,
        "head": pointer, "tail": pointer, "psn": PSN_BITS, "asked": 1, "inside": 1,
        "kind": FrameKind, "address": ADDRESS_BITS, "left": 32,
        "read_head": pointer, "read_tail": pointer})


def event_layout():
    """What follows from a frame once all before it is in memory.

    ``reply``: an ACK or, if ``negative``, a NAK of ``psn`` goes to the peer. ``complete``: a
    receive has ended, with ``status``. ``read_done``: so has a READ; ``read_waits``: one waits.
    ``fatal``: the queue pair goes to its error state.
    """
    return data.StructLayout({
        "qp": QP_BITS, "reply": 1, "negative": 1, "syndrome": Syndrome, "psn": PSN_BITS,
        "echo": 1, "complete": 1, "opcode": Opcode, "status": Status, "cookie": COOKIE_BITS,
        "length": 32, "immediate": 32, "read_done": 1, "read_waits": 1,
        "fatal": 1})


def frames_of(entry):
    """Frames of an entry: at least one."""
    whole = (entry.length + MTU_BYTES - 1)[:32] >> MTU_LOG2
    return Mux((entry.opcode == Opcode.READ) | (whole == 0), 1, whole)[:20]


def pick(bits, last):
    """The first high one of ``bits`` after number ``last``, in a circle: its number."""
    return number_of(next_of(bits, ~((2 << last) - 1)[:len(bits)]))
