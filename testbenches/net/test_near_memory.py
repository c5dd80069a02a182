"""Tests of rtl/net/near_memory.py against cosim/golden/near_memory.py."""
import random

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from cosim.golden import near_memory as golden
from cosim.golden.formats import SPECS, Format
from cosim.golden.quantise import Rule
from rtl.net.near_memory import LATENCY, NearMemory
from testbenches import sim

LINE_BYTES = 64
MX = (Format.E4M3, Format.E5M2)


def elements(format):
    return LINE_BYTES * 8 // SPECS[format].bits


def draw(format, rng):
    """Codes of a line: any bits, or near each other so that sums cancel and tie, or special."""
    spec, count = SPECS[format], elements(format)
    codes = rng.integers(0, 1 << spec.bits, count, dtype=np.uint64)
    match rng.integers(4):
        case 0:
            exponent = rng.integers(0, 1 << spec.exponent_bits)
            codes &= ~np.uint64(((1 << spec.exponent_bits) - 1) << spec.mantissa_bits)
            codes |= np.uint64(exponent << spec.mantissa_bits)
        case 1:
            small = rng.integers(0, 3, count).astype(np.uint64)
            codes = np.where(rng.random(count) < 0.5, codes & np.uint64(1 << (spec.bits - 1)),
                             small)
        case 2 if spec.bits == 8:       # no NaN and no infinity, which end a whole block
            codes &= ~np.uint64(4 << (spec.mantissa_bits - 1) if format == Format.E4M3
                                else 1 << (spec.bits - 2))
    return codes.astype(spec.code_dtype)


def scales(rng):
    return rng.choice([0, 1, 126, 127, 128, 253, 254, 255, *rng.integers(0, 256, 4)], 2).astype(
        np.uint8)


def pair(format, rng):
    """Operands of a line, the rule, and the golden sums: line and scale bytes."""
    a, b = draw(format, rng), draw(format, rng)
    if rng.random() < 0.2:
        b = a ^ a.dtype.type(1 << (SPECS[format].bits - 1))     # all sums are zero
    sa, sb = scales(rng), scales(rng)
    if rng.random() < 0.6:
        sb = np.clip(sa.astype(int) + rng.integers(-4, 5, 2), 0, 254).astype(np.uint8)
    rule = Rule(int(rng.integers(4)))
    if format in MX:
        codes, out = golden.add_mx(a, sa, b, sb, format, rule)
        codes = codes.astype(np.uint8)
    else:
        codes, out = golden.add(a, b, format), None
    return (a, sa), (b, sb), rule, (codes.tobytes(), None if out is None else out.tobytes())


def number(array):
    return int.from_bytes(array.tobytes(), "little")


async def drive(dut, jobs, gaps):
    """Offers the pairs; returns the cycle in which each was taken."""
    taken, fields = [], NearMemory().i.payload.shape()
    for format, (a, sa), (b, sb), rule in jobs:
        while random.random() < gaps:
            await RisingEdge(dut.clk)
        dut.i__valid.value = 1
        dut.i__payload.value = fields.const({
            "format": int(format), "rule": int(rule), "a": number(a), "b": number(b),
            "scales_a": number(sa), "scales_b": number(sb)}).as_bits()
        while True:
            await RisingEdge(dut.clk)
            if dut.i__ready.value:
                break
        taken.append(cocotb.utils.get_sim_time("ns"))
        dut.i__valid.value = 0
    return taken


async def collect(dut, wanted, stalls):
    came = []
    while len(came) < len(wanted):
        dut.o__ready.value = random.random() >= stalls
        await RisingEdge(dut.clk)
        if not (dut.o__valid.value and dut.o__ready.value):
            continue
        payload, (line, scale) = int(dut.o__payload.value), wanted[len(came)]
        assert (payload & ((1 << 512) - 1)).to_bytes(64, "little") == line, len(came)
        if scale is not None:
            assert (payload >> 512).to_bytes(2, "little") == scale, len(came)
        came.append(cocotb.utils.get_sim_time("ns"))
    return came


async def watch(dut):
    """``active`` is high exactly while lines are under way."""
    under_way = 0
    while True:
        await RisingEdge(dut.clk)
        assert bool(dut.active.value) == bool(under_way)
        under_way += bool(dut.i__valid.value and dut.i__ready.value)
        under_way -= bool(dut.o__valid.value and dut.o__ready.value)


async def run(dut, formats, *, gaps=0.0, stalls=0.0):
    rng = np.random.default_rng(random.getrandbits(32))
    await sim.reset(dut, dut.i__valid, dut.o__ready)
    jobs, wanted = [], []
    for format in formats:
        a, b, rule, want = pair(format, rng)
        jobs.append((format, a, b, rule))
        wanted.append(want)
    watching = cocotb.start_soon(watch(dut))
    taking = cocotb.start_soon(drive(dut, jobs, gaps))
    came = await collect(dut, wanted, stalls)
    taken = await taking
    dut.o__ready.value = 0
    await ClockCycles(dut.clk, 2)
    assert not dut.active.value and not dut.o__valid.value
    watching.cancel()
    return taken, came


@cocotb.test()
@cocotb.parametrize(format=[int(f) for f in golden.FORMATS])
async def sums_are_those_of_the_golden_model(dut, format):
    await run(dut, [Format(format)] * 300)


@cocotb.test()
@cocotb.parametrize(gaps=[0.0, 0.6], stalls=[0.3, 0.8])
async def formats_in_any_order_with_gaps_and_stalls(dut, gaps, stalls):
    await run(dut, random.choices(golden.FORMATS, k=300), gaps=gaps, stalls=stalls)


@cocotb.test()
@cocotb.parametrize(format=[int(f) for f in golden.FORMATS])
async def latency_and_throughput(dut, format):
    """As the docstring says; a clock lasts 2 ns."""
    beats = 2 if format in MX else 1
    taken, came = await run(dut, [Format(format)] * 50)
    assert came[0] - taken[0] == 2 * (LATENCY + beats - 1)
    assert {b - a for a, b in zip(came, came[1:], strict=False)} == {2 * beats}


@sim.on_simulators
def test_near_memory(tmp_path, simulator):
    sim.run(NearMemory(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
