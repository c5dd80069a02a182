"""Interfaces between a memory tile and the memories in it."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, AccessError

LINE_NUMBER_BITS = 34   # of a line within a tile: the 40-bit offset of an address


class Hint(enum.Enum, shape=2):
    """What a request says of the use of its line; only a last-level cache listens."""

    NONE = 0
    NO_ALLOCATE = 1     # a miss brings nothing into the cache
    NO_WRITE_BACK = 2   # the line is dead after this read: what was written need not be kept
    PREFETCH = 3        # bring the line into the cache; answered at once, without data


def slice_request_layout(name_bits):
    """A request to an SRAM slice: a scratch line, or if ``cached`` an HBM line of the tile."""
    return data.StructLayout({"line": LINE_NUMBER_BITS, "cached": 1, "hint": Hint,
                              "name": name_bits, "write": 1, "data": LINE_BITS,
                              "mask": LINE_BYTES})


def channel_request_layout(name_bits):
    """A request to an HBM pseudo-channel; ``registers``: of its counters, by line number."""
    return data.StructLayout({"line": 30, "name": name_bits, "write": 1, "registers": 1,
                              "data": LINE_BITS, "mask": LINE_BYTES})


def memory_response_layout(name_bits):
    """The answer to every request, with its name; answers may come in any order."""
    return data.StructLayout({"name": name_bits, "write": 1, "error": AccessError,
                              "data": LINE_BITS})


class ChannelPort(wiring.Signature):
    """Port of an HBM pseudo-channel, seen by who asks."""

    def __init__(self, name_bits):
        self.name_bits = name_bits
        super().__init__({"request": Out(stream.Signature(channel_request_layout(name_bits))),
                          "response": In(stream.Signature(memory_response_layout(name_bits)))})

    def __eq__(self, other):
        return isinstance(other, ChannelPort) and other.name_bits == self.name_bits
