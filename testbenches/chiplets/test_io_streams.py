"""Tests of chiplets/io.py: launches sent ahead, and events between streams."""
import random

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from testbenches import sim
from testbenches.chiplets.io_system import COPY_IN, LAUNCH, NOP, IoSystem, entry, start
from testbenches.twins import Twins

EVENT_RECORD, EVENT_WAIT = 5, 6
OK, BAD_FIELD, WATCHDOG, ABORTED, LINK_DOWN = 0, 2, 5, 7, 8
DATA = 0x2000


def record(tag, event, *, stream=0):
    return entry(EVENT_RECORD, tag, stream=stream, die=event)


def wait(tag, event, value, *, stream=0, watchdog=0):
    words = bytearray(entry(EVENT_WAIT, tag, stream=stream, die=event, watchdog=watchdog))
    words[28:32] = value.to_bytes(4, "little")
    return bytes(words)


def launches(die):
    return [fields["table"] >> 6 for fields in die.launches]


async def until(dut, condition, cycles=3000):
    for _ in range(cycles):
        if condition():
            return
        await RisingEdge(dut.clk)
    raise AssertionError("no progress")


def launch(tag, *, stream=0, die=0):
    """A launch whose table shows its tag."""
    return entry(LAUNCH, tag, stream=stream, die=die, mask=1, host=64 * tag)


@cocotb.test()
@cocotb.parametrize(late=[0, 1])
async def one_launch_is_sent_behind_the_one_that_runs(dut, late):
    """Not two, and none for another die; results keep the order, whatever ends first."""
    host, dies = await start(dut)
    dies[0].hold = dies[1].hold = True
    await host.submit(*(launch(n) for n in range(1, 5)), launch(5, die=1), entry(NOP, 6),
                      launch(7))
    await until(dut, lambda: len(dies[0].launches) == 2)
    await ClockCycles(dut.clk, 200)
    assert launches(dies[0]) == [1, 2]
    ids = [fields["id"] for fields in dies[0].launches]
    dies[0].complete(ids[late], code=late + 1)
    await ClockCycles(dut.clk, 200)
    assert (host.poll() is None) == bool(late)
    host.seen -= not late
    assert launches(dies[0]) == [1, 2, 3][:3 - late]
    dies[0].complete(ids[1 - late], code=2 - late)
    assert [(c["tag"], c["code"]) for c in await host.collect(2)] == [(1, 1), (2, 2)]
    await until(dut, lambda: len(dies[0].launches) == 4)
    await ClockCycles(dut.clk, 200)
    assert not dies[1].launches
    for fields in dies[0].launches[2:]:
        dies[0].complete(fields["id"])
    await until(dut, lambda: dies[1].launches)
    await ClockCycles(dut.clk, 200)
    assert launches(dies[0]) == [1, 2, 3, 4]
    dies[1].complete(dies[1].launches[0]["id"])
    await until(dut, lambda: len(dies[0].launches) == 5)
    dies[0].complete(dies[0].launches[4]["id"])
    assert [c["tag"] for c in await host.collect(5)] == [3, 4, 5, 6, 7]
    assert len({fields["id"] for fields in dies[0].launches}) == 5


@cocotb.test()
async def an_abort_ends_the_first_of_two_launches(dut):
    host, dies = await start(dut)
    dies[0].hold = True
    await host.submit(launch(1, stream=2), launch(2, stream=2), launch(3, stream=2))
    await until(dut, lambda: len(dies[0].launches) == 2)
    for n in range(2):
        await host.write("abort", 0b0100)
        assert [(c["tag"], c["code"]) for c in await host.collect(1)] == [(n + 1, ABORTED)]
        await until(dut, lambda n=n: len(dies[0].launches) >= n + 2)
        assert dies[0].aborts == [fields["id"] for fields in dies[0].launches[:n + 1]]
    dies[0].complete(dies[0].launches[2]["id"])
    assert [(c["tag"], c["code"]) for c in await host.collect(1)] == [(3, OK)]
    await host.write("abort", 0b0100)       # nothing runs
    await host.submit(launch(4, stream=2))
    await until(dut, lambda: len(dies[0].launches) == 4)
    await ClockCycles(dut.clk, 100)
    assert len(dies[0].aborts) == 2


@cocotb.test()
async def both_launches_of_a_lost_die_end(dut):
    host, dies = await start(dut)
    dies[0].hold = True
    await host.submit(launch(1), launch(2), launch(3, die=1))
    await until(dut, lambda: len(dies[0].launches) == 2)
    dut.cut.value = 1
    # what a die does not hear of goes out again and again, until the link gives up
    await host.submit(entry(COPY_IN, 4, stream=1, host=DATA, count=64, device=0))
    done = {c["tag"]: (c["code"], c["die"], c["address"]) for c in await host.collect(4)}
    assert done == {1: (LINK_DOWN, 0, 0), 2: (LINK_DOWN, 0, 0), 3: (OK, 1, 0),
                    4: (LINK_DOWN, 0, 0)}


@cocotb.test()
async def a_stream_waits_for_a_record_of_another(dut):
    """Without the host; waits for records that were there before end at once."""
    host, dies = await start(dut)
    dies[0].hold = True
    await host.submit(launch(1, stream=0), launch(2, stream=0), record(3, 15, stream=0),
                      wait(4, 15, 1, stream=1),
                      entry(COPY_IN, 5, stream=1, host=DATA, count=99, device=1 << 44),
                      wait(6, 15, 1, stream=3), launch(7, stream=3, die=1), record(8, 2, stream=3),
                      wait(9, 2, 1, stream=0))
    await until(dut, lambda: len(dies[0].launches) == 2)
    dies[0].complete(dies[0].launches[0]["id"])
    assert [c["tag"] for c in await host.collect(1)] == [1]
    await ClockCycles(dut.clk, 300)
    assert host.poll() is None and not dies[1].log and not await host.read("status") & 1
    dies[0].complete(dies[0].launches[1]["id"])
    done = {c["tag"]: c for c in await host.collect(8)}
    assert all(c["code"] == OK for c in done.values())
    assert [done[n]["value"] for n in (3, 4, 6, 8, 9)] == [1] * 5
    assert dies[1].memory[:99] == host.memory.bytes[DATA:DATA + 99]
    await host.submit(wait(10, 15, 1), wait(11, 15, 0), wait(12, 15, 0xFFFFFFFF))
    assert [(c["code"], c["value"]) for c in await host.collect(3)] == [(OK, 1)] * 3


@cocotb.test()
@cocotb.parametrize(records=[1, 5, 16])
async def records_of_all_streams_count(dut, records):
    """Also those of the same cycle; the wait for all of them ends, for one more it does not."""
    host, _ = await start(dut, size_log2=5)
    entries = [record(n, 7, stream=n % 4) for n in range(records)]
    await host.submit(*entries, wait(90, 7, records, stream=1),
                      wait(91, 7, records + 1, stream=2, watchdog=400))
    done = {c["tag"]: c for c in await host.collect(records + 2)}
    assert sorted(done[n]["value"] for n in range(records))[-1] == records
    assert (done[90]["code"], done[90]["value"]) == (OK, records)
    assert (done[91]["code"], done[91]["value"], done[91]["field"]) == (WATCHDOG, records, 7)


@cocotb.test()
async def a_wait_without_end_names_its_event_and_the_stream_goes_on(dut):
    """By its watchdog, or by an abort, which ends no other; the clock stops meanwhile."""
    host, _ = await start(dut)
    await host.submit(record(1, 9, stream=0), wait(2, 9, 3, stream=1, watchdog=700),
                      entry(NOP, 3, stream=1), wait(4, 9, 2, stream=2), entry(NOP, 5, stream=2))
    await host.collect(1)
    await ClockCycles(dut.clk, 100)
    rested = 0
    for _ in range(200):
        await RisingEdge(dut.clk)
        rested += not dut.awake.value
    assert rested > 190 and host.poll() is None
    first, second = await host.collect(2)
    assert (first["tag"], first["code"], first["field"], first["value"]) == (2, WATCHDOG, 9, 1)
    assert 690 < first["cycles"] < 730 and (second["tag"], second["code"]) == (3, OK)
    await host.write("abort", 0b1011)
    await ClockCycles(dut.clk, 100)
    assert host.poll() is None
    await host.write("abort", 0b0100)
    first, second = await host.collect(2)
    assert (first["tag"], first["code"], first["field"], first["value"]) == (4, ABORTED, 9, 1)
    assert (second["tag"], second["code"]) == (5, OK)


@cocotb.test()
async def wrong_events_are_refused(dut):
    host, _ = await start(dut)
    await host.submit(record(0, 16), wait(1, 16, 0), wait(2, 0, 0, watchdog=1 << 31),
                      wait(3, 0, 0, watchdog=(1 << 31) - 1), record(4, 255), wait(5, 15, 1 << 31))
    done = [(c["code"], c["field"]) for c in await host.collect(5)]
    assert done == [(BAD_FIELD, 8), (BAD_FIELD, 8), (BAD_FIELD, 9), (OK, 0), (BAD_FIELD, 8)]
    await host.write("abort", 1)        # half the range away is not reached
    assert [c["code"] for c in await host.collect(1)] == [ABORTED]


@cocotb.test()
async def launches_of_all_streams_keep_the_order_of_events(dut):
    """Random entries; what follows a wait starts after what was before its record has ended."""
    host, dies = await start(dut, size_log2=5)
    ends, counts, marks, after, before = {}, [0] * 16, {}, {}, {s: [] for s in range(4)}
    for die in dies:
        def complete(number, die=die, plain=die.complete, **fields):
            plain(number, **fields)
            ends[die.launches[-1]["table"] >> 6] = die.due[-1][0]
        die.complete = complete
    entries, awaited = [], {s: set() for s in range(4)}
    for tag in range(1, 31):
        stream, kind = random.randrange(4), random.random()
        known = [m for m in marks if marks[m][0] != stream]
        if kind < 0.25:
            event = 4 * random.randrange(4) + stream
            counts[event] += 1
            marks[event, counts[event]] = stream, set(before[stream]) | awaited[stream]
            entries.append(record(tag, event, stream=stream))
        elif kind < 0.5 and known:
            event, value = random.choice(known)
            awaited[stream] |= marks[event, value][1]
            entries.append(wait(tag, event, value, stream=stream))
        else:
            entries.append(launch(tag, stream=stream, die=random.randrange(2)))
            after[tag] = awaited[stream] | set(before[stream])
            before[stream].append(tag)
    await host.submit(*entries)
    assert all(c["code"] == OK for c in await host.collect(30, cycles=20_000))
    begins = {}
    for die in dies:
        cycles = [cycle for kind, cycle in die.log if kind == "LAUNCH"]
        begins |= {tag: (cycle, die.number) for tag, cycle in
                   zip(launches(die), cycles, strict=True)}
    die_of = {tag: die for tag, (_, die) in begins.items()}
    for tag, earlier in after.items():
        stream = next(s for s in range(4) if tag in before[s])
        own = before[stream][:before[stream].index(tag)]
        # of its own stream one may still run, on the same die, which keeps their order
        ahead = own[-1:] if own and die_of[own[-1]] == die_of[tag] else []
        for other in earlier - set(ahead):
            assert begins[tag][0] > ends[other], (tag, other)


@sim.on_simulators
def test_io_streams(tmp_path, simulator):
    sim.run(Twins(lambda: IoSystem(buffer_lines=16, tag_bits=3)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
