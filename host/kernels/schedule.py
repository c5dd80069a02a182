"""Order of a program's loads and products, and how long it takes by a simple model."""
from dataclasses import dataclass

QUEUE = 4           # commands that a unit's queue holds
PE_LINES = 0.95     # lines a cycle from SRAM to one PE at most (measured)
DIE_LINES = 3.0     # to all PEs of a die that load the same amount in step (measured; 4 banks)
LATER_LINES = 1.7   # the same, for the last of them, once some load ahead of the others: the value
                    # that chose best among the plans that were measured
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


def rate(pes):
    """Lines a cycle from SRAM to each of ``pes`` PEs of a die: before its first product, later."""
    return min(PE_LINES, DIE_LINES / pes), min(PE_LINES, LATER_LINES / pes)


def fill_cycles(tile_lines):
    """Cycles in which a tile goes from local memory to a buffer of operand A, while the dot-product
    engine reads scales at the same port (measured: 311 to 359 for 208 lines).
    """
    return 1.8 * tile_lines


def duration(loads, works, lines_a_cycle):
    """Cycles until the last product ends, if loads and products each run in order.

    ``lines_a_cycle``: see :func:`rate`.
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
