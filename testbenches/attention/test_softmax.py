"""Tests of rtl/attention/softmax.py: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb
import numpy as np

from cosim.golden import attention as golden
from cosim.golden.formats import Format
from rtl.attention.softmax import SoftmaxUnit
from rtl.pe.interfaces import ErrorCode
from testbenches import sim
from testbenches.attention.softmax_bench import (
    FORMATS,
    FULL_SPEED,
    LEAST,
    LINES,
    MOST,
    ONE,
    Block,
    new_bench,
    random_block,
    random_cap,
    random_scores,
    random_sinks,
    random_tile,
)
from testbenches.pe.unit_bench import error_of

WORD_KEYS = {Format.BF16: 4, Format.FP16: 4, Format.E4M3: 8}


def zero_words(block):
    """Words of zeros that the groups of a block lack."""
    keys = WORD_KEYS[block.format]
    return -(-block.keys // 32) * 32 // keys - -(-block.keys // keys)


def period(block):
    """Cycles of a block in the second pass, as documented."""
    lines = block.lines + (block.sinks is not None)
    least = lines + 16 + block.pair if block.last else 0
    return max(lines + zero_words(block) + 11, least)


def plain_block(keys, format, pair, **fields):
    """Every row has weights above zero; all keys are seen unless ``fields`` say otherwise."""
    block = random_block(keys, format, pair, **{"low": LEAST, "high": MOST, "scale": ONE} | fields)
    block.scores = random_scores(*block.scores.shape, wild=0)
    return block


@cocotb.test()
async def few_small_blocks_have_golden_bits(dut):
    bench = await new_bench(dut)
    for format in FORMATS:
        bench.add(*random_tile([random.randint(1, 12), 5], format, 0, states=0.5))
        bench.add(*random_tile([random.randint(1, 20), 9], format, 1, states=0.5))
    await bench.finish()
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1], empty=[0.03, 0.5], fetch=[0.03, 0.5])
async def tiles_have_golden_bits_with_gaps_everywhere(dut, pair, empty, fetch):
    """Blocks of a tile differ in size and format; overlapping ones keep their own fields."""
    bench = await new_bench(dut, offer=random.choice([0.5, 1.0]), drain=random.choice([0.4, 1.0]),
                            empty=empty, fetch=fetch)
    for _ in range(4):
        tile = random_tile([random.choice([random.randint(1, 40), 32, 64])
                            for _ in range(random.randint(1, 4))], Format.BF16, pair, states=0.5)
        for block in tile:
            block.format = random.choice(FORMATS)
        bench.add(*tile)
    await bench.finish()
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def any_number_of_keys_is_padded_with_zeros(dut, pair):
    bench = await new_bench(dut, **FULL_SPEED)
    sizes = [*range(1, 18), *random.sample(range(18, 126), 6), 31, 32, 33, 64, 65, 127, 128]
    for keys in sizes:
        bench.add(plain_block(keys, random.choice(FORMATS), pair))
    await bench.finish()
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def limits_may_be_any_numbers(dut, pair):
    """First and last key seen, around the ends of the block and of 32 bits."""
    bench = await new_bench(dut, **FULL_SPEED)
    ends = [LEAST, LEAST + 1, -1000, -300, -17, -16, -15, -8, -1, 0, 1, 5, 8, 9, 10, 127, 128, 129,
            300, (1 << 16) + 3, MOST - 15, MOST]
    for n, end in enumerate(ends):
        for limits in ({"low": end, "high": MOST}, {"low": LEAST, "high": end}):
            bench.add(plain_block(9, FORMATS[n % 3], pair, share=n % 2 * 2, **limits))
    for low, high, share in ((110, 112, 0), (127, 127, 4), (128, MOST, 4), (LEAST, 127, 1)):
        bench.add(plain_block(128, Format.E4M3, pair, share=share, low=low, high=high))
    await bench.finish()
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def special_scores_and_scales(dut, pair):
    """NaN, infinities, subnormal and huge numbers, in scores and scale; rows that see nothing."""
    bench = await new_bench(dut, **FULL_SPEED)
    for scale in (0, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F7FFFFF, ONE):
        tile = random_tile([14, 9, 14], random.choice(FORMATS), pair, scale=scale)
        for block in tile:
            rows = len(block.scores)
            wild = random_block(block.keys, block.format, pair).scores
            block.scores = np.where(np.random.random((rows, 1)) < 0.5, wild, block.scores)
        bench.add(*tile)
    for states in (0.0, 1.0):
        bench.add(*random_tile([7, 7, 7], Format.E4M3, pair, states=states, low=3, high=2, share=1,
                               scale=ONE))
    await bench.finish()
    bench.check()


@cocotb.test()
async def maxima_move_or_stay(dut):
    """Rows whose maximum moves in some blocks only, by one or by a lot; sums that cancel to zero.

    A maximum that moves by more than 2^7 leaves a factor of zero or a subnormal one. From 2^23 on
    every number is whole, below there are halves.
    """
    bench = await new_bench(dut, **FULL_SPEED)
    rises = [0, 2 ** 22 + 0.5, 1, 3, 130, 148, 150, 1e9, -4, -200, 0.25, -0.25, 1 / 3, 7, 2.5e37,
             -1e30]
    for format in FORMATS:
        tile = random_tile([8, 3, 11, 5], format, 0, low=LEAST, high=MOST, scale=ONE)
        for n, block in enumerate(tile):
            noise = np.random.random(block.scores.shape).astype(np.float32)
            rise = np.float32(n) * np.array(rises, np.float32)
            block.scores = (rise[:, None] + noise).astype(np.float32).view(np.uint32)
        bench.add(*tile)
    await bench.finish()
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def throughput_is_as_documented(dut, pair):
    """One line a cycle into the first pass; the second pass sets the pace of the blocks."""
    bench = await new_bench(dut, **FULL_SPEED)
    sizes = [64, 128, 64, 64, 96, 33, 33, 1, 1, 1, 31, 32, 128, 128, 50]
    blocks = [plain_block(keys, format, pair, first=int(n == 0), last=int(n in (3, 9, 14)))
              for n, (keys, format) in enumerate(zip(sizes, (FORMATS * 5)[:15], strict=True))]
    bench.add(*blocks)
    await bench.finish()
    bench.check()
    ends = np.cumsum([block.lines for block in blocks])
    taken, full = bench.take_cycles, bench.full_cycles
    before = -1000
    for n, block in enumerate(blocks):
        lines = taken[ends[n] - block.lines:ends[n]]
        assert lines[-1] - lines[0] == block.lines - 1
        start = max(lines[-1] + 4 + pair, before)
        assert full[n] == start + block.lines + zero_words(block) + 10, f"block {n}"
        before = start + period(block)
    assert full[3] - full[2] == full[2] - full[1] == blocks[2].lines + 11
    factors = sorted(set(bench.factor_cycles))
    assert len(factors) == len(blocks)
    for n, block in enumerate(blocks):
        delay = factors[n] - (full[n] - zero_words(block))  # of factors behind the last code
        assert delay == (6 + pair if block.last else 0)


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def a_state_follows_its_block(dut, pair):
    """Its entry comes 1 cycle after that of the block, with ``pair`` 2, and may wait."""
    bench = await new_bench(dut, **FULL_SPEED)
    bench.add(*(plain_block(keys, Format.E4M3, pair, last=0, state=1) for keys in (64, 64, 64, 5)))
    await bench.finish()
    bench.check()
    cycles, full = sorted(set(bench.factor_cycles)), bench.full_cycles
    assert [b - a for a, b in zip(cycles[::2], cycles[1::2], strict=True)] == [1 + pair] * 4
    assert full[2] - full[1] == 64 // (1 + pair) + 11 + pair
    bench.fetch = 0
    bench.add(*random_tile([9, 9, 9], Format.BF16, pair, states=1.0))
    for _ in range(100):
        await bench.step()
    assert dut.factors__valid.value and not dut.unit__idle.value
    bench.fetch = 0.3
    await bench.finish()
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def a_block_of_one_line_may_follow_at_once(dut, pair):
    """Its fields do not reach the block before, whose maximum is on its way."""
    bench = await new_bench(dut, **FULL_SPEED)
    for n in range(3):
        tile = random_tile([40, 1], Format.BF16, pair)
        tile[1].format = FORMATS[n]
        bench.add(*tile)
        await bench.finish()
    bench.check()


@cocotb.test()
async def scores_of_two_blocks_are_taken_while_no_buffer_is_free(dut):
    bench = await new_bench(dut, **FULL_SPEED | {"empty": 0})
    bench.add(*[plain_block(8, Format.FP16, 0) for _ in range(5)])
    for _ in range(200):
        await bench.step()
    assert len(bench.blocks) == 2 and len(bench.factors) == 2
    assert len(bench.take_cycles) == 8 * 4 and len(bench.scores) == 8
    counters = int(dut.unit__counters.value)
    bench.empty = 1
    await bench.finish()
    bench.check()
    starved, blocked = (counters >> 32 * n & 0xFFFFFFFF for n in (1, 2))
    assert blocked > 100 and starved < 10


@cocotb.test()
async def factors_wait_in_a_queue_of_two(dut):
    """A third block does not start before one of them was taken; its P is not handed over."""
    bench = await new_bench(dut, **FULL_SPEED | {"fetch": 0})
    bench.add(*random_tile([20, 20, 20], Format.E4M3, 0))
    for _ in range(200):
        await bench.step()
    assert len(bench.blocks) == 2 and not bench.words and dut.factors__valid.value
    bench.fetch = 1
    await bench.finish()
    bench.check()


@cocotb.test()
async def waiting_words_delay_nothing_else(dut):
    """While P waits, the scores of the next block are taken; then the unit counts as blocked."""
    bench = await new_bench(dut, **FULL_SPEED | {"drain": 0})
    bench.add(*random_tile([40, 40], Format.BF16, 0))
    for _ in range(150):
        await bench.step()
    assert len(bench.take_cycles) == 80 and dut.p__word__valid.value and not bench.blocks
    since = bench.cycle - bench.take_cycles[-1]
    assert since > 20 and since - 3 < int(dut.unit__counters.value) >> 64 & 0xFFFFFFFF < since + 3
    bench.drain = 0.3
    await bench.finish()
    bench.check()


@cocotb.test()
async def counters_tell_lines_and_waits(dut):
    bench = await new_bench(dut, **FULL_SPEED | {"offer": 0})
    bench.add(*random_tile([30, 20], Format.BF16, 1))
    for _ in range(50):
        await bench.step()
    counters = [int(dut.unit__counters.value) >> 32 * n & 0xFFFFFFFF for n in range(5)]
    assert counters[0] == 0 and 35 < counters[1] < 50 and counters[4] == 0
    bench.offer = 1
    await bench.finish()
    counters = [int(dut.unit__counters.value) >> 32 * n & 0xFFFFFFFF for n in range(5)]
    assert counters[2] < 10 and counters[3] == 2 and counters[4] == 25
    # of the second block 4 lines are taken before the second pass works on the first one
    assert counters[0] == 15 + 4 + sum(period(block) - 1 for block, *_ in bench.expected)
    dut.unit__launch.value = 1
    await bench.step()
    dut.unit__launch.value = 0
    await bench.step()
    assert int(dut.unit__counters.value) == 0
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def soft_caps_have_golden_bits(dut, pair):
    """Caps and scores of every kind, masks and formats; the blocks of a tile may differ."""
    bench = await new_bench(dut, offer=random.choice([0.3, 1.0]), drain=random.choice([0.4, 1.0]))
    for n in range(6):
        tile = random_tile([random.choice([random.randint(1, 30), 1, 40])
                            for _ in range(random.randint(1, 3))], FORMATS[n % 3], pair)
        for block in tile:
            block.cap = random_cap() if random.random() < 0.8 else None
        bench.add(*tile)
    await bench.finish()
    bench.check()


@cocotb.test()
async def soft_cap_of_special_scores(dut):
    """Infinities give the cap itself, NaN stays; tiny and huge factors."""
    bench = await new_bench(dut, **FULL_SPEED)
    ends = [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0xFF7FFFFF, 1, ONE]
    for n, scale in enumerate((ONE, 0x3D000000, 1, 0x7F800000, 0x42000000, 0x7FC00000)):
        block = plain_block(len(ends), FORMATS[n % 3], 0, scale=scale, cap=golden.Cap.of(30.0))
        for row in range(16):
            block.scores[row] = np.roll(ends, row) if row < 9 else ends[row % 9]
        bench.add(block)
    await bench.finish()
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1], ready=[0.1, 0.8])
async def sinks_have_golden_bits(dut, pair, ready):
    """Sinks of every kind, in first blocks of tiles of any mask, from a slow or quick memory."""
    bench = await new_bench(dut, ready=ready, offer=random.choice([0.5, 1.0]))
    for n in range(8):
        tile = random_tile([random.choice([random.randint(1, 30), 1, 33])
                            for _ in range(random.randint(1, 3))], FORMATS[n % 3], pair,
                           cap=random_cap() if n % 4 == 3 else None)
        if n % 3 != 2:
            tile[0].sinks = random_sinks(wild=random.choice([0, 0.4]))
        bench.add(*tile)
    await bench.finish()
    bench.check()
    released = sum(count for buffer, producer, count in bench.releases)
    assert released == bench.sink_pointer and not any(side for _, side, _ in bench.releases)


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def rows_that_see_their_sink_alone_weigh_nothing(dut, pair):
    """Their P is zero and their sum the sink's weight; with minus infinity there is no sink."""
    bench = await new_bench(dut, **FULL_SPEED)
    sinks = golden.bits(np.float32([-np.inf, 0, 0.5, -3.25] * 4))
    block = plain_block(5, Format.E4M3, pair, low=3, high=2, sinks=sinks)
    bench.add(block)
    await bench.finish()
    bench.check()
    assert not any(bench.blocks[0][1])
    inverse = np.frombuffer(bench.factors[0]["inverse"].to_bytes(64, "little"), "<f4")
    np.testing.assert_allclose(inverse[:4], [0, 1 / 256, 2 ** 0.5 / 256, 2 ** 0.25 / 256],
                               rtol=1e-6)


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def blocks_of_every_kind_follow_each_other(dut, pair):
    """With and without cap and sinks, of one line and of all lines, at full speed."""
    bench = await new_bench(dut, **FULL_SPEED)
    kinds = [(cap, sink, keys) for cap in (0, 1) for sink in (0, 1) for keys in (1, 2, 7, 128)]
    random.shuffle(kinds)
    for n, (cap, sink, keys) in enumerate(kinds):
        block = plain_block(keys, FORMATS[n % 3], pair, last=n % 2)
        block.cap = golden.Cap.of(20.0) if cap else None
        block.sinks = random_sinks(wild=0) if sink else None
        bench.add(block)
    await bench.finish()
    bench.check()


@cocotb.test()
@cocotb.parametrize(pair=[0, 1])
async def a_line_with_a_soft_cap_takes_four_cycles(dut, pair):
    """P is full 14 cycles later than without a cap; sinks add a line to the second pass."""
    bench = await new_bench(dut, **FULL_SPEED)
    for cap in (None, golden.Cap.of(50.0)):
        for sinks in (None, random_sinks(wild=0)):
            block = plain_block(40, Format.E4M3, pair, cap=cap, sinks=sinks)
            begin, ends = len(bench.take_cycles), len(bench.full_cycles)
            bench.add(block)
            await bench.finish()
            taken = np.array(bench.take_cycles[begin:])
            assert (np.diff(taken) == (4 if cap else 1)).all() and len(taken) == block.lines
            last = taken[-1] + (14 if cap else 0) + (sinks is not None)
            assert bench.full_cycles[ends] == last + 14 + pair + block.lines + zero_words(block)
    bench.check()


@cocotb.test()
async def a_block_waits_for_its_sinks(dut):
    """No score is taken before; the unit counts as starved."""
    bench = await new_bench(dut, **FULL_SPEED)
    for cap in (None, golden.Cap.of(50.0)):
        bench.add(plain_block(6, Format.BF16, 0, cap=cap, sinks=random_sinks(wild=0)))
        bench.ready = 1.0
        while not dut.source__address__valid.value:
            await bench.step()
            dut.source__address__ready.value = 0
        taken, starved = len(bench.take_cycles), int(dut.unit__counters.value) >> 32 & 0xFFFFFFFF
        for _ in range(40):
            await bench.step()
            dut.source__address__ready.value = 0
        assert len(bench.take_cycles) == taken
        assert (int(dut.unit__counters.value) >> 32 & 0xFFFFFFFF) - starved >= 39
        await bench.finish()
    bench.check()


LATER = {"word1": 1 << 11, "set": 0}    # no first block
BAD = {
    "format_fp32": ({"word1": 0xF << 16, "set": 0}, 1),
    "format_e5m2": ({"word1": 0xF << 16, "set": 4 << 16}, 1),
    "share_5": ({"word1": 7 << 20, "set": 5 << 20}, 1),
    "cap_offset": ({"w13": 1}, 13), "cap_slope": ({"w14": 1 << 31}, 14),
    "cap_offset_first": ({"w13": 1 << 31, "w14": 5}, 13),
    "keys_before_cap": ({"w8": 0, "w13": 5}, 8),
    **{f"bit_{n}": ({"word1": 1 << n, "set": 1 << n}, 1) for n in (9, 14, 15, 23, 25, 31)},
    "state_of_last": ({"word1": 3 << 12, "set": 3 << 12}, 1),
    "sink": (LATER | {"w6": 6}, 6), "sink_release": (LATER | {"w7": 1 << 16}, 6),
    "no_keys": ({"w8": 5 << 16}, 8), "129_keys": ({"w8": 129}, 8), "many": ({"w8": 1 << 15}, 8),
    "lowest_first": ({"word1": 1 << 9, "set": 1 << 9, "w6": 6, "w8": 0}, 1),
    "sink_before_keys": (LATER | {"w6": 6, "w8": 0}, 6),
}


def bad_command(block, *, word1=0, set=0, **words):
    """A command with some bits of word 1 replaced, and other words."""
    value = block.command(tag=9, **words)
    return value & ~(word1 << 32) | set << 32


@cocotb.test()
@cocotb.parametrize(fault=list(BAD))
async def bad_fields_are_refused(dut, fault):
    """The block before ends, nothing starts after; after a clear the unit works."""
    bench = await new_bench(dut, **FULL_SPEED)
    bench.buffers[0] = [8, 8]       # what a wrong operand may name
    bench.pointers[0, 0] = 0
    changes, word = BAD[fault]
    bench.add(*random_tile([6], Format.FP16, 0))
    bench.commands += [bad_command(random_block(4, Format.BF16, 0), **changes),
                       random_block(4, Format.BF16, 0).command()]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, word, 9)
    bench.scores = [0]
    for _ in range(30):
        await bench.step()
    bench.check()
    assert len(bench.take_cycles) == 6
    bench.scores.clear()
    dut.i__valid.value = 0
    await bench.clear()
    bench.add(*random_tile([5, 3], Format.E4M3, 0))
    await bench.finish()
    bench.check()
    assert not error_of(dut)[0]


@cocotb.test()
@cocotb.parametrize(cycles=[1, 7, 25, 45, 56, 62, 70, 90, 150], capped=[0, 1])
async def clear_returns_to_the_start(dut, cycles, capped):
    """Whatever is under way, the next block is right, and starts anew though it is no first one."""
    bench = await new_bench(dut, **FULL_SPEED | {"fetch": 0, "drain": random.choice([0.6, 1.0])})
    tile = random_tile([37, 20, 9, 30], Format.E4M3, 0, low=LEAST, high=MOST,
                       cap=golden.Cap.of(30.0) if capped else None)
    tile[0].sinks = random_sinks() if capped else None
    bench.add(*tile)
    for _ in range(cycles + 12):
        await bench.step()
    bench.scores.clear()
    dut.i__valid.value = 0
    await bench.clear()
    bench.used, bench.words = 0, []
    bench.blocks.clear()
    bench.stalled.clear()
    bench.fetch, skip = 1, len(bench.expected)
    block = plain_block(21, Format.FP16, 1, first=1)
    bench.add(block)
    bench.commands[-1] &= ~(1 << 43)    # the golden model had it as a first block
    bench.add(*random_tile([5, 3], Format.BF16, 0))
    bench.expected = bench.expected[skip:]
    await bench.finish()
    bench.check()


@cocotb.test()
async def a_row_of_scores_of_minus_infinity_gives_zeros(dut):
    bench = await new_bench(dut)
    scores = np.full((16, 6), 0xFF800000, np.uint32)
    scores[8:, 2] = ONE
    bench.add(Block(scores, Format.E4M3))
    await bench.finish()
    bench.check()
    words = [int(word) for word in bench.blocks[0][1]]
    assert all(word & (1 << 512) - 1 == 0 for word in words) and words[0] >> 512
    assert bench.factors[0]["inverse"] & (1 << 256) - 1 == 0


@sim.on_simulators
def test_softmax(tmp_path, simulator):
    sim.run(SoftmaxUnit(lines=LINES), test_module=__name__, build_dir=tmp_path,
            simulator=simulator,
            testcase="few_small_blocks_have_golden_bits" if simulator == "icarus" else None)
