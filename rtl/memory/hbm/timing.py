"""Timing and commands of one HBM pseudo-channel."""
from dataclasses import dataclass, fields

from amaranth.lib import data, enum

GROUPS = 4              # bank groups, JESD238
BANKS = 16              # banks, four in each group, JESD238
COLUMNS = 32            # accesses in a row: a page of 1 KiB in pieces of 32 bytes, JESD238
LINES = COLUMNS // 2    # lines of 64 bytes in a row
ACCESS_BITS = 256       # of data in an access
CHECK_BITS = 16         # stored beside them

LEAST = {"refi": BANKS, "rtp": 3, "rp": 2, "ras": 2, "rc": 2, "rcdrd": 2, "rcdwr": 2, "faw": 2,
         "cwl": 2, "ccdl": 2, "rfcpb": 2}   # what the pipelines of the controller need; else 1


@dataclass(frozen=True)
class HbmTiming:
    """Least distances between commands [clock of 0.625 ns].

    Source: JESD238 values of HBM3-6400; ``rfc`` is that of a channel of 16 Gbit (450 ns);
    ``rrefd`` is the larger of 8 ns and 3 clocks, as Ramulator 2.1 has it. CCDR, between the ranks
    of a stack of more than eight dies, does not occur: a stack has one rank here.
    """

    bl: int = 2         # length of a burst on the data pins
    cl: int = 20        # read to its data
    cwl: int = 10       # write to its data
    rcdrd: int = 31     # activate to read
    rcdwr: int = 15     # activate to write
    rp: int = 26        # precharge to activate
    ras: int = 45       # activate to precharge
    rc: int = 72        # activate to activate, same bank
    wr: int = 33        # end of write data to precharge
    rtp: int = 9        # read to precharge
    ccds: int = 2       # column to column command, other bank group
    ccdl: int = 4       # column to column command, same bank group
    rrds: int = 4       # activate to activate, other bank group
    rrdl: int = 5       # activate to activate, same bank group
    faw: int = 24       # activate to the fourth activate after it
    wtrs: int = 7       # end of write data to read, other bank group
    wtrl: int = 10      # end of write data to read, same bank group
    rtw: int = 20       # read to write
    rfc: int = 720      # refresh of all banks to the next row command
    rfcpb: int = 320    # refresh of one bank to its next activate or refresh
    rrefd: int = 13     # refresh of one bank to activate or refresh of another
    refi: int = 6240    # refresh to refresh of the same bank, on average

    def __post_init__(self):
        for field in fields(self):
            value, least = getattr(self, field.name), LEAST.get(field.name, 1)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{field.name} must be an integer of at least {least}, "
                                 f"not {value!r}")
        for small, large in (("rcdwr", "rcdrd"), ("ccds", "ccdl"), ("rrds", "rrdl"),
                             ("wtrs", "wtrl")):
            if getattr(self, small) > getattr(self, large):
                raise ValueError(f"{small} must be at most {large} ({getattr(self, large)}), "
                                 f"not {getattr(self, small)!r}")

    @property
    def write_to_precharge(self):
        return self.cwl + self.bl + self.wr

    @property
    def write_to_read_s(self):
        return self.cwl + self.bl + self.wtrs

    @property
    def write_to_read_l(self):
        return self.cwl + self.bl + self.wtrl


class RowOp(enum.Enum, shape=3):
    """Commands on the row bus."""

    ACTIVATE = 0
    PRECHARGE = 1
    PRECHARGE_ALL = 2
    REFRESH = 3         # of all banks
    REFRESH_BANK = 4    # of one


def row_command_layout(*, row_bits):
    """A row command. ``bank``: bits 1:0 bank group, 3:2 bank in the group."""
    return data.StructLayout({"valid": 1, "op": RowOp, "bank": 4, "row": row_bits})


def column_command_layout():
    """A column command, for the open row of ``bank``; one access of 32 bytes."""
    return data.StructLayout({"valid": 1, "write": 1, "bank": 4, "column": 5})


def access_layout():
    """What is on the data pins: 32 bytes, their check bits, and six spare bits.

    ``check``: :func:`rtl.memory.secded.encode` of ``data``. ``spare``: all ones mark an access
    whose contents were lost; three ones or more are read as this mark, so that two wrong bits
    neither set nor hide it.
    """
    return data.StructLayout({"data": ACCESS_BITS, "check": 10, "spare": CHECK_BITS - 10})
