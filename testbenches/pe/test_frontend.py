"""Tests of rtl/pe/frontend.py: the cocotb tests, then the pytest function that runs them."""
import logging
import random
from collections import deque

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from rtl.pe.frontend import OperandField, UnitFrontend
from testbenches import sim
from testbenches.twins import Twins

LINES = 64
OPERANDS = (OperandField(2), OperandField(4, optional=True), OperandField(6, producer=True))
GRANT_BITS = 19         # start, base: 6 bits each, limit: 7
CB_TOO_SMALL, POISON = 3, 6


def word(command, index):
    return command >> 32 * index & 0xFFFFFFFF


def random_command(rng, tag):
    """A command with random operands; the second is absent at times, releases are 0 at times."""
    words = [rng.getrandbits(32) for _ in range(16)]
    words[0] = tag << 16 | 0x30
    for operand in OPERANDS:
        words[operand.word] &= 0xFFFFFF1F
        words[operand.word + 1] &= rng.choice([0xFFFF, 0xFFFFFFFF])
    if rng.getrandbits(1):
        words[4] = words[5] = 0
    return sum(w << 32 * i for i, w in enumerate(words))


def acquires(command):
    """What a command asks for, in order: (buffer, producer, offset, wait, release) or None."""
    for operand in OPERANDS:
        low, high = word(command, operand.word), word(command, operand.word + 1)
        if operand.optional and low == high == 0:
            yield None
        else:
            yield low & 31, int(operand.producer), low >> 8, high & 0xFFFF, high >> 16


def releases(command):
    return [(a[0], a[1], a[4]) for a in acquires(command) if a is not None and a[4]]


def fields(value, *widths):
    """Split an integer into fields, lowest first."""
    out = []
    for width in widths:
        out.append(value & (1 << width) - 1)
        value >>= width
    return tuple(out)


async def start(dut):
    await sim.reset(dut, dut.unit__command__valid, dut.unit__clear, dut.unit__launch,
                    dut.buffers__acquire__ready, dut.buffers__too_small, dut.buffers__grant,
                    dut.buffers__release__ready, dut.job__ready, dut.done, dut.fault, dut.active,
                    dut.starved, dut.blocked, dut.extra, dut.unit__command__payload)


async def cycle(dut, seen):
    """One clock edge; what moved at it goes to ``seen``."""
    await RisingEdge(dut.clk)
    if dut.unit__command__valid.value and dut.unit__command__ready.value:
        seen["command"].append(int(dut.unit__command__payload.value))
    if dut.buffers__acquire__valid.value and dut.buffers__acquire__ready.value:
        seen["acquire"].append((fields(int(dut.buffers__acquire__payload.value), 5, 1, 24, 16, 16),
                                int(dut.buffers__grant.value)))
    if dut.buffers__release__valid.value and dut.buffers__release__ready.value:
        seen["release"].append(fields(int(dut.buffers__release__payload.value), 5, 1, 16))
    if dut.job__valid.value and dut.job__ready.value:
        seen["job"].append(int(dut.job__payload.value))


def new_seen():
    return {"command": [], "acquire": [], "release": [], "job": []}


def counters(dut):
    value = int(dut.unit__counters.value)
    return [value >> 32 * i & 0xFFFFFFFF for i in range(16)]


@cocotb.test()
@cocotb.parametrize(pace=[1, 3, 8], seed=[1, 2])
async def commands_become_jobs_and_releases_in_order(dut, pace, seed):
    """Random gaps everywhere; the datapath keeps a job for up to ``pace`` cycles."""
    rng = random.Random(seed)
    await start(dut)
    commands = [random_command(rng, tag) for tag in range(60)]
    todo, seen, running, done = deque(commands), new_seen(), deque(), 0
    for now in range(6000):
        await cycle(dut, seen)
        if dut.done.value:
            done += 1
        running.extend([now + rng.randint(1, pace)] * (len(seen["job"]) - done - len(running)))
        assert len(seen["job"]) - done <= 2, "three jobs in the datapath"
        expected = [r for c in commands[:done] for r in releases(c)]
        assert seen["release"] == expected[:len(seen["release"])], "released early or out of order"
        if dut.unit__command__ready.value or not dut.unit__command__valid.value:
            if dut.unit__command__valid.value:
                todo.popleft()
            dut.unit__command__valid.value = int(bool(todo) and rng.random() < 0.8)
            dut.unit__command__payload.value = todo[0] if todo else 0
        finish = bool(running) and running[0] <= now
        dut.done.value = int(finish)
        if finish:
            running.popleft()
        dut.job__ready.value = rng.getrandbits(1)
        dut.buffers__acquire__ready.value = rng.getrandbits(1)
        dut.buffers__grant.value = rng.getrandbits(GRANT_BITS)
        dut.buffers__release__ready.value = rng.getrandbits(1)
        if dut.unit__idle.value and done == len(commands):
            break
    assert seen["command"] == commands
    assert [a for a, _ in seen["acquire"]] == [a for c in commands for a in acquires(c) if a]
    assert seen["release"] == [r for c in commands for r in releases(c)]
    grants = iter([g for _, g in seen["acquire"]])
    for command, job in zip(commands, seen["job"], strict=True):
        got = fields(job, 512, GRANT_BITS, GRANT_BITS, GRANT_BITS)
        assert got == (command, *(next(grants) if a else 0 for a in acquires(command)))
    assert counters(dut)[3] == len(commands)


@cocotb.test()
async def next_job_is_ready_while_the_first_runs(dut):
    """Operands are prefetched: jobs are accepted in back-to-back cycles, and no third one."""
    rng = random.Random(3)
    await start(dut)
    seen, commands = new_seen(), [random_command(rng, tag) for tag in range(5)]
    dut.buffers__acquire__ready.value = dut.buffers__release__ready.value = 1
    for command in commands:
        dut.unit__command__valid.value, dut.unit__command__payload.value = 1, command
        await cycle(dut, seen)
        dut.unit__command__valid.value = 0
        for _ in range(8):
            await cycle(dut, seen)
    assert seen["command"] == commands and not seen["job"]
    assert not dut.unit__command__ready.value, "one job, four commands in the queue"
    assert len(seen["acquire"]) == sum(a is not None for c in commands[:2] for a in acquires(c))
    dut.job__ready.value = 1
    for _ in range(12):
        await cycle(dut, seen)
    assert len(seen["job"]) == 2, "two jobs at once"
    dut.done.value = 1
    await cycle(dut, seen)
    dut.done.value = 0
    for _ in range(3):
        await cycle(dut, seen)
    assert len(seen["job"]) == 3, "one more for each that is done"


@cocotb.test()
async def releases_of_fast_jobs_are_all_sent_however_late_they_are_taken(dut):
    """Four jobs are done before the first release is taken; a fifth waits."""
    rng = random.Random(4)
    await start(dut)
    seen, commands = new_seen(), [random_command(rng, tag) | 1 << 240 for tag in range(5)]
    dut.buffers__acquire__ready.value = dut.job__ready.value = 1
    todo = list(commands)
    done = 0
    for _ in range(60):
        dut.unit__command__valid.value = int(bool(todo))
        dut.unit__command__payload.value = todo[0] if todo else 0
        dut.done.value = int(len(seen["job"]) > done)
        done += int(len(seen["job"]) > done)
        await cycle(dut, seen)
        todo = commands[len(seen["command"]):]
    dut.done.value = 0
    assert len(seen["job"]) == 4 and not dut.job__valid.value and not dut.unit__idle.value
    dut.buffers__release__ready.value = 1
    for _ in range(20):
        await cycle(dut, seen)
    assert len(seen["job"]) == 5
    assert seen["release"] == [r for c in commands[:4] for r in releases(c)]


@cocotb.test()
async def cb_too_small_stops_the_unit_until_clear(dut):
    await start(dut)
    seen = new_seen()
    command = 0xBEEF << 16 | (7 | 9 << 8) << 64 | 1 << 96
    dut.unit__command__valid.value, dut.unit__command__payload.value = 1, command
    dut.buffers__acquire__ready.value = dut.buffers__too_small.value = dut.job__ready.value = 1
    for _ in range(30):
        await cycle(dut, seen)
    assert fields(int(dut.unit__error.value), 1, 8, 8, 16) == (1, CB_TOO_SMALL, 7, 0xBEEF)
    assert len(seen["acquire"]) == 1 and not seen["job"]
    assert len(seen["command"]) == 4 and not dut.unit__idle.value
    dut.unit__command__valid.value, dut.unit__clear.value = 0, 1
    dut.buffers__too_small.value = 0
    await ClockCycles(dut.clk, 2)
    dut.unit__clear.value = 0
    for _ in range(10):
        await cycle(dut, seen)
    assert int(dut.unit__error.value) & 1 == 0
    assert dut.unit__idle.value and not seen["job"]
    dut.unit__command__valid.value = 1
    await cycle(dut, seen)
    dut.unit__command__valid.value = 0
    for _ in range(10):
        await cycle(dut, seen)
    assert len(seen["job"]) == 1, "works again"


@cocotb.test()
async def fault_names_the_oldest_job_and_stops_the_unit(dut):
    """The first of two accepted jobs is done, the second refused: the error has its tag."""
    rng = random.Random(5)
    await start(dut)
    seen, commands = new_seen(), [random_command(rng, 100 + i) for i in range(4)]
    dut.buffers__acquire__ready.value = dut.job__ready.value = 1
    for command in commands:
        dut.unit__command__valid.value, dut.unit__command__payload.value = 1, command
        await cycle(dut, seen)
    dut.unit__command__valid.value = 0
    for _ in range(20):
        await cycle(dut, seen)
    assert len(seen["job"]) == 2
    dut.done.value = 1
    await cycle(dut, seen)
    dut.done.value, dut.fault.value = 0, 1 | POISON << 1 | 12 << 9
    await cycle(dut, seen)
    dut.fault.value = 1 | 2 << 1 | 3 << 9       # a second fault changes nothing
    await cycle(dut, seen)
    dut.fault.value = 0
    jobs = len(seen["job"])
    for _ in range(10):
        await cycle(dut, seen)
    assert fields(int(dut.unit__error.value), 1, 8, 8, 16) == (1, POISON, 12, 101)
    assert len(seen["job"]) == jobs <= 3 and not dut.job__valid.value


@cocotb.test()
async def cycles_are_counted_once_by_cause(dut):
    """Busy before starved before blocked; waiting for an operand counts by its side."""
    await start(dut)
    seen = new_seen()
    for value, cycles in ((0b111, 5), (0b110, 7), (0b100, 11)):
        dut.active.value, dut.starved.value, dut.blocked.value = (value >> i & 1 for i in range(3))
        await ClockCycles(dut.clk, cycles)
    dut.active.value = dut.starved.value = dut.blocked.value = 0
    await ClockCycles(dut.clk, 2)
    assert counters(dut)[:4] == [5, 7, 11, 0]
    dut.unit__launch.value = 1
    await ClockCycles(dut.clk, 1)
    dut.unit__launch.value = 0
    dut.extra.value = sum((i + 1) << 32 * i for i in range(12))
    dut.unit__command__payload.value = 3 << 64 | 4 << 96 | 5 << 192
    dut.unit__command__valid.value = 1
    await ClockCycles(dut.clk, 1)
    dut.unit__command__valid.value = 0
    await ClockCycles(dut.clk, 20)
    assert dut.unit__waiting.value and int(dut.unit__waiting_buffer.value) == 3
    assert counters(dut)[0] == 0 and 15 <= counters(dut)[1] <= 20 and counters(dut)[2] == 0
    assert int(dut.unit__state.value) == 2
    dut.buffers__acquire__ready.value = 1
    await ClockCycles(dut.clk, 1)
    dut.buffers__acquire__ready.value = 0
    before = counters(dut)
    await ClockCycles(dut.clk, 20)
    assert int(dut.unit__waiting_buffer.value) == 5
    assert counters(dut)[2] >= 17 and counters(dut)[1] <= before[1] + 2
    assert int(dut.unit__state.value) == 3
    assert counters(dut)[4:] == list(range(1, 13))
    dut.buffers__acquire__ready.value = dut.job__ready.value = 1
    await ClockCycles(dut.clk, 5)
    dut.done.value, dut.unit__clear.value = 1, 0
    before = counters(dut)
    await ClockCycles(dut.clk, 1)
    dut.done.value = 0
    await ClockCycles(dut.clk, 10)
    assert counters(dut)[3] == 1 and counters(dut)[:3] == before[:3]
    dut.unit__clear.value = 1
    await cycle(dut, seen)
    await cycle(dut, seen)
    assert counters(dut)[3] == 1, "counters stay after an error"


@sim.on_simulators
def test_frontend(tmp_path, simulator):
    logging.getLogger(__name__).info("seeds are the parameters of the tests")
    sim.run(Twins(lambda: UnitFrontend(lines=LINES, operands=OPERANDS)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
