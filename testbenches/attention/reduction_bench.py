"""Surroundings of a reduction engine with attention, and what WEIGH does to local memory."""
import random
from dataclasses import dataclass

import numpy as np

from cosim.golden.simd import Operation, binary
from testbenches.pe.reduction_bench import BUFFERS, OUT, Model, ReductionBench, random_line
from testbenches.pe.unit_bench import command, operand, seed

ONE = 0x3F800000


class WeighBench(ReductionBench):
    """Offers ``entries`` (factor, inverse, moved, state) too, or anything where there is none."""

    def __init__(self, dut, **options):
        super().__init__(dut, **options)
        self.entries, self.entry_cycles, self.withheld = [], [], False

    async def step(self):
        await super().step()
        valid, payload = self.dut.factors__valid, self.dut.factors__payload
        offered = int(valid.value)
        if offered and self.dut.factors__ready.value:
            self.entries.pop(0)
            self.entry_cycles.append(self.cycle)
            offered = 0
        if offered:
            return
        offered = bool(self.entries) and not self.withheld and random.random() < self.offer
        valid.value, payload.value = int(offered), random.getrandbits(1026)
        if offered:
            factor, inverse, moved, state = self.entries[0]
            payload.value = int.from_bytes(
                factor.tobytes() + inverse.tobytes() + bytes([moved | state << 1]), "little")

    async def clear(self):
        """What stands around is cleared with it."""
        await super().clear()
        for queue in (self.columns, self.entries, self.stalled, self.before):
            queue.clear()
        self.dut.i__valid.value = self.dut.factors__valid.value = 0
        self.dut.ring_in__valid.value = 0


async def new_bench(dut, **options):
    seed()
    bench = WeighBench(dut, **options)
    await bench.start()
    return bench


@dataclass(frozen=True)
class Kind:
    """What a job's lines go through."""

    weigh: int = 1
    accumulate: int = 0
    moved: int = 0
    last: int = 0

    @property
    def entry(self):
        """Stage in front of which a line enters: factor, adder, neither."""
        return 3 if not self.accumulate else 0 if self.moved else 1

    @property
    def latency(self):
        """Cycles from the line to its write."""
        return 4 - self.entry + self.last

    @property
    def kept(self):
        """Cycles from the last line to the end of its factors."""
        return max(1, 3 - self.entry) if self.last else 1

    def first(self, before, cycle):
        """Cycle of the first line, after a job of kind ``before`` had its last in ``cycle``."""
        return max(cycle + 2,                                           # a cycle between jobs
                   cycle + self.entry - before.entry + 1,               # not in one stage
                   cycle + before.latency - self.latency + 1,           # not before, nor beside it
                   cycle + before.kept + 1 if self.weigh and before.weigh else 0)


def factors_line():
    """16 FP32 patterns as rescale factors are, powers of two up to 1, and some of any kind."""
    powers = np.random.randint(0, 0x80, 16) << 23
    mixed = np.where(np.random.randint(0, 2, 16), powers, ONE - (powers >> 4 & 0x7F800000))
    return np.where(np.random.randint(0, 6, 16), mixed, random_line()).astype("<u4")


def weigh(columns, stride, kind, *, pair=0, tag=0, offset=0, release=1):
    options = 5 | 5 << 4 | kind.accumulate << 9 | pair << 10 | kind.last << 12
    return command(0x23, tag, w1=options, w8=columns | 4 << 16, w10=stride,
                   **operand(2, 31, offset=1, wait=9, release=8), **operand(4, 30, wait=7),
                   **operand(6, OUT, offset=offset, wait=1, release=release))


class WeighModel(Model):
    """Local memory as it should be after all commands, those of attention too."""

    def weigh(self, columns, stride, kind, *, pair=0, offset=0, release=1, tag=0, state=0):
        """Queue a command, its lines and its factors, and model what it does.

        Factors that have not moved are ones; what the job does not need is of any kind.
        """
        base, size = BUFFERS[OUT]
        factor = factors_line() if kind.moved else np.full(16, ONE, "<u4")
        inverse = factors_line()
        self.bench.entries.append((factor, inverse, kind.moved, state))
        count = (columns + 1) // 2 if pair else columns
        for n in range(count):
            at = base + (self.moved + offset + n * stride) % size
            line = random_line()
            self.bench.columns.append(line)
            if kind.accumulate:
                old = self.memory[at].copy().view("<u4")
                line = binary(Operation.ADD, binary(Operation.MULTIPLY, old, factor), line)
            if kind.last:
                line = binary(Operation.MULTIPLY, line, inverse)
            self.memory[at] = line.astype("<u4").view(np.uint8)
        if state:
            total, peak = random_line(), random_line()
            self.bench.entries.append((peak, total, random.getrandbits(1), 0))
            for n, line in enumerate((total, peak), count):
                at = base + (self.moved + offset + n * stride) % size
                self.memory[at] = line.view(np.uint8)
        self.moved += release
        self.bench.commands.append(weigh(columns, stride, kind, pair=pair, tag=tag, offset=offset,
                                         release=release))
