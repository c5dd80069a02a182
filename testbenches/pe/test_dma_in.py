"""Tests of rtl/pe/dma_in.py: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb
import numpy as np

from cosim.golden.moves import Rows, rows_in
from rtl.pe.dma_in import TAGS, DmaIn
from rtl.pe.interfaces import ErrorCode, Hint
from testbenches import sim
from testbenches.pe.unit_bench import Bench, address_of, command, error_of, operand, seed
from testbenches.twins import Twins

LINES = 64
DATA, INDEX = 3, 5
BUFFERS = {DATA: [5, 31], INDEX: [40, 9]}


def dma(rows, *, tag=0, offset=0, release=0, indexed=None, limit=0, hint=0):
    """``DMA_IN``, or ``GATHER`` with the offset of its index operand and a limit of indices."""
    words = {"w1": hint, "w4": rows.address, "w5": rows.address >> 32, "w6": rows.rows,
             "w7": rows.row_bytes, "w8": rows.stride, "w9": rows.local_stride, "w10": rows.offset}
    if indexed is not None:
        words |= operand(12, INDEX, offset=indexed) | {"w11": limit}
    return command(0x10 if indexed is None else 0x12, tag,
                   **operand(2, DATA, offset=offset, release=release), **words)


async def new_bench(dut, **options):
    seed()
    bench = Bench(dut, lines=LINES, buffers=BUFFERS, **options)
    await bench.start()
    return bench


def some_rows(far_bytes):
    """Rows that fit the CB once, so that no byte is written twice by one job."""
    row_bytes = random.choice([1, 5, 63, 64, 65, 128, 192, random.randint(1, 400)])
    rows = random.randint(1, max(1, 1500 // (row_bytes + 64)))
    local_stride = row_bytes + random.choice([0, 0, 1, -row_bytes % 64, 64])
    stride = random.choice([row_bytes, 64, -64, random.randint(-700, 700)])
    return Rows(address=far_bytes // 2 + random.choice([0, random.randint(0, 63)]), rows=rows,
                row_bytes=row_bytes, stride=stride, local_stride=local_stride,
                offset=random.choice([0, random.randint(0, 200)]))


@cocotb.test()
@cocotb.parametrize(ready=[0.35, 0.8, 1.0])
async def rows_of_every_alignment_arrive(dut, ready):
    """Random jobs, answers in any order; afterwards every byte of local memory is as modelled."""
    bench = await new_bench(dut, ready=ready)
    for _ in range(4):
        expected = bench.local.copy()
        for _ in range(3):
            rows, offset = some_rows(len(bench.far)), random.randint(0, 9)
            indexed = indices = None
            if random.getrandbits(1):
                indexed = random.randint(0, 8)
                indices = np.random.randint(0, 20, rows.rows).tolist()
                where = bench.place(INDEX, 0, indexed).bytes(0, 4 * rows.rows)
                words = np.frombuffer(np.array(indices, "<u4").tobytes(), np.uint8)
                bench.local[where] = expected[where] = words
            # Jobs overlap in time but must not overlap in place: each ends before the next.
            rows_in(expected, bench.far, rows, bench.place(DATA, 1, offset), indices)
            limit = random.choice([0, max(indices) + 1, 0xFFFFFFFF]) if indices else 0
            bench.commands.append(dma(rows, offset=offset, indexed=indexed, release=2, limit=limit))
            await bench.finish()
        assert np.array_equal(bench.local, expected)
    assert bench.releases == [(DATA, 1, 2)] * 12


@cocotb.test()
@cocotb.parametrize(row_bytes=[64, 640], skew=[0, 9])
async def rows_move_a_line_a_cycle_when_aligned_alike(dut, row_bytes, skew):
    """30 lines cost 30 cycles and the latency, whatever the length of the rows."""
    bench = await new_bench(dut, ready=1.0, in_order=True, latency=(8, 8))
    rows = 1920 // row_bytes
    if skew:
        rows, row_bytes = rows - 1, row_bytes - skew
    job = Rows(address=1024 + skew, rows=rows, row_bytes=row_bytes, stride=row_bytes + skew,
               local_stride=row_bytes + skew, offset=skew)
    expected = bench.local.copy()
    rows_in(expected, bench.far, job, bench.place(DATA, 1))
    bench.commands.append(dma(job))
    await bench.until(lambda: bench.requests)
    begin = bench.cycle
    await bench.until(lambda: dut.unit__idle.value)
    lines = len(bench.requests)
    assert bench.writes == lines == rows * -(-(row_bytes + skew) // 64)
    assert bench.cycle - begin <= lines + 16
    assert np.array_equal(bench.local, expected)


@cocotb.test()
async def gathered_one_line_rows_follow_each_other(dut):
    bench = await new_bench(dut, ready=1.0, in_order=True, latency=(8, 8))
    bench.local[40 * 64:44 * 64] = np.frombuffer(np.arange(64, dtype="<u4").tobytes(), np.uint8)
    bench.commands.append(dma(Rows(address=0, rows=31, row_bytes=64, stride=192, local_stride=64),
                              indexed=0))
    await bench.until(lambda: bench.requests)
    begin = bench.cycle
    await bench.finish()
    assert [r["address"] for r in bench.requests] == [192 * n for n in range(31)]
    assert bench.cycle - begin <= 31 + 2 + 18


@cocotb.test()
async def so_many_reads_are_under_way_and_no_more(dut):
    bench = await new_bench(dut, ready=1.0)
    bench.silent = True
    bench.commands += [dma(Rows(address=0, rows=1, row_bytes=20 * 64), tag=1, release=1),
                       dma(Rows(address=4096, rows=1, row_bytes=180 * 64), tag=2, release=2)]
    for _ in range(260):
        await bench.step()
    assert len(bench.pending) == TAGS, "the second job's reads start behind those of the first"
    assert [r["address"] for r in bench.requests[20:22]] == [4096, 4160]
    assert dut.outstanding.value and not dut.unit__idle.value
    bench.silent = False
    await bench.finish()
    assert bench.most == TAGS and len(bench.requests) == 200 and not dut.outstanding.value
    assert bench.releases == [(DATA, 1, 1), (DATA, 1, 2)]


@cocotb.test()
async def jobs_end_in_order_and_only_when_written(dut):
    """The second job is answered first, yet nothing is released before the first has ended."""
    bench = await new_bench(dut, ready=0.6)
    bench.silent = True
    first, second = Rows(address=0, rows=1, row_bytes=256), Rows(address=4096, rows=1, row_bytes=64)
    bench.commands += [dma(first, release=4), dma(second, offset=1, release=1)]
    await bench.until(lambda: len(bench.requests) == 5)
    bench.pending, late = bench.pending[4:], bench.pending[:4]
    bench.silent = False
    for _ in range(40):
        await bench.step()
    assert not bench.releases and bench.writes == 1 and dut.outstanding.value
    for entry in reversed(late):
        assert not bench.releases
        bench.pending.append(entry)
        before = bench.writes
        await bench.until(lambda before=before: bench.writes > before)
    await bench.finish()
    assert bench.releases == [(DATA, 1, 4), (DATA, 1, 1)]


@cocotb.test()
@cocotb.parametrize(indexed=[None, 0])
async def hints_go_with_every_read_of_their_command(dut, indexed):
    """Jobs of all hints follow each other; what is prefetched does not come."""
    bench = await new_bench(dut, ready=0.8)
    expected, asked = bench.local.copy(), []
    bench.local[40 * 64:41 * 64] = expected[40 * 64:41 * 64] = 0    # indices
    for n in range(12):
        hint = random.choice(list(Hint))
        rows = Rows(address=4096 * n, rows=2, row_bytes=random.choice([64, 160]), stride=256,
                    local_stride=192, offset=512 * (n % 4))
        if hint != Hint.PREFETCH:
            rows_in(expected, bench.far, rows, bench.place(DATA, 1),
                    [0, 0] if indexed is not None else None)
        asked += [hint.value] * (2 * -(-rows.row_bytes // 64))
        bench.commands.append(dma(rows, indexed=indexed, hint=hint.value))
        await bench.finish()
    assert [request["hint"] for request in bench.requests] == asked
    assert np.array_equal(bench.local, expected)


@cocotb.test()
async def reads_with_others_have_the_tags_of_their_lines_and_run_apart(dut):
    """Jobs of all groups follow each other: never are both kinds under way."""
    bench = await new_bench(dut, ready=0.8, latency=(1, 90))
    expected, asked = bench.local.copy(), []
    for n in range(16):
        group = random.choice([0, 1, 2, 3])
        stride = random.choice([64, 256, 64 * 64])      # the last: tags meet
        rows = Rows(address=64 * n, rows=3, row_bytes=random.choice([64, 160]), stride=stride,
                    local_stride=192, offset=576 * (n % 3))
        rows_in(expected, bench.far, rows, bench.place(DATA, 1))
        bench.commands.append(dma(rows, hint=group << 2))
        asked += [group] * (3 * -(-rows.row_bytes // 64))
        if n % 3 == 2:      # the next ones are written to the same places
            while bench.commands or not dut.unit__idle.value:
                before = len(bench.requests)
                await bench.step()
                for request in bench.requests[before:]:
                    line = request["address"] >> 6
                    if request["group"]:
                        assert request["tag"] == (line ^ line >> 6 ^ line >> 12) & 63
                    assert all(bool(other["group"]) == bool(request["group"])
                               for _, other in bench.pending)
    await bench.finish()
    assert [request["group"] for request in bench.requests] == asked
    assert np.array_equal(bench.local, expected)


@cocotb.test()
@cocotb.parametrize(at=[0, 1, 19])
async def an_index_past_its_limit_ends_the_job(dut, at):
    """The job before ends; no row from the index on is asked for; after a clear all is well."""
    bench = await new_bench(dut, ready=0.8)
    for limit, wrong in ((7, 7), (20, 1 << 31), (1, 0xFFFFFFFF)):
        indices = np.random.randint(0, limit, 20).astype("<u4")
        indices[at] = wrong
        bench.local[40 * 64:42 * 64][:80] = indices.view(np.uint8)
        before = Rows(address=1 << 14, rows=2, row_bytes=64, stride=64, local_stride=64)
        job = Rows(address=0, rows=20, row_bytes=100, stride=128, local_stride=64)
        bench.requests.clear()
        bench.commands += [dma(before, tag=1, release=1),
                           dma(job, tag=2, release=5, indexed=0, limit=limit)]
        assert await bench.fail() == (ErrorCode.BAD_FIELD.value, 12, 2) and not address_of(dut)
        for _ in range(30):     # the release of the job before waits its turn; no other may follow
            await bench.step()
        assert len(bench.requests) == 2 + 2 * at and not dut.outstanding.value
        assert bench.releases.pop() == (DATA, 1, 1) and not bench.releases
        await bench.clear()
        bench.commands.append(dma(job, tag=3, release=2))
        await bench.finish()
        assert bench.releases.pop() == (DATA, 1, 2)


@cocotb.test()
@cocotb.parametrize(case=[
    (1, 16), (1, 1 << 31), (1, "gather"), (5, {"address": 1 << 48}),
    (6, {"rows": 0}), (7, {"row_bytes": 0}),
    (9, {"rows": 2, "local_stride": 31 * 64}), (10, {"offset": 31 * 64}), (12, None)])
async def bad_field_is_refused_after_the_job_before_it(dut, case):
    field, change = case
    bench = await new_bench(dut)
    good = Rows(address=0, rows=3, row_bytes=100, stride=100, local_stride=100)
    expected = bench.local.copy()
    rows_in(expected, bench.far, good, bench.place(DATA, 1))
    if isinstance(change, int):
        bad = dma(good, tag=7, hint=change)
    elif change == "gather":
        bad = dma(good, tag=7, hint=4, indexed=0)
    elif change is None:
        bad = command(0x12, 7, **operand(2, DATA), w6=1, w7=1)
    else:
        bad = dma(Rows(**({"address": 0, "rows": 1, "row_bytes": 8} | change)), tag=7)
    bench.commands += [dma(good, tag=6, release=5), bad, dma(good, tag=8)]
    assert await bench.fail() == (ErrorCode.BAD_FIELD.value, field, 7)
    for _ in range(30):
        await bench.step()
    assert np.array_equal(bench.local, expected) and len(bench.requests) == 7
    assert bench.releases == [(DATA, 1, 5)]
    await bench.clear()
    await bench.step()
    bench.commands.append(dma(good, tag=9, release=3))
    await bench.finish()
    assert bench.releases[1:] == [(DATA, 1, 3)]


@cocotb.test()
async def largest_stride_and_offset_are_taken(dut):
    bench = await new_bench(dut)
    job = Rows(address=77, rows=5, row_bytes=1, stride=70, local_stride=31 * 64 - 1,
               offset=31 * 64 - 1)
    expected = bench.local.copy()
    rows_in(expected, bench.far, job, bench.place(DATA, 1, 30))
    bench.commands.append(dma(job, offset=30))
    one = Rows(address=0, rows=1, row_bytes=9, local_stride=1 << 30, offset=900)
    rows_in(expected, bench.far, one, bench.place(DATA, 1))
    await bench.finish()
    bench.commands.append(dma(one))  # a single row has no stride
    await bench.finish()
    assert np.array_equal(bench.local, expected)


@cocotb.test()
@cocotb.parametrize(error=[1, 2, 3], job=[0, 1])
async def error_response_stops_the_unit_when_all_have_come_back(dut, error, job):
    bench = await new_bench(dut, latency=(30, 60))
    rows = [Rows(address=8192 * n, rows=3, row_bytes=320, stride=320, local_stride=320,
                 offset=960 * n) for n in range(2)]
    before, place = bench.local.copy(), bench.place(DATA, 1, job)  # job 0 releases a line
    bench.faults = {8192 * job + 64 * n: error for n in (7, 9, 12)}
    bench.commands += [dma(r, tag=40 + n, release=n + 1) for n, r in enumerate(rows)]
    code = (ErrorCode.BAD_ADDRESS, ErrorCode.POISON, ErrorCode.LINK_DOWN)[error - 1]
    assert await bench.fail() == (code.value, 0, 40 + job)
    assert address_of(dut) == bench.failed[0]
    assert not bench.pending and not dut.outstanding.value
    for n in (7, 9, 12):
        where = place.bytes(960 * job + 64 * n, 64)
        assert np.array_equal(bench.local[where], before[where]), "a line with an error was written"
    asked = len(bench.requests)
    for _ in range(50):
        await bench.step()
    assert len(bench.requests) == asked and bench.releases == [(DATA, 1, 1)][:job]
    bench.faults = {}
    await bench.clear()
    await bench.step()
    expected = bench.local.copy()
    rows_in(expected, bench.far, rows[1], bench.place(DATA, 1))
    bench.commands.append(dma(rows[1]))
    await bench.finish()
    assert np.array_equal(bench.local, expected)


@cocotb.test()
async def nothing_is_asked_for_after_an_error(dut):
    """A long job stops early, with the transfers that were then under way.

    Answers come in order: else chance could keep back the one with the error for any time.
    """
    bench = await new_bench(dut, ready=1.0, in_order=True, latency=(5, 9))
    bench.faults = {64 * 3: 1}
    bench.commands.append(dma(Rows(address=0, rows=1000, row_bytes=64, stride=64), tag=4))
    assert await bench.fail() == (ErrorCode.BAD_ADDRESS.value, 0, 4)
    assert address_of(dut) == 64 * 3
    assert len(bench.requests) < 20 and not bench.pending


@cocotb.test()
@cocotb.parametrize(wait=[20, 26, 33, 60])
async def clear_under_way_drops_the_answers_that_are_left(dut, wait):
    """Whatever is under way at ``clear``, no later job is disturbed by it."""
    bench = await new_bench(dut, latency=(10, 60))
    job = Rows(address=5, rows=3, row_bytes=600, stride=600, local_stride=600)
    bench.commands += [dma(job, tag=1), dma(job, tag=2)]
    for _ in range(wait):
        await bench.step()
    await bench.clear()
    old = {id(entry) for entry in bench.pending}
    await bench.step()
    await bench.step()
    await bench.until(lambda: not dut.local__o__valid.value)    # a line that stood at the port
    expected, written = bench.local.copy(), bench.writes
    later = Rows(address=9000, rows=4, row_bytes=333, stride=-64, local_stride=340)
    rows_in(expected, bench.far, later, bench.place(DATA, 1, 2))
    bench.commands.append(dma(later, offset=2, release=4))
    await bench.until(lambda: not any(id(entry) in old for entry in bench.pending))
    await bench.finish()
    assert bench.writes >= written and np.array_equal(bench.local, expected)
    assert bench.releases[-1] == (DATA, 1, 4) and error_of(dut)[0] == 0


@cocotb.test()
async def counters_count_lines_bytes_and_states(dut):
    bench = await new_bench(dut, ready=1.0, latency=(40, 40))
    bench.commands.append(dma(Rows(address=60, rows=2, row_bytes=100, stride=128)))
    await bench.finish()

    def words():
        value = int(dut.unit__counters.value)
        return [value >> (32 * n) & 0xFFFFFFFF for n in range(16)]

    busy, starved, blocked, ended, lines, moved = words()[:6]
    assert (ended, lines, moved) == (1, 6, 200)
    assert 12 <= busy <= 26 and 30 <= starved <= 45 and blocked <= 2
    dut.unit__launch.value = 1
    await bench.step()
    dut.unit__launch.value = 0
    await bench.step()
    await bench.step()
    assert words() == [0] * 16


@sim.on_simulators
def test_dma_in(tmp_path, simulator):
    sim.run(Twins(lambda: DmaIn(lines=LINES)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
