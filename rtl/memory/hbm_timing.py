"""Timing and commands of one HBM channel."""
from dataclasses import dataclass, fields

from amaranth.lib import data, enum

GROUPS = 4              # bank groups, JESD238
BANKS = 16              # banks of a pseudo-channel, four in each group, JESD238
COLUMNS = 32            # accesses in a row: a page of 1 KiB in pieces of 32 bytes, JESD238


@dataclass(frozen=True)
class HbmTiming:
    """Least distances between commands [clock of 0.625 ns].

    Source: JESD238 values of HBM3-6400; ``rfc`` is that of a channel of 16 Gbit (450 ns). RFCpb
    (no refresh of single banks) and CCDR (no second stack) do not occur here.
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
    rfc: int = 720      # refresh to the next row command
    refi: int = 6240    # refresh to refresh, on average

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name} must be a positive integer, not {value!r}")
        if self.rcdwr > self.rcdrd:
            raise ValueError(f"rcdwr must be at most rcdrd ({self.rcdrd}), not {self.rcdwr!r}")

    @property
    def write_to_precharge(self):
        return self.cwl + self.bl + self.wr

    @property
    def write_to_read_s(self):
        return self.cwl + self.bl + self.wtrs

    @property
    def write_to_read_l(self):
        return self.cwl + self.bl + self.wtrl


class RowOp(enum.Enum, shape=2):
    """Commands on the row bus."""

    ACTIVATE = 0
    PRECHARGE = 1
    PRECHARGE_ALL = 2
    REFRESH = 3         # of all banks


def row_command_layout(*, row_bits):
    """A row command. ``bank``: bits 1:0 bank group, 3:2 bank in the group."""
    return data.StructLayout({"valid": 1, "op": RowOp, "bank": 4, "row": row_bits})


def column_command_layout():
    """A column command, for the open row of ``bank``."""
    return data.StructLayout({"valid": 1, "write": 1, "bank": 4, "column": 5})
