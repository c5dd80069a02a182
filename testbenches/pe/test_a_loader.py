"""Tests of rtl/pe/a_loader.py: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb

from rtl.pe.a_buffer import content_layout
from rtl.pe.a_loader import ALoader
from rtl.pe.interfaces import ErrorCode
from testbenches import sim
from testbenches.pe.unit_bench import Bench, command, error_of, operand, seed, unpack
from testbenches.twins import Twins

LINES, ROWS = 512, 5
ELEMENTS, SCALES = 3, 0
BUFFERS = {ELEMENTS: [7, 331], SCALES: [340, 61]}
BLOCK_BYTES = {1: 32, 2: 32, 3: 32, 4: 32, 5: 16}   # by format, a whole block
LIMIT = {1: 64, 2: 64, 3: 64, 4: 64, 5: 128}        # whole blocks of a row


def load(format, rows, blocks, stride, scale_stride, *, tag=0, offset=0, scale_offset=0):
    return command(0x20, tag, w1=format, w8=rows | blocks << 16, w9=stride | scale_stride << 16,
                   **operand(2, ELEMENTS, offset=offset, wait=1, release=2),
                   **operand(4, SCALES, offset=scale_offset, release=1))


class Buffers:
    """Takes what the loader writes; ``free`` buffers are left, full ones go to ``contents``."""

    def __init__(self, bench, *, free=2):
        self.bench, self.free, self.contents = bench, free, []
        self.elements, self.scales = {}, {}

    async def start(self):
        self.bench.dut.fill__free.value = 0
        await self.bench.start()

    def watch(self):
        dut = self.bench.dut
        self.bench.held("source", dut.source__address__valid, dut.source__address__ready,
                        dut.source__address__payload)
        if dut.fill__element_valid.value:
            at = int(dut.fill__row.value), int(dut.fill__line.value)
            assert at not in self.elements
            self.elements[at] = int(dut.fill__elements.value).to_bytes(64, "little")
        if dut.fill__scale_valid.value:
            at = int(dut.fill__scale_row.value), int(dut.fill__word.value)
            assert at not in self.scales
            self.scales[at] = int(dut.fill__scales.value).to_bytes(8, "little")
        if dut.fill__full.value:
            assert self.free
            self.free -= 1
            self.contents.append((unpack(content_layout(), dut.fill__content.value),
                                  self.elements, self.scales))
            self.elements, self.scales = {}, {}
        dut.fill__free.value = int(self.free != 0)


async def new_bench(dut, **options):
    seed()
    bench = Bench(dut, lines=LINES, buffers=BUFFERS, **options)
    buffers = Buffers(bench)
    await buffers.start()
    step = bench.step

    async def step_and_watch():
        await step()
        buffers.watch()
    bench.step = step_and_watch
    return bench, buffers


def row_of(elements, row):
    """Bytes of a row as loaded."""
    count = 1 + max(line for r, line in elements if r == row)
    return b"".join(elements[row, line] for line in range(count))


@cocotb.test()
@cocotb.parametrize(format=[1, 2, 3, 4, 5], ready=[0.5, 1.0])
async def rows_and_scales_arrive(dut, format, ready):
    """Rows of all lengths, wrapped at the ends of their circular buffers, then their scales."""
    bench, buffers = await new_bench(dut, ready=ready)
    for trial in range(4):
        rows = random.randint(1, ROWS)
        blocks = (1, LIMIT[format])[trial] if trial < 2 else random.randint(1, LIMIT[format])
        needed = -(-blocks * BLOCK_BYTES[format] // 64)
        stride = needed + random.randint(0, 3)
        fits = [s for s in (1, 2, 4, 8, 16, 32, 64, 128) if s >= blocks]
        scale_stride = random.choice(fits)
        offset, scale_offset = random.randint(0, 300), random.randint(0, 60)
        places = [bench.place(ELEMENTS, 0, offset), bench.place(SCALES, 0, scale_offset)]
        bench.commands.append(load(format, rows, blocks, stride, scale_stride, offset=offset,
                                   scale_offset=scale_offset))
        buffers.free = 2
        await bench.finish()
        content, elements, scales = buffers.contents.pop()
        assert content == {"format": format, "rows": rows, "blocks": blocks, "whole": 1}
        for row in range(rows):
            wanted = bench.local[places[0].bytes(row * stride * 64, blocks * BLOCK_BYTES[format])]
            assert row_of(elements, row)[:len(wanted)] == wanted.tobytes()
            if format >= 3:
                wanted = bench.local[places[1].bytes(row * scale_stride, blocks)].tobytes()
                assert row_of(scales, row)[:blocks] == wanted
        assert len(elements) == rows * needed and (format >= 3 or not scales)
    assert not bench.commands and len(bench.releases) == 8


@cocotb.test()
async def one_line_is_read_each_cycle(dut):
    """Cycles of a command as the docstring says; four in a row are counted together."""
    bench, buffers = await new_bench(dut, ready=1.0)
    buffers.free = 4
    first = bench.cycle
    bench.commands += [load(5, 4, 64, 16, 64) for _ in range(4)]
    await bench.finish()
    assert bench.cycle - first <= 4 * (4 * (16 + 1) + 6) + 20
    counters = int(dut.unit__counters.value)
    assert counters >> 128 & 0xFFFFFFFF == 4 * 4 * 16


@cocotb.test()
async def loading_waits_for_a_free_buffer(dut):
    bench, buffers = await new_bench(dut, ready=1.0)
    buffers.free = 1
    bench.commands += [load(3, 2, 2, 1, 2), load(3, 1, 2, 1, 2)]
    for _ in range(200):
        await bench.step()
    assert len(buffers.contents) == 1 and not dut.unit__idle.value
    assert int(dut.unit__counters.value) >> 64 & 0xFFFFFFFF > 100   # blocked
    buffers.free = 1
    await bench.finish()
    assert len(buffers.contents) == 2


@cocotb.test()
async def half_blocks_may_fill_a_buffer(dut):
    """Twice the blocks of a whole row are read as far as the buffer goes, and marked."""
    bench, buffers = await new_bench(dut, ready=1.0)
    bench.commands += [load(3, 2, 128, 32, 64), load(5, 1, 256, 32, 128)]
    await bench.finish()
    assert [len(elements) for _, elements, _ in buffers.contents] == [64, 32]
    assert [content["whole"] for content, _, _ in buffers.contents] == [1, 1]
    buffers.free = 1
    bench.commands.append(load(3, 2, 8, 4, 4))      # scales for 8 half blocks only
    await bench.finish()
    assert buffers.contents[-1][0]["whole"] == 0


@cocotb.test()
@cocotb.parametrize(fault=[
    (load(0, 1, 1, 1, 1), 1), (load(6, 1, 1, 1, 1), 1), (load(15, 1, 1, 1, 1), 1),
    (load(3, 0, 1, 1, 1), 8), (load(3, ROWS + 1, 1, 1, 1), 8), (load(3, 17, 1, 1, 1), 8),
    (load(3, 1, 0, 1, 1), 8), (load(1, 1, 65, 33, 0), 8), (load(3, 1, 129, 65, 128), 8),
    (load(5, 1, 257, 65, 256), 8), (load(3, 1, 2, 1, 3), 9), (load(3, 1, 2, 1, 65), 9),
    (load(3, 2, 9, 5, 4), 9), (load(3, 2, 2, 332, 2), 9), (load(3, 2, 2, 1, 62 * 64), 9)])
async def bad_fields_are_refused(dut, fault):
    """An error names the word; after a clear the unit works."""
    bench, buffers = await new_bench(dut, ready=1.0)
    bad, word = fault
    bench.commands += [load(3, 1, 2, 1, 2, tag=4), bad | 5 << 16, load(3, 1, 2, 1, 2)]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, word, 5)
    assert len(buffers.contents) == 1 and not buffers.elements
    await bench.clear()
    bench.commands.append(load(3, 1, 2, 1, 2))
    await bench.finish()
    assert len(buffers.contents) == 2 and not error_of(dut)[0]


@sim.on_simulators
def test_a_loader(tmp_path, simulator):
    sim.run(Twins(lambda: ALoader(lines=LINES, rows=ROWS)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
