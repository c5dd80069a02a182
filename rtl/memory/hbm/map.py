"""Where a line of an HBM pseudo-channel is: its bank, row and column."""
from amaranth import *
from amaranth.lib import data
from amaranth.utils import exact_log2

from rtl.memory.hbm.timing import GROUPS, LINES

GROUP_BITS = exact_log2(GROUPS)
COLUMN_BITS = exact_log2(LINES)


def place_layout(*, row_bits):
    """``bank``: bits 1:0 bank group, 3:2 bank in the group; ``column`` counts lines."""
    return data.StructLayout({"bank": 4, "column": COLUMN_BITS, "row": row_bits})


def place_of(line, *, row_bits):
    """Place of the line with this number, a value of :func:`place_layout`'s width.

    From the lowest bit of the number: 2 bits bank group, 4 column, 2 bank in the group, then the
    row; so a sequential stream changes its bank group with every line. Two sums make it rare that
    other streams meet in one place. The bank group is XORed with every pair of bits of the column:
    lines at distances of a power of two are in different groups. To the bank in the group the row's
    pairs of bits are added, the second, fourth, ... negative: streams at such distances are in
    different banks, and a sequential stream that comes to the next row finds a bank that it has
    not just left, as the sum then changes by 0 or 1. ``HbmPseudo::line_of`` in
    cosim/devices/hbm_pseudo.hpp is the way back.
    """
    group, column = line[:GROUP_BITS], line[GROUP_BITS:GROUP_BITS + COLUMN_BITS]
    above = line[GROUP_BITS + COLUMN_BITS:]
    bank, row = above[:2], above[2:2 + row_bits]
    for low in range(0, COLUMN_BITS, 2):
        group = group ^ column[low:low + 2]
    for low in range(0, row_bits, 2):
        pair = row[low:low + 2]
        bank = (bank - pair if low & 2 else bank + pair)[:2]
    return Cat(group[:GROUP_BITS], bank, column, row)
