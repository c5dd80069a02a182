"""Tests of rtl/host/realigner.py."""
import random

import cocotb
from cocotb.triggers import RisingEdge

from rtl.host.realigner import Realigner
from testbenches import sim


async def shift(dut, *, source, target, payload, bad=None, percent=70):
    """Run one shift; returns the target lines as ``(data, mask, last, error)`` and the cycles."""
    raw = random.randbytes(source) + payload
    raw += random.randbytes(-len(raw) % 64)
    lines, got, cycles = [raw[n:n + 64] for n in range(0, len(raw), 64)], [], 0
    index, started = 0, False
    dut.start__payload.value = source | target << 6 | len(payload) << 12
    dut.start__valid.value = 1
    while not (got and got[-1][2]):
        await RisingEdge(dut.clk)
        cycles += 1
        if dut.start__valid.value and dut.start__ready.value:
            started, dut.start__valid.value = True, 0
        if dut.i__valid.value and dut.i__ready.value:
            index += 1
            dut.i__valid.value = 0
        if dut.o__valid.value and dut.o__ready.value:
            word = int(dut.o__payload.value)
            got.append(((word & (1 << 512) - 1).to_bytes(64, "little"),
                        word >> 512 & (1 << 64) - 1, word >> 576 & 1, word >> 577))
        if started and index < len(lines) and (random.randrange(100) < percent
                                               or dut.i__valid.value):
            dut.i__valid.value = 1
            dut.i__payload.value = int.from_bytes(lines[index], "little") | (index == bad) << 512
        dut.o__ready.value = random.randrange(100) < percent
        assert cycles < 2000
    assert index == len(lines), "lines of the source were left, or taken from the next run"
    return got, cycles


def bytes_of(got):
    return bytes(line[n] for line, mask, _, _ in got for n in range(64) if mask >> n & 1)


@cocotb.test()
async def every_pair_of_offsets_keeps_the_bytes(dut):
    await sim.reset(dut, dut.start__valid, dut.i__valid, dut.o__ready)
    for run in range(220):
        source, target = random.randrange(64), random.randrange(64)
        if run % 4 == 0:
            target = source
        length = random.choice([1, 2, 63, 64, 65, 128, random.randrange(1, 400)])
        payload = random.randbytes(length)
        got, _ = await shift(dut, source=source, target=target, payload=payload)
        assert bytes_of(got) == payload
        assert len(got) == (target + length + 63) // 64
        masks = "".join(format(mask, "064b")[::-1] for _, mask, _, _ in got)
        assert masks == "0" * target + "1" * length + "0" * (-(target + length) % 64)
        assert [last for _, _, last, _ in got] == [0] * (len(got) - 1) + [1]
        assert not any(error for *_, error in got)


@cocotb.test()
async def error_holds_from_the_first_line_with_its_bytes(dut):
    await sim.reset(dut, dut.start__valid, dut.i__valid, dut.o__ready)
    for _ in range(60):
        source, target = random.randrange(64), random.randrange(64)
        target = random.choice([source, target])
        payload = random.randbytes(random.randrange(65, 500))
        bad = random.randrange((source + len(payload) + 63) // 64)
        got, _ = await shift(dut, source=source, target=target, payload=payload, bad=bad)
        first = (max(bad * 64 - source, 0) + target) // 64
        assert [error for *_, error in got] == [int(n >= first) for n in range(len(got))]


@cocotb.test()
async def throughput_is_a_line_a_cycle(dut):
    for source, target in ((0, 0), (5, 60), (60, 5)):
        await sim.reset(dut, dut.start__valid, dut.i__valid, dut.o__ready)
        payload = random.randbytes(64 * 30)
        got, cycles = await shift(dut, source=source, target=target, payload=payload, percent=100)
        assert bytes_of(got) == payload and cycles <= 30 + 8


@sim.on_simulators
def test_realigner(tmp_path, simulator):
    sim.run(Realigner(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
