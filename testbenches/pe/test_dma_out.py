"""Tests of rtl/pe/dma_out.py: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb
import numpy as np

from cosim.golden.moves import Rows, rows_out
from rtl.pe.dma_out import TAGS, DmaOut
from rtl.pe.interfaces import ErrorCode
from testbenches import sim
from testbenches.pe.unit_bench import Bench, address_of, command, operand, seed
from testbenches.twins import Twins

LINES = 64
DATA = 3
BUFFERS = {DATA: [5, 31]}


def dma(rows, *, tag=0, offset=0, release=0, hint=0):
    return command(0x11, tag, **operand(2, DATA, offset=offset, release=release), w1=hint,
                   w4=rows.address, w5=rows.address >> 32, w6=rows.rows, w7=rows.row_bytes,
                   w8=rows.stride, w9=rows.local_stride, w10=rows.offset)


async def new_bench(dut, **options):
    seed()
    bench = Bench(dut, lines=LINES, buffers=BUFFERS, **options)
    await bench.start()
    return bench


def some_rows(far_bytes):
    """Rows that do not overlap in the far memory, since writes may be done in any order."""
    row_bytes = random.choice([1, 5, 63, 64, 65, 128, 192, random.randint(1, 400)])
    rows = random.randint(1, max(1, 1500 // (row_bytes + 64)))
    gap = random.choice([0, 0, 1, -row_bytes % 64, random.randint(0, 300)])
    return Rows(address=far_bytes // 2 + random.choice([0, random.randint(0, 63)]), rows=rows,
                row_bytes=row_bytes, stride=random.choice([-1, 1]) * (row_bytes + gap),
                local_stride=random.choice([row_bytes, 64, 0, random.randint(0, 31 * 64 - 1)]),
                offset=random.choice([0, random.randint(0, 31 * 64 - 1)]))


@cocotb.test()
@cocotb.parametrize(ready=[0.35, 0.8, 1.0])
async def rows_of_every_alignment_arrive(dut, ready):
    """Random jobs, two at a time; afterwards every byte of the far memory is as modelled."""
    bench = await new_bench(dut, ready=ready)
    for _ in range(6):
        expected, local = bench.far.copy(), bench.local.copy()
        for half in range(2):
            rows, offset = some_rows(len(bench.far) // 2), random.randint(0, 30)
            rows = Rows(**(vars(rows) | {"address": rows.address + half * len(bench.far) // 2}))
            rows_out(local, expected, rows, bench.place(DATA, 0, offset))
            bench.commands.append(dma(rows, offset=offset, release=0))
        await bench.finish()
        assert np.array_equal(bench.far, expected) and np.array_equal(bench.local, local)


@cocotb.test()
async def hints_go_with_every_write_of_their_command(dut):
    bench = await new_bench(dut, ready=0.8)
    asked = []
    for n in range(10):
        hint = random.getrandbits(1)
        rows = Rows(address=2048 * n, rows=2, row_bytes=random.choice([64, 160]), stride=256,
                    local_stride=192)
        asked += [hint] * (2 * -(-rows.row_bytes // 64))
        bench.commands.append(dma(rows, hint=hint))
    await bench.finish()
    assert [request["hint"] for request in bench.requests] == asked


@cocotb.test()
@cocotb.parametrize(row_bytes=[64, 640], skew=[0, 9])
async def rows_move_a_line_a_cycle_when_aligned_alike(dut, row_bytes, skew):
    """30 lines cost 30 cycles and the latency, whatever the length of the rows."""
    bench = await new_bench(dut, ready=1.0, latency=(8, 8))
    rows = 1920 // row_bytes
    if skew:
        rows, row_bytes = rows - 1, row_bytes - skew
    job = Rows(address=1024 + skew, rows=rows, row_bytes=row_bytes, stride=row_bytes + skew,
               local_stride=row_bytes + skew, offset=skew)
    expected = bench.far.copy()
    rows_out(bench.local, expected, job, bench.place(DATA, 0))
    bench.commands.append(dma(job))
    await bench.until(lambda: bench.requests)
    begin = bench.cycle
    await bench.until(lambda: dut.unit__idle.value)
    lines = len(bench.requests)
    assert lines == rows * -(-(row_bytes + skew) // 64)
    assert bench.cycle - begin <= lines + 16
    assert np.array_equal(bench.far, expected)


@cocotb.test()
async def so_many_writes_are_under_way_and_no_more(dut):
    """The second job's writes start behind those of the first; they end in order."""
    bench = await new_bench(dut, ready=1.0)
    bench.silent = True
    bench.commands += [dma(Rows(address=0, rows=1, row_bytes=20 * 64), tag=1, release=1),
                       dma(Rows(address=4096, rows=1, row_bytes=50 * 64), tag=2, release=2)]
    for _ in range(120):
        await bench.step()
    assert len(bench.pending) == TAGS
    assert [r["address"] for r in bench.requests[20:22]] == [4096, 4160]
    assert dut.outstanding.value and not dut.unit__idle.value
    late, bench.pending, bench.silent = bench.pending[19], bench.pending[:], False
    bench.pending.remove(late)
    for _ in range(120):
        await bench.step()
    assert not bench.releases and dut.outstanding.value and not bench.pending
    bench.pending.append(late)
    await bench.finish()
    assert len(bench.requests) == 70 and not dut.outstanding.value
    assert bench.releases == [(DATA, 0, 1), (DATA, 0, 2)]


@cocotb.test()
@cocotb.parametrize(case=[
    (1, 2), (1, 3), (1, 4), (5, {"address": 1 << 63}), (6, {"rows": 0}), (7, {"row_bytes": 0}),
    (9, {"rows": 2, "local_stride": 31 * 64}), (10, {"offset": 31 * 64})])
async def bad_field_is_refused_after_the_job_before_it(dut, case):
    field, change = case
    bench = await new_bench(dut)
    good = Rows(address=0, rows=3, row_bytes=100, stride=100, local_stride=100)
    expected = bench.far.copy()
    rows_out(bench.local, expected, good, bench.place(DATA, 0))
    if isinstance(change, int):
        bad = dma(good, tag=7, hint=change)
    else:
        bad = dma(Rows(**({"address": 0, "rows": 1, "row_bytes": 8} | change)), tag=7)
    bench.commands += [dma(good, tag=6, release=5), bad, dma(good, tag=8)]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, field, 7)
    for _ in range(30):
        await bench.step()
    assert np.array_equal(bench.far, expected) and len(bench.requests) == 7
    assert bench.releases == [(DATA, 0, 5)]
    await bench.clear()
    await bench.step()
    bench.commands.append(dma(good, tag=9, release=3))
    await bench.finish()
    assert bench.releases[1:] == [(DATA, 0, 3)]


@cocotb.test()
@cocotb.parametrize(error=[1, 2, 3], job=[0, 1])
async def error_response_stops_the_unit_when_all_have_come_back(dut, error, job):
    bench = await new_bench(dut, latency=(30, 60))
    rows = [Rows(address=8192 * n, rows=3, row_bytes=640, stride=640, local_stride=640, offset=3)
            for n in range(2)]
    bench.faults = {8192 * job + 64 * n: error for n in (7, 9, 12)}
    bench.commands += [dma(r, tag=40 + n, release=n + 1) for n, r in enumerate(rows)]
    code = (ErrorCode.BAD_ADDRESS, ErrorCode.POISON, ErrorCode.LINK_DOWN)[error - 1]
    assert await bench.fail() == (code.value, 0, 40 + job)
    assert address_of(dut) == bench.failed[0]
    assert not bench.pending and not dut.outstanding.value
    before = len(bench.requests)
    for _ in range(50):
        await bench.step()
    assert len(bench.requests) == before and bench.releases == [(DATA, 0, 1)][:job]
    bench.faults = {}
    await bench.clear()
    await bench.step()
    expected = bench.far.copy()
    rows_out(bench.local, expected, rows[1], bench.place(DATA, 0))
    bench.commands.append(dma(rows[1]))
    await bench.finish()
    assert np.array_equal(bench.far, expected)


@cocotb.test()
async def nothing_is_asked_for_after_an_error(dut):
    """A long job stops early, with the transfers that were then under way."""
    bench = await new_bench(dut, ready=1.0, latency=(5, 9))
    bench.faults = {64 * 3: 1}
    bench.commands.append(dma(Rows(address=0, rows=1000, row_bytes=64, stride=64), tag=4))
    assert await bench.fail() == (ErrorCode.BAD_ADDRESS.value, 0, 4)
    assert address_of(dut) == 64 * 3
    assert len(bench.requests) < 20 and not bench.pending


@cocotb.test()
@cocotb.parametrize(wait=[20, 23, 28, 33, 60])
async def clear_under_way_waits_for_the_answers_that_are_left(dut, wait):
    """Whatever is under way at ``clear``, no later job ends early or goes wrong by it."""
    bench = await new_bench(dut, latency=(10, 60))
    job = Rows(address=5, rows=3, row_bytes=600, stride=600, local_stride=600, offset=1)
    bench.commands += [dma(job, tag=1), dma(job, tag=2)]
    for _ in range(wait):
        await bench.step()
    await bench.clear()
    await bench.step()
    later = Rows(address=9000, rows=4, row_bytes=333, stride=350, local_stride=340)
    place = bench.place(DATA, 0, 2)
    bench.commands.append(dma(later, offset=2, release=4))
    await bench.finish()
    expected = bench.far.copy()
    rows_out(bench.local, expected, later, place)
    assert np.array_equal(bench.far, expected) and not bench.pending
    assert bench.releases[-1] == (DATA, 0, 4)


@cocotb.test()
async def counters_count_lines_and_bytes(dut):
    bench = await new_bench(dut, ready=1.0, latency=(40, 40))
    bench.commands.append(dma(Rows(address=60, rows=2, row_bytes=100, stride=128)))
    await bench.finish()
    value = int(dut.unit__counters.value)
    busy, starved, blocked, ended, lines, moved = [value >> 32 * n & 0xFFFFFFFF for n in range(6)]
    assert (ended, lines, moved) == (1, 6, 200)
    assert 12 <= busy <= 26 and 30 <= blocked <= 45 and starved <= 2


@sim.on_simulators
def test_dma_out(tmp_path, simulator):
    sim.run(Twins(lambda: DmaOut(lines=LINES)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
