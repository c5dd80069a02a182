"""The control block of a die with more PEs and tiles than a line has words for, and an engine."""
import random

import cocotb

from rtl.control.block import MASK_LINE, ControlBlock
from rtl.link import interfaces as link
from rtl.pe import interfaces as pe
from rtl.pe.interfaces import AccessError
from testbenches import sim
from testbenches.control.test_block import BAD_ADDRESS, BAD_FIELD, OK, TABLE, bits, start

PES, TILES, NETWORKS, CONTEXTS = 72, 12, 2, 2
TARGETS, ENGINE = PES + 1, PES       # of a work packet: the message engine is the last
TABLE_FIELD, MASK_FIELD = 2, 8


async def read(bench, line):
    bench.access.queue.append(bits(pe.request_layout(), address=64 * line))
    await bench.until(lambda: bench.lines)
    answer = bench.lines.pop()
    assert answer.error == AccessError.NONE
    return answer.data


@cocotb.test()
async def every_pe_runs_its_own_program(dut):
    bench = await start(dut, pes=TARGETS)
    for number in range(6):
        members = range(TARGETS) if number == 0 else random.sample(
            range(TARGETS), random.randint(1, TARGETS))
        begun = [len(worker.started) for worker in bench.workers]
        bench.packet(number, {p: [random.randrange(9), "barrier", (OK,)] for p in members})
        assert await bench.completion() == {"id": number, "code": OK, "pe": 0, "mask": 0,
                                            "field": 0, "unit": 0, "tag": 0, "address": 0}
        place = TABLE + 64 * number
        assert bench.asked == [place + 64 * line for line in range(-(-TARGETS // 16))]
        bench.asked.clear()
        for p, worker in enumerate(bench.workers):
            assert len(worker.started) - begun[p] == (p in members)
            if p in members:
                entry = bench.tables[place + p // 16 * 64] >> p % 16 * 32 & 0xFFFF_FFFF
                assert worker.started[-1][1] == place + 64 * entry


@cocotb.test()
async def the_completion_names_every_pe_that_failed(dut):
    bench = await start(dut, pes=TARGETS)
    for number, failing in enumerate(((17, 71), (16,), (3, 47, 48), (71, ENGINE), (ENGINE,))):
        scripts = {p: [random.randrange(40), (BAD_FIELD, p) if p in failing else (OK,)]
                   for p in (0, 3, 16, 17, 47, 48, 71, ENGINE)}
        bench.packet(number, scripts)
        done = await bench.completion()
        assert (done["code"], done["pe"], done["tag"]) == (BAD_FIELD, failing[0], failing[0])
        assert done["mask"] == sum(1 << p for p in failing)


@cocotb.test()
async def a_line_of_the_table_that_cannot_be_read_starts_nothing(dut):
    bench = await start(dut, pes=TARGETS)
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
    bench.packet(10, {}, mask=1 << TARGETS)     # one past the last
    done = await bench.completion()
    assert (done["code"], done["field"]) == (BAD_FIELD, MASK_FIELD)


@cocotb.test()
async def a_packet_goes_to_its_pes_no_longer_than_its_last_one_takes(dut):
    """The launcher looks at one a cycle; a packet without the message engine need not wait."""
    bench, cycles = await start(dut, pes=TARGETS), {}
    for number, last in enumerate((0, 20, 71, ENGINE)):
        bench.request.rate = bench.packets.rate = 1
        bench.packet(number, {0: [(OK,)], last: [(OK,)]})
        await bench.until(lambda: len(bench.asked) == 5)
        asked = bench.now
        await bench.until(lambda n=number: len(bench.workers[0].started) > n)
        cycles[last] = bench.now - asked
        bench.asked.clear()
        await bench.completion()
    assert all(abs(time - cycles[0] - last) <= 8 for last, time in cycles.items()), cycles


@cocotb.test()
async def what_the_meshes_did_stands_beside_the_time(dut):
    bench = await start(dut, pes=TARGETS)
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
    bench = await start(dut, pes=TARGETS)
    for tile in range(TILES):
        getattr(dut, f"tile_counters__{tile}").value = tile + 1
    for n in range(NETWORKS):
        getattr(dut, f"network_counters__{n}").value = 100 + n
    members = (0, 15, 16, 40, 71, ENGINE)
    bench.packet(5, {p: [400, (OK,)] for p in members}, watchdog=10000)
    await bench.until(lambda: all(bench.workers[p].running is not None for p in members))
    mask, everyone = sum(1 << p for p in members), (1 << TARGETS) - 1
    small, masks, more = [await read(bench, line) for line in (1, MASK_LINE, MASK_LINE + 1)]
    fields = [masks >> 128 * n & (1 << 128) - 1 for n in range(4)]
    assert fields == [everyone & ~mask, 0, mask, 0] and more == 0
    assert small & 0xFFFF_FFFF == everyone & ~mask & 0xFFFF_FFFF
    assert small >> 128 & 0xFFFF_FFFF == 5 | 3 << 13 | (mask & 0xFFFF) << 16
    assert [await read(bench, 8 + tile) for tile in range(TILES)] == list(range(1, TILES + 1))
    assert [await read(bench, line) for line in (31, 30, 29)] == [100, 101, 0]
    assert (await bench.completion())["code"] == OK
    bench.packet(6, {p: [(OK,)] for p in members})
    assert (await bench.completion())["code"] == OK


@sim.on_simulators
def test_large(tmp_path, simulator):
    block = ControlBlock(pes=PES, engines=1, tiles=TILES, networks=NETWORKS, contexts=CONTEXTS)
    sim.run(block, test_module=__name__, build_dir=tmp_path, simulator=simulator)


def test_the_mask_of_a_launch_is_wide_enough():
    assert link.launch_layout()["pe_mask"].width >= TARGETS
    assert link.completion_layout()["failed_mask"].width >= TARGETS
