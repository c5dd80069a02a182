"""What the parts of the dispatcher say to each other."""
from amaranth import Cat, Mux
from amaranth.lib import data, enum

from rtl.link.interfaces import LAUNCH_STREAM_BITS, MASK_BITS, slot_layout
from rtl.pe.interfaces import ADDRESS_BITS, ErrorCode

from .axi import HOST_ADDRESS_BITS

STREAM_BITS = LAUNCH_STREAM_BITS
STREAMS = 1 << STREAM_BITS
DIE_BITS = 4
EVENTS = 16         # this project's choice
EVENT_BITS = 4
MASK_WORD = 16      # PEs of which a completion has the mask in its own field
HOST_FIELD = 2      # field of a copy that failed at the host's memory: the word of that address


class Opcode(enum.Enum, shape=8):
    """Opcodes of submission entries."""

    COPY_IN = 1
    COPY_OUT = 2
    LAUNCH = 3
    NOP = 4
    EVENT_RECORD = 5
    EVENT_WAIT = 6


def entry_layout():
    """A submission entry (docs/programming-model.md, "Work packets"), and when it was fetched.

    ``die`` is the number of the event where the entry has one, ``value`` what it is to reach.
    """
    return data.StructLayout({
        "opcode": 8, "stream": 8, "tag": 16, "host": HOST_ADDRESS_BITS, "device": 64,
        "bytes": 32, "value": 32, "die": 8, "pe_mask": MASK_BITS, "watchdog": 32,
        "fetched": 32})


def decode_entry(entry, line, fetched):
    """Assignments of the fields of a line of 16 words to ``entry``."""
    word = [line[32 * n:32 * n + 32] for n in range(16)]
    fields = {"opcode": word[0][:8], "stream": word[0][8:16], "tag": word[0][16:],
              "host": line[64:128], "device": line[128:192], "bytes": word[6],
              "value": word[7], "die": word[8][:8], "watchdog": word[9],
              "pe_mask": Cat(word[8][16:], word[10], word[11]), "fetched": fetched}
    return [entry[name].eq(value) for name, value in fields.items()]


def copy_layout():
    """A copy of at least one byte, within one die."""
    return data.StructLayout({"stream": STREAM_BITS, "host": HOST_ADDRESS_BITS,
                              "device": ADDRESS_BITS, "bytes": 32})


def done_layout():
    """A copy has ended: each byte of it stands where it belongs, or ``code`` says why not.

    ``address`` is that of the first access that failed, to the die or, with ``host``, to the
    host's memory.
    """
    return data.StructLayout({"stream": STREAM_BITS, "code": ErrorCode, "host": 1,
                              "address": HOST_ADDRESS_BITS})


def copy_ended(done, outcome, dead):
    """Assignments of how a copy ended to ``done``; of a lost die nothing else is known."""
    return [done.stream.eq(outcome.stream),
            done.code.eq(Mux(dead, ErrorCode.LINK_DOWN, outcome.code)),
            done.host.eq(outcome.host & ~dead), done.address.eq(Mux(dead, 0, outcome.address))]


def line_of(line, tag, back):
    """The line that was given the tag ``back``; ``line`` is the next one, and gets ``tag``.

    Lines get tags in turn, and at most as many are under way as there are tags.
    """
    return line - 1 - (tag - back - 1)[:len(tag)]


def request_layout():
    """A slot for a die."""
    return data.StructLayout({"die": DIE_BITS, "slot": slot_layout()})


def result_layout():
    """What a completion entry will say, except its phase bit.

    ``value`` of a launch has a bit for each PE past the ``MASK_WORD`` of ``failed_mask``.
    """
    return data.StructLayout({"tag": 16, "code": ErrorCode, "command_tag": 16, "unit": 4,
                              "field": 8, "die": 4, "failed_pe": 8,
                              "failed_mask": MASK_WORD, "cycles": 32, "address": 64,
                              "value": MASK_BITS - MASK_WORD})
