"""Interfaces between a memory tile and its HBM pseudo-channels, and its settings."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.memory.slice.interfaces import inject_layout
from rtl.pe.interfaces import LINE_BITS, LINE_BYTES, AccessError

CHANNEL_LINE_BITS = 30  # of a line within a pseudo-channel


def channel_request_layout(*, name_bits):
    """A request to an HBM pseudo-channel.

    ``registers``: of the line of its counters, not of memory. ``poison``: what is written is known
    to be wrong, and will be read so.
    """
    return data.StructLayout({"line": CHANNEL_LINE_BITS, "name": name_bits, "write": 1,
                              "registers": 1, "poison": 1, "data": LINE_BITS,
                              "mask": LINE_BYTES})


def channel_response_layout(*, name_bits):
    """The answer to every request, with its name; answers may come in any order."""
    return data.StructLayout({"name": name_bits, "write": 1, "error": AccessError,
                              "data": LINE_BITS})


class ChannelPort(wiring.Signature):
    """Port of an HBM pseudo-channel, seen by who asks."""

    def __init__(self, name_bits):
        self.name_bits = name_bits
        super().__init__({
            "request": Out(stream.Signature(channel_request_layout(name_bits=name_bits))),
            "response": In(stream.Signature(channel_response_layout(name_bits=name_bits)))})

    def __eq__(self, other):
        return isinstance(other, ChannelPort) and other.name_bits == self.name_bits


def settings_layout():
    """What the configuration of a die says to a memory tile, see :class:`SramSlice`."""
    return data.StructLayout({"cache_ways": 4, "flush": 1, "tick": 1, "inject": inject_layout()})
