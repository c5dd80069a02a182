"""Tests of rtl/pe/circular_buffers.py: the cocotb tests, then the pytest function."""
import random

import cocotb
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge

from rtl.pe.circular_buffers import CircularBuffers
from testbenches import sim

LINES, PORTS = 64, 4
FULL = 64


def get(dut, port, *path):
    return getattr(dut, "__".join(["units", str(port), *path]))


def acquire_word(buffer, producer, offset, wait, release):
    return buffer | producer << 5 | offset << 6 | wait << 30 | release << 46


def release_word(buffer, producer, count):
    return buffer | producer << 5 | count << 6


def grant_of(dut, port):
    value = int(get(dut, port, "grant").value)
    return value & 63, value >> 6 & 63, value >> 12


async def start(dut):
    await sim.reset(dut, dut.configure, dut.clear, *[
        get(dut, p, stream, "valid") for p in range(PORTS) for stream in ("acquire", "release")])


async def configure(dut, buffer, base, size):
    dut.configure.value = 1 | buffer << 1 | base << 6 | size << 12
    await RisingEdge(dut.clk)
    dut.configure.value = 0


async def acquire(dut, port, *fields, patience=20):
    """Ask until granted; gives (start, base, limit), "too small", or None when out of patience."""
    get(dut, port, "acquire", "valid").value = 1
    get(dut, port, "acquire", "payload").value = acquire_word(*fields)
    try:
        for _ in range(patience):
            await RisingEdge(dut.clk)
            if get(dut, port, "acquire", "ready").value:
                return "too small" if get(dut, port, "too_small").value else grant_of(dut, port)
        return None
    finally:
        get(dut, port, "acquire", "valid").value = 0


async def release(dut, port, *fields):
    get(dut, port, "release", "valid").value = 1
    get(dut, port, "release", "payload").value = release_word(*fields)
    await RisingEdge(dut.clk)
    while not get(dut, port, "release", "ready").value:
        await RisingEdge(dut.clk)
    get(dut, port, "release", "valid").value = 0


@cocotb.test()
@cocotb.parametrize(seed=[1, 2, 3])
async def producers_and_consumers_meet(dut, seed):
    """Two pairs on buffers of different sizes; every grant and every wait against counts."""
    rng = random.Random(seed)
    await start(dut)
    sizes = {0: (5, 3, 7), 1: (31, 10, rng.choice([1, 16, 54]))}     # pair: buffer, base, size
    for buffer, base, size in sizes.values():
        await configure(dut, buffer, base, size)
    filled = {0: 0, 1: 0}       # lines pushed and not popped, as released
    total = {0: 0, 1: 0}

    async def unit(pair, producer):
        buffer, base, size = sizes[pair]
        taken, port = 0, 2 * pair + producer
        while taken < 200:
            wait, give = rng.randint(0, size), rng.randint(0, size)
            offset = rng.randrange(size)
            got = await acquire(dut, port, buffer, producer, offset, wait, give, patience=30)
            if got is None:     # a partner that waits for more than there will be: ask for less
                continue
            room = filled[pair] if not producer else size - filled[pair]
            assert max(wait, give) <= room, "granted too early"
            assert got == (base + (taken + offset) % size, base, base + size)
            await ClockCycles(dut.clk, rng.randint(1, 6))
            if give:
                await release(dut, port, buffer, producer, give)
                filled[pair] += give if producer else -give
            taken += give
            total[pair] += give if producer else 0

    tasks = [cocotb.start_soon(unit(pair, producer)) for pair in (0, 1) for producer in (0, 1)]
    for _ in range(6000):
        await RisingEdge(dut.clk)
        if all(task.done() for task in tasks[1::2]) or min(total.values()) > 150:
            break
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    assert min(total.values()) > 50, total


@cocotb.test()
async def operand_sees_earlier_operands_of_its_side_at_once(dut):
    """A producer writes ahead of what it has pushed; the consumer sees pushed lines only."""
    await start(dut)
    await configure(dut, 4, 8, 10)
    assert await acquire(dut, 0, 4, 1, 0, 4, 4) == (8, 8, 18)
    assert await acquire(dut, 0, 4, 1, 2, 6, 6) == (14, 8, 18)
    assert await acquire(dut, 0, 4, 1, 0, 1, 0) is None, "no line is free"
    assert await acquire(dut, 0, 4, 1, 9, 0, 0) == (17, 8, 18), "nothing asked for"
    assert await acquire(dut, 1, 4, 0, 0, 1, 1) is None, "nothing pushed yet"
    await release(dut, 0, 4, 1, 4)
    assert await acquire(dut, 1, 4, 0, 3, 4, 0) == (11, 8, 18)
    assert await acquire(dut, 1, 4, 0, 0, 4, 3) == (8, 8, 18), "read again, then popped"
    assert await acquire(dut, 1, 4, 0, 0, 2, 1) is None
    assert await acquire(dut, 1, 4, 0, 0, 0, 2) is None, "a release needs its lines too"
    assert await acquire(dut, 0, 4, 1, 0, 1, 1) is None, "popped only at the release"
    await release(dut, 1, 4, 0, 3)
    assert await acquire(dut, 0, 4, 1, 0, 3, 3) == (8, 8, 18)


@cocotb.test()
async def operand_larger_than_its_buffer_is_too_small(dut):
    await start(dut)
    await configure(dut, 9, 0, FULL)
    assert await acquire(dut, 2, 9, 1, 63, FULL, FULL) == (63, 0, FULL)
    await configure(dut, 9, 20, 5)
    for fields in ((0, 6, 0), (0, 0, 6), (5, 0, 0), (1 << 23, 0, 0), (0, 0x8000, 0)):
        for producer in (0, 1):
            assert await acquire(dut, 3, 9, producer, *fields) == "too small", fields
    assert await acquire(dut, 3, 9, 1, 4, 5, 5) == (24, 20, 25)
    assert await acquire(dut, 3, 8, 1, 0, 0, 0) == "too small", "never configured"
    dut.clear.value = 1
    await RisingEdge(dut.clk)
    dut.clear.value = 0
    assert await acquire(dut, 3, 9, 1, 0, 0, 0) == "too small", "cleared"
    await configure(dut, 9, 20, 5)
    assert await acquire(dut, 3, 9, 1, 0, 5, 5) == (20, 20, 25), "empty again"


@cocotb.test()
async def port_that_waits_blocks_no_other(dut):
    """Three ports wait for ever; the fourth is granted within four cycles every time."""
    await start(dut)
    await configure(dut, 1, 0, 4)
    await configure(dut, 2, 4, 4)
    for port in range(3):
        get(dut, port, "acquire", "valid").value = 1
        get(dut, port, "acquire", "payload").value = acquire_word(1, 0, 0, 1, 1)
    for _ in range(20):
        assert await acquire(dut, 3, 2, 1, 0, 4, 0, patience=PORTS + 1) == (4, 4, 8)
        for port in range(3):
            await ReadOnly()
            assert not get(dut, port, "acquire", "ready").value
            await RisingEdge(dut.clk)
    await release(dut, 3, 1, 1, 2)
    granted = []
    for _ in range(12):
        await RisingEdge(dut.clk)
        for port in range(3):
            if (get(dut, port, "acquire", "valid").value
                    and get(dut, port, "acquire", "ready").value):
                granted.append(port)
                get(dut, port, "acquire", "valid").value = 0
    assert len(granted) == len(set(granted)) == 2, "two lines for two of the three"


@sim.on_simulators
def test_circular_buffers(tmp_path, simulator):
    sim.run(CircularBuffers(lines=LINES, ports=PORTS), test_module=__name__, build_dir=tmp_path,
            simulator=simulator)
