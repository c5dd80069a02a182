"""Tests of rtl/control: which packet starts when, and what of it is on its PEs before."""
import random

import cocotb

from rtl.control.block import ControlBlock
from testbenches import sim
from testbenches.control.test_block import (
    ABORTED,
    OK,
    PATIENCE_LOG2,
    PES,
    WATCHDOG,
    start,
)
from testbenches.twins import Twins

END = (OK,)


async def quick(dut):
    """A bench without random gaps."""
    bench = await start(dut)
    bench.slowness = 1
    for worker in bench.workers:
        worker.launch.rate = worker.report.rate = 1
    bench.request.rate = bench.completions.rate = bench.packets.rate = 1
    return bench


def given(bench, *pes):
    """Whether these PEs hold a program beside the one that they run."""
    return all(bench.workers[p].next is not None for p in pes)


def running(bench, *pes):
    return all(bench.workers[p].running is not None for p in pes)


def starts(bench, pe):
    return [time for time, _ in bench.workers[pe].started]


@cocotb.test()
@cocotb.parametrize(other=[4, 1])
async def a_packet_replaces_the_one_before_within_5_cycles(dut, other):
    """Of the same stream or of another: its programs are there, and start together."""
    bench = await quick(dut)
    bench.packet(0, {0: [100, END], 1: [140, END]})
    bench.packet(other, {0: [30, END], 1: [30, END]})
    await bench.until(lambda: running(bench, 0, 1))
    await bench.until(lambda: given(bench, 0, 1))
    assert running(bench, 0, 1)
    await bench.until(lambda: not running(bench, 1))
    ended = bench.now       # the report stands from the next edge on
    await bench.until(lambda: len(starts(bench, 0)) == 2)
    assert starts(bench, 0)[1] == starts(bench, 1)[1] <= ended + (6 if other == 4 else 5)
    for number in (0, other):
        done = await bench.completion()
        assert (done["id"], done["code"]) == (number, OK)


@cocotb.test()
async def a_packet_runs_few_cycles_after_it_came(dut):
    bench = await quick(dut)
    bench.packet(3, {p: [10, END] for p in range(PES)})
    begin = bench.now
    await bench.until(lambda: all(starts(bench, p) for p in range(PES)))
    assert starts(bench, 0)[0] - begin < 12 + PES
    assert (await bench.completion())["code"] == OK


@cocotb.test()
async def parts_of_the_pes_go_to_two_packets(dut):
    """Each starts when its own PEs are free; barriers count the PEs of one packet only."""
    bench = await quick(dut)
    bench.packet(0, {0: [80, END], 1: ["barrier", 200, END], 2: ["barrier", 300, END]})
    bench.packet(1, {0: ["barrier", 50, "barrier", END]})
    bench.packet(2, {1: ["barrier", END], 2: [60, "barrier", END]})
    await bench.until(lambda: len(starts(bench, 0)) == 2)
    assert running(bench, 1, 2)
    assert (await bench.completion())["id"] == 1
    assert len(starts(bench, 1)) == 1 and running(bench, 2)
    await bench.until(lambda: not running(bench, 1))
    for _ in range(60):     # PE 1 is free, but PE 2 is not
        assert len(starts(bench, 1)) == 1 and given(bench, 1, 2)
        await bench.step()
    assert [(await bench.completion())["id"] for _ in range(2)] == [0, 2]
    assert starts(bench, 1)[1] == starts(bench, 2)[1]
    assert [w.passed for w in bench.workers] == [2, 2, 2]


@cocotb.test()
async def a_packet_waits_for_the_whole_packet_before_it_in_its_stream(dut):
    """Its PE is free and holds its program, but another PE still runs what came before."""
    bench = await quick(dut)
    bench.packet(0, {0: [60, END], 1: [200, END]})
    bench.packet(4, {0: [5, END]})
    await bench.until(lambda: starts(bench, 0) and given(bench, 0) and running(bench, 0))
    await bench.until(lambda: not running(bench, 0))
    await bench.until(lambda: not running(bench, 1))
    ended = bench.now
    assert len(starts(bench, 0)) == 1 and given(bench, 0)
    assert [(await bench.completion())["id"] for _ in range(2)] == [0, 4]
    assert starts(bench, 0)[1] > ended


@cocotb.test()
async def a_packet_does_not_overtake_one_that_waits_for_a_place(dut):
    """Packet 2 waits for the place that packet 1 has in PE 0; PE 1 would be free for packet 3."""
    bench = await quick(dut)
    bench.packet(0, {0: [200, END]})
    bench.packet(1, {0: [10, END]})
    bench.packet(2, {0: [5, END], 1: [5, END]})
    bench.packet(3, {1: [5, END]})
    assert [(await bench.completion())["id"] for _ in range(4)] == [0, 1, 2, 3]
    assert starts(bench, 0)[2] == starts(bench, 1)[0] < starts(bench, 1)[1]


@cocotb.test()
async def a_packet_that_waits_for_its_stream_lets_others_pass(dut):
    """It holds no place in PEs that do not run what it waits for."""
    bench = await quick(dut)
    bench.packet(0, {0: [300, END]})
    bench.packet(4, {1: [10, END]})                     # after packet 0
    bench.packet(1, {1: [20, END], 2: [20, END]})
    bench.packet(5, {1: [10, END]})                     # after packet 1
    order = [(await bench.completion())["id"] for _ in range(4)]
    assert order == [1, 5, 0, 4]
    bench.packet(8, {0: [100, END]})
    bench.packet(12, {0: [10, END]})
    bench.packet(16, {0: [10, END], 1: [10, END]})      # after both: not given to any PE
    await bench.until(lambda: running(bench, 0))
    await bench.until(lambda: given(bench, 0))
    bench.packet(2, {0: [5, END]})                      # packet 12 has the place
    for _ in range(50):
        assert not given(bench, 1)
        await bench.step()
    order = [(await bench.completion())["id"] for _ in range(4)]
    assert order == [8, 12, 2, 16] or order == [8, 12, 16, 2]


@cocotb.test()
async def a_failure_or_an_abort_ends_one_packet_of_its_stream(dut):
    bench = await quick(dut)
    bench.packet(0, {0: ["forever"], 1: [40, (WATCHDOG, 7, 3, 2)]})
    bench.packet(4, {0: [20, END], 1: ["barrier", END], 2: ["barrier", END]})
    bench.packet(8, {0: [20, END]})
    await bench.until(lambda: starts(bench, 1) and not running(bench, 1))
    bench.aborts.queue.append(0)
    done = await bench.completion()
    assert (done["id"], done["code"], done["mask"], done["pe"]) == (0, ABORTED, 3, 0)
    for number in (4, 8):
        done = await bench.completion()
        assert (done["id"], done["code"], done["mask"]) == (number, OK, 0)
    assert [len(w.started) for w in bench.workers] == [3, 2, 1]


@cocotb.test()
@cocotb.parametrize(wait=[1, 2, 3, 4, 6, 8, 12, 30])
async def an_abort_takes_back_what_does_not_run_yet(dut, wait):
    """At any moment before its start; another packet gets its place; what runs goes on."""
    bench = await quick(dut)
    bench.packet(0, {0: [120, END], 1: [120, END]})
    await bench.until(lambda: running(bench, 1))
    bench.packet(5, {0: [5, END], 1: [5, END]})
    for _ in range(wait):
        await bench.step()
    bench.aborts.queue.append(5)
    done = await bench.completion()
    assert (done["id"], done["code"], done["mask"]) == (5, ABORTED, 0)
    bench.packet(6, {0: [5, END], 1: [5, END]})
    await bench.until(lambda: given(bench, 0, 1))
    assert bench.workers[0].dropped == bench.workers[1].dropped >= (wait > 3)
    assert [(await bench.completion())["id"] for _ in range(2)] == [0, 6]
    assert [len(w.started) for w in bench.workers] == [2, 2, 0]


@cocotb.test()
async def a_packet_whose_pe_is_given_up_meanwhile_does_not_run(dut):
    """Whether it waits, or is on its PEs; the others are free again."""
    bench = await quick(dut)
    bench.workers[1].deaf = True
    bench.packet(0, {1: ["forever"], 2: ["barrier", END]}, watchdog=20)
    bench.packet(1, {1: [END], 0: [END]})
    bench.packet(2, {1: [END], 2: [END]})
    await bench.until(lambda: given(bench, 0, 1))
    done = {}
    for _ in range(3):
        completion = await bench.completion()
        done[completion["id"]] = completion
    assert (done[0]["code"], done[0]["mask"]) == (WATCHDOG, 2)
    for number in (1, 2):
        assert (done[number]["code"], done[number]["field"]) == (WATCHDOG, 8)
        assert done[number]["mask"] == 0
    assert bench.workers[0].dropped == 1 and not bench.workers[0].started
    bench.packet(3, {0: [END], 2: [END]})
    assert (await bench.completion())["code"] == OK
    for _ in range(20):
        await bench.step()
    assert not dut.awake.value


@cocotb.test()
async def random_streams_keep_their_order_whatever_is_aborted(dut):
    """Every packet ends once; none starts before those of its stream that came earlier ended."""
    bench = await start(dut)
    ends, aborted, seen = {}, set(), []
    programs, members_of = {}, {}
    for number in range(120):
        members = random.sample(range(PES), random.randint(1, PES))
        members_of[number] = members
        before = set(bench.programs)
        bench.packet(number, {p: [random.choice([1, 5, 60]), *["barrier"] * random.randrange(2),
                                  random.choice([1, 20]), END] for p in members})
        programs |= dict.fromkeys(set(bench.programs) - before, number)
    current = [None] * PES
    while len(seen) < 120:
        await bench.step()
        for p, worker in enumerate(bench.workers):
            now = programs[worker.running.program] if running(bench, p) else None
            if current[p] is not None and now != current[p]:
                ends.setdefault(current[p], []).append(bench.now)
            current[p] = now
        if random.random() < 0.02:
            number = random.randrange(min(len(seen) + 8, 120))
            aborted.add(number)
            bench.aborts.queue.append(number)
        while bench.done:
            done = bench.done.pop(0)
            assert done.code.value == OK or done.code.value == ABORTED and done.id in aborted
            seen.append(done.id)
        assert bench.now < 60_000
    assert sorted(seen) == list(range(120))
    first = {}
    for worker in bench.workers:
        for time, program in worker.started:
            number = programs[program]
            first[number] = min(time, first.get(number, time))
    for stream in range(4):
        last = 0
        for number in range(stream, 120, 4):
            if number in first:
                assert first[number] > last
                assert len(ends[number]) == len(members_of[number])
                last = max(ends[number])
    assert sum(n in first for n in range(120)) > 60


@sim.on_simulators
def test_order(tmp_path, simulator):
    sim.run(Twins(lambda: ControlBlock(pes=PES, patience_log2=PATIENCE_LOG2)),
            test_module=__name__, build_dir=tmp_path, simulator=simulator)
