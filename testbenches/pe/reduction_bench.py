"""Surroundings of the reduction engine, and what it does to local memory."""
import random

import numpy as np

from testbenches.pe.unit_bench import Bench, command, operand, seed

LINES, OUT, SOURCE = 64, 6, 7
BUFFERS = {OUT: [9, 41], SOURCE: [50, 14]}
NAN = 0x7FC00000


class ReductionBench(Bench):
    """Offers ``columns`` (lines of 16 patterns) as often as ``offer`` says.

    The same for the lines ``before`` of the ring; those that it sends are collected in ``after``.
    """

    def __init__(self, dut, *, offer=0.7, **options):
        super().__init__(dut, lines=LINES, buffers=BUFFERS, **options)
        self.offer, self.columns, self.take_cycles, self.write_cycles = offer, [], [], []
        self.before, self.after = [], []

    async def start(self):
        dut = self.dut
        dut.i__valid.value = dut.i__payload.value = 0
        dut.ring_in__valid.value = dut.ring_in__payload.value = dut.ring_out__ready.value = 0
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
        if self._offer(dut.i__valid, dut.i__ready, dut.i__payload, self.columns):
            self.take_cycles.append(self.cycle)
        self._offer(dut.ring_in__valid, dut.ring_in__ready, dut.ring_in__payload, self.before)
        sent = self.held("ring", dut.ring_out__valid, dut.ring_out__ready, dut.ring_out__payload)
        if sent is not None:
            self.after.append(np.frombuffer(sent.to_bytes(64, "little"), "<u4"))
        dut.ring_out__ready.value = self.chance()

    def _offer(self, valid, ready, payload, lines):
        """Offer the next of ``lines``; whether one was taken at this edge."""
        taken = bool(valid.value and ready.value)
        if taken:
            lines.pop(0)
            valid.value = 0
        if lines and (taken or not valid.value) and random.random() < self.offer:
            valid.value = 1
            payload.value = int.from_bytes(lines[0].tobytes(), "little")
        return taken


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


def reduce(lines, stride, *, receive, local, send, tag=0, offset=0, release=1, source_offset=0,
           source_release=0, source_stride=1):
    fields = operand(11, SOURCE, offset=source_offset, wait=1, release=source_release)
    return command(0x24, tag, w1=receive | local << 1 | send << 2, w8=lines,
                   w9=source_stride, w10=stride, **(fields if local else {}),
                   **operand(6, OUT, offset=offset, wait=1, release=release))


class Model:
    """Local memory as it should be after all commands, and what went into the ring."""

    def __init__(self, bench):
        self.bench = bench
        self.memory = bench.local.copy().reshape(LINES, 64)
        self.moved = self.popped = 0
        self.sent = []

    def reduce(self, lines, stride, *, receive, local, send, offset=0, release=1, source_offset=0,
               source_release=0, source_stride=1, tag=0):
        """Queue a REDUCE and the lines that it takes from the ring, and model what it does."""
        for n in range(lines):
            line = np.full(16, 0x80000000, "<u4")
            if receive:
                line = random_line()
                self.bench.before.append(line)
            if local:
                base, size = BUFFERS[SOURCE]
                at = base + (self.popped + source_offset + n * source_stride) % size
                line = added(self.memory[at].copy().view("<u4"), line)
            base, size = BUFFERS[OUT]
            if send:
                self.sent.append(line)
            else:
                self.memory[base + (self.moved + offset + n * stride) % size] = line.view(np.uint8)
        self.moved += release
        self.popped += source_release if local else 0
        self.bench.commands.append(reduce(
            lines, stride, receive=receive, local=local, send=send, tag=tag, offset=offset,
            release=release, source_offset=source_offset, source_release=source_release,
            source_stride=source_stride))

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
        assert np.array_equal(self.sent, self.bench.after)


def plain_memory(bench):
    """Fill local memory with FP32 patterns, so that old sums are of all kinds."""
    bench.local[:] = np.concatenate([random_line() for _ in range(LINES)]).view(np.uint8)
