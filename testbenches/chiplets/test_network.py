"""Tests of a compute chiplet's message engine and network link: cocotb tests, then pytest.

The chiplet without PEs and engine is tested beside the far ends of its links; the test plays the
PEs, the message engine, the host and the network chiplet.
"""
import random

import cocotb

from rtl.link import interfaces as link
from rtl.link.interfaces import SlotKind
from rtl.link.transmitter import LinkState
from rtl.pe import interfaces as pe
from rtl.pe.interfaces import AccessError, ErrorCode
from testbenches import sim
from testbenches.chiplets.compute_bench import (
    CHANNELS,
    DIE,
    LINES,
    PARAMETERS,
    PES,
    Pair,
    address,
    bits,
    start,
)
from testbenches.twins import Twins

NETWORK, ENGINE = 5, 6
COMPLETION_PORT = 0x1000
WINDOW = PARAMETERS.far_requests
NET_LINE = 15       # of the control registers
ENGINE_BIT = 1 << PES


def everybody(bench):
    return (*bench.pes, bench.engine)


async def counters(bench, line):
    data = (await bench.host_reads(address(3, line * 64))).data
    return [data >> 32 * i & 0xFFFFFFFF for i in range(16)]


@cocotb.test()
async def the_window_of_the_engine_is_reached_by_all(dut):
    """PEs and host, the network chiplet at the completion port; answers go to who asked."""
    bench = await start(dut)
    data = random.getrandbits(512)
    bench.nic.ask(address(ENGINE, COMPLETION_PORT), tag=7, data=data)
    bench.write(address(ENGINE, COMPLETION_PORT), data + 1, tag=8)
    bench.pes[1].ask(address(ENGINE, 0x1FC0), tag=9)
    bench.engine.ask(address(ENGINE, 64), tag=10)
    await bench.until(lambda: len(bench.engine.accesses) == 4)
    for access in bench.engine.accesses:
        offset = access.address - address(ENGINE, 0)
        assert (offset, access.write) == {7: (COMPLETION_PORT, 1), 8: (COMPLETION_PORT, 1),
                                          9: (0x1FC0, 0), 10: (64, 0)}[access.tag]
        assert not access.write or access.data == data + access.tag - 7
        bench.engine.access_response.queue.append(bits(
            pe.response_layout(), tag=access.tag, write=access.write,
            data=0 if access.write else access.tag + 1000))
    await bench.until(lambda: bench.nic.responses and bench.responses
                      and bench.pes[1].responses and bench.engine.responses)
    for answers, tag in ((bench.nic.responses, 7), (bench.responses, 8),
                         (bench.pes[1].responses, 9), (bench.engine.responses, 10)):
        assert [(a.tag, a.write, a.error, a.data) for a in answers] == [
            (tag, int(tag < 9), AccessError.NONE, tag + 1000 if tag > 8 else 0)]


@cocotb.test()
async def the_network_chiplet_is_reached_by_pes_engine_and_host(dut):
    """Doorbells and reads, many at once; its answers come in any order."""
    bench = await start(dut)
    sent = {}
    for number, asker in enumerate((*everybody(bench), None)):
        for tag in range(60):
            place = address(NETWORK, random.randrange(1 << 24) & ~63 & ~0xFF00 | number << 8)
            data = random.choice([None, random.getrandbits(512)])
            sent[number, tag] = place, data
            if asker is not None:
                asker.ask(place, tag=tag, data=data)
            elif data is None:
                bench.read(place, tag=tag)
            else:
                bench.write(place, data, tag=tag)
    found = [*(port.responses for port in everybody(bench)), bench.responses]
    await bench.until(lambda: all(len(answers) == 60 for answers in found), limit=4000)
    for number, answers in enumerate(found):
        assert sorted(answer.tag for answer in answers) == list(range(60))
        for answer in answers:
            place, data = sent[number, answer.tag]
            assert (answer.write, answer.error) == (data is not None, AccessError.NONE)
            assert answer.data == (0 if data is not None else bench.nic.data(place))
    got = [(kind, body.address, body.data if kind == SlotKind.WRITE else None)
           for kind, body in bench.nic.accesses]
    wanted = [(SlotKind.READ if data is None else SlotKind.WRITE, place, data)
              for place, data in sent.values()]
    assert sorted(got, key=repr) == sorted(wanted, key=repr)
    bench.responses.clear()
    words = await counters(bench, NET_LINE)
    assert words[8:13] == [len(sent), 0, words[10], words[11], 0] and words[6] > 0
    assert words[7] == LinkState.ACTIVE.value


@cocotb.test()
async def requests_of_one_node_keep_their_order_on_the_way_to_a_nic(dut):
    """So a doorbell that follows a write of registers finds it done."""
    bench = await start(dut)
    for tag in range(50):
        bench.engine.ask(address(NETWORK, 64 * tag), tag=tag, data=tag)
    await bench.until(lambda: len(bench.engine.responses) == 50)
    assert [body.address & 0xFFFFFF for _, body in bench.nic.accesses] == [
        64 * tag for tag in range(50)]


@cocotb.test()
async def the_network_chiplet_works_with_the_memory_of_this_die_alone(dut):
    bench = await start(dut)
    lines = {address(0, 64 * line): random.getrandbits(512) for line in range(0, LINES, 3)}
    lines |= {address(1, 64 * line): random.getrandbits(512) for line in range(40)}
    for tag, (place, data) in enumerate(lines.items()):
        bench.nic.ask(place, tag=tag, data=data)
    await bench.until(lambda: len(bench.nic.responses) == len(lines), limit=4000)
    assert all(a.write and a.error == AccessError.NONE for a in bench.nic.responses)
    bench.nic.responses.clear()
    for tag, place in enumerate(lines):
        bench.nic.ask(place, tag=tag)
    await bench.until(lambda: len(bench.nic.responses) == len(lines), limit=4000)
    data = list(lines.values())
    for answer in bench.nic.responses:
        assert not answer.write and answer.data == data[answer.tag]
    bench.nic.responses.clear()
    wrong = [address(0, LINES * 64), address(1, CHANNELS * 2 * 256 * 64), address(NETWORK, 0),
             address(ENGINE, 1 << 13), address(7, 0), address(0, 0, die=DIE + 1),
             address(0, 0, die=0), address(0, 0, die=15)]
    for tag, place in enumerate(wrong):
        bench.nic.ask(place, tag=tag, data=random.choice([None, 5]))
    await bench.until(lambda: len(bench.nic.responses) == len(wrong))
    assert all(a.error == AccessError.ADDRESS and not a.data for a in bench.nic.responses)
    words = await counters(bench, 2)
    assert words[:3] == [0] * 3 and words[8:10] == [0, len(wrong)]
    assert not bench.nic.accesses


@cocotb.test()
async def a_table_of_programs_is_not_behind_the_network_link(dut):
    """The control block does not wait for another chiplet."""
    bench = await start(dut)
    bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=1, id=3,
               table=address(NETWORK, 0))
    await bench.until(lambda: bench.completions)
    done = bench.completions.pop()
    assert (done.id, done.code, done.field) == (3, ErrorCode.BAD_ADDRESS, 2)
    assert not bench.nic.accesses


@cocotb.test()
@cocotb.parametrize(code=[ErrorCode.OK, ErrorCode.BAD_ADDRESS])
async def a_work_packet_starts_the_engine_beside_the_pes(dut, code):
    """Its program is the table's entry after theirs; it has a place at their barrier."""
    bench = await start(dut)
    table = address(0, 5 * 64)
    bench.write(table, 7 | 9 << 32 | 11 << 64)
    await bench.until(lambda: bench.responses)
    bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=1 | ENGINE_BIT, id=42,
               table=table, watchdog=1234)
    await bench.until(lambda: bench.engine.launches and bench.pes[0].launches)
    assert bench.pes[0].launches[0].program == table + 64 * 7 and not bench.pes[1].launches
    assert bench.engine.launches[0].program == table + 64 * 11
    assert bench.engine.launches[0].watchdog == 1234
    await bench.until(lambda: dut.engine__go.value and dut.pe0__go.value)
    dut.engine__arrive.value = 1
    await bench.step()
    dut.engine__arrive.value = 0
    for _ in range(20):
        await bench.step()
        assert not dut.engine__proceed.value
    dut.pe0__arrive.value = 1
    await bench.step()
    dut.pe0__arrive.value = 0
    await bench.until(lambda: dut.engine__proceed.value and dut.pe0__proceed.value, limit=10)
    bench.pes[0].report.queue.append(0)
    bench.engine.report.queue.append(bits(pe.report_layout(), code=code, tag=0x2003, field=4))
    await bench.until(lambda: bench.completions)
    done = bench.completions[0]
    assert (done.id, done.code) == (42, code)
    if code != ErrorCode.OK:
        assert (done.failed_pe, done.failed_mask) == (PES, ENGINE_BIT)
        assert (done.command_tag, done.field) == (0x2003, 4)


@cocotb.test()
async def an_engine_alone_is_started_and_aborted(dut):
    bench = await start(dut)
    dut.engine__idle.value = 1
    bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=ENGINE_BIT, id=8,
               table=address(0, 0))
    await bench.until(lambda: dut.engine__go.value)
    assert not dut.pe0__go.value and not dut.pe1__go.value
    assert (await counters(bench, 1))[0] == ENGINE_BIT     # PEs of the test are never idle
    bench.slot(SlotKind.ABORT, "abort", link.abort_layout(), id=8)
    await bench.until(lambda: dut.engine__abort.value)
    bench.engine.report.queue.append(bits(pe.report_layout(), code=ErrorCode.ABORTED))
    await bench.until(lambda: bench.completions)
    assert bench.completions[0].code == ErrorCode.ABORTED
    bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=ENGINE_BIT << 1, id=9,
               table=address(0, 0))     # there is one engine
    await bench.until(lambda: len(bench.completions) == 2)
    assert (bench.completions[1].code, bench.completions[1].field) == (ErrorCode.BAD_FIELD, 8)


@cocotb.test()
async def all_that_may_be_under_way_finds_room_while_the_network_link_stands(dut):
    """The bridge takes it, so that memory still answers all who did not use up their windows."""
    bench = await start(dut)
    bench.nic.come.rate = 0
    for port in everybody(bench):
        port.request.rate = 1
        for tag in range(WINDOW + 5):
            port.ask(address(NETWORK, 64 * tag), tag=tag, data=tag)
    for tag in range(WINDOW + 5):
        bench.write(address(NETWORK, 64 * tag), tag, tag=tag)
    for _ in range(500):
        await bench.step()
    for port in everybody(bench):
        assert len(port.request.queue) + (port.request.offered is not None) == 5
        assert not port.responses
    bench.nic.ask(address(0, 0), tag=1)     # the network chiplet itself still reaches memory
    await bench.until(lambda: bench.nic.responses)
    bench.nic.come.rate = 1
    await bench.until(lambda: all(len(answers) == WINDOW + 5 for answers in (
        *(port.responses for port in everybody(bench)), bench.responses)), limit=4000)


@cocotb.test()
async def a_network_link_that_is_cut_ends_in_errors_of_those_who_use_it(dut):
    """What is under way and what follows; memory is not touched by it."""
    bench = await start(dut)
    bench.nic.willing = False
    for port in everybody(bench):
        port.ask(address(NETWORK, 0), tag=1, data=3)
    await bench.until(lambda: len(bench.nic.accesses) == PES + 1)
    dut.cut.value = 1
    for port in everybody(bench):
        port.ask(address(NETWORK, 64), tag=2)
        port.ask(address(0, 0), tag=3)
    bench.read(address(NETWORK, 0), tag=4)
    await bench.until(lambda: bench.responses and all(
        len(port.responses) == 3 for port in everybody(bench)), limit=6000)
    for port in everybody(bench):
        errors = {answer.tag: answer.error for answer in port.responses}
        assert errors == {1: AccessError.LINK_DOWN, 2: AccessError.LINK_DOWN, 3: AccessError.NONE}
    assert bench.responses.pop().error == AccessError.LINK_DOWN
    words = await counters(bench, NET_LINE)
    assert words[7] == LinkState.DOWN.value and words[12] == 2 * PES + 3


@sim.on_simulators
def test_network(tmp_path, simulator):
    sim.run(Twins(Pair), test_module=__name__, build_dir=tmp_path, simulator=simulator)
