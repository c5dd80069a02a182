"""What the parts of a message engine say to each other."""
from amaranth import *
from amaranth.lib import data, enum

from rtl.mx.formats import Format
from rtl.mx.quantise import Rule
from rtl.net.interfaces import Status
from rtl.pe.interfaces import ADDRESS_BITS, LINE_BITS, LINE_BYTES, TAG_BITS, ErrorCode

SUBGRAPHS = 7           # of a program, at most: as many addresses are in its first line
SUBGRAPH_BITS = 3
INDEX_BITS = 8          # of the number of an entry, in a cookie
UNDER_WAY = 16          # entries of a subgraph
LINE_NUMBER_BITS = ADDRESS_BITS - 6
LABEL_BITS = 16


class Tags(enum.IntEnum):
    """Tags of requests: the first of each kind. Kinds of 8 have one for each subgraph."""

    A = 0x00            # lines of the first operand, by place in its buffer
    B = 0x40
    RESULTS = 0x80      # of two moves, 32 each
    ENTRIES = 0xC0      # 4 for each subgraph
    WORDS = 0xE0        # of a WAIT
    DOORBELLS = 0xE8
    SETS = 0xF0
    TABLE = 0xF8


def label(subgraph, number):
    """Tag of an entry in a report: the subgraph, and the lower bits of the entry's number."""
    return Cat(Value.cast(number)[:12], Value.cast(subgraph)[:SUBGRAPH_BITS], C(0, 1))


def read_layout():
    """A read of a line, for the entry ``label``."""
    return data.StructLayout({"line": LINE_NUMBER_BITS, "tag": TAG_BITS, "label": LABEL_BITS})


def write_layout():
    """A write of the bytes of a line that ``mask`` selects, for the entry ``label``."""
    return data.StructLayout({"line": LINE_NUMBER_BITS, "tag": TAG_BITS, "label": LABEL_BITS,
                              "data": LINE_BITS, "mask": LINE_BYTES})


def answer_layout():
    """An answer without an error, on its way to who asked: there is no back-pressure on it."""
    return data.StructLayout({"valid": 1, "tag": TAG_BITS, "data": LINE_BITS})


def fault_layout():
    """Why a program ends, for one cycle; fields as of :func:`rtl.pe.interfaces.report_layout`."""
    return data.StructLayout({"valid": 1, "code": ErrorCode, "field": 8, "label": LABEL_BITS,
                              "address": ADDRESS_BITS})


def end_layout():
    """The end of an entry: its subgraph and the lower bits of its number.

    ``nic``: it must be of a NIC kind; ``status`` and ``address`` are those of its completion.
    """
    return data.StructLayout({"subgraph": SUBGRAPH_BITS, "index": INDEX_BITS, "nic": 1,
                              "status": Status, "address": 64})


def move_layout():
    """A REDUCE or COPY of ``length`` bytes, not zero.

    ``s``: line of the result; ``a``, ``b``: byte addresses. ``scales_*``: lines of scale bytes.
    """
    return data.StructLayout({
        "copy": 1, "format": Format, "rule": Rule, "length": 32, "s": LINE_NUMBER_BITS,
        "a": ADDRESS_BITS, "b": ADDRESS_BITS, "scales_s": LINE_NUMBER_BITS,
        "scales_a": LINE_NUMBER_BITS, "scales_b": LINE_NUMBER_BITS, "label": LABEL_BITS})
