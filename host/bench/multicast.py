"""PEs that read the same weights: how much less the memories do if they read them together."""
from dataclasses import dataclass

import numpy as np

from host.driver import Device
from host.isa import LINE, Group, Region, address
from host.outcome import Outcome
from host.program import Program, use
from host.transport import open_package

PIECE, PIECES = 64, 24      # lines of a command, commands: 96 KiB of weights
RING = 4                    # pieces in local memory
COUNTS = 2                  # line of the control registers
WORD = {Region.SRAM: 4, Region.HBM: 5}      # of that line: accesses to the memory
SAVED = 7                   # reads that another one stood for


@dataclass
class Reading:
    """All PEs read the weights: cycles, reads of the memory, reads saved, and whether all came."""

    cycles: int
    fetched: int
    saved: int
    exact: bool


def program(source, target, group):
    """Bring the weights, and take them to the PE's own copy."""
    made = Program()
    buffer = made.buffer(RING * PIECE)
    for piece in range(PIECES):
        at = piece * PIECE * LINE
        made.dma_in(use(buffer, wait=PIECE, release=PIECE), source + at, row_bytes=PIECE * LINE,
                    group=group)
        made.dma_out(use(buffer, wait=PIECE, release=PIECE), target + at, row_bytes=PIECE * LINE)
    return made


def counts(device, region):
    line = device.read(address(0, Region.CONTROL, COUNTS * LINE), LINE).view("<u4")
    return line[[WORD[region], SAVED]].astype(np.int64)


def launched(device, region, programs):
    """Run programs; gives cycles, accesses to the memory and reads saved."""
    prepared = device.prepare(0, programs)
    device.synchronize()
    before = counts(device, region)
    event = device.start(prepared)
    event.wait(4_000_000)
    return event.completion.cycles, *(counts(device, region) - before) % (1 << 32)


def measure(device, region, group, weights):
    """All PEs read the weights from a memory, and write them to the other one."""
    other = Region.HBM if region == Region.SRAM else Region.SRAM
    source = device.alloc(0, weights.nbytes, region)
    targets = {pe: device.alloc(0, weights.nbytes, other) for pe in device.pes}
    device.write(source, weights).wait()
    # The same programs with nothing of theirs in this memory: what they themselves cost.
    elsewhere = device.alloc(0, weights.nbytes, other)
    (_, idle, _), (cycles, fetched, saved) = (launched(device, region, {
        pe: program(at, target, group) for pe, target in targets.items()})
        for at in (elsewhere, source))
    exact = all(np.array_equal(device.read(at, weights.nbytes), weights)
                for at in targets.values())
    for at in (source, elsewhere, *targets.values()):
        device.free(at)
    return Reading(cycles, int(fetched - idle), int(saved), exact)


def run(options):
    """Each group of PEs against as many that read alone, from SRAM and from HBM.

    ``fetch_reduction`` is that of all PEs of the die, from SRAM; the check is that each is the
    number of the group's readers.
    """
    outcome = Outcome("multicast", options.package)
    weights = np.random.default_rng(1).integers(0, 256, PIECES * PIECE * LINE, dtype=np.uint8)
    with open_package(options) as transport:
        device = Device(transport)
        c = device.configuration
        readers = {Group.ROW: c.columns, Group.COLUMN: c.rows, Group.ALL: c.rows * c.columns}
        regions = [Region.SRAM] + [Region.HBM] * (c.hbm_channels > 0)
        steps = len(regions) * (1 + len(readers))
        for i, region in enumerate(regions):
            memory, first = region.name.lower(), i * (1 + len(readers))
            options.step(first, steps, f"readers of {memory}")
            alone = measure(device, region, Group.ALONE, weights)
            exact = alone.exact
            outcome.metrics |= {f"alone_{memory}_fetches": alone.fetched,
                                f"alone_{memory}_cycles": alone.cycles}
            for n, (group, count) in enumerate(readers.items(), 1):
                options.step(first + n, steps, f"readers of {memory}")
                found = measure(device, region, group, weights)
                name = f"{group.name.lower()}_{memory}"
                outcome.metrics |= {
                    f"{name}_readers": count, f"{name}_cycles": found.cycles,
                    f"{name}_fetch_reduction": alone.fetched / found.fetched}
                outcome.checks[f"{name}_once"] = (alone.fetched == count * found.fetched
                                                  == found.fetched + found.saved)
                exact &= found.exact
            outcome.checks[f"{memory}_bit_exact"] = exact
    options.step(steps, steps, "done")
    outcome.metrics = {"fetch_reduction": outcome.metrics["all_sram_fetch_reduction"],
                       "readers": readers[Group.ALL]} | outcome.metrics
    outcome.config = {"bytes": weights.nbytes, "piece_bytes": PIECE * LINE}
    return outcome
