"""Order of a program's loads and products, and how long it takes by a simple model."""
from dataclasses import dataclass

QUEUE = 4           # commands that a unit's queue holds
PE_LINES = 0.95     # lines a cycle from SRAM to one PE at most (measured)
DIE_LINES = 3.0     # to all PEs of a die that load the same amount in step (measured; 4 banks)
LATER_LINES = 1.8   # the same, for the last of them, once some load ahead of the others: the value
                    # that chose best among the plans that were measured
COMMAND_LINES = 3   # what one more command costs, in lines (measured)


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
