"""Tests of chiplets/io.py: work packets end to end, with an independent AXI model as the host."""
import random

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from chiplets.registers import COMMAND, DOORBELL, STORED, load
from testbenches import sim
from testbenches.chiplets.io_system import (
    COPY_IN,
    COPY_OUT,
    LAUNCH,
    MEMORY,
    NOP,
    IoSystem,
    entry,
    start,
)
from testbenches.twins import Twins

OK, BAD_COMMAND, BAD_FIELD, BAD_ADDRESS, POISON, ABORTED, LINK_DOWN = 0, 1, 2, 4, 6, 7, 8
DATA = 0x2000       # free host memory from here on


@cocotb.test()
async def registers_are_as_described(dut):
    host, _ = await start(dut)
    assert await host.read("identification") == int.from_bytes(b"mxlt", "little")
    assert await host.read("configuration") & 0xFF == 2
    for name, register in load("io").items():
        stored = [f for f in register.fields if f.access == STORED]
        if stored and not name.startswith(("submission", "completion", "interrupt")):
            reset = sum(f.reset << f.low for f in stored)
            assert await host.read(name) == reset, name
        if stored and name != "control":
            mask = sum((1 << f.width) - 1 << f.low for f in stored)
            value = random.getrandbits(32)
            await host.write(name, value)
            assert await host.read(name) == value & mask, name
        elif not any(f.access in (DOORBELL, COMMAND) for f in register.fields):
            before = await host.read(name)
            await host.write(name, 0xFFFFFFFF)
            assert name.startswith("cycles") or await host.read(name) == before, name
    answer = await host.axil.read(0x3C, 4)
    assert answer.resp == 2
    answer = await host.axil.write(0x3C, bytes(4))
    assert answer.resp == 2
    await host.write("scratch", 0x12345678)
    answer = await host.axil.write(load("io")["scratch"].offset, b"\0")
    assert answer.resp == 2 and await host.read("scratch") == 0x12345678
    first = await host.read("cycles_lo")
    assert first < await host.read("cycles_lo")


@cocotb.test()
@cocotb.parametrize(pause=[0, 40])
async def copies_move_every_byte_and_no_other(dut, pause):
    """Any offset and length, both ways, four streams with memory of their own on two dies."""
    host, dies = await start(dut, pause=pause)
    model = bytearray(host.memory.bytes)
    devices = [bytearray(die.memory) for die in dies]
    pending, tag = [], 0
    edges = [1, 2, 63, 64, 65, 128, 1000]
    for _ in range(4):
        batch = []
        for stream in range(4):
            for opcode in random.sample((COPY_IN, COPY_OUT), 2):
                length = random.choice([*edges, random.randrange(1, 1500)])
                at = DATA + 0x2000 * stream + random.randrange(0x800)
                die, offset = random.randrange(2), 0x1000 * stream + random.randrange(0x900)
                batch.append(entry(opcode, tag, stream=stream, host=at, count=length,
                                   device=die << 44 | offset))
                pending.append(tag)
                tag += 1
                if opcode == COPY_IN:
                    devices[die][offset:offset + length] = model[at:at + length]
                else:
                    model[at:at + length] = devices[die][offset:offset + length]
        await host.submit(*batch)
        for completion in await host.collect(len(batch)):
            pending.remove(completion["tag"])
            assert completion["code"] == OK and completion["cycles"] > 10
    assert not pending and [die.memory for die in dies] == devices
    assert host.memory.bytes[DATA:] == model[DATA:]
    assert await host.read("error_status") == 0


@cocotb.test()
async def launches_reach_their_die_and_report(dut):
    host, dies = await start(dut)
    table = 0x1_2345_6789_40
    dies[1].outcome = {"code": 3, "unit": 4, "field": 9, "command_tag": 0xBEEF, "failed_pe": 5,
                       "failed_mask": 0x0120, "address": 0x2345_6789_ABC0}
    await host.submit(entry(LAUNCH, 7, stream=2, host=table, die=0, mask=0xFFFF),
                      entry(LAUNCH, 8, stream=2, host=64, die=1, mask=0x8001, watchdog=99))
    first, second = await host.collect(2)
    assert first | {"cycles": 0} == {"tag": 7, "code": OK, "command": 0, "unit": 0, "field": 0,
                                     "die": 0, "pe": 0, "mask": 0, "cycles": 0, "address": 0,
                                     "value": 0, "upper": 0}
    assert second | {"cycles": 0} == {"tag": 8, "code": 3, "command": 0xBEEF, "unit": 4,
                                      "field": 9, "die": 1, "pe": 5, "mask": 0x120, "cycles": 0,
                                      "address": 0x2345_6789_ABC0, "value": 0, "upper": 0}
    (launch,), (other,) = dies[0].launches, dies[1].launches
    assert (launch["table"], launch["pe_mask"], launch["watchdog"]) == (table, 0xFFFF, 65536)
    assert (other["table"], other["pe_mask"], other["watchdog"]) == (64, 0x8001, 99)
    assert dut.irq.value and await host.read("interrupt_status") == 1
    await host.write("interrupt_status", 1)
    await ClockCycles(dut.clk, 2)
    assert not dut.irq.value


@cocotb.test()
async def masks_of_launches_reach_past_16_pes(dut):
    host, dies = await start(dut)
    masks = [1 << 79, 1 << 16, 1 << 47 | 1 << 48 | 1, (1 << 80) - 1]
    dies[1].outcome = {"code": 3, "failed_pe": 17, "failed_mask": 0x8123_4567_89AB_CDEF_0000}
    await host.submit(*(entry(LAUNCH, n, die=0, host=64, mask=mask)
                        for n, mask in enumerate(masks)), entry(LAUNCH, 9, die=1, mask=1 << 40))
    *good, bad = await host.collect(5)
    assert [launch["pe_mask"] for launch in dies[0].launches] == masks
    assert [(c["code"], c["mask"], c["value"], c["upper"]) for c in good] == [(OK, 0, 0, 0)] * 4
    assert (bad["code"], bad["pe"]) == (3, 17)
    assert (bad["mask"], bad["value"], bad["upper"]) == (0, 0x89AB_CDEF, 0x8123_4567)


@cocotb.test()
async def streams_keep_their_order_and_overlap(dut):
    host, dies = await start(dut)
    dies[0].hold = True
    await host.submit(entry(LAUNCH, 1, stream=0, die=0, mask=1), entry(NOP, 2, stream=0),
                      entry(COPY_IN, 3, stream=1, host=DATA, count=200, device=1 << 44),
                      entry(LAUNCH, 4, stream=3, die=1, mask=1), entry(NOP, 5, stream=3))
    tags = [c["tag"] for c in await host.collect(3)]
    assert sorted(tags) == [3, 4, 5] and tags.index(4) < tags.index(5)
    await ClockCycles(dut.clk, 300)
    assert host.poll() is None      # the entry behind the launch waits for it
    assert not await host.read("status") & 1
    dies[0].complete(dies[0].launches[0]["id"] ^ 4)     # of an earlier launch: no effect
    await ClockCycles(dut.clk, 200)
    assert host.poll() is None
    dies[0].complete(dies[0].launches[0]["id"])
    assert [c["tag"] for c in await host.collect(2)] == [1, 2]
    await ClockCycles(dut.clk, 20)
    assert await host.read("status") & 1


@cocotb.test()
async def abort_ends_the_launch_of_its_stream_only(dut):
    host, dies = await start(dut)
    dies[0].hold = dies[1].hold = True
    await host.submit(entry(LAUNCH, 1, stream=0, die=0, mask=1),
                      entry(LAUNCH, 2, stream=1, die=1, mask=1))
    while not (dies[0].launches and dies[1].launches):
        await RisingEdge(dut.clk)
    await host.write("abort", 0b1110)
    (completion,) = await host.collect(1)
    assert (completion["tag"], completion["code"]) == (2, ABORTED)
    assert dies[1].aborts == [dies[1].launches[0]["id"]] and not dies[0].aborts
    dies[0].complete(dies[0].launches[0]["id"])
    (completion,) = await host.collect(1)
    assert (completion["tag"], completion["code"]) == (1, OK)


@cocotb.test()
async def wrong_entries_are_refused_without_effect(dut):
    host, dies = await start(dut)
    memory, before = [bytes(die.memory) for die in dies], bytes(host.memory.bytes[DATA:])
    wrong = [
        (entry(9, 0), BAD_COMMAND, 0), (entry(0, 1), BAD_COMMAND, 0),
        (entry(NOP, 2, stream=4), BAD_FIELD, 0),
        (entry(LAUNCH, 3, die=2, mask=1), BAD_FIELD, 8),
        (entry(LAUNCH, 4, die=0, mask=0), BAD_FIELD, 8),
        (entry(LAUNCH, 5, host=1 << 48, mask=1), BAD_ADDRESS, 0),
        (entry(COPY_IN, 6, host=DATA, count=64, device=2 << 44), BAD_ADDRESS, 0),
        (entry(COPY_OUT, 7, host=DATA, count=64, device=1 << 60), BAD_ADDRESS, 0),
        (entry(COPY_IN, 8, host=DATA, count=65, device=(1 << 44) - 64), BAD_ADDRESS, 0),
        (entry(COPY_IN, 9, host=DATA, count=0, device=0), OK, 0),
        (entry(COPY_OUT, 10, host=DATA, count=0, device=0), OK, 0), (entry(NOP, 11), OK, 0)]
    await host.submit(*(bad for bad, _, _ in wrong))
    for tag, completion in enumerate(await host.collect(len(wrong))):
        got = completion["tag"], completion["code"], completion["field"]
        assert got == (tag, *wrong[tag][1:])
        refused = {5: 1 << 48, 6: 2 << 44, 7: 1 << 60, 8: (1 << 44) - 64}
        assert completion["address"] == refused.get(tag, 0)
    assert memory == [bytes(die.memory) for die in dies] and not dies[0].log
    assert before == bytes(host.memory.bytes[DATA:])


@cocotb.test()
async def errors_of_either_side_end_a_copy(dut):
    """The completion names the line, of the die or (field 2) of the host."""
    host, dies = await start(dut)
    async def one(*arguments, **fields):
        await host.submit(entry(*arguments, **fields))
        done = (await host.collect(1))[0]
        return done["code"], done["field"], done["address"]

    before = bytes(dies[0].memory)
    assert await one(COPY_IN, 1, host=MEMORY - 128, count=300, device=0) == (
        BAD_ADDRESS, 2, MEMORY)
    assert dies[0].memory[:128] == host.memory.bytes[-128:]     # what could be read
    assert dies[0].memory[128:] == before[128:]                 # and nothing else
    assert await one(COPY_OUT, 2, host=MEMORY - 1024 - 64, count=1300, device=0) == (
        BAD_ADDRESS, 2, MEMORY)
    dies[0].errors = {128: 2}
    assert await one(COPY_IN, 3, host=DATA, count=1000, device=0) == (POISON, 0, 128)
    kept = bytes(host.memory.bytes[DATA + 128:DATA + 1000])
    assert await one(COPY_OUT, 4, host=DATA, count=1000, device=0) == (POISON, 0, 128)
    assert host.memory.bytes[DATA + 128:DATA + 1000] == kept
    dies[0].errors = {64 * n: 2 for n in (21, 29)}      # one of the two is answered first
    for opcode in (COPY_IN, COPY_OUT):
        assert await one(opcode, 5, host=DATA + 1, count=2100, device=3) in [
            (POISON, 0, 64 * 21), (POISON, 0, 64 * 29)]
    for opcode, at in ((COPY_OUT, 1 << 20), (COPY_IN, 1 << 14)):
        assert await one(opcode, 6, host=DATA, count=60, device=at + 2) == (BAD_ADDRESS, 0, at)
    assert await one(COPY_OUT, 7, host=DATA, count=100, device=1 << 44) == (OK, 0, 0)
    assert host.memory.bytes[DATA:DATA + 100] == dies[1].memory[:100]


@cocotb.test()
async def wrong_doorbells_are_refused_and_reported(dut):
    host, _ = await start(dut)
    await host.submit(*(entry(NOP, n) for n in range(3)))
    await host.collect(3)
    await host.write("interrupt_status", 3)
    for name, value, bit in (("submission_tail", 16, 0), ("submission_tail", 1 << 31, 0),
                             ("completion_head", 16, 1), ("completion_head", 5, 1)):
        kept = await host.read(name)
        await host.write(name, value)
        await ClockCycles(dut.clk, 4)
        assert await host.read(name) == kept and dut.irq.value
        assert await host.read("error_status") == 1 << bit
        assert await host.read("error_info") == value
        await host.write("error_status", 1 << bit)
        assert await host.read("error_status") == 0
        await host.write("interrupt_status", 2)
        await ClockCycles(dut.clk, 4)
        assert not dut.irq.value
    await host.write("control", 0)      # entries stay unfetched, so the tail could be taken back
    await host.submit(entry(NOP, 3), entry(NOP, 4))
    await host.write("submission_tail", 4)
    assert await host.read("submission_tail") == 5 and await host.read("error_status") == 1
    assert await host.read("submission_head") == 3
    await host.write("control", 1)
    assert [c["tag"] for c in await host.collect(2)] == [3, 4]


@cocotb.test()
async def full_completion_ring_waits_without_loss(dut):
    host, _ = await start(dut, size_log2=4, completions_log2=2)
    await host.submit(*(entry(NOP, n, stream=n % 4) for n in range(12)))
    tags = [c["tag"] for c in await host.collect(3, release=False)]
    await ClockCycles(dut.clk, 300)
    assert host.poll() is None and await host.read("completion_waits") > 100
    while len(tags) < 12:
        await host.write("completion_head", host.seen & 3)
        tags += [c["tag"] for c in await host.collect(min(3, 12 - len(tags)), release=False)]
    assert sorted(tags) == list(range(12))


@cocotb.test()
async def rings_wrap_many_times(dut):
    host, _ = await start(dut, size_log2=2, pause=30)
    for n in range(0, 40, 3):
        await host.submit(*(entry(NOP, n + k) for k in range(3)))
        assert [c["tag"] for c in await host.collect(3)] == [n, n + 1, n + 2]
    assert await host.read("error_status") == 0


@cocotb.test()
async def unreadable_ring_stops_until_restart(dut):
    host, dies = await start(dut)
    await host.write("submission_base_lo", MEMORY)
    await host.submit(entry(NOP, 1), entry(NOP, 2))
    await ClockCycles(dut.clk, 300)
    assert await host.read("error_status") == 4 and dut.irq.value and host.poll() is None
    await host.write("submission_base_lo", 0)
    await host.write("control", 3)
    host.tail = host.seen = 0
    assert await host.read("submission_tail") == 0
    await host.submit(entry(NOP, 3))
    assert [c["tag"] for c in await host.collect(1)] == [3]
    dies[0].hold = True
    await host.submit(entry(LAUNCH, 4, mask=1))
    await ClockCycles(dut.clk, 100)
    await host.write("control", 3)
    assert await host.read("error_status") == 4 | 16 and await host.read("submission_head") == 2


@cocotb.test()
async def work_for_a_lost_die_ends_with_link_down(dut):
    host, dies = await start(dut)
    dies[0].hold = True
    await host.submit(entry(LAUNCH, 1, stream=0, die=0, mask=1),
                      entry(COPY_OUT, 2, stream=1, host=DATA, count=3000, device=0),
                      entry(COPY_IN, 3, stream=2, host=DATA, count=3000, device=0))
    await ClockCycles(dut.clk, 150)
    dut.cut.value = 1
    found = {c["tag"]: c["code"] for c in await host.collect(3)}
    assert found[1] == found[3] == LINK_DOWN and found[2] == LINK_DOWN
    assert await host.read("status") >> 4 & 15 == 2 and await host.read("error_status") == 32
    assert await host.read("link0_timeouts") >= 3 and await host.read("link1_timeouts") == 0
    await host.submit(
        entry(LAUNCH, 4, die=0, mask=1), entry(COPY_IN, 5, host=DATA, count=99, device=0),
        entry(COPY_OUT, 6, host=DATA, count=99, device=64),
        entry(COPY_IN, 7, host=DATA, count=999, device=1 << 44), entry(NOP, 8))
    found = [(c["tag"], c["code"]) for c in await host.collect(5)]
    assert found == [(4, 8), (5, 8), (6, 8), (7, OK), (8, OK)]
    assert dies[1].memory[:999] == host.memory.bytes[DATA:DATA + 999]


@cocotb.test()
async def request_from_a_die_is_answered_with_an_error(dut):
    """Nothing in this chiplet can be addressed by a die, and nothing hangs."""
    from rtl.link.interfaces import SlotKind
    from testbenches.chiplets.io_system import pack, unpack
    await start(dut)
    dut.die0__i_response__ready.value = 1
    for kind, name, write in ((SlotKind.READ, "read", 0), (SlotKind.WRITE, "write", 1)):
        dut.die0__o_request__payload.value = pack(kind, name, address=15 << 44, tag=0x5A)
        dut.die0__o_request__valid.value = 1
        await RisingEdge(dut.clk)
        while not dut.die0__o_request__ready.value:
            await RisingEdge(dut.clk)
        dut.die0__o_request__valid.value = 0
        for _ in range(100):
            await RisingEdge(dut.clk)
            if dut.die0__i_response__valid.value:
                break
        got, fields = unpack(int(dut.die0__i_response__payload.value))
        assert got == SlotKind.RESPONSE
        assert (fields["tag"], fields["write"], fields["error"]) == (0x5A, write, 1)


@cocotb.test()
async def clock_stops_while_launches_run_and_starts_in_time(dut):
    """Whatever comes after a pause is seen; :class:`Twins` compares with a free clock."""
    host, dies = await start(dut, delay=300)
    stopped, tag = 0, 0
    for _ in range(12):
        work = [entry(LAUNCH, tag, stream=0, die=0, mask=1),
                entry(LAUNCH, tag + 1, stream=1, die=1, mask=1)]
        if random.getrandbits(1):
            work.append(entry(random.choice([COPY_IN, COPY_OUT]), tag + 2, stream=2, host=DATA,
                              device=random.randrange(2) << 44, count=random.randrange(300)))
        tag += 3
        await host.submit(*work)
        for _ in range(random.randrange(300)):
            await RisingEdge(dut.clk)
            stopped += not dut.awake.value
        if random.getrandbits(1):
            assert await host.read("identification") == int.from_bytes(b"mxlt", "little")
        if random.getrandbits(1):
            await host.write("abort", random.randrange(4))
        done = await host.collect(len(work))
        assert all(c["code"] in (OK, ABORTED) for c in done)
    assert stopped > 100
    await ClockCycles(dut.clk, 200)
    assert not dut.awake.value


@sim.on_simulators
def test_io(tmp_path, simulator):
    sim.run(Twins(lambda: IoSystem(buffer_lines=16, tag_bits=3)), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
