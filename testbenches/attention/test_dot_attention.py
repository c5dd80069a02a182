"""Tests of rtl/pe/dot_engine.py with attention: the cocotb tests, then the pytest functions."""
import os
import random

import cocotb
import numpy as np
import pytest

from cosim.golden import dot
from cosim.golden.formats import Format
from rtl.pe.dot_engine import DotEngine
from rtl.pe.interfaces import ErrorCode
from testbenches import sim
from testbenches.attention.dot_bench import (
    DOT,
    GROUP,
    SCORE,
    WEIGH,
    AttentionBench,
    attend,
    lines_of,
    random_operand,
    random_p,
)
from testbenches.pe.dot_bench import ELEMENTS, SCALES, WIDE, same_bits
from testbenches.pe.unit_bench import error_of, seed

LINES, LANES = 512, 3
ROWS = int(os.environ.get("DOT_ROWS", "16"))
BUFFERS = {ELEMENTS: [3, 400], SCALES: [403, 100]}
PAIRS = [(Format.E4M3, Format.E4M3), (Format.E4M3, Format.E2M1), (Format.BF16, Format.BF16),
         (Format.FP16, Format.BF16), (Format.E4M3, Format.BF16)]
MX4 = (Format.E2M1, Format.E2M1)
MX8 = (Format.E4M3, Format.E4M3)
BF16 = (Format.BF16, Format.BF16)
FOREIGN = [0, 1 << 9, 1 << 11, 1 << 12, 0xF << 16, 7 << 20, 1 << 24]  # bits of word 1 of others
full_height = cocotb.test(skip=ROWS != 16)
low = cocotb.test(skip=ROWS != 4)


def unit(a_format, b_format):
    """Elements of a block."""
    return 16 if a_format in WIDE or b_format in WIDE else GROUP


class Attention(AttentionBench):
    """Queues jobs with random operands, and knows the lines that they give."""

    def __init__(self, dut, **options):
        super().__init__(dut, lines=LINES, rows=ROWS,
                         buffers={cb: list(at) for cb, at in BUFFERS.items()}, **options)
        self.wanted, self.wanted_order, self.beats = {"o": [], "scores": []}, [], 0
        self.offset, self.scale_offset = 0, 0

    def dot(self, opcode, a, b, *, pair=0, where=None, **options):
        """One job; gives where its operand B was put, for other jobs that take the same."""
        blocks = b.codes.shape[1] // unit(a.format, b.format)
        offset, scale_offset, *strides = where or (self.offset, self.scale_offset)
        if not where:
            strides = self.store(b, offset=offset, scale_offset=scale_offset)
            self.offset += len(b.codes) * strides[0]
            self.scale_offset += -(-len(b.codes) * strides[1] // 64)
            assert self.offset <= 400 and self.scale_offset <= 100
        self.commands.append(attend(opcode, a.format, b.format, len(b.codes), blocks, *strides,
                                    pair=pair, offset=offset, scale_offset=scale_offset,
                                    rest=random.choice(FOREIGN), **options))
        lines = lines_of(a, b, pair)
        name = "scores" if opcode == SCORE else "o"
        self.wanted[name].append(lines)
        self.wanted_order += [name] * len(lines[0])
        mx4 = (a.format, b.format) == MX4 and not pair
        self.beats += -(-len(b.codes) // (LANES if mx4 else 1 + pair)) * blocks
        return offset, scale_offset, *strides

    def ask(self, formats, elements, *, rows=ROWS):
        """Fill an A buffer."""
        a = random_operand(formats[0], rows, elements)
        self.load(a, elements // unit(*formats))
        return a

    def score(self, a, b_format, columns, **options):
        return self.dot(SCORE, a, random_operand(b_format, columns, a.codes.shape[1]), **options)

    def weigh(self, formats, columns, keys, **options):
        """Fills a P buffer too; ``release`` of A is a bit that WEIGH ignores."""
        p = random_p(formats[0], ROWS, -(-keys // GROUP))
        self.load_p(p)
        keys = -(-keys // unit(*formats)) * unit(*formats)
        return self.dot(WEIGH, dot.Operand(formats[0], p.codes[:, :keys]),
                        random_operand(formats[1], columns, keys), release=1, **options)

    async def settle(self, limit=20000):
        """Run everything, and compare the lines of both streams."""
        await self.finish(limit)
        await self.until(lambda: len(self.order) >= len(self.wanted_order), 2000)
        for _ in range(20):
            await self.step()
        for name, got in (("o", self.columns), ("scores", self.scores)):
            assert len(got) == sum(len(lines) for lines, _ in self.wanted[name])
            if got:
                lines, counts = (np.concatenate(x) for x in zip(*self.wanted[name], strict=True))
                good = same_bits(np.stack(got), lines) | ~counts
                assert good.all(), f"{name}: {np.argwhere(~good)[:5].tolist()} differ"
            got.clear()
            self.wanted[name].clear()
        assert self.order == self.wanted_order and counters(self.dut)[4] == self.beats
        self.order, self.wanted_order, self.offset, self.scale_offset = [], [], 0, 0


async def new_bench(dut, **options):
    seed()
    bench = Attention(dut, **options)
    await bench.start()
    return bench


def counters(dut):
    """Busy, starved, blocked, commands ended, beats."""
    value = int(dut.unit__counters.value)
    return [value >> 32 * i & 0xFFFFFFFF for i in range(5)]


@full_height
@cocotb.parametrize(formats=[*PAIRS, MX4])
async def pairs_are_exact(dut, formats):
    """All heads, whole and ragged columns and keys, delays on every stream."""
    bench = await new_bench(dut, ready=random.choice([0.6, 1.0]), drain=0.8, p_rate=0.7,
                            scores_rate=0.8)
    for head, columns, rows, keys in ((32, 5, 5, 97), (64, 1, 4, 33), (96, 4, 1, 16),
                                      (128, 3, 3, 128)):
        a = bench.ask(formats, head)
        pair = int(head != 96 or rows == 1)
        bench.score(a, formats[1], columns, pair=pair, release=1)
        of_p = Format.E4M3 if formats == MX4 else formats[0]
        bench.weigh((of_p, formats[1]), rows, keys, pair=pair)
    bench.score(bench.ask(MX8, 64, rows=11), Format.E4M3, 2, pair=0, release=1)
    await bench.settle()


@low
@cocotb.parametrize(formats=PAIRS)
async def scores_and_weighed_sums_are_exact(dut, formats):
    """All numbers of blocks of P, ragged columns, delays on every stream."""
    bench = await new_bench(dut, ready=random.choice([0.6, 1.0]), drain=0.8, p_rate=0.7,
                            scores_rate=0.8)
    for keys in range(16, 129, 16):
        head = random.choice([32, 64, 96, 128])
        bench.score(bench.ask(formats, head), formats[1], random.randint(1, 5), release=1)
        bench.weigh(formats, random.randint(1, 5), keys)
    await bench.settle()


async def interleaved(bench, pairs):
    """S0 S1 W0 S2 W1 W2 with one A kept over the scores, twice; all formats, all at random."""
    for _ in range(2):
        formats = random.choice([*PAIRS, MX4])
        head = 32 * random.randint(1, 4)
        a = bench.ask(formats, head, rows=random.randint(1, ROWS))
        for block, kind in enumerate((SCORE, SCORE, WEIGH, SCORE, WEIGH, WEIGH)):
            pair = random.choice(pairs)
            if kind == SCORE:
                bench.score(a, formats[1], random.randint(1, 6), pair=pair, release=block == 3)
            else:
                bench.weigh(random.choice(PAIRS), random.randint(1, 5), random.randint(1, 128),
                            pair=pair)
    a = bench.ask(MX4, 64, rows=2)
    bench.dot(DOT, a, random_operand(Format.E2M1, 4, 64), release=1)
    await bench.settle()


@cocotb.test()
@cocotb.parametrize(ready=[0.5, 1.0] if ROWS == 4 else [0.7])
async def blocks_of_a_program_follow_each_other(dut, ready):
    """A, P and B come at random times; scores and sums leave in order, each on its stream."""
    bench = await new_bench(dut, ready=ready, drain=random.choice([0.3, 1.0]),
                            scores_rate=random.choice([0.3, 1.0]), p_rate=random.choice([0.3, 1.0]))
    await interleaved(bench, [0, 1] if ROWS == 16 else [0])


@low
async def words_of_p_wait_for_lines_of_a(dut):
    """Both are written at the same time to the same memory; each buffer holds its own."""
    bench = await new_bench(dut, ready=1.0)
    a = [bench.ask(MX8, 2048), bench.ask(MX8, 2048)]
    bench.weigh(MX8, 2, 128)
    bench.weigh((Format.BF16, Format.BF16), 3, 128)
    for operand in a:
        bench.score(operand, Format.E4M3, 1, release=1)
    while bench.fills:
        await bench.step()
    assert bench.stalls > 200 and bench.p_fills
    await bench.settle()


@low
async def two_p_buffers_are_filled_and_emptied_in_turn(dut):
    """A third one is filled only once the first was released, at the end of its WEIGH."""
    bench = await new_bench(dut, ready=1.0)
    p = [random_p(Format.E4M3, ROWS, 1) for _ in range(3)]
    for one in p:
        bench.load_p(one)
    for _ in range(60):
        await bench.step()
    assert not dut.p__free.value and len(bench.p_fills) == 1 and len(bench.p_fills[0][0]) == 4
    for one in p:
        bench.dot(WEIGH, one, random_operand(Format.E4M3, 9, 32))
    while not counters(dut)[4] == 8:
        await bench.step()
        assert not dut.p__free.value
    await bench.settle()
    assert dut.p__free.value


@low
async def weigh_waits_for_p_alone(dut):
    """Starved until the P buffer is full; a full A buffer is no help, and its content no matter."""
    bench = await new_bench(dut, ready=1.0)
    a = bench.ask(MX4, 64, rows=1)
    p = random_p(Format.E4M3, ROWS, 2)
    bench.dot(WEIGH, p, random_operand(Format.E4M3, 3, 64))
    bench.score(a, Format.E2M1, 4, release=1)
    for _ in range(40):
        await bench.step()
    assert counters(dut)[0] == 0 and counters(dut)[1] > 20 and not error_of(dut)[0]
    bench.load_p(p)
    await bench.settle()


@cocotb.test()
@cocotb.parametrize(fault=[
    (DOT, MX8, 2, 1, 1), (DOT, MX4, 2, 1, 1)] if ROWS == 16 else [
    (SCORE, MX8, 2, 1, 1), (WEIGH, MX8, 2, 1, 1), (WEIGH, MX8, 1, 0, 8), (WEIGH, MX8, 3, 0, 8),
    (WEIGH, MX8, 4, 0, 8), (WEIGH, BF16, 4, 0, 1), (WEIGH, (Format.E5M2, Format.E4M3), 2, 0, 1),
    (WEIGH, (Format.E4M3, Format.BF16), 0, 0, 8), (WEIGH, (Format.E4M3, Format.BF16), 2, 0, 8),
    (WEIGH, (Format.E4M3, Format.BF16), 5, 0, 8), (SCORE, BF16, 4, 0, 1), (SCORE, MX8, 1, 0, 8)])
async def bad_fields_are_refused(dut, fault):
    """The command before ends, the error names the word, after a clear all buffers are empty."""
    bench = await new_bench(dut, ready=0.9)
    opcode, formats, blocks, pair, field = fault
    held = MX4 if formats == MX4 else MX8
    a = bench.ask(held, 64)
    for _ in range(2):
        bench.load_p(random_p(Format.E4M3, ROWS, 2))
    bench.score(a, held[1], 3)
    bench.commands.append(attend(opcode, *formats, 2, blocks, 2, 64, tag=9, pair=pair))
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, field, 9)
    await bench.until(lambda: len(bench.scores) == 3)
    while bench.p_fills:
        await bench.step()
    await bench.clear()
    bench.scores.clear()
    bench.order.clear()
    bench.wanted, bench.wanted_order = {"o": [], "scores": []}, []
    bench.beats = counters(dut)[4]
    bench.weigh(BF16, 2, 100)
    bench.score(bench.ask(MX8, 64), Format.E4M3, 2, release=1)
    await bench.settle()
    assert not error_of(dut)[0]


async def rate(bench, formats, keys, *, pair, jobs=4, columns=24):
    """SCORE and WEIGH in turn, all operands there: the cycles beyond those of their beats."""
    b = random_operand(formats[1], columns, keys)
    a = bench.ask(formats, keys)
    p = [random_p(formats[0], ROWS, -(-keys // GROUP)) for _ in range(jobs // 2)]
    for one in p:
        bench.load_p(one)
    while bench.fills or len(bench.p_fills) > max(0, len(p) - 2):
        await bench.step()
    where = None
    for one in p:
        where = bench.dot(SCORE, a, b, pair=pair, where=where, release=one is p[-1])
        bench.dot(WEIGH, dot.Operand(formats[0], one.codes[:, :keys]), b, pair=pair, where=where)
    bench.stamps.clear()
    bench.score_stamps.clear()
    await bench.settle()
    each = max(keys // unit(*formats), (1 + pair) * where[2])
    groups = -(-columns // (1 + pair)) * jobs
    lost = bench.stamps[-1] - bench.score_stamps[0] - each * (groups - 1)
    bench.dut._log.info("%d groups of %d cycles, %d cycles more", groups, each, lost)
    return lost, each == (1 + pair) * where[2]


@low
@cocotb.parametrize(case=[(MX8, 64), (MX8, 128), (BF16, 48), ((Format.E4M3, Format.BF16), 64)])
async def no_cycle_is_lost_between_scores_and_weighed_sums(dut, case):
    bench = await new_bench(dut, ready=1.0)
    assert await rate(bench, *case, pair=0, columns=16) == (0, False)


@full_height
@cocotb.parametrize(case=[(MX8, 64), ((Format.E4M3, Format.E2M1), 128), (MX4, 128), (BF16, 32)])
async def a_pair_takes_a_beat_a_cycle(dut, case):
    """Where each beat needs a new line, one cycle is lost between jobs, as the lines' walk does."""
    bench = await new_bench(dut, ready=1.0)
    lost, tight = await rate(bench, *case, pair=1)
    assert tight == (case[0][1] != Format.E2M1) and (lost <= 3 if tight else lost == 0)


@pytest.mark.parametrize("rows", [4, 16])
def test_dot_attention(tmp_path, rows):
    sim.run(DotEngine(lines=LINES, rows=rows, lanes=LANES, attention=True), test_module=__name__,
            build_dir=tmp_path, simulator="icarus", env={"DOT_ROWS": str(rows)})
