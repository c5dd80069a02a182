"""Interfaces between the softmax unit, the dot-product engine and the reduction engine."""
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.mx.formats import Format

KEYS = 128              # most keys of a block (this project's choice)
WORDS = 32              # 64-bit words of a row of a P buffer: 128 keys of 16 bits
GROUP = 32              # keys of a group: P is padded to whole groups
LINE_BITS = 512


def p_word_layout(*, rows):
    """Word ``index`` of each row of a P buffer, the key with the lowest number lowest."""
    return data.StructLayout({"index": range(WORDS), "data": data.ArrayLayout(64, rows)})


def p_content_layout():
    """What a P buffer holds: its format, and how many groups of 32 keys, padding included."""
    return data.StructLayout({"format": Format, "groups": range(KEYS // GROUP + 1)})


def factors_layout():
    """Of one block, 16 FP32 each: 2^(m - m') of the rows; after a last block, 1 / l or +0.

    ``moved``: some factor is not one. ``state``: another entry follows for the same block, with
    the maxima in place of the factors and the sums in place of the inverses; of a row that saw
    nothing they are -2^126 and 2^-126.
    """
    return data.StructLayout({"factor": LINE_BITS, "inverse": LINE_BITS, "moved": 1, "state": 1})


class PFill(wiring.Signature):
    """From the softmax unit to the P buffer that is filled.

    ``free``: a buffer may be filled. ``word``: its words, in any order. ``full`` hands it over with
    its ``content``, for one cycle, after the cycle in which its last word was accepted.

    Parameters
    ----------
    rows : int
        Rows of operand A.
    """

    def __init__(self, *, rows):
        self.rows = rows
        super().__init__({"free": In(1), "word": Out(stream.Signature(p_word_layout(rows=rows))),
                          "full": Out(1), "content": Out(p_content_layout())})

    def __eq__(self, other):
        return isinstance(other, PFill) and other.rows == self.rows
