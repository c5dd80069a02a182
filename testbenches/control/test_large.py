"""The control block of a die with more PEs and tiles than a line has words for."""
import random

import cocotb

from rtl.control.block import MASK_LINE, ControlBlock
from rtl.link import interfaces as link
from rtl.pe import interfaces as pe
from rtl.pe.interfaces import AccessError
from testbenches import sim
from testbenches.control.test_block import BAD_ADDRESS, BAD_FIELD, OK, TABLE, bits, start

PES, TILES, CONTEXTS = 72, 12, 2
TABLE_FIELD, MASK_FIELD = 2, 8


async def read(bench, line):
    bench.access.queue.append(bits(pe.request_layout(), address=64 * line))
    await bench.until(lambda: bench.lines)
    answer = bench.lines.pop()
    assert answer.error == AccessError.NONE
    return answer.data


@cocotb.test()
async def every_pe_runs_its_own_program(dut):
    bench = await start(dut, pes=PES)
    for number in range(6):
        members = range(PES) if number == 0 else random.sample(range(PES), random.randint(1, PES))
        begun = [len(worker.started) for worker in bench.workers]
        bench.packet(number, {p: [random.randrange(9), "barrier", (OK,)] for p in members})
        assert await bench.completion() == {"id": number, "code": OK, "pe": 0, "mask": 0,
                                            "field": 0, "unit": 0, "tag": 0, "address": 0}
        place = TABLE + 64 * number
        assert bench.asked == [place + 64 * line for line in range(-(-PES // 16))]
        bench.asked.clear()
        for p, worker in enumerate(bench.workers):
            assert len(worker.started) - begun[p] == (p in members)
            if p in members:
                entry = bench.tables[place + p // 16 * 64] >> p % 16 * 32 & 0xFFFF_FFFF
                assert worker.started[-1][1] == place + 64 * entry


@cocotb.test()
async def the_completion_names_every_pe_that_failed(dut):
    bench = await start(dut, pes=PES)
    for number, failing in enumerate(((17, 71), (16,), (3, 47, 48), (71,))):
        scripts = {p: [random.randrange(40), (BAD_FIELD, p) if p in failing else (OK,)]
                   for p in (0, 3, 16, 17, 47, 48, 71)}
        bench.packet(number, scripts)
        done = await bench.completion()
        assert (done["code"], done["pe"], done["tag"]) == (BAD_FIELD, failing[0], failing[0])
        assert done["mask"] == sum(1 << p for p in failing)


@cocotb.test()
async def a_line_of_the_table_that_cannot_be_read_starts_nothing(dut):
    bench = await start(dut, pes=PES)
    for number in range(1, 5):
        place = TABLE + 0x1000 * number
        bench.errors = {place + 64 * number: AccessError.ADDRESS}
        bench.packet(number, {0: [(OK,)], 70: [(OK,)]}, table=place)
        done = await bench.completion()
        assert (done["code"], done["field"]) == (BAD_ADDRESS, TABLE_FIELD)
        assert done["address"] == place + 64 * number
        assert not any(worker.started or worker.next for worker in bench.workers)
    bench.errors = {}
    bench.packet(9, {70: [(OK,)]})
    assert (await bench.completion())["code"] == OK
    bench.packet(10, {}, mask=1 << PES)     # a PE past the last
    done = await bench.completion()
    assert (done["code"], done["field"]) == (BAD_FIELD, MASK_FIELD)


@cocotb.test()
async def what_the_meshes_did_stands_beside_the_time(dut):
    bench = await start(dut, pes=PES)
    counts = random.getrandbits(480)
    dut.noc_counters.value = counts
    first, begun = await read(bench, 6), bench.now
    for _ in range(random.randrange(50)):
        await bench.step()
    second, ended = await read(bench, 6), bench.now
    assert first >> 32 == second >> 32 == counts
    assert abs((second - first) - (ended - begun)) <= 4


@cocotb.test()
async def the_masks_of_all_pes_can_be_read(dut):
    bench = await start(dut, pes=PES)
    for tile in range(TILES):
        getattr(dut, f"tile_counters__{tile}").value = tile + 1
    members = (0, 15, 16, 40, 71)
    bench.packet(5, {p: [400, (OK,)] for p in members}, watchdog=10000)
    await bench.until(lambda: all(bench.workers[p].running is not None for p in members))
    mask, everyone = sum(1 << p for p in members), (1 << PES) - 1
    small, masks, more = [await read(bench, line) for line in (1, MASK_LINE, MASK_LINE + 1)]
    fields = [masks >> 128 * n & (1 << 128) - 1 for n in range(4)]
    assert fields == [everyone & ~mask, 0, mask, 0] and more == 0
    assert small & 0xFFFF_FFFF == everyone & ~mask & 0xFFFF_FFFF
    assert small >> 128 & 0xFFFF_FFFF == 5 | 3 << 13 | (mask & 0xFFFF) << 16
    assert [await read(bench, 8 + tile) for tile in range(TILES)] == list(range(1, TILES + 1))
    assert (await bench.completion())["code"] == OK
    bench.packet(6, {p: [(OK,)] for p in members})
    assert (await bench.completion())["code"] == OK


@sim.on_simulators
def test_large(tmp_path, simulator):
    sim.run(ControlBlock(pes=PES, tiles=TILES, contexts=CONTEXTS), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)


def test_the_mask_of_a_launch_is_wide_enough():
    assert link.launch_layout()["pe_mask"].width >= PES
    assert link.completion_layout()["failed_mask"].width >= PES
