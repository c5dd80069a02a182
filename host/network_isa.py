"""Layouts of NICs and message engines as the host writes them, see docs/network.md.

A layout is a numpy structured type of one line. Fields of less than a byte share one, and are in
:data:`PACKED`: field, byte that holds it, lowest bit, bits.
"""
import enum

import numpy as np

from host.isa import LINE, address

NETWORK_REGION = 5      # of a compute die: windows of NICs
ENGINE_REGION = 6       # registers of its message engine
COMPLETION_PORT = 0x1000        # of a message engine, in its region
NIC_REGISTERS, NIC_QUEUE_PAIRS, NIC_REGIONS = 0x00000, 0x10000, 0x20000     # in a NIC's window
NIC_SEND, NIC_RECEIVE = 0x40000, 0x80000    # doorbells
PLACES = 16             # of a send and of a receive queue; entries of a subgraph under way
SUBGRAPHS = 7           # of a program, at most
ENTRIES = 65535         # of a subgraph, at most
MAX_BACK = 255
MESSAGE_ENGINE = 9      # unit in a report
NETWORK = 9             # code in a report: a work request failed


class Opcode(enum.IntEnum):
    NONE = 0
    SEND = 1
    WRITE = 2
    WRITE_IMM = 3
    READ = 4
    READ_RESPONSE = 5
    RECV = 0x10
    RECV_IMM = 0x11


class Status(enum.IntEnum):
    OK = 0
    LOCAL_PROTECTION = 1
    REMOTE_PROTECTION = 2
    REMOTE_MEMORY = 3
    LENGTH = 4
    NOT_READY = 5
    UNREACHABLE = 6
    FLUSHED = 7
    STATE = 8
    OVERRUN = 9
    FIELD = 10
    MEMORY = 11
    REMOTE_FIELD = 12


class QpState(enum.IntEnum):
    RESET = 0
    READY = 1
    ERROR = 2


class EngineKind(enum.IntEnum):
    NONE = 0
    SEND = 1
    WRITE = 2
    WRITE_IMM = 3
    READ = 4
    RECV = 0x10
    WAIT = 0x20
    SET = 0x21
    REDUCE = 0x22
    COPY = 0x23
    ARRIVE = 0x24


class Compare(enum.IntEnum):
    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2
    AT_LEAST = 3


def _layout(*fields):
    """A line: pairs of name and bytes; the rest is zero."""
    kinds = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"}
    used = sum(size for _, size in fields)
    return np.dtype([*((name, kinds[size]) for name, size in fields),
                     ("_rest", "u1", (LINE - used,))])


WORK = _layout(("opcode", 1), ("flags", 1), ("cookie", 2), ("length", 4), ("local", 8),
               ("remote", 8), ("local_key", 4), ("remote_key", 4), ("immediate", 4))
COMPLETION = _layout(("opcode", 1), ("status", 1), ("cookie", 2), ("qp", 2), ("_gap", 2),
                     ("length", 4), ("immediate", 4), ("address", 8))
QUEUE_PAIR = _layout(("state", 1), ("domain", 1), ("peer_qp", 2), ("peer_mac", 8), ("_gap", 4),
                     ("completions", 8), ("ring_log2", 1), ("timeout_log2", 1), ("tries", 1),
                     ("window", 1), ("send_psn", 4), ("receive_psn", 4))
REGION = _layout(("key", 4), ("domain", 1), ("access", 1), ("_gap", 2), ("base", 8),
                 ("length", 8))
ENTRY = _layout(("kind", 1), ("flags", 1), ("back", 1), ("codes", 1), ("length", 4), ("local", 8),
                ("remote", 8), ("third", 8), ("local_key", 4), ("remote_key", 4),
                ("immediate", 4), ("rule", 4), ("scales_s", 4), ("scales_a", 4), ("scales_b", 4))
PACKED = {
    QUEUE_PAIR: {"state": ("state", 0, 2), "peer_mac": ("peer_mac", 0, 48)},
    REGION: {"remote_read": ("access", 0, 1), "remote_write": ("access", 1, 1)},
    ENTRY: {"fence": ("flags", 0, 1), "rx_sync": ("flags", 1, 1), "sync": ("flags", 2, 1),
            "compare": ("codes", 0, 4), "format": ("codes", 4, 4), "rule": ("rule", 0, 4)},
}


def line(layout, **fields):
    """One line of a layout, its other fields zero.

    :exc:`ValueError` for a value that its field cannot hold.
    """
    made = np.zeros((), layout)
    for name, value in fields.items():
        holder, low, bits = PACKED.get(layout, {}).get(
            name, (name, 0, 8 * layout[name].itemsize if name in layout.names else 0))
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} must have at most {bits} bits, not {value!r}")
        made[holder] |= made[holder].dtype.type(int(value) << low)
    return made


def field(made, name):
    """A field of a line or of several."""
    holder, low, bits = PACKED.get(made.dtype, {}).get(name, (name, 0, 64))
    value = np.asarray(made[holder]).astype(np.uint64) >> np.uint64(low)
    return value if bits == 64 else value & np.uint64((1 << bits) - 1)


def program_header(subgraphs):
    """The first line of a program: pairs of address and number of entries.

    :exc:`ValueError` unless there are 1 to 7 subgraphs, each of 1 to 65535 entries.
    """
    if not 1 <= len(subgraphs) <= SUBGRAPHS:
        raise ValueError(f"Subgraphs must be 1 to {SUBGRAPHS}, not {len(subgraphs)}")
    words = np.zeros(LINE // 8, "<u8")
    words[0] = len(subgraphs)
    for number, (at, entries) in enumerate(subgraphs):
        if not 1 <= entries <= ENTRIES:
            raise ValueError(f"Entries of a subgraph must be 1 to {ENTRIES}, not {entries}")
        words[1 + number] = at | entries << 48
    return words.view(np.uint8)


def nic_window(die, link, nic=0):
    """Device address of the window of a NIC behind a link of a die to a network chiplet."""
    return address(die, NETWORK_REGION, link << 24 | nic << 20)


def doorbells(window, queue_pair):
    """Addresses of the send and the receive doorbell of a queue pair."""
    return window + NIC_SEND + LINE * queue_pair, window + NIC_RECEIVE + LINE * queue_pair


def completion_port(die):
    """Where the NICs write completions for the message engine of a die."""
    return address(die, ENGINE_REGION, COMPLETION_PORT)
