"""Tests of how programs of rtl/net/engine.py end: errors, aborts, watchdog, the next program."""
import random

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from cosim.golden.message_engine import Code, Kind, Report, encode, encode_program
from rtl.net.engine import MessageEngine
from rtl.net.interfaces import Status
from testbenches import sim
from testbenches.net.engine_bench import DOORBELLS, LINE, PORT, SIZE, Bench, Image, agree

COPY = {"kind": Kind.COPY, "length": 300, "local": 0x1000, "remote": 0x2003}
REDUCE = {"kind": Kind.REDUCE, "format": 0, "length": 256, "local": 0x1000, "remote": 0x2004,
          "third": 0x3000}
BLOCKS = REDUCE | {"format": 3, "remote": 0x2000, "scales_s": 0x4000, "scales_a": 0x5000,
                   "scales_b": 0x6000}
WAIT = {"kind": Kind.WAIT, "local": 0x1004, "local_key": 0}
SET = {"kind": Kind.SET, "local": 0x1008, "immediate": 5}
WRITE = {"kind": Kind.WRITE, "length": 64, "local": 0x1000, "remote": 0x2000, "third": DOORBELLS}
RECV = WRITE | {"kind": Kind.RECV, "third": DOORBELLS + LINE}
FINE = (COPY, REDUCE, BLOCKS, BLOCKS | {"kind": Kind.COPY}, WAIT, SET, WRITE)
HIGH = 1 << 48

WRONG = {       # what is wrong, and the field that the report names; None: BAD_COMMAND
    "no kind": ({"kind": 0}, None), "unknown kind": ({"kind": 5}, None),
    "kind past the last": ({"kind": 0x25}, None),
    "format of blocks of 4 bits": (COPY | {"format": 5}, 0),
    "unknown format": (REDUCE | {"format": 15}, 0),
    "S not at a line": (COPY | {"local": 0x1020}, 2), "S too high": (COPY | {"local": HIGH}, 3),
    "A too high": (REDUCE | {"remote": HIGH}, 5), "B too high": (REDUCE | {"third": HIGH}, 7),
    "part of an FP32": (REDUCE | {"length": 254}, 1),
    "part of a BF16": (REDUCE | {"format": 1, "length": 255}, 1),
    "part of a block": (BLOCKS | {"length": 48}, 1),
    "part of a block to copy": (BLOCKS | {"kind": Kind.COPY, "length": 48}, 1),
    "A of blocks not at a line": (BLOCKS | {"remote": 0x2020}, 4),
    "B of blocks not at a line": (BLOCKS | {"third": 0x3020}, 6),
    "unknown rule": (BLOCKS | {"rule": 4}, 11),
    "scales of S not at a line": (BLOCKS | {"scales_s": 0x4002}, 12),
    "scales of A not at a line": (BLOCKS | {"scales_a": 0x5020}, 13),
    "scales of B not at a line": (BLOCKS | {"scales_b": 0x6001}, 14),
    "two words are wrong": (BLOCKS | {"remote": 0x2020, "rule": 9}, 4),
    "a word to wait for not at 4 bytes": (WAIT | {"local": 0x1002}, 2),
    "a word to wait for too high": (WAIT | {"local": HIGH}, 3),
    "unknown comparison": (WAIT | {"compare": 4}, 0),
    "a word to set not at 4 bytes": (SET | {"local": 0x1009}, 2),
    "a word to set too high": (SET | {"local": HIGH << 3}, 3),
    "a doorbell not at a line": (WRITE | {"third": DOORBELLS + 8}, 6),
    "a doorbell too high": (RECV | {"third": HIGH}, 7),
}


def image_with(*subgraphs):
    """Memory and the program of lists of fields."""
    image = Image(np.random.default_rng(random.getrandbits(32)))
    return image, image.program(*([encode(**fields) for fields in entries]
                                  for entries in subgraphs))


async def begun(dut, **options):
    bench = Bench(dut, **options)
    await bench.start()
    return bench


async def works(bench):
    """A program of all sorts runs to its end, whatever was before."""
    image, program = image_with([*FINE, WAIT | {"sync": 1}], [RECV, RECV | {"kind": Kind.SEND}])
    bench.waiting.clear()
    bench.transfers.sends.clear()
    bench.transfers.receives.clear()
    bench.silent = False
    image.copy_to(bench.memory)
    assert (await bench.run(program, watchdog=5000)).code == Code.OK


@cocotb.test()
@cocotb.parametrize(name=list(WRONG))
async def wrong_entries_are_refused_with_their_field(dut, name):
    """When they are to start: what is before them has been done."""
    fields, word = WRONG[name]
    bench = await begun(dut)
    image, program = image_with([SET, fields | {"sync": 1}, SET | {"local": 0x1040}])
    report = await agree(bench, image, program, code=Code.BAD_FIELD if word is not None
                         else Code.BAD_COMMAND)
    assert report.tag == 1 and report.field == (word or 0)
    await works(bench)


TABLES = {
    "no subgraph": (encode_program([]), 0, 0),
    "too many": ((8).to_bytes(64, "little"), 0, 0),
    "far too many": ((1 << 31 | 1).to_bytes(64, "little"), 0, 0),
    "no entry": (encode_program([(0x1000, 1), (0x2000, 0)]), 1 << 12, 5),
    "not at a line": (encode_program([(0x1000, 1), (0x1000, 1), (0x2020, 1)]), 2 << 12, 6)}


@cocotb.test()
@cocotb.parametrize(name=list(TABLES))
async def wrong_programs_are_refused(dut, name):
    table, tag, word = TABLES[name]
    bench = await begun(dut)
    image, _ = image_with([SET])
    image.memory.write(0x1000, encode(**RECV))
    image.copy_to(bench.memory)
    program = image.place(table)
    image.copy_to(bench.memory)
    assert await bench.run(program) == Report(Code.BAD_FIELD, tag, word)
    assert image.run(program) == Report(Code.BAD_FIELD, tag, word)
    await works(bench)


@cocotb.test()
async def a_program_must_be_at_a_line(dut):
    bench = await begun(dut)
    image, program = image_with([SET])
    image.copy_to(bench.memory)
    assert await bench.run(program + 32) == image.run(program + 32) == Report(Code.BAD_FIELD)
    assert not bench.memory.requests


PLACES = {      # entry, and the address that cannot be accessed
    "A": (COPY, 0x2080), "last of A": (COPY, 0x2100), "S": (COPY, 0x1040), "B": (REDUCE, 0x3040),
    "scales of S": (BLOCKS, 0x5000), "scales of A": (BLOCKS, 0x7000),
    "scales of B": (BLOCKS, 0x9000), "a word": (WAIT, 0x1000), "a word to set": (SET, 0x1000),
    "a doorbell": (WRITE, DOORBELLS)}


@cocotb.test()
@cocotb.parametrize(name=list(PLACES), code=[4, 6, 8])
async def errors_of_memory_are_told_with_their_address(dut, name, code):
    fields, address = PLACES[name]
    bench = await begun(dut, latency=(1, 30))
    image, program = image_with([WAIT | {"local": 0x800}] * 2 + [fields | {"sync": 1}], [RECV])
    image.memory.errors[address // LINE] = Code(code)
    image.copy_to(bench.memory)
    report = await bench.run(program)
    assert report == Report(Code(code), 2, 0, address) == image.run(program)
    assert not bench.memory.pending
    await works(bench)


@cocotb.test()
@cocotb.parametrize(code=[4, 6, 8])
async def programs_that_cannot_be_read(dut, code):
    bench = await begun(dut)
    image, program = image_with([SET], [WAIT, WAIT, WAIT, SET])
    entry = program - 4 * LINE + 2 * LINE
    for line, tag in ((program, 0), (entry, 1 << 12 | 2)):
        image.memory.errors = {line // LINE: Code(code)}
        image.copy_to(bench.memory)
        assert await bench.run(program) == Report(Code(code), tag, 0, line)
    assert image.run(program) == Report(Code(code), 1 << 12 | 2, 0, entry)
    image, program = image_with([SET])
    program = image.place(encode_program([(SIZE, 1)]))
    image.copy_to(bench.memory)
    assert await bench.run(program) == image.run(program) == Report(Code.BAD_ADDRESS, 0, 0, SIZE)
    await works(bench)


@cocotb.test()
@cocotb.parametrize(status=[s.value for s in Status if s.value])
async def a_bad_status_ends_the_program(dut, status):
    """The entry has 12 bits of its number in the report, of which a completion has 8."""
    bench = await begun(dut, latency=(1, 4), rate=1.0)
    before = [SET] * (300 if status == 1 else 3)
    image, program = image_with([RECV], [*before, RECV, RECV])
    image.copy_to(bench.memory)
    bench.silent = True
    await bench.launch(program)
    while len(bench.doorbells) < 3:
        await RisingEdge(dut.clk)
    await bench.settle(60)
    bench.complete(1 << 12 | 1 << 8 | len(before) & 0xFF, status=status, address=0x1234567890)
    bench.epoch = 1
    assert await bench.report() == Report(Code.NETWORK, 1 << 12 | len(before), status, 0x1234567890)
    await works(bench)


@cocotb.test()
async def completions_of_others_are_dropped_and_counted(dut):
    bench = await begun(dut)
    image, program = image_with([RECV, RECV, COPY | {"sync": 1}])
    image.copy_to(bench.memory)
    bench.silent = True
    bench.complete(0)                                   # nothing ran yet
    await bench.settle(50)
    await bench.launch(program)
    await bench.settle(300)
    for epoch in (0, 2, 9):
        bench.complete(epoch << 12, status=3)
    for cookie in (1 << 11, 1 << 8, 2, 0x7 << 8 | 1):   # no such subgraph, or entry
        bench.complete(1 << 12 | cookie, status=4)
    bench.complete(1 << 12 | 1)
    await bench.settle(100)
    bench.complete(1 << 12 | 1, status=1)               # it has ended
    await bench.settle(100)
    assert not dut.report__valid.value
    bench.complete(1 << 12)
    assert (await bench.report()).code == Code.OK
    bench.complete(1 << 12)
    await bench.settle(50)
    _, words = await bench.read(0)
    assert list(words[:9]) == [1, 0, 3, 5, 5, 2, 12, 6, 4], words


@cocotb.test()
async def a_completion_ends_no_entry_that_is_not_the_nics(dut):
    bench = await begun(dut)
    image, program = image_with([WAIT | {"local_key": 1, "immediate": 2}])
    image.copy_to(bench.memory)
    await bench.launch(program)
    await bench.settle(100)
    bench.complete(1 << 12)
    await bench.settle(100)
    assert not dut.report__valid.value
    await bench.pulse(dut.abort)
    assert await bench.report() == Report(Code.ABORTED)


@cocotb.test()
@cocotb.parametrize(case=["move", "wait", "receive", "barrier", "fetch"])
async def an_abort_ends_the_program_when_all_is_answered(dut, case):
    bench = await begun(dut, latency=(20, 60))
    bench.barriers, bench.silent = (1 << 30, 1 << 30), True
    entry = {"move": COPY | {"length": 0x8000, "local": 0x8000, "remote": 0x10001},
             "wait": WAIT | {"local_key": 1, "immediate": 2}, "receive": RECV,
             "barrier": {"kind": Kind.ARRIVE}, "fetch": SET}[case]
    for _ in range(6):
        image, program = image_with([entry, SET | {"sync": 1}], [entry] * 3)
        image.copy_to(bench.memory)
        while not dut.idle.value:
            await RisingEdge(dut.clk)
        await bench.launch(program)
        await bench.settle(bench.rng.randint(1, 30 if case == "fetch" else 400))
        await bench.pulse(dut.abort)
        report = await bench.report()
        assert report == Report(Code.ABORTED) or case == "fetch" and report == Report(), report
        assert not bench.memory.pending
        bench.opens.clear()
    bench.epoch, bench.barriers = 6, (1, 9)
    await works(bench)


@cocotb.test()
async def an_abort_before_the_start_ends_that_program(dut):
    bench = await begun(dut)
    image, program = image_with([SET])
    image.copy_to(bench.memory)
    await bench.pulse(dut.abort)                        # nothing runs: nothing happens
    await bench.launch(program, go=False)
    dut.go.value = dut.abort.value = 1
    await RisingEdge(dut.clk)
    dut.go.value = dut.abort.value = 0
    assert await bench.report() == Report(Code.ABORTED)
    assert all(not write for _, _, write in bench.memory.requests)
    await bench.settle(300)
    assert not dut.report__valid.value
    assert (await bench.run(program)).code == Code.OK


@cocotb.test()
async def the_next_program_waits_for_its_go_and_may_be_dropped(dut):
    bench = await begun(dut)
    image, slow = image_with([RECV])
    program = image.program([encode(**SET)])
    image.copy_to(bench.memory)
    bench.silent = True
    await bench.launch(slow)
    await bench.launch(program, go=False)               # taken while one runs
    await ClockCycles(dut.clk, 3)
    assert not dut.launch__ready.value
    await bench.pulse(dut.drop)
    await bench.launch(program, go=False)
    await bench.settle(200)
    bench.complete(1 << 12)
    assert (await bench.report()).code == Code.OK
    await bench.settle(300)
    assert bench.memory.load(0x1008, 4) != b"\5\0\0\0" and not dut.report__valid.value
    await bench.pulse(dut.go)
    assert (await bench.report()).code == Code.OK
    assert bench.memory.load(0x1008, 4) == b"\5\0\0\0"


@cocotb.test()
async def the_watchdog_names_the_entry_that_is_waited_for(dut):
    bench = await begun(dut)
    never = WAIT | {"local_key": 1, "immediate": 2}
    programs = [        # and the entry
        ([[SET, never, SET | {"sync": 1}]], 1),
        ([[SET], [never, SET, RECV]], 1 << 12),
        ([[SET] * 5, [SET, RECV, *[SET] * 20, never]], 1 << 12 | 1),
        ([[RECV] * 17], 0),
        ([[SET] * 301 + [RECV, SET | {"fence": 1}, WRITE | {"sync": 1}]], 301),
    ]
    bench.silent = True
    for subgraphs, tag in programs:
        image, program = image_with(*subgraphs)
        image.copy_to(bench.memory)
        report = await bench.run(program, watchdog=500)
        assert report == Report(Code.WATCHDOG, tag), report
        assert image.run(program) == report
    await works(bench)


@cocotb.test()
async def the_watchdog_waits_as_long_as_it_was_told(dut):
    bench = await begun(dut, rate=1.0)
    bench.silent = True
    image, program = image_with([RECV, RECV])
    image.copy_to(bench.memory)
    await bench.launch(program, watchdog=700)
    await bench.settle(400)
    bench.complete(1 << 12)                             # an entry ends: it starts again
    while not bench.answers:
        await RisingEdge(dut.clk)
    since = bench.memory.now
    assert await bench.report() == Report(Code.WATCHDOG, 1)
    assert 695 <= bench.memory.now - since <= 1000
    await bench.launch(program, watchdog=0)             # 65536
    since = bench.memory.now
    assert await bench.report() == Report(Code.WATCHDOG, 0)
    assert 65536 <= bench.memory.now - since <= 66400


@cocotb.test()
@cocotb.parametrize(case=["move", "barrier"])
async def the_watchdog_lets_long_moves_and_barriers_be(dut, case):
    bench = await begun(dut)
    bench.barriers = (2000, 2000)
    image, program = image_with([{"move": COPY | {"length": 0x8000, "local": 0x8000,
                                                  "remote": 0x10001},
                                  "barrier": {"kind": Kind.ARRIVE}}[case]])
    image.copy_to(bench.memory)
    assert (await bench.run(program, watchdog=150)).code == Code.OK


@cocotb.test()
async def the_watchdog_ends_a_move_of_which_nothing_comes(dut):
    """The report waits for the memory; then the next program can start."""
    bench = await begun(dut)
    image, program = image_with([COPY])
    image.copy_to(bench.memory)
    bench.memory.frozen_lines = {0x2040 // LINE}
    await bench.launch(program, watchdog=300)
    await bench.settle(1500)
    assert not dut.report__valid.value and len(bench.memory.pending) == 1
    bench.memory.pending = [(0, *rest) for _, *rest in bench.memory.pending]
    assert await bench.report() == Report(Code.WATCHDOG, 0)
    bench.memory.frozen_lines, bench.epoch = set(), 1
    await works(bench)


@cocotb.test()
async def the_window_refuses_all_else(dut):
    bench = await begun(dut)
    for offset, write, good in ((0, 0, 1), (0x40, 0, 1), (0x80, 0, 0), (0, 1, 0), (0x40, 1, 0),
                                (PORT, 0, 0), (PORT, 1, 1), (PORT + 0x40, 1, 0), (0xFC0, 1, 0)):
        bench.outbox.append((0x6123450000 << 8 | offset, write, 0))
        count = len(bench.answers)
        while len(bench.answers) == count:
            await RisingEdge(dut.clk)
        assert bench.answers[-1].write == write
        assert (bench.answers[-1].error.value == 0) == good, hex(offset)


@cocotb.test()
async def the_window_shows_what_runs_and_how_the_last_ended(dut):
    bench = await begun(dut)
    bench.silent = True
    image, program = image_with([RECV, RECV, SET, RECV | {"sync": 1}], [SET, RECV])
    image.copy_to(bench.memory)
    await bench.launch(program)
    await bench.settle(400)
    _, words = await bench.read(0x40)
    assert words[0] == 1 << 8 | 1 and list(words[1:4]) == [2 << 16 | 3, 1 << 16 | 2, 0]
    bench.complete(1 << 12 | 1 << 8 | 1, status=6, address=0x123456789A)
    assert (await bench.report()).code == Code.NETWORK
    _, words = await bench.read(0x40)
    assert words[8] == Code.NETWORK | 6 << 8 | 0x1001 << 16
    assert words[0] == 1 and int(words[9]) | int(words[10]) << 32 == 0x123456789A
    _, words = await bench.read(0)
    assert list(words[:3]) == [1, 1, 3]


@sim.on_simulators
def test_engine_errors(tmp_path, simulator):
    sim.run(MessageEngine(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
