"""Tests of rtl/memory/slice/: wrong bits, scrubbing, poison, errors of memory."""
import random
from itertools import combinations

import cocotb
from cocotb.triggers import ClockCycles

from cosim.golden.cache import WHOLE, Hint
from cosim.golden.secded import parity_check
from testbenches import sim
from testbenches.memory.slice_bench import (
    ADDRESS,
    LINES,
    OK,
    POISON,
    SETS,
    WAYS,
    Bench,
    cached_lines,
    make,
    random_mask,
    random_requests,
)
from testbenches.twins import Twins

TAG_BITS = 34 - 3       # of 8 sets
ENTRY_BITS = TAG_BITS + 3
# Pairs of wrong bits that a read takes for the mark of a poisoned word: all check bits differ.
TAKEN_FOR_MARK = [[*pair] for pair in combinations(range(72), 2)
                  if parity_check(64)[:, pair].sum(1).tolist() == [1] * 8]


async def one(bench, line, **request):
    """One request alone; gives its answer and the cycles it took."""
    bench.ask(line, **request)
    await bench.settle()
    _, got, cycles = bench.answers[-1]
    return got, cycles


def expects(bench, error):
    """Let the model take what comes for right but for the error."""
    bench.model = lambda request: (error, 0, 0)


async def changes(bench):
    return bench.count("CORRECTED"), bench.count("UNCORRECTABLE")


@cocotb.test()
@cocotb.parametrize(cached=[0, 1])
async def one_wrong_bit_is_corrected_wherever_it_is(dut, cached):
    """All 72 bits of a word, in a line read by itself and one merged with."""
    bench = Bench(dut)
    await bench.start(ways=2 * cached)
    for bit in range(72):
        await bench.inject(1 << bit)
        await one(bench, 3, cached=cached, write=1)
        before = await changes(bench)
        merges = bit % 2
        _, cycles = await one(bench, 3, cached=cached, write=merges, mask=2)
        assert cycles == 2 + cached
        assert await changes(bench) == (before[0] + 1, before[1])
        await one(bench, 3, cached=cached)      # a merged word is whole again
        assert (await changes(bench))[0] == before[0] + 2 - merges


@cocotb.test()
@cocotb.parametrize(cached=[0, 1])
async def two_wrong_bits_are_poison(dut, cached):
    """Reads fail; a write of other words does not help; one of the whole word does."""
    bench = Bench(dut)
    await bench.start(ways=2 * cached)
    model = bench.model
    pairs = [random.sample(range(72), 2) for _ in range(40)]
    for bits in [*pairs, *random.sample(TAKEN_FOR_MARK, 2)]:
        line, found = random.randrange(SETS), sorted(bits) not in TAKEN_FOR_MARK
        await bench.inject(1 << bits[0] | 1 << bits[1])
        await one(bench, line, cached=cached, write=1)
        before = await changes(bench)
        expects(bench, POISON)
        await one(bench, line, cached=cached)
        assert await changes(bench) == (before[0], before[1] + found)
        await one(bench, line, cached=cached, write=1, mask=0x0F)
        assert await changes(bench) == (before[0], before[1] + 2 * found)
        await one(bench, line, cached=cached)           # known to be poisoned: counted no more
        assert await changes(bench) == (before[0], before[1] + 2 * found)
        expects(bench, OK)
        await one(bench, line, cached=cached, write=1, mask=0x0F << 8)
        await one(bench, line, cached=cached, write=1, mask=0xFF << 8)
        expects(bench, POISON)
        await one(bench, line, cached=cached, write=1, mask=0xF0)
        await one(bench, line, cached=cached)
        expects(bench, OK)
        await one(bench, line, cached=cached, write=1, mask=0xFF)
        await one(bench, line, cached=cached)
        bench.model = model
        await one(bench, line, cached=cached, write=1)
        await one(bench, line, cached=cached)


@cocotb.test()
async def wrong_bits_hit_the_lowest_word_written_once(dut):
    bench = Bench(dut)
    await bench.start()
    await one(bench, 0, cached=0, write=1)
    await bench.inject(1 << 9)
    await one(bench, 0, cached=0)                       # a read does not use them up
    await one(bench, 0, cached=0, write=1, mask=0xFF00FF << 16)
    await one(bench, 1, cached=0, write=1)
    assert bench.count("CORRECTED") == 0
    await one(bench, 1, cached=0)
    assert bench.count("CORRECTED") == 0
    await one(bench, 0, cached=0)
    assert bench.count("CORRECTED") == 1
    await one(bench, 0, cached=0, write=1, mask=0xFF << 16)
    await one(bench, 0, cached=0)
    assert bench.count("CORRECTED") == 1


@cocotb.test()
async def the_scrubber_corrects_every_line_in_place(dut):
    """One wrong bit in each of all lines, scratch and cache, and in entries of the tags."""
    bench = Bench(dut)
    await bench.start(ways=2)
    lines = [(line, 0) for line in range(LINES // 2)] + [(line, 1) for line in range(LINES // 2)]
    for line, cached in lines:
        await bench.inject(1 << random.randrange(72))
        if cached:
            await bench.inject(1 << random.randrange(ENTRY_BITS), tag=1)
            await one(bench, line, cached=cached, write=1, mask=WHOLE)
            await bench.inject(1 << random.randrange(72))
        await one(bench, line, cached=cached, write=1, mask=WHOLE)
    before = await changes(bench)
    for n in range(LINES):
        await bench.pulse(dut.tick)
        await bench.settle()
        assert bench.count("SCRUBBED") == n + 1
    assert (await changes(bench))[0] - before[0] > LINES
    before = await changes(bench)
    for line, cached in lines:
        await one(bench, line, cached=cached)
    assert await changes(bench) == before
    assert bench.count("HITS") and not bench.memory.events


@cocotb.test()
async def the_scrubber_leaves_what_it_cannot_correct(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.inject(3)
    await one(bench, 0, cached=0, write=1)
    for _ in range(LINES):
        await bench.pulse(dut.tick)
        await bench.settle()
    assert await changes(bench) == (0, 1)
    expects(bench, POISON)
    await one(bench, 0, cached=0)


@cocotb.test()
@cocotb.parametrize(wait=[*range(8, 20)])
async def the_scrubber_does_not_undo_a_line_that_comes_just_then(dut, wait):
    bench = Bench(dut, latency=(10, 10))
    await bench.start(ways=WAYS)
    await bench.inject(1 << 5)
    for n in range(WAYS):
        await one(bench, n * SETS, cached=1, write=1)
    bench.ask(WAYS * SETS, cached=1)        # replaces the line with the wrong bit
    for _ in range(wait):
        await bench.cycle()
    await bench.pulse(dut.tick)             # the first line of all is that one
    await bench.settle()
    await one(bench, WAYS * SETS, cached=1)
    assert bench.count("CORRECTED") in (1, 2) and bench.count("HITS") == 1


@cocotb.test()
@cocotb.parametrize(cached=[0, 1])
async def a_step_of_the_scrubber_delays_a_request_by_two_cycles_at_most(dut, cached):
    bench = Bench(dut)
    await bench.start(ways=2)
    for line in range(LINES // 2):
        await bench.inject(1)
        await one(bench, line, cached=cached, write=1)
    bench.answers.clear()
    for n in range(400):
        bench.ask(n % 16, cached=cached, write=1)
    steps, began = bench.count("SCRUBBED"), bench.cycles
    while not bench.idle():
        dut.tick.value = bench.cycles % 16 == 0
        await bench.cycle()
    dut.tick.value = 0
    steps = bench.count("SCRUBBED") - steps
    assert steps > 20, "steps come although there is always a request"
    assert bench.cycles - began <= 400 + 2 * steps + 8


@cocotb.test()
@cocotb.parametrize(far=[0, 1 << 33])
async def one_wrong_bit_of_a_tag_is_corrected(dut, far):
    bench = Bench(dut)
    await bench.start(ways=2)
    for n, bit in enumerate([*range(ENTRY_BITS), *range(64, 71)]):
        await bench.inject(1 << bit, tag=1)
        line = far + 5 + SETS * n
        await one(bench, line, cached=1, write=1)
        before = await changes(bench)
        _, cycles = await one(bench, line, cached=1)
        assert cycles == 3
        assert await changes(bench) == (before[0] + 1, before[1])
    assert bench.count("HITS") == ENTRY_BITS + 7
    await bench.flush()
    bench.check_memory()
    assert not dut.lost.value


@cocotb.test()
async def a_lost_entry_poisons_the_misses_of_its_set(dut):
    """Not one stale line is given out; other sets, and hits, go on."""
    bench = Bench(dut)
    await bench.start(ways=2)
    model = bench.model
    await one(bench, 1, cached=1, write=1)
    await bench.inject(1 << 2 | 1 << 7, tag=1)
    await one(bench, 1 + SETS, cached=1, write=1)
    assert not dut.lost.value
    await one(bench, 1, cached=1)
    assert dut.lost.value and bench.count("UNCORRECTABLE") == 1
    bench.memory.events.clear()
    expects(bench, POISON)
    for write in (0, 1):
        for hint in (Hint.NONE, Hint.NO_ALLOCATE):
            await one(bench, 1 + SETS, cached=1, write=write, hint=hint)
            await one(bench, 1 + 2 * SETS, cached=1, write=write, mask=1, hint=hint)
    assert not bench.memory.events
    bench.model = model
    await one(bench, 1, cached=1)
    await one(bench, 2, cached=1)
    await bench.configure(0)
    await bench.configure(2)
    bench.contents[1].forget(1 + SETS)
    await one(bench, 1, cached=1)
    await one(bench, 1 + SETS, cached=1)
    assert dut.lost.value


@cocotb.test()
@cocotb.parametrize(error=[ADDRESS, POISON])
async def a_line_that_memory_answers_with_an_error_is_never_good(dut, error):
    """It is kept poisoned; what is written wholly is good again."""
    bench = Bench(dut, latency=(20, 20))
    await bench.start(ways=2)
    model = bench.model
    bench.memory.errors[3] = error
    expects(bench, error)
    for _ in range(4):      # all of them wait for the one line
        bench.ask(3, cached=1)
    await bench.settle()
    assert bench.count("FAILED") == 1 and len(bench.memory.events) == 1
    expects(bench, POISON)
    await one(bench, 3, cached=1)
    await one(bench, 3, cached=1, write=1, mask=1)
    assert len(bench.memory.events) == 1
    bench.model = model
    await one(bench, 3, cached=1, write=1)
    await one(bench, 3, cached=1)
    expects(bench, error)
    bench.memory.errors[4] = error
    bench.ask(4, cached=1)
    bench.ask(4, cached=1, write=1, mask=0x0F)  # merged with a line that is poison
    await bench.settle()
    expects(bench, POISON)
    await one(bench, 4, cached=1)
    expects(bench, error)
    bench.memory.errors[5] = error
    bench.ask(5, cached=1)
    await bench.until(lambda: not bench.fields and bench.source.offered is None)
    bench.model = model
    bench.ask(5, cached=1, write=1)             # replaces it whole
    bench.ask(5, cached=1)
    await bench.settle()
    expects(bench, error)
    bench.memory.errors[6] = error
    for _ in range(2):      # not kept: memory is asked again
        await one(bench, 6, cached=1, hint=Hint.NO_ALLOCATE)
    assert bench.memory.events.count(("read", 6)) == 2


@cocotb.test()
async def poisoned_lines_are_written_back_as_such(dut):
    bench = Bench(dut)
    await bench.start(ways=1)
    model = bench.model
    await bench.inject(3)
    await one(bench, 2, cached=1, write=1)
    await one(bench, 3, cached=1, write=1)
    await one(bench, 2 + SETS, cached=1)    # replaces line 2
    await one(bench, 3 + SETS, cached=1)
    assert bench.memory.poisoned == {2}
    expects(bench, POISON)
    await one(bench, 2, cached=1)
    bench.model = model
    await bench.inject(1 << 70)             # corrected on its way out
    await one(bench, 3, cached=1, write=1)
    await bench.flush()
    assert bench.memory.poisoned == {2}
    bench.may_fail = {2}
    bench.check_memory()


@cocotb.test()
@cocotb.parametrize(flip=[0, 1 << 20], write=[0, 1])
async def a_line_on_its_way_out_is_not_overtaken(dut, flip, write):
    """A request that passes by follows at once; the line may need a cycle to be corrected."""
    bench = Bench(dut)
    await bench.start(ways=1)
    await bench.inject(flip)
    await one(bench, 1, cached=1, write=1)
    bench.ask(1 + SETS, cached=1)
    bench.ask(1, cached=1, write=write, hint=Hint.NO_ALLOCATE)
    bench.ask(1, cached=1)
    await bench.settle()
    bench.check_memory()
    assert bench.memory.events[1:3] == [("write", 1), ("write" if write else "read", 1)]


@cocotb.test()
@cocotb.parametrize(ways=[1, 2, 4])
async def random_traffic_with_wrong_bits_and_scrubbing(dut, ways):
    """Single errors in data and tags, ticks, all hints, memory in any order, gaps everywhere."""
    bench = Bench(dut, send=0.8, take=0.8, latency=(0, 30))
    await bench.start()
    for line in range(LINES):       # tests before may have left words that are poisoned
        bench.ask(line, cached=0, write=1)
    await bench.until(bench.idle)
    await bench.configure(ways)
    random_requests(bench, 400, lines=cached_lines(sets=3), scratch=0.3)
    while not bench.idle():
        tag = random.getrandbits(1)
        if random.random() < 0.3:
            bits = [*range(ENTRY_BITS), *range(64, 71)] if tag else range(72)
            await bench.inject(1 << random.choice(bits), tag=tag)
        dut.tick.value = random.random() < 0.2
        await bench.cycle()
    dut.tick.value = 0
    assert bench.count("CORRECTED") and bench.count("SCRUBBED")
    assert not bench.count("UNCORRECTABLE") and not dut.lost.value
    await bench.flush()
    bench.check_memory()
    await ClockCycles(dut.clk, 2)


@cocotb.test()
async def random_traffic_with_poisoned_lines_of_memory(dut):
    bench = Bench(dut, latency=(0, 30))
    await bench.start(ways=2)
    lines = cached_lines(sets=2)
    bench.memory.poisoned = {*lines[::3]}
    bench.may_fail = {*lines[::3]}
    for _ in range(400):
        line = random.choice(lines)
        write = int(random.random() < 0.4)
        mask = WHOLE if line in lines[::3] else random_mask()
        hint = random.choice([Hint.NONE, Hint.NO_ALLOCATE, Hint.PREFETCH])
        bench.ask(line, cached=1, write=write, mask=mask, hint=hint)
    await bench.until(bench.idle)
    await bench.flush()
    bench.check_memory()



@sim.on_simulators
def test_slice_errors(tmp_path, simulator):
    sim.run(Twins(make), test_module=__name__, build_dir=tmp_path, simulator=simulator)
