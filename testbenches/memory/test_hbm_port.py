"""Tests of rtl/memory/hbm/channel.py on both simulators: its streams, with constant memory."""
import random

import cocotb
from amaranth.lib.data import StructLayout
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout

from rtl.memory.hbm.channel import (
    HbmChannel,
    channel_request_layout,
    channel_response_layout,
)
from rtl.memory.hbm.counters import counters_layout
from rtl.pe.interfaces import AccessError
from testbenches import sim

NAME_BITS, ROWS = 8, 3       # rows need not be a power of two
LINES = ROWS * 256
REQUEST: StructLayout = channel_request_layout(name_bits=NAME_BITS)
RESPONSE: StructLayout = channel_response_layout(name_bits=NAME_BITS)


def field(layout, name, value):
    """The field of a payload."""
    return int(value) >> layout[name].offset & (1 << layout[name].width) - 1


async def start(dut, hbm_period=11):
    cocotb.start_soon(Clock(dut.hbm_clk, hbm_period, unit="ns").start())
    await sim.reset(dut, dut.request__valid, dut.response__ready, dut.read_data,
                    dut.hbm_skipped, period_ns=10)


async def exchange(dut, requests, ready=1.0):
    """Send requests, dicts of fields; gives the answers by name."""
    answers = {}

    async def receive():
        while len(answers) < len(requests):
            await RisingEdge(dut.clk)
            if dut.response__valid.value and dut.response__ready.value:
                payload = dut.response__payload.value
                name = field(RESPONSE, "name", payload)
                assert name not in answers
                answers[name] = {key: field(RESPONSE, key, payload) for key, _ in RESPONSE}
            dut.response__ready.value = random.random() < ready

    receiver = cocotb.start_soon(receive())
    await RisingEdge(dut.clk)
    for name, request in enumerate(requests):
        dut.request__payload.value = sum(
            value << REQUEST[key].offset for key, value in (request | {"name": name}).items())
        dut.request__valid.value = 1
        await RisingEdge(dut.clk)
        while not dut.request__ready.value:
            await RisingEdge(dut.clk)
        dut.request__valid.value = 0
    await with_timeout(receiver, 400, "us")
    dut.response__ready.value = 0
    return [answers[name] for name in range(len(requests))]


@cocotb.test()
async def every_request_is_answered_once(dut):
    """Reads, whole and partial writes, requests past the end, of registers."""
    await start(dut)
    requests = []
    for _ in range(120):
        line = random.choice((0, 1, LINES - 1, LINES, LINES + 5, (1 << 30) - 1,
                              random.randrange(LINES)))
        requests.append({"line": line, "write": random.getrandbits(1),
                         "registers": int(random.random() < 0.2),
                         "mask": random.choice((0, 1, (1 << 64) - 1)), "data": 0})
    for request, answer in zip(requests, await exchange(dut, requests, 0.5), strict=True):
        refused = ((request["line"] != 0 or request["write"]) if request["registers"]
                   else request["line"] >= LINES)
        assert answer["write"] == request["write"]
        assert answer["error"] == (AccessError.ADDRESS if refused else AccessError.NONE).value
        if not (refused or request["write"] or request["registers"]):
            assert answer["data"] == 0


@cocotb.test()
async def a_word_that_is_none_is_poison(dut):
    """Two wrong bits, or the mark, in any access."""
    await start(dut)
    for pins in (0b11, 1 << 256 | 1, 0x3F << 266, 0x7 << 266):
        dut.read_data.value = pins
        answers = await exchange(dut, [{"line": n} for n in range(20)])
        assert all(answer["error"] == AccessError.POISON.value for answer in answers)
    for pins in (1, 1 << 255, 1 << 260, 1 << 266, 0x3 << 266):
        dut.read_data.value = pins
        answers = await exchange(dut, [{"line": n} for n in range(20)])
        assert all(answer["error"] == 0 and answer["data"] == 0 for answer in answers)
    line, = await exchange(dut, [{"registers": 1}])
    layout = counters_layout()
    assert field(layout, "corrected", line["data"]) == 5 * 40
    assert field(layout, "uncorrectable", line["data"]) == 4 * 40


@cocotb.test()
@cocotb.parametrize(hbm_period=[4, 9, 30])
async def reset_forgets_all_that_is_under_way(dut, hbm_period):
    """At every depth of the pipeline; nothing comes out but what is asked for then."""
    await start(dut, hbm_period)
    full = (1 << 64) - 1
    for after in range(0, 200, 9):
        for n in range(4):
            dut.request__payload.value = sum(value << REQUEST[key].offset for key, value in {
                "line": 3 * n, "name": 99, "write": n & 1, "mask": full}.items())
            dut.request__valid.value = 1
            await RisingEdge(dut.clk)
        dut.request__valid.value = 0
        for _ in range(after):
            await RisingEdge(dut.clk)
        dut.rst.value = 1
        for _ in range(6):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
        answers = await exchange(dut, [{"line": n, "write": n % 3 == 0, "mask": full}
                                       for n in range(9)])
        assert all(answer["error"] == 0 for answer in answers)


@sim.on_simulators
def test_hbm_port(tmp_path, simulator):
    sim.run(HbmChannel(rows=ROWS, depth=4, name_bits=NAME_BITS), test_module=__name__,
            build_dir=tmp_path, simulator=simulator)
