"""CRC-32C of a flit, one phit a cycle."""
from amaranth import *

CRC_BITS = 32
POLYNOMIAL = 0x82F63B78     # x^32 + ... (0x1EDC6F41), least significant bit first
INITIAL = 0xFFFFFFFF


def crc_step(state, byte_bits):
    """State after ``byte_bits`` zero bits, as plain integers."""
    for _ in range(byte_bits):
        state = (state >> 1) ^ (POLYNOMIAL if state & 1 else 0)
    return state


def crc_masks(width):
    """Which bits of the state and of ``width`` data bits each bit of the next state is a sum of."""
    columns = [crc_step(1 << bit, 1) for bit in range(CRC_BITS)]

    def advance(state):  # one bit, by table: linear in the state
        result = 0
        for bit, column in enumerate(columns):
            if state >> bit & 1:
                result ^= column
        return result

    contribution, data_columns = crc_step(1, 1), [0] * width
    for bit in reversed(range(width)):  # the last bit is followed by no other step
        data_columns[bit] = contribution
        contribution = advance(contribution)
    state_columns = [crc_step(1 << bit, width) for bit in range(CRC_BITS)]

    def row(matrix, out):
        return sum((column >> out & 1) << i for i, column in enumerate(matrix))

    return [(row(state_columns, out), row(data_columns, out)) for out in range(CRC_BITS)]


def crc_next(state, data):
    """Value of the state register after all bits of ``data``, bit 0 first; no registers.

    Detects every error of up to 5 bits and every burst of up to 32 in a flit. Source:
    RFC 3720 appendix B.4 for the code; Koopman, "32-Bit Cyclic Redundancy Codes for Internet
    Applications", DSN 2002, for the distance 6 up to 5,243 data bits.
    """
    data = Value.cast(data)
    return Cat((state & s).xor() ^ (data & d).xor() for s, d in crc_masks(len(data)))
