"""Tests of rtl/pe/dot_engine.py with attention: the cocotb tests, then the pytest functions."""
import os
import random

import cocotb
import numpy as np
import pytest

from cosim.golden import dot
from cosim.golden.formats import Format
from rtl.pe.dot_engine import DotEngine
from testbenches import sim
from testbenches.attention.dot_bench import (
    GROUP,
    SCORE,
    WEIGH,
    AttentionBench,
    attend,
    lines_of,
    random_p,
)
from testbenches.pe.dot_bench import ELEMENTS, SCALES, WIDE, random_operand, same_bits
from testbenches.pe.unit_bench import seed

LINES, LANES = 512, 2
ROWS = int(os.environ.get("DOT_ROWS", "16"))
BUFFERS = {ELEMENTS: [3, 400], SCALES: [403, 100]}
PAIRS = [(Format.E4M3, Format.E4M3), (Format.E4M3, Format.E2M1), (Format.BF16, Format.BF16),
         (Format.FP16, Format.BF16), (Format.E4M3, Format.BF16)]
MX8 = (Format.E4M3, Format.E4M3)


class Attention(AttentionBench):
    """Queues jobs with random operands, and knows the lines that they give."""

    def __init__(self, dut, **options):
        super().__init__(dut, lines=LINES, rows=ROWS,
                         buffers={cb: list(at) for cb, at in BUFFERS.items()}, **options)
        self.wanted = {"o": [], "scores": []}
        self.wanted_order, self.offset, self.scale_offset, self.beats = [], 0, 0, 0
        self.query = None

    def dot(self, opcode, a, b, *, pair=0, **options):
        """One job of the operands."""
        step = 16 if a.format in WIDE or b.format in WIDE else GROUP
        blocks = b.codes.shape[1] // step
        size = len(b.codes) * -(-b.codes.shape[1] // 32)
        if self.offset + size > 400 or self.scale_offset + size > 100:
            self.offset = self.scale_offset = 0     # as late as possible: earlier jobs still read
        stride, scale_stride = self.store(b, offset=self.offset, scale_offset=self.scale_offset)
        self.commands.append(attend(opcode, a.format, b.format, len(b.codes), blocks, stride,
                                    scale_stride, pair=pair, offset=self.offset,
                                    scale_offset=self.scale_offset, **options))
        self.offset += len(b.codes) * stride
        self.scale_offset += -(-len(b.codes) * scale_stride // 64)
        lines = lines_of(a, b, pair)
        name = "scores" if opcode == SCORE else "o"
        self.wanted[name].append(lines)
        self.wanted_order += [name] * len(lines[0])
        self.beats += len(lines[0]) * blocks

    def score(self, a, b_format, columns, *, release=0, **options):
        """``a``: what the A buffer holds that is the oldest then."""
        self.dot(SCORE, a, random_operand(b_format, columns, a.codes.shape[1]), release=release,
                 **options)

    def weigh(self, a_format, b_format, columns, keys, **options):
        """Fills a P buffer too."""
        p = random_p(a_format, ROWS, -(-keys // GROUP))
        self.load_p(p)
        unit = 16 if a_format in WIDE or b_format in WIDE else GROUP
        keys = -(-keys // unit) * unit
        self.dot(WEIGH, dot.Operand(a_format, p.codes[:, :keys]),
                 random_operand(b_format, columns, keys), **options)

    def ask(self, a_format, elements, blocks, rows=ROWS):
        """Fill an A buffer."""
        a = random_operand(a_format, rows, elements)
        self.load(a, blocks)
        return a

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
        assert self.order == self.wanted_order
        self.order, self.wanted_order = [], []
        assert counters(self.dut)[4] == self.beats


async def new_bench(dut, **options):
    seed()
    bench = Attention(dut, **options)
    await bench.start()
    return bench


def counters(dut):
    """Busy, starved, blocked, commands ended, beats."""
    value = int(dut.unit__counters.value)
    return [value >> 32 * i & 0xFFFFFFFF for i in range(5)]


def blocks_of(a_format, b_format, elements):
    return elements // (16 if a_format in WIDE or b_format in WIDE else GROUP)


@cocotb.test()
@cocotb.parametrize(formats=PAIRS, pair=[0, 1] if ROWS == 16 else [0])
async def scores_and_weighed_sums_are_exact(dut, formats, pair):
    """All heads, ragged columns and blocks of keys, delays on every stream."""
    bench = await new_bench(dut, ready=random.choice([0.6, 1.0]), drain=0.8, p_rate=0.7,
                            scores_rate=0.8)
    for head, columns in ((32, 5), (64, 1), (96, 4), (128, 3)):
        a = bench.ask(formats[0], head, blocks_of(*formats, head))
        bench.score(a, formats[1], columns, pair=pair, release=1)
        bench.weigh(*formats, random.randint(1, 5), random.randint(max(1, head - 31), head),
                    pair=pair, rest=random.choice([0, 1 << 9, 1 << 12 | 1 << 8]))
    await bench.settle()


@pytest.mark.parametrize("rows", [4, 16])
def test_dot_attention(tmp_path, rows):
    sim.run(DotEngine(lines=LINES, rows=rows, lanes=LANES, attention=True), test_module=__name__,
            build_dir=tmp_path, simulator="icarus", env={"DOT_ROWS": str(rows)})
