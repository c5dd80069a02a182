"""SCORE commands as the softmax unit reads them, and what its two passes know of a block."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention.interfaces import GROUP, KEYS, LINE_BITS
from rtl.mx.formats import Format

LANES = 16                  # FP32 numbers of a line
POSITIONS_LOG2 = 4          # at most this many rows, as a power of two, share a position
P_FORMATS = (Format.BF16, Format.FP16, Format.E4M3)
PARTS = 4                   # of a line, for the soft cap
LINE_INDEX = range(KEYS + 1)    # of a line within its block; after the keys, the sinks
SINK_LINE = KEYS


def score_layout():
    """A ``SCORE`` command, word by word, see docs/programming-model.md."""
    return data.StructLayout({
        "opcode": 8, "reserved0": 8, "tag": 16,
        "a_format": 4, "b_format": 4, "release": 1, "reserved1": 1, "pair": 1, "first": 1,
        "last": 1, "state": 1, "reserved2": 2, "format": 4,
        "share_log2": 3, "reserved3": 1, "soft_cap": 1, "reserved4": 7,
        "elements": 64, "scales": 64, "sink": 64,
        "columns": 16, "blocks": 16, "strides": 32,
        "low": signed(32), "high": signed(32), "scale": 32, "cap_offset": 32, "cap_slope": 32,
        "unused": 32})


def block_layout():
    """A block as the second pass sees it: its lines of scores, its groups of 32 keys of P.

    ``sink``: a line of sinks comes before those lines.
    """
    return data.StructLayout({"lines": range(KEYS + 1), "groups": range(KEYS // GROUP + 1),
                              "pair": 1, "first": 1, "last": 1, "state": 1, "sink": 1,
                              "format": Format})


def maxima_layout():
    """A block whose scores are stored, with the whole maximum of each row up to here."""
    return data.StructLayout({"block": block_layout(), "peak": LINE_BITS})


def cap_layout():
    """Numbers of a soft cap, FP32: of a score s it makes offset + slope / (1 + 2^(s factor))."""
    return data.StructLayout({"factor": 32, "offset": 32, "slope": 32})


def part_layout():
    """A part of a line of capped scores: of lanes 4 ``part`` to 4 ``part`` + 3."""
    return data.StructLayout({"valid": 1, "part": range(PARTS),
                              "x": data.ArrayLayout(32, LANES // PARTS)})


def line_count(command):
    """Lines of scores of a block: one for a key, with ``pair`` for two."""
    keys = command.columns[:8]
    return Mux(command.pair, (keys + 1) >> 1, keys)


class ScoreChecker(wiring.Component):
    """Says which word of a ``SCORE`` command the softmax unit refuses. Latency is 0 cycles.

    Members
    -------
    command : In(score_layout())
        The command.
    refused : Out(1)
        It is refused.
    field : Out(4)
        Number of the word, the lowest if several are wrong: 1 (format of P, share, state of a last
        block, or bits without a meaning), 6 (sinks of a block that is no first one), 8 (keys), 13
        or 14 (a number of the soft cap without a soft cap).
    """

    command: In(score_layout())
    refused: Out(1)
    field: Out(4)

    def elaborate(self, platform):
        m = Module()
        command = self.command
        known = Cat(command.format == format.value for format in P_FORMATS).any()
        reserved = Cat(command.reserved1, command.reserved2, command.reserved3,
                       command.reserved4).any()
        word1 = (~known | (command.share_log2 > POSITIONS_LOG2) | reserved
                 | (command.last & command.state))
        keys = (command.columns == 0) | (command.columns > KEYS)
        checks = ((1, word1), (6, command.sink.any() & ~command.first), (8, keys),
                  (13, command.cap_offset.any() & ~command.soft_cap),
                  (14, command.cap_slope.any() & ~command.soft_cap))
        for field, wrong in reversed(checks):
            with m.If(wrong):
                m.d.comb += [self.refused.eq(1), self.field.eq(field)]
        return m
