"""What is set once at boot: PEs that are left out, SRAM that is cache, scrubbing."""
from dataclasses import dataclass

import numpy as np

from host.isa import LINE, Region, address

CONFIGURATION_LINE = 7  # of the control registers, see docs/programming-model.md
OPEN = 1 << 87          # of it: the PEs are listened to


class BootError(ValueError):
    """A package cannot be started so; one sentence."""


@dataclass(frozen=True)
class Settings:
    """Settings of all compute dies.

    Parameters
    ----------
    bad_pes : tuple of (int, int, int)
        Die, row and column of PEs that are left out; each column has one spare.
    cache_ways : int
        Ways, of 8, of every SRAM slice that are last-level cache of the HBM.
    scrub_log2 : int
        log2 of the cycles between two steps of the scrubbers; 0: they rest.
    """

    bad_pes: tuple = ()
    cache_ways: int = 0
    scrub_log2: int = 0

    def lines(self, configuration):
        """The configuration of each die, as a number.

        :exc:`BootError` if a PE is not there, or a column has two that are bad.
        """
        c, found = configuration, []
        if not 0 <= self.cache_ways <= 8:
            raise BootError(f"Cache ways must be 0 to 8, not {self.cache_ways!r}")
        if not 0 <= self.scrub_log2 <= 31:
            raise BootError(f"Scrub time must be 0 to 31, not {self.scrub_log2!r}")
        bad = {}
        for die, row, column in self.bad_pes:
            if not (0 <= die < c.dies and 0 <= row <= c.rows and 0 <= column < c.columns):
                raise BootError(f"Bad PE {die}:{row}:{column} does not exist; dies are 0 to "
                                f"{c.dies - 1}, rows 0 to {c.rows}, columns 0 to {c.columns - 1}")
            other = bad.setdefault((die, column), row)
            if other != row:
                raise BootError(f"Column {column} of die {die} has two bad PEs, in rows {other} "
                                f"and {row}, and one spare")
        for die in range(c.dies):
            repair = sum(row + 1 << 4 * column for (d, column), row in bad.items() if d == die)
            ways = self.cache_ways if c.hbm_channels else 0
            found.append(repair | ways << 64 | self.scrub_log2 << 72 | OPEN)
        return found


def boot(device, settings):
    """Write the configuration of every die, which opens its PEs; comes before the first launch."""
    written = [device.write(address(die, Region.CONTROL, CONFIGURATION_LINE * LINE),
                            np.frombuffer(value.to_bytes(16, "little"), np.uint8))
               for die, value in enumerate(settings.lines(device.configuration))]
    for event in written:
        event.wait()
