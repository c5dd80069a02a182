"""Tests of rtl/pe/b_stream.py: the cocotb tests, then the pytest functions that run them."""
import os
import random

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from rtl.pe.b_stream import BStream
from rtl.pe.interfaces import grant_layout
from rtl.pe.line_walk import line_walk_layout
from rtl.pe.scale_fetch import scale_walk_layout
from testbenches import sim
from testbenches.pe.unit_bench import pack, seed

LINES, LANES = 128, 3
PAIRS = bool(os.environ.get("B_PAIRS"))
GROUPS = (1, LANES, 2)      # rows of a group: one, all lanes, a pair
ELEMENTS, SCALES = (5, 90), (95, 30)    # base and size of the two circular buffers


class Stream:
    """Local memory behind both read ports; ``ready`` is how often an address is accepted."""

    def __init__(self, dut, *, ready):
        self.dut, self.ready = dut, ready
        self.memory = np.random.randint(0, 256, (LINES, 64), dtype=np.uint8)
        self.stalled, self.cycle = {}, 0

    async def start(self):
        dut = self.dut
        await sim.reset(dut, dut.i__valid, dut.i_scales__valid, dut.take_line, dut.take_words,
                        dut.place, dut.read_elements__address__ready, dut.read_elements__valid,
                        dut.read_scales__address__ready, dut.read_scales__valid)

    async def step(self):
        await RisingEdge(self.dut.clk)
        self.cycle += 1
        for name in ("read_elements", "read_scales"):
            port = {part: getattr(self.dut, f"{name}__{part}") for part in (
                "address__valid", "address__ready", "address__payload", "data", "valid")}
            asked = int(port["address__valid"].value)
            line = int(port["address__payload"].value) if asked else 0
            if name in self.stalled:
                assert asked and line == self.stalled.pop(name)
            moved = asked and int(port["address__ready"].value)
            if asked and not moved:
                self.stalled[name] = line
            port["valid"].value = moved
            data = self.memory[line] if moved else np.random.randint(0, 256, 64, dtype=np.uint8)
            port["data"].value = int.from_bytes(data.tobytes(), "little")
            port["address__ready"].value = int(random.random() < self.ready)

    async def offer(self, rows, count, scales, stride, scale_stride, starts, together):
        """Give both jobs, each until it is accepted; the cycle in which the last one was."""
        dut = self.dut
        waiting = [(dut.i__valid, dut.i__ready), (dut.i_scales__valid, dut.i_scales__ready)]
        for valid, _ in waiting:
            valid.value = 1
        dut.i__payload.value = self.walk(ELEMENTS, starts[0], stride * 64, rows, count, together)
        walk = self.walk(SCALES, starts[1], scale_stride, rows, 0, together)
        dut.i_scales__payload.value = pack(scale_walk_layout(lines=LINES, pairs=PAIRS),
                                           walk=walk, scales=scales)
        while waiting:
            await self.step()
            for valid, ready in waiting:
                valid.value = int(not ready.value)
            waiting = [(valid, ready) for valid, ready in waiting if not ready.value]
        return self.cycle

    @staticmethod
    def walk(buffer, start, stride, rows, count, together):
        base, size = buffer
        grant = pack(grant_layout(lines=LINES), start=base + start, base=base, limit=base + size)
        pair = {"pair": together >> 1} if PAIRS else {}
        return pack(line_walk_layout(lines=LINES, pairs=PAIRS), grant=grant,
                    stride_lines=stride >> 6, stride_bytes=stride & 63, rows=rows, count=count,
                    together=together != 0, **pair)

    def byte(self, buffer, start, offset):
        base, size = buffer
        line = base + (start + offset // 64) % size
        return self.memory[line][offset % 64]


async def beats(stream, rows, count, scales, stride, scale_stride, starts, *, together, often):
    """Take every line and word of a job as they come, and compare all their parts."""
    dut, checks, stamps = stream.dut, [], []
    group_rows = GROUPS[together]
    for first in range(0, rows, group_rows):
        members = range(first, min(first + group_rows, rows))
        mask = (1 << len(members)) - 1
        for index in range(max(count, -(-scales // 8))):
            line, word = index < count, index * 8 < scales
            while True:
                ready = ((not line or dut.line_ready.value)
                         and (not word or int(dut.word_ready.value) & mask == mask))
                if ready and random.random() < often:
                    break
                await stream.step()
            stamps.append(stream.cycle)
            dut.take_line.value, dut.take_words.value = int(line), mask if word else 0
            await stream.step()
            dut.take_line.value = dut.take_words.value = 0
            eighth, scale = random.randrange(8) & (6 if together == 1 else 4), random.randrange(8)
            dut.place.value = eighth | scale << 3
            await stream.step()
            got = dut.elements, dut.more_elements__0, dut.more_elements__1
            if together == 2:
                got = dut.elements, dut.pair_elements
            got_scales = dut.scales__0, dut.scales__1, dut.scales__2
            for lane, row in enumerate(members):
                if line:
                    size = 16 if together == 1 else 32
                    at = row * stride * 64 + index * 64 + 8 * eighth
                    want = [stream.byte(ELEMENTS, starts[0], at + n) for n in range(size)]
                    have = int(got[lane].value).to_bytes(32, "little")[:size]
                    assert list(have) == want
                if word and index * 8 + scale < scales:
                    want = stream.byte(SCALES, starts[1], row * scale_stride + index * 8 + scale)
                    assert int(got_scales[lane].value) == want
            checks.append(len(members))
    return checks, stamps


@cocotb.test()
@cocotb.parametrize(ready=[0.4, 1.0], together=[0, 1, 2] if PAIRS else [0, 1])
async def every_line_and_word_comes_in_order(dut, ready, together):
    """Random jobs that wrap in their buffers, taken at random; two jobs overlap in time."""
    seed()
    stream = Stream(dut, ready=ready)
    await stream.start()
    for _ in range(12):
        rows, count = random.randint(1, 7), random.randint(1, 3)
        scales = random.choice([random.randint(1, 8), random.randint(1, 64), 100])
        strides = [s for s in (1, 2, 4, 8, 16, 32, 64, 128) if s >= scales]
        starts = random.randrange(ELEMENTS[1]), random.randrange(SCALES[1])
        job = (rows, count, scales, count + random.randint(0, 2), random.choice(strides[:2]),
               starts)
        await stream.offer(*job, together)
        await beats(stream, *job, together=together, often=random.choice([0.5, 1.0]))


@cocotb.test()
async def first_line_and_word_come_as_promised(dut):
    """3 cycles after the job a line can be taken, 4 cycles after it scales."""
    seed()
    stream = Stream(dut, ready=1.0)
    await stream.start()
    await stream.step()
    accepted = await stream.offer(1, 1, 1, 1, 1, (0, 0), 0)
    seen = {}
    while len(seen) < 2:
        await stream.step()
        if dut.line_ready.value:
            seen.setdefault("line", stream.cycle - accepted)
        if dut.word_ready.value:
            seen.setdefault("word", stream.cycle - accepted)
    assert seen == {"line": 3, "word": 4}


@sim.on_simulators
def test_b_stream(tmp_path, simulator):
    sim.run(BStream(lines=LINES, lanes=LANES), test_module=__name__, build_dir=tmp_path,
            simulator=simulator)


def test_b_stream_with_pairs(tmp_path):
    sim.run(BStream(lines=LINES, lanes=LANES, pairs=True), test_module=__name__,
            build_dir=tmp_path, simulator="icarus", env={"B_PAIRS": "1"})
