"""Performance counters of the PEs, read from their register windows and summed."""
from dataclasses import dataclass, field

import numpy as np

from host.isa import LINE, Region, Unit, address

STATES = ("busy", "starved", "blocked")


def read(device, die, pe):
    """Counter words of one PE: an array [unit, 16]."""
    return read_each(device, die, [pe])[0]


def read_each(device, die, pes):
    """Counter words of some PEs of a die: an array [PE, unit, 16]."""
    places = [address(die, Region.REGISTERS, pe << 16) for pe in pes]
    words = device.read_each(places, LINE * len(Unit), stream=die)
    return words.view("<u4").reshape(len(pes), -1, 16)


@dataclass
class Totals:
    """Cycles by unit and state, summed over PEs and launches; ``cycles``: PE cycles in all."""

    cycles: int = 0
    units: dict = field(default_factory=lambda: {u: np.zeros(16, np.int64) for u in Unit})

    def add(self, device, die, pes=None):
        for words in read_each(device, die, device.pes if pes is None else pes):
            for unit in Unit:
                self.units[unit] += words[unit]
            self.cycles += int(words[Unit.COMMAND_PROCESSOR][4])

    def fraction(self, unit, state):
        """Share of all PE cycles that ``unit`` spent in ``state``."""
        return float(self.units[unit][STATES.index(state)]) / max(self.cycles, 1)
