"""Order of a program's loads and products, and how long it takes by a simple model."""
from dataclasses import dataclass

from host.isa import ROWS, Format, Region

QUEUE = 4           # commands that a unit's queue holds
PE_LINES = 0.95     # lines a cycle from SRAM to one PE at most (measured)
BLOCK = 32          # elements of an MX block
BANK_LINES = 0.75   # from each SRAM bank of a die, to PEs that load the same in step (measured)
LATER_LINES = 0.425  # the same, to the last of them, once some load ahead of the others: the value
                    # that chose best among the plans that were measured
HBM_SHARE = 0.9     # of the HBM's bandwidth that loads get; this project's choice
COMMAND_LINES = 3   # what one more command costs, in lines (measured)
RUNS = 12           # runs of rows at most, unless local memory wants more


def upper(value, divisor):
    """Quotient rounded up."""
    return (value + divisor - 1) // divisor


@dataclass(frozen=True)
class Load:
    """Lines brought into local memory.

    ``after``: number of the product that must come before it in the program, as it frees the place
    (-1: none). ``settle``: cycles from its arrival until a product can use it.
    """

    what: tuple
    lines: float
    commands: int
    after: int = -1
    settle: int = 0


@dataclass(frozen=True)
class Work:
    """A product; ``needs`` are the numbers of the loads that it reads (-1: none of them)."""

    what: tuple
    cycles: float
    needs: tuple


@dataclass(frozen=True)
class Die:
    """What a plan has to know of a compute die.

    Parameters
    ----------
    mx4_lanes : int
        Rows of operand B that MX4 takes at once.
    banks : int
        SRAM banks.
    hbm_lines : float
        Lines a cycle of the HBM's pins.
    """

    mx4_lanes: int = 3
    banks: int = 4
    hbm_lines: float = 2.5

    def macs(self, form):
        """Peak MACs a cycle of a PE for two operands of a format; 0 if it is not there."""
        return BLOCK * ROWS * {Format.E2M1: self.mx4_lanes, Format.BF16: 0.5,
                               Format.FP16: 0.5}.get(form, 1)

    def rate(self, pes, region=Region.SRAM):
        """Lines a cycle from memory to each of ``pes`` PEs: before its first product, later."""
        if region == Region.HBM:
            return (min(PE_LINES, HBM_SHARE * self.hbm_lines / pes),) * 2
        return tuple(min(PE_LINES, share * self.banks / pes) for share in (BANK_LINES, LATER_LINES))


def fill_cycles(tile_lines):
    """Cycles in which a tile goes from local memory to a buffer of operand A, while the dot-product
    engine reads scales at the same port (measured: 311 to 359 for 208 lines).
    """
    return 1.8 * tile_lines


def duration(loads, works, lines_a_cycle):
    """Cycles until the last product ends, if loads and products each run in order.

    ``lines_a_cycle``: see :meth:`Die.rate`.
    """
    arrived, ended, at = [], [], 0.0
    load = 0
    now = 0.0
    for work in works:
        while load < len(loads) and load <= max(work.needs, default=-1):
            after = loads[load].after
            lines = loads[load].lines + COMMAND_LINES * loads[load].commands
            at = max(at, ended[after] if after >= 0 else 0.0) + lines / lines_a_cycle[bool(ended)]
            arrived.append(at + loads[load].settle)
            load += 1
        now = max([now, *(arrived[n] for n in work.needs if n >= 0)]) + work.cycles
        ended.append(now)
    return now


def interleave(loads, works):
    """Loads and products in program order.

    A product follows the loads that it needs, and as many more as the queue of the DMA takes: so
    loads run as early as they can, and the command processor never waits for them with a product
    behind them.
    """
    at = 0
    for number, work in enumerate(works):
        last = max(work.needs, default=-1)
        while at < len(loads) and (at <= last or (
                loads[at].after < number
                and sum(load.commands for load in loads[last + 1:at + 1]) <= QUEUE)):
            yield loads[at]
            at += 1
        yield work


def cuts(total, step, unit, group):
    """Ways to cut ``total`` rows into runs of ``step`` at most, of whole groups but for the last.

    ``step`` is a multiple of ``group``, or all rows. The ways differ in the size of the first run
    (some units, or an equal share) and in how fast the next ones grow.
    """
    sizes = {min(n * unit, step) for n in (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)}
    sizes |= {min(upper(total, n), step) for n in range(1, 7)}
    found = sorted({_cut(total, size, growth, step, group) for size in sizes
                    for growth in (1, 1.5, 2, 4)})
    most = max(RUNS, min(map(len, found)))
    return [runs for runs in found if len(runs) <= most]


def _cut(total, run, growth, step, group):
    """Runs, each ``growth`` times as long as the one before it; the last two about equal."""
    bounds = [0]
    while bounds[-1] < total:
        left = total - bounds[-1]
        size = min(int(run), step)
        if left < 1.5 * size and left <= step:
            size = left
        elif left < 2 * size:
            size = upper(left, 2)
        bounds.append(bounds[-1] + min(upper(size, group) * group, left))
        run = run * growth
    return tuple(zip(bounds, bounds[1:], strict=False))
