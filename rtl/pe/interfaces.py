"""Interfaces between the units of a processing element, and between it and the fabric.

Every port that leaves a PE is a function of registers only (no combinational path from an input
of the PE to an output): a queue stands at each stream that crosses the boundary.
"""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

LINE_BYTES = 64
LINE_BITS = 8 * LINE_BYTES
BUFFERS = 32                    # circular buffers of a PE (this project's choice)
ADDRESS_BITS = 48
DEFAULT_WATCHDOG = 65536        # cycles, for a launch that gives 0 (this project's choice)
TAG_BITS = 8
MESSAGE_ENGINE = 9              # in the place of a PE's unit, in reports of a message engine


class Unit(enum.Enum, shape=4):
    """Units of a PE, as numbered in completions and in the register window."""

    COMMAND_PROCESSOR = 0
    DMA_IN = 1
    DMA_OUT = 2
    A_LOADER = 3
    DOT = 4
    REDUCTION = 5
    SIMD = 6
    LAYOUT = 7
    SOFTMAX = 8


class ErrorCode(enum.Enum, shape=8):
    """Codes of a completion, see docs/programming-model.md."""

    OK = 0
    BAD_COMMAND = 1
    BAD_FIELD = 2
    CB_TOO_SMALL = 3
    BAD_ADDRESS = 4
    WATCHDOG = 5
    POISON = 6
    ABORTED = 7
    LINK_DOWN = 8
    NETWORK = 9     # a work request of a message engine failed; field: the NIC's status


class Hint(enum.Enum, shape=2):
    """What a requester knows about a line of HBM; counts only where a cache is in the way."""

    NONE = 0
    NO_ALLOCATE = 1     # it will not be used again: a miss brings nothing into the cache
    NO_WRITE_BACK = 2   # nobody needs it after this read: it may be lost
    PREFETCH = 3        # bring it into the cache; the answer comes at once and has no data


class Group(enum.Enum, shape=2):
    """Who reads a line together with the PE that asks: each of them asks, one answer goes to all.

    The tag of such a read is :func:`group_tag` of its address, and not that of a read under way.
    """

    ALONE = 0
    ROW = 1     # the PEs of its row
    COLUMN = 2
    ALL = 3


GROUP_TAGS = 64     # reads under way together with others; this project's choice


def group_tag(address):
    """Tag of a read in a :class:`Group`: lines in a row have different ones."""
    return address[6:12] ^ address[12:18] ^ address[18:24]


def request_layout():
    """A request to memory: one line, or for a write the bytes of it that ``mask`` selects."""
    return data.StructLayout({"address": ADDRESS_BITS, "tag": TAG_BITS, "write": 1,
                              "data": LINE_BITS, "mask": LINE_BYTES, "hint": Hint,
                              "group": Group})


class AccessError(enum.Enum, shape=2):
    """How a request ended."""

    NONE = 0
    ADDRESS = 1     # outside every window
    POISON = 2      # uncorrectable memory error
    LINK_DOWN = 3   # a link on the way to the die has given up


def error_code(error):
    """The completion's code for an access that ended with an :class:`AccessError`."""
    return Mux(error == AccessError.POISON, ErrorCode.POISON,
               Mux(error == AccessError.LINK_DOWN, ErrorCode.LINK_DOWN, ErrorCode.BAD_ADDRESS))


def response_layout():
    """The answer to every request, reads and writes, with the tag of the request."""
    return data.StructLayout({"tag": TAG_BITS, "write": 1, "error": AccessError,
                              "data": LINE_BITS})


def launch_layout():
    """What starts a PE: where its first command is, and the patience of its watchdog [cycle]."""
    return data.StructLayout({"program": ADDRESS_BITS, "watchdog": 32})


def report_layout():
    """How a program ended: the code, and the command's tag, unit and field that caused it.

    ``address``: of the line whose access failed, with ``BAD_ADDRESS``, ``POISON`` and
    ``LINK_DOWN``; else 0.
    """
    return data.StructLayout({"code": ErrorCode, "tag": 16, "unit": Unit, "field": 8,
                              "address": ADDRESS_BITS})


class LocalRead(wiring.Signature):
    """A read port of local memory, seen by the unit that reads.

    ``address`` is a stream of line numbers. The line read by an accepted address stands on
    ``data`` in the next cycle, when ``valid`` is high; there is no back-pressure on it.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({"address": Out(stream.Signature(range(lines))),
                          "data": In(LINE_BITS), "valid": In(1)})

    def __eq__(self, other):
        return isinstance(other, LocalRead) and other.lines == self.lines


class LocalWrite(wiring.Signature):
    """A write port of local memory, seen by the unit that writes: a stream of masked lines."""

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({"o": Out(stream.Signature(data.StructLayout({
            "address": range(lines), "data": LINE_BITS, "mask": LINE_BYTES})))})

    def __eq__(self, other):
        return isinstance(other, LocalWrite) and other.lines == self.lines


def acquire_layout():
    """A CB operand as asked for by a unit (see "CB operands" in docs/programming-model.md)."""
    return data.StructLayout({"buffer": range(BUFFERS), "producer": 1, "offset": 24,
                              "wait": 16, "release": 16})


def grant_layout(*, lines):
    """Where an operand is: its first line, and the first and one past the last line of its CB."""
    return data.StructLayout({"start": range(lines), "base": range(lines),
                              "limit": range(lines + 1)})


def release_layout():
    """Lines given on at the end of a command: popped by a consumer, pushed by a producer."""
    return data.StructLayout({"buffer": range(BUFFERS), "producer": 1, "count": 16})


class BufferPort(wiring.Signature):
    """Port of the circular-buffer table, seen by a unit.

    ``acquire`` is ready in the cycle in which the operand's wait holds (or it can never hold:
    then ``too_small`` is high); ``grant`` is valid in that same cycle. The pointer that the next
    operand sees advances by ``release`` at once; the other side sees it when ``release`` is
    accepted.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({"acquire": Out(stream.Signature(acquire_layout())),
                          "grant": In(grant_layout(lines=lines)), "too_small": In(1),
                          "release": Out(stream.Signature(release_layout()))})

    def __eq__(self, other):
        return isinstance(other, BufferPort) and other.lines == self.lines


class UnitState(enum.Enum, shape=2):
    """What a unit does in a cycle, as counted and as traced."""

    IDLE = 0
    BUSY = 1
    STARVED = 2     # a command waits for input
    BLOCKED = 3     # a command waits for output


class UnitPort(wiring.Signature):
    """Port of a unit towards the command processor, seen by the unit.

    ``command``: 64-byte commands (512 bits, word 0 lowest). ``idle``: nothing queued, under way or
    unreleased. ``waiting``, ``waiting_buffer``, ``waiting_tag``: the CB that a command waits
    for at the moment, and the command's tag.
    ``error``: sticky until ``clear``; a unit in error takes no more work; ``address`` as in
    :func:`report_layout`. ``clear``: one or more cycles; returns the unit to its reset state (the
    command processor first waits until no transfer is outstanding).
    ``launch``: one cycle at the start of a program; counters restart. ``counters``: a line of 16
    32-bit words (0 busy, 1 starved, 2 blocked, 3 commands ended, the rest by unit). ``state``: what
    the unit did in the cycle before.
    """

    def __init__(self):
        super().__init__({
            "command": In(stream.Signature(LINE_BITS)), "clear": In(1), "launch": In(1),
            "idle": Out(1), "waiting": Out(1), "waiting_buffer": Out(range(BUFFERS)),
            "waiting_tag": Out(16),
            "error": Out(data.StructLayout({"valid": 1, "code": ErrorCode, "field": 8,
                                            "tag": 16, "address": ADDRESS_BITS})),
            "counters": Out(data.ArrayLayout(32, 16)), "state": Out(UnitState)})

    def __eq__(self, other):
        return isinstance(other, UnitPort)


def wrapped(grant, offset):
    """Line number of ``offset`` lines into a granted operand; ``offset`` is less than the CB."""
    line = grant.start + offset
    return Mux(line >= grant.limit, line - (grant.limit - grant.base), line)


class PePort(wiring.Signature):
    """Everything that leaves a PE, seen by the PE.

    ``launch``: the next program, taken and fetched while one runs; ready while none waits.
    ``go``: one cycle, later than the program was taken; it may start when the PE is free.
    ``drop``: one cycle, instead of ``go``; it is forgotten. ``report``: how it ended, one for each
    ``go``. ``arrive``: one cycle at each barrier reached; ``proceed``: one cycle, lets the PE
    leave the barrier it arrived at. ``abort``: one cycle; the program that runs or may start ends
    with ``ABORTED``.
    ``request``/``response``: the PE's accesses to memory; responses in any order, by tag.
    ``access``/``access_response``: accesses of others to the PE's register window.
    ``ring_in``, ``ring_out``: lines of 16 FP32 from the PE before in the reduction ring, and to the
    one after; nothing is accepted but for a command that wants it.
    ``idle``: no program runs. ``states``: see docs/programming-model.md.
    """

    def __init__(self):
        super().__init__({
            "launch": In(stream.Signature(launch_layout())), "go": In(1), "drop": In(1),
            "report": Out(stream.Signature(report_layout())),
            "arrive": Out(1), "proceed": In(1), "abort": In(1),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "access": In(stream.Signature(request_layout())),
            "access_response": Out(stream.Signature(response_layout())),
            "ring_in": In(stream.Signature(LINE_BITS)),
            "ring_out": Out(stream.Signature(LINE_BITS)),
            "idle": Out(1), "states": Out(2 * len(Unit))})

    def __eq__(self, other):
        return isinstance(other, PePort)
