"""What the host sets of dies: PEs left out, SRAM that is cache, scrubbing, shape of requests."""
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
    request_rate, request_burst : int
        Requests of a PE to memory in 256 cycles, 0: as many as come; and how many of them at once
        after a pause.
    """

    bad_pes: tuple = ()
    cache_ways: int = 0
    scrub_log2: int = 0
    request_rate: int = 0
    request_burst: int = 0

    def lines(self, configuration):
        """The configuration of each die, as a number.

        :exc:`BootError` if a PE is not there, or a column has two that are bad.
        """
        c, found = configuration, []
        if not 0 <= self.cache_ways <= 8:
            raise BootError(f"Cache ways must be 0 to 8, not {self.cache_ways!r}")
        if not 0 <= self.scrub_log2 <= 31:
            raise BootError(f"Scrub time must be 0 to 31, not {self.scrub_log2!r}")
        if not 0 <= self.request_rate <= 256:
            raise BootError(f"Request rate must be 0 to 256, not {self.request_rate!r}")
        if not 0 <= self.request_burst <= 255:
            raise BootError(f"Request burst must be 0 to 255, not {self.request_burst!r}")
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
            found.append(repair | ways << 64 | self.scrub_log2 << 72 | OPEN
                         | self.request_rate << 96 | self.request_burst << 112)
        return found


def configure(device, settings):
    """Write the configuration of every die, which opens its PEs; while no launch is under way."""
    written = [device.write(address(die, Region.CONTROL, CONFIGURATION_LINE * LINE),
                            np.frombuffer(value.to_bytes(16, "little"), np.uint8))
               for die, value in enumerate(settings.lines(device.configuration))]
    for event in written:
        event.wait()
