"""Tests of REDUCE and COPY of rtl/net/engine.py against cosim/golden/message_engine.py."""
import random

import cocotb
import numpy as np

from cosim.golden.formats import BLOCK, MX_FORMATS, SPECS
from cosim.golden.message_engine import Kind, encode
from cosim.golden.near_memory import FORMATS
from rtl.net.engine import MessageEngine
from testbenches import sim
from testbenches.net.engine_bench import LINE, Bench, Image, agree

AREA = 0x4000       # bytes for each of A, B and S
SCALES = 0x1C000    # behind them, a line-aligned distance from A, B and S


def fresh():
    return np.random.default_rng(random.getrandbits(32))


def move(rng, format, n, *, kind=None, length=None, in_place=None):
    """A random move in the part ``n`` of 8 of each area."""
    kind = kind or (Kind.REDUCE, Kind.COPY)[rng.integers(2)]
    part = AREA // 8
    s, a, b = (area * AREA + n * part for area in range(3))
    if format in MX_FORMATS:
        length = BLOCK * int(rng.integers(1, 25)) if length is None else length
        shift = {"s": s // BLOCK, "a": a // BLOCK, "b": b // BLOCK}
        fields = {f"scales_{k}": SCALES - at + shift[k] // LINE * LINE
                  for k, at in (("s", s), ("a", a), ("b", b))}
        fields["rule"] = int(rng.integers(4))
    else:
        size = SPECS[format].bits // 8 if kind == Kind.REDUCE else 1
        length = size * int(rng.integers(1, 300 // size + 1)) if length is None else length
        fields = {}
        a, b = (at + int(rng.choice([0, rng.integers(64)])) for at in (a, b))
    match in_place:
        case "a":
            a = s
        case "b":
            b = s
    if in_place and format in MX_FORMATS:
        fields[f"scales_{in_place}"] = fields["scales_s"]
    return encode(kind=kind, format=format, length=length, local=s, remote=a, third=b, **fields)


@cocotb.test()
@cocotb.parametrize(format=[int(f) for f in FORMATS], latency=[(1, 40), (60, 60)])
async def moves_have_the_bits_of_the_golden_model(dut, format, latency):
    """Any length, any place, in place as well; two subgraphs beside each other."""
    rng = fresh()
    bench = Bench(dut, latency=latency, rate=0.9)
    await bench.start()
    for _ in range(3):
        image = Image(rng)
        moves = [move(rng, FORMATS[format], n, in_place=rng.choice([None, None, "a", "b"]))
                 for n in range(8)]
        await agree(bench, image, image.program(moves[:4], moves[4:]))


@cocotb.test()
@cocotb.parametrize(kind=[int(Kind.REDUCE), int(Kind.COPY)], rate=[0.5, 1.0])
async def ragged_lengths(dut, kind, rate):
    """Each number of bytes around those of whole lines; bytes past the end do not change."""
    rng = fresh()
    bench = Bench(dut, rate=rate)
    await bench.start()
    lengths = [1, 2, 63, 64, 65, 66, 126, 127, 128, 130, 190, 192, 194, 254, 256, 300]
    lengths = [n for n in lengths if kind == Kind.COPY or not n % 2]
    for first in range(0, len(lengths), 8):
        image = Image(rng)
        await agree(bench, image, image.program([
            move(rng, FORMATS[1 + n % 2], n, kind=kind, length=length)
            for n, length in enumerate(lengths[first:first + 8])]))


@cocotb.test()
async def formats_follow_each_other(dut):
    rng = fresh()
    bench = Bench(dut, latency=(5, 30))
    await bench.start()
    for _ in range(6):
        image = Image(rng)
        moves = [move(rng, FORMATS[rng.integers(5)], n) for n in range(8)]
        await agree(bench, image, image.program(moves[:2], moves[2:5], moves[5:]))


@cocotb.test()
@cocotb.parametrize(kind=[int(Kind.REDUCE), int(Kind.COPY)], in_place=[None, "a", "b"])
async def long_moves_of_blocks(dut, kind, in_place):
    """More lines than one line of scales is for, and half a line at the end."""
    rng = fresh()
    bench = Bench(dut, latency=(3, 50), rate=0.95)
    await bench.start()
    image, format = Image(rng), FORMATS[3 + rng.integers(2)]
    length = 64 * 97 + 32
    entry = encode(kind=kind, format=format, length=length, local=0, rule=1,
                   remote=0 if in_place == "a" else 0x4000, third=0 if in_place == "b" else 0x8000,
                   scales_s=0xC000, scales_a=0xC000 if in_place == "a" else 0xA000,
                   scales_b=0xC000 if in_place == "b" else 0x8000)
    await agree(bench, image, image.program([entry]))


@cocotb.test()
@cocotb.parametrize(kind=[int(Kind.REDUCE), int(Kind.COPY)], shift=[0, 24], latency=[20, 50])
async def throughput(dut, kind, shift, latency):
    """A line of S in 3 requests, or in 2: nothing else takes time but the way there and back."""
    rng = fresh()
    bench = Bench(dut, latency=(latency, latency), rate=1.0)
    await bench.start()
    image, lines = Image(rng), 256
    entry = encode(kind=kind, length=64 * lines, local=0, remote=0x8000 + shift,
                   third=0x10000 + shift // 2)
    program = image.program([entry])
    await agree(bench, image, program)
    times = [time for (address, _, _), time in zip(bench.memory.requests, bench.memory.times,
                                                   strict=True) if address < 0x18000]
    needed = (3 if kind == Kind.REDUCE else 2) * lines + (shift > 0) * (
        2 if kind == Kind.REDUCE else 1)
    assert len(times) == needed
    assert times[-1] - times[0] + latency <= needed + 2 * latency + 30


@cocotb.test()
async def reads_of_a_move_start_while_the_one_before_is_written(dut):
    """Short moves of two subgraphs: their latencies are not added."""
    rng = fresh()
    bench = Bench(dut, latency=(50, 50), rate=1.0)
    await bench.start()
    image, moves, lines = Image(rng), 16, 8
    entries = [encode(kind=Kind.REDUCE, length=64 * lines, local=0x400 * n,
                      remote=0x8000 + 0x400 * n, third=0x10000 + 0x400 * n) for n in range(moves)]
    await agree(bench, image, image.program(entries[:8], entries[8:]))
    times = [time for (address, _, _), time in zip(bench.memory.requests, bench.memory.times,
                                                   strict=True) if address < 0x18000]
    assert times[-1] - times[0] < moves * 70    # and not 3 * 8 + 2 * 50 and more for each


@sim.on_simulators
def test_engine_moves(tmp_path, simulator):
    sim.run(MessageEngine(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
