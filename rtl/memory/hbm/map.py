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

    From the lowest bit of the number: 1 bit of the bank group, 4 column, 1 bank group, 2 bank in
    the group, then the row; so a sequential stream uses up two rows, in two bank groups in turn,
    and goes to the other two groups. Sums make it rare that other streams meet in one bank: the low
    bit of the group is XORed with the parity of the column, so that lines at a distance of a power
    of two are in different groups; the group is XORed with every pair of bits of the row, and to
    the bank in the group these are added, the second, fourth, ... negative. ``HbmPseudo::line_of``
    in cosim/devices/hbm_pseudo.hpp is the way back.
    """
    column = line[1:1 + COLUMN_BITS]
    group = Cat(line[0] ^ column.xor(), line[1 + COLUMN_BITS])
    above = line[GROUP_BITS + COLUMN_BITS:]
    bank, row = above[:2], above[2:2 + row_bits]
    for low in range(0, row_bits, 2):
        pair = row[low:low + 2]
        group = group ^ pair
        bank = (bank - pair if low & 2 else bank + pair)[:2]
    return Cat(group[:GROUP_BITS], bank, column, row)
