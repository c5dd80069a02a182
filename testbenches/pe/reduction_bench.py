"""Surroundings of the reduction engine, and what it does to local memory."""
import random

import numpy as np

from testbenches.pe.unit_bench import Bench, command, operand, seed

LINES, OUT = 64, 6
BUFFERS = {OUT: [9, 41]}
NAN = 0x7FC00000


class ReductionBench(Bench):
    """Offers ``columns`` (lines of 16 patterns) as often as ``offer`` says."""

    def __init__(self, dut, *, offer=0.7, **options):
        super().__init__(dut, lines=LINES, buffers=BUFFERS, **options)
        self.offer, self.columns, self.take_cycles, self.write_cycles = offer, [], [], []

    async def start(self):
        self.dut.i__valid.value = self.dut.i__payload.value = 0
        if hasattr(self.dut, "factors__valid"):
            self.dut.factors__valid.value = self.dut.factors__payload.value = 0
        await super().start()

    async def step(self):
        before = self.writes
        await super().step()
        if self.writes != before:
            self.write_cycles.append(self.cycle)
        dut = self.dut
        self.held("source", dut.source__address__valid, dut.source__address__ready,
                  dut.source__address__payload)
        if dut.i__valid.value and dut.i__ready.value:
            self.columns.pop(0)
            self.take_cycles.append(self.cycle)
            dut.i__valid.value = 0
            more = bool(self.columns)
        else:
            more = self.columns and not dut.i__valid.value
        if more and random.random() < self.offer:
            dut.i__valid.value = 1
            dut.i__payload.value = int.from_bytes(self.columns[0].tobytes(), "little")


async def new_bench(dut, **options):
    seed()
    bench = ReductionBench(dut, **options)
    await bench.start()
    return bench


def random_line():
    """16 FP32 patterns: mostly of near size, some of any kind."""
    near = np.random.randint(0x3E000000, 0x42000000, 16) | np.random.randint(0, 2, 16) << 31
    any_ = np.random.randint(0, 1 << 32, 16)
    ends = np.random.choice([0, 0x80000000, 0x7F800000, 0xFF800000, NAN, 1, 0x7F7FFFFF], 16)
    kind = np.random.randint(0, 8, 16)
    return np.where(kind == 0, ends, np.where(kind == 1, any_, near)).astype("<u4")


def added(old, new):
    with np.errstate(all="ignore"):
        total = old.view("<f4") + new.view("<f4")
    return np.where(np.isnan(total), NAN, total.view("<u4")).astype("<u4")


def dot(columns, stride, *, tag=0, offset=0, accumulate=0, release=1):
    return command(0x21, tag, w1=5 | 5 << 4 | accumulate << 9, w8=columns | 7 << 16, w10=stride,
                   **operand(2, 31, offset=1, wait=9, release=8), **operand(4, 30, wait=7),
                   **operand(6, OUT, offset=offset, wait=1, release=release))


class Model:
    """Local memory as it should be after all commands."""

    def __init__(self, bench):
        self.bench = bench
        self.memory = bench.local.copy().reshape(LINES, 64)
        self.moved = 0

    def dot(self, columns, stride, *, accumulate=0, offset=0, release=1, tag=0):
        """Queue a command and its columns, and model what it does."""
        base, size = BUFFERS[OUT]
        for n in range(columns):
            at = base + (self.moved + offset + n * stride) % size
            line = random_line()
            self.bench.columns.append(line)
            old = self.memory[at].copy().view("<u4")
            self.memory[at] = (added(old, line) if accumulate else line).view(np.uint8)
        self.moved += release
        self.bench.commands.append(dot(columns, stride, tag=tag, offset=offset,
                                       accumulate=accumulate, release=release))

    def check(self):
        assert np.array_equal(self.memory.reshape(-1), self.bench.local)


def plain_memory(bench):
    """Fill local memory with FP32 patterns, so that old sums are of all kinds."""
    bench.local[:] = np.concatenate([random_line() for _ in range(LINES)]).view(np.uint8)
