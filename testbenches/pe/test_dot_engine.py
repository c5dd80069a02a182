"""Tests of rtl/pe/dot_engine.py: the cocotb tests, then the pytest functions that run them."""
import random

import cocotb
import numpy as np

from cosim.golden import dot
from cosim.golden.formats import Format
from rtl.pe.dot_engine import DotEngine
from testbenches import sim
from testbenches.pe.dot_bench import (
    ELEMENTS,
    SCALES,
    WIDE,
    DotBench,
    dot_command,
    random_operand,
    same_bits,
)
from testbenches.pe.unit_bench import seed

LINES, LANES = 512, 3
BUFFERS = {ELEMENTS: [3, 400], SCALES: [403, 100]}
FORMATS = [Format.BF16, Format.FP16, Format.E4M3, Format.E5M2, Format.E2M1]


def block_elements(a, b):
    return 16 if a in WIDE or b in WIDE else 32


async def new_bench(dut, **options):
    seed()
    bench = DotBench(dut, lines=LINES, buffers=BUFFERS, **options)
    await bench.start()
    bench.rows = len([name for name in range(16) if hasattr(dut, "rows")]) or 4
    return bench


def run(bench, a_format, b_format, *, rows, columns, blocks, offset=0, scale_offset=0,
        **options):
    """Queue a load and a DOT of random operands; gives the columns to expect."""
    elements = blocks * block_elements(a_format, b_format)
    a = random_operand(a_format, rows, elements)
    b = random_operand(b_format, columns, elements)
    bench.load(a, blocks)
    stride, scale_stride = bench.store(b, offset=offset, scale_offset=scale_offset)
    bench.commands.append(dot_command(a_format, b_format, columns, blocks, stride, scale_stride,
                                      offset=offset, scale_offset=scale_offset, **options))
    return padded(dot.matmul(a, b))


def padded(result):
    out = np.zeros((len(result), 16), np.float32)
    out[:, :result.shape[1]] = result
    return out


async def settle(bench, expected):
    """Run everything, and compare the columns."""
    await bench.finish(20000)
    await bench.until(lambda: len(bench.columns) >= len(expected), 500)
    for _ in range(20):
        await bench.step()
    assert len(bench.columns) == len(expected)
    good = same_bits(np.stack(bench.columns), expected)
    assert good.all(), f"columns {np.argwhere(~good)[:5].tolist()} differ"
    bench.columns.clear()


@cocotb.test()
@cocotb.parametrize(ready=[0.4, 1.0])
async def mx4_columns_are_exact(dut, ready):
    """Ragged columns, 1 to 4 rows, one block to many, delays on every stream."""
    bench = await new_bench(dut, ready=ready, drain=ready)
    for blocks, columns in ((1, 1), (1, 7), (2, 3), (5, 4), (12, 5), (64, 3), (66, 2)):
        expected = run(bench, Format.E2M1, Format.E2M1, rows=random.randint(1, 4),
                       columns=columns, blocks=blocks, offset=random.randint(0, 399),
                       scale_offset=random.randint(0, 99))
        await settle(bench, expected)


def test_dot_engine(tmp_path):
    sim.run(DotEngine(lines=LINES, rows=4, lanes=LANES), test_module=__name__,
            build_dir=tmp_path, simulator="icarus")
