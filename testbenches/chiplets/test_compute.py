"""Tests of chiplets/compute.py: the cocotb tests, then the pytest functions that run them.

The chiplet without PEs is tested beside the other end of its link; the test plays the PEs.
"""
import random

import cocotb
import pytest
from pyosys import libyosys

from chiplets import verilog
from chiplets.compute import ComputeBase
from chiplets.packages import ComputeParameters
from rtl.link import interfaces as link
from rtl.link.interfaces import SlotKind
from rtl.pe import interfaces as pe
from rtl.pe.interfaces import AccessError, ErrorCode
from testbenches import sim
from testbenches.chiplets.compute_bench import (
    CHANNELS,
    DIE,
    LINES,
    OPEN,
    PARAMETERS,
    PES,
    Pair,
    address,
    bits,
    start,
)
from testbenches.twins import Twins

JOINED = ComputeParameters(rows=1, columns=2, bank_lines=32, link_latency_cycles=2, grid=(2, 2),
                           engines=1, networks=1)


@cocotb.test()
async def pes_and_host_share_memory_line_by_line(dut):
    """Everyone writes and reads lines of its own, several under way; then the host reads all."""
    bench = await start(dut)
    memory, answers = {}, {}
    for i, port in enumerate(bench.pes):
        lines = range(i, LINES, PES)
        for tag, line in enumerate(lines):
            memory[line] = random.getrandbits(512)
            port.ask(address(0, line * 64), tag=tag, data=memory[line])
        for tag in range(64, 120):
            line, mask = random.choice(lines), random.getrandbits(64)
            if tag % 2:
                answers[i, tag] = memory[line]
                port.ask(address(0, line * 64), tag=tag)
            else:
                data = random.getrandbits(512)
                bytes_mask = sum(0xFF << 8 * b for b in range(64) if mask >> b & 1)
                memory[line] = memory[line] & ~bytes_mask | data & bytes_mask
                port.ask(address(0, line * 64), tag=tag, data=data, mask=mask)
    await bench.until(lambda: all(len(port.responses) == 32 + 56 for port in bench.pes))
    for i, port in enumerate(bench.pes):
        assert len({response.tag for response in port.responses}) == 88
        for response in port.responses:
            assert response.error == AccessError.NONE
            if (i, response.tag) in answers:
                assert not response.write and response.data == answers[i, response.tag]
    for line in range(LINES):
        bench.read(address(0, line * 64), tag=line)
    await bench.until(lambda: len(bench.responses) == LINES)
    assert {response.tag: response.data for response in bench.responses} == memory


BAD = {"past the SRAM": address(0, LINES * 64), "past the HBM": address(1, CHANNELS * 2 * 256 * 64),
       "past the PEs": address(2, PES << 16), "past the registers": address(3, 16 * 64),
       "no link": address(5, 1 << 24), "past the engine": address(6, 1 << 13),
       "no region": address(7, 0), "no channel": address(4, CHANNELS * 64),
       "last region": address(15, 0),
       "another compute die": address(0, 0, die=DIE + 1), "I/O die": address(0, 0, die=15)}


@cocotb.test()
async def an_address_that_nobody_has_is_answered_with_an_error_and_counted(dut):
    bench = await start(dut)
    bench.write(address(0, 0), 77)
    for tag, place in enumerate(BAD.values()):
        bench.pes[1].ask(place, tag=tag, data=None if tag % 2 else 5)
        bench.write(place, 5, tag=tag)
        bench.read(place, tag=tag + 100)
    count = len(BAD)
    await bench.until(lambda: len(bench.pes[1].responses) == count
                      and len(bench.responses) == 1 + 2 * count)
    for response in bench.pes[1].responses:
        assert response.error == AccessError.ADDRESS and not response.data
        assert response.write == (response.tag % 2 == 0)
    errors = [response for response in bench.responses if response.error == AccessError.ADDRESS]
    assert len(errors) == 2 * count and not any(response.data for response in errors)
    bench.responses.clear()
    assert (await bench.host_reads(address(0, 0))).data == 77
    words = (await bench.host_reads(address(3, 2 * 64))).data
    assert [words >> 32 * i & 0xFFFFFFFF for i in range(3)] == [count, 0, 2 * count]


@cocotb.test()
async def a_work_packet_starts_its_pes_and_its_end_is_told(dut):
    bench = await start(dut)
    table = address(0, 5 * 64)
    bench.write(table, 7 | 9 << 32)
    await bench.until(lambda: bench.responses)
    bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=3, table=table,
               watchdog=1234, id=42)
    await bench.until(lambda: all(port.launches for port in bench.pes))
    for port, entry in zip(bench.pes, (7, 9), strict=True):
        assert port.launches[0].program == table + 64 * entry
        assert port.launches[0].watchdog == 1234
    await bench.until(lambda: dut.pe0__go.value and dut.pe1__go.value)
    bench.pes[0].report.queue.append(0)
    bench.pes[1].report.queue.append(bits(pe.report_layout(), code=ErrorCode.POISON, tag=0xABC,
                                          unit=pe.Unit.DMA_IN, field=9, address=0xFEDCBA987640))
    await bench.until(lambda: bench.completions)
    done = bench.completions[0]
    assert (done.id, done.code, done.failed_pe, done.failed_mask) == (42, ErrorCode.POISON, 1, 2)
    assert (done.command_tag, done.unit, done.field) == (0xABC, pe.Unit.DMA_IN.value, 9)
    assert done.address == 0xFEDCBA987640


@cocotb.test()
async def an_abort_from_the_link_reaches_the_pes(dut):
    bench = await start(dut)
    bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=2, table=address(0, 0),
               id=8)
    await bench.until(lambda: dut.pe1__go.value)
    bench.slot(SlotKind.ABORT, "abort", link.abort_layout(), id=8)
    await bench.until(lambda: dut.pe1__abort.value)
    assert not dut.pe0__abort.value and not dut.pe1__drop.value
    bench.pes[1].report.queue.append(bits(pe.report_layout(), code=ErrorCode.ABORTED))
    await bench.until(lambda: bench.completions)
    assert bench.completions[0].code == ErrorCode.ABORTED


@cocotb.test()
async def the_next_packet_of_a_stream_is_on_its_pes_before_and_can_be_taken_back(dut):
    bench = await start(dut)
    for number in (8, 12):
        bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=1, table=address(0, 0),
                   id=number)
    await bench.until(lambda: len(bench.pes[0].launches) == 2)
    bench.slot(SlotKind.ABORT, "abort", link.abort_layout(), id=12)
    await bench.until(lambda: dut.pe0__drop.value)
    assert not dut.pe0__abort.value
    await bench.until(lambda: bench.completions)
    assert (bench.completions[0].id, bench.completions[0].code) == (12, ErrorCode.ABORTED)
    bench.pes[0].report.queue.append(0)
    await bench.until(lambda: len(bench.completions) == 2)
    assert (bench.completions[1].id, bench.completions[1].code) == (8, ErrorCode.OK)


@cocotb.test()
async def the_window_of_a_pe_is_reached_by_the_host_and_by_the_other_pe(dut):
    bench = await start(dut)
    bench.read(address(2, 1 << 16 | 3 * 64), tag=5)
    bench.pes[0].ask(address(2, 1 << 16 | 4 * 64), tag=6)
    await bench.until(lambda: len(bench.pes[1].accesses) == 2)
    for access in bench.pes[1].accesses:
        assert access.address & 0xFFFF == {5: 3, 6: 4}[access.tag] * 64 and not access.write
        bench.pes[1].access_response.queue.append(
            bits(pe.response_layout(), tag=access.tag, data=access.tag + 1000))
    await bench.until(lambda: bench.responses and bench.pes[0].responses)
    assert (bench.responses[0].tag, bench.responses[0].data) == (5, 1005)
    assert (bench.pes[0].responses[0].tag, bench.pes[0].responses[0].data) == (6, 1006)


@cocotb.test()
async def lines_of_the_hbm_are_spread_over_its_channels(dut):
    """Each PE reads what the other wrote; answers of the channels come in any order."""
    bench = await start(dut)
    lines = random.sample(range(CHANNELS * 512), 60)
    data = {line: random.getrandbits(512) for line in lines}
    for i, line in enumerate(lines):
        bench.pes[i % 2].ask(address(1, 64 * line), tag=i, data=data[line])
    await bench.until(lambda: sum(len(port.responses) for port in bench.pes) == 60)
    for i, line in enumerate(lines):
        bench.pes[1 - i % 2].ask(address(1, 64 * line), tag=100 + i)
    await bench.until(lambda: sum(len(port.responses) for port in bench.pes) == 120)
    for port in bench.pes:
        for answer in port.responses:
            assert answer.error == AccessError.NONE
            assert answer.write or answer.data == data[lines[answer.tag - 100]]
    for number, channel in enumerate(bench.channels):
        assert sorted(channel.seen) == sorted(
            2 * [line // CHANNELS for line in lines if line % CHANNELS == number])


async def latency_of_a_read(bench, port):
    """Cycles from the offer of a request to its answer, nobody in the way."""
    port.request.rate = port.response.rate = 1
    port.responses.clear()
    port.ask(address(0, 64), tag=9)
    cycles = 0
    while not port.responses:
        await bench.step()
        cycles += 1
    return cycles


@cocotb.test()
async def a_bad_pe_is_replaced_and_nobody_sees_a_difference(dut):
    """Column by column, whatever the bad one does; with the same latency."""
    bench = await start(dut)
    usual = [await latency_of_a_read(bench, port) for port in bench.pes]
    for repair in (1, 1 << 4, 1 | 1 << 4, 2, 0):
        bench.write(address(3, 7 * 64), repair, mask=255)
        await bench.until(lambda: bench.responses)
        assert bench.responses.pop().error == AccessError.NONE
        assert (await bench.host_reads(address(3, 7 * 64))).data == repair | OPEN
        rows = [int(repair >> 4 * column & 15 == 1) for column in range(2)]
        used = [bench.units[row * 2 + column] for column, row in enumerate(rows)]
        idle = [unit for unit in bench.units if unit not in used]
        for unit in idle:       # talks nonsense
            unit.responses.clear()
            unit.report.queue.append(random.getrandbits(30))
            unit.ask(random.getrandbits(48), tag=3)
        assert [await latency_of_a_read(bench, port) for port in used] == usual
        bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=3, id=repair,
                   table=address(0, 0))
        await bench.until(lambda used=used: all(port.launches for port in used))
        bench.write(address(3, 7 * 64), 0, mask=255)    # not while a packet is under way
        await bench.until(lambda: bench.responses)
        assert bench.responses.pop().error == AccessError.ADDRESS
        assert not bench.completions
        for port in used:
            port.report.queue.append(0)
        await bench.until(lambda: bench.completions)
        done = bench.completions.pop()
        assert (done.id, done.code) == (repair, ErrorCode.OK)
        for unit in idle:
            assert not unit.launches and not unit.responses and unit.request.offered
            unit.request.offered = unit.report.offered = None
            unit.request.valid.value = unit.report.valid.value = 0
        for port in used:
            port.launches.clear()


@cocotb.test()
async def nobody_listens_to_a_pe_before_the_pes_are_opened(dut):
    """All talk nonsense; accesses to them and packets for them are answered with an error."""
    bench = await start(dut, opened=False)
    for unit in bench.units:
        unit.report.queue.append(random.getrandbits(30))
        unit.ring_out.queue.append(random.getrandbits(512))
        unit.access_response.queue.append(random.getrandbits(512))
        unit.ask(address(0, 0), tag=3)
    bench.slot(SlotKind.LAUNCH, "launch", link.launch_layout(), pe_mask=3, id=5,
               table=address(0, 0))
    tags = {1: address(2, 0), 2: address(2, 1 << 16), 3: address(2, 64)}
    for tag, place in tags.items():
        bench.read(place, tag=tag)
    bench.write(address(2, 0), 1, tag=4)
    await bench.until(lambda: len(bench.responses) == 4 and bench.completions)
    for _ in range(100):
        await bench.step()
    done = bench.completions.pop()
    assert (done.id, done.code, done.field) == (5, ErrorCode.BAD_FIELD, 8)
    assert sorted(answer.tag for answer in bench.responses) == [1, 2, 3, 4]
    for answer in bench.responses:
        assert (answer.error, answer.data) == (AccessError.ADDRESS, 0)
        assert answer.write == (answer.tag == 4)
    for unit in bench.units:
        assert not (unit.accesses or unit.launches or unit.responses or unit.ring)
        assert unit.request.offered and unit.report.offered and unit.ring_out.offered


@cocotb.test()
@cocotb.parametrize(repair=[0, 1, 1 << 4])
async def lines_of_the_ring_go_to_the_next_pe_past_a_bad_one(dut, repair):
    """In order, both ways round, whatever the one that is left out sends."""
    bench = await start(dut)
    bench.write(address(3, 7 * 64), repair, mask=255)
    await bench.until(lambda: bench.responses)
    used = [bench.units[(repair >> 4 * column & 1) * PES + column] for column in range(PES)]
    sent = [[random.getrandbits(512) for _ in range(20)] for _ in used]
    for unit in bench.units:
        unit.ring_out.queue += sent[used.index(unit)] if unit in used else [random.getrandbits(512)]
    await bench.until(lambda: sum(len(port.ring) for port in used) == 40)
    assert [port.ring for port in used] == sent[::-1]
    assert not any(unit.ring for unit in bench.units if unit not in used)


@cocotb.test()
async def a_repair_of_a_row_that_is_not_there_is_refused(dut):
    bench = await start(dut)
    for repair in (3, 3 << 4, 15 << 8, 1 << 60):
        bench.write(address(3, 7 * 64), repair, mask=255)
        await bench.until(lambda: bench.responses)
        expected = AccessError.NONE if repair == 1 << 60 else AccessError.ADDRESS
        assert bench.responses.pop().error == expected
    assert (await bench.host_reads(address(3, 7 * 64))).data == 1 << 60 | OPEN


@cocotb.test()
async def identity_is_readable_and_useless_messages_are_counted(dut):
    bench = await start(dut)
    bench.send.queue.append(SlotKind.NONE.value | 1 << 20)
    bench.other.queue.append(SlotKind.RESPONSE.value)
    words = (await bench.host_reads(address(3, 0))).data.to_bytes(64, "little")
    values = [int.from_bytes(words[i:i + 4], "little") for i in range(0, 44, 4)]
    assert values == [int.from_bytes(b"MXLT", "little"), 1, DIE, 1, PES, LINES * 64 >> 10,
                      CHANNELS, 0, 1, 1, 0]
    assert (await bench.host_reads(address(3, 2 * 64))).data >> 96 & 0xFFFFFFFF in (1, 2)


@cocotb.test()
async def lines_of_the_hbm_go_through_the_slices_that_are_cache(dut):
    """Written and read through the cache, found in the channels after a flush; errors none."""
    bench = await start(dut)
    bench.write(address(3, 7 * 64), 4 << 64, mask=1 << 8)
    await bench.until(lambda: bench.responses)
    assert bench.responses.pop().error == AccessError.NONE
    lines = random.sample(range(CHANNELS * 512), 40)
    data = {line: random.getrandbits(512) for line in lines}
    for i, line in enumerate(lines):
        bench.pes[i % 2].ask(address(1, 64 * line), tag=i, data=data[line])
    await bench.until(lambda: sum(len(port.responses) for port in bench.pes) == 40, 4000)
    for _ in range(200):        # what is written back has come to the channels
        await bench.step()
    kept = sum(bench.channels[line % CHANNELS].lines.get(line // CHANNELS) != data[line]
               for line in lines)
    assert 0 < kept <= LINES // 4       # half of the slice of one of two tiles
    for i, line in enumerate(lines):
        bench.pes[1 - i % 2].ask(address(1, 64 * line), tag=100 + i)
    await bench.until(lambda: sum(len(port.responses) for port in bench.pes) == 80, 4000)
    for port in bench.pes:
        for answer in port.responses:
            assert answer.error == AccessError.NONE
            assert answer.write or answer.data == data[lines[answer.tag - 100]]
    counts = (await bench.host_reads(address(3, 8 * 64))).data
    hits, misses = counts >> 32 * 3 & 0xFFFFFFFF, counts >> 32 * 4 & 0xFFFFFFFF
    assert hits + misses == 80 and misses >= 40
    bench.write(address(3, 7 * 64), 0, mask=1 << 8)    # no ways are left: all is written back
    await bench.until(lambda: bench.responses)
    bench.responses.clear()
    for line in lines:
        bench.read(address(1, 64 * line), tag=lines.index(line))
    await bench.until(lambda: len(bench.responses) == 40, 4000)
    for answer in bench.responses:
        assert answer.data == data[lines[answer.tag]]
        number, within = lines[answer.tag] % CHANNELS, lines[answer.tag] // CHANNELS
        assert bench.channels[number].lines[within] == answer.data


@cocotb.test()
async def counters_of_the_channels_are_lines_of_a_region(dut):
    bench = await start(dut)
    for number, channel in enumerate(bench.channels):
        assert (await bench.host_reads(address(4, 64 * number))).data == channel.registers
    bench.pes[0].ask(address(4, 64), tag=1)
    await bench.until(lambda: bench.pes[0].responses)
    assert bench.pes[0].responses[0].data == bench.channels[1].registers


@cocotb.test()
async def two_streams_get_two_thirds_of_two_banks_and_lose_nothing_while_one_pauses(dut):
    """In step, two PEs collide at every third line; six PEs get 3.6 of 4 lines a cycle.

    A PE that takes no answers holds up the banks for all: banks answer in order.
    """
    bench = await start(dut)
    for port in bench.pes:
        port.request.rate = port.response.rate = 1
    for i in range(200):
        for number, port in enumerate(bench.pes):
            port.ask(address(0, (i + number) % LINES * 64), tag=i)
    for _ in range(110):
        await bench.step()
    done = sum(len(port.responses) for port in bench.pes)
    assert done > 130, f"{done} lines of 2 banks in 100 cycles"
    bench.pes[0].response.rate = 0
    for _ in range(100):
        await bench.step()
    bench.pes[0].response.rate = 1
    await bench.until(lambda: all(len(port.responses) == 200 for port in bench.pes))
    for port in bench.pes:
        assert len({r.tag for r in port.responses}) == 200


@sim.on_simulators
def test_compute(tmp_path, simulator):
    sim.run(Twins(Pair), test_module=__name__, build_dir=tmp_path, simulator=simulator)


@pytest.mark.parametrize("parameters", [PARAMETERS, JOINED], ids=["alone", "joined"])
def test_no_output_of_the_base_follows_an_input_in_the_same_cycle(tmp_path, parameters):
    source = tmp_path / "base.il"
    source.write_text("\n".join(verilog.modules(ComputeBase(parameters), name="dut").values()))
    design = libyosys.Design()
    for step in (f"read_rtlil {source}", "hierarchy -top dut", "proc -noopt", "flatten",
                 "opt_clean"):
        libyosys.run_pass(f"tee -q {step}", design)
    registers = "$dff,$dffe,$sdff,$sdffe,$memrd_v2,$memwr_v2"
    for step in (f"select -set follows */i:* %co*:-{registers}",
                 "select -assert-min 1000 @follows",          # the search went somewhere
                 "select -assert-none @follows */o:* %i"):
        libyosys.run_pass(step, design)
