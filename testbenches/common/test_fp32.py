"""Tests of rtl/common/fp32.py against numpy's float32 and float16 and against ml_dtypes."""
import random

import cocotb
import ml_dtypes
import numpy as np
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import Timer

from rtl.common import fp32
from testbenches import sim

NAN = 0x7FC00000
EDGES = [0, 1, 2, 0x7FFFFF, 0x800000, 0x800001, 0x3F800000, 0x3F7FFFFF, 0x3F800001, 0x7F7FFFFF,
         0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x00400000, 0x40490FDB, 0x33800000,
         0x34000000, 0x4B800000, 0x477FE000, 0x477FF000, 0x477FEFFF, 0x38800000, 0x387FE000,
         0x33000000, 0x33000001, 0x7F7F7FFF, 0x7F7F8000]


class Units(wiring.Component):
    """Every unit of the module side by side."""

    a: In(32)
    b: In(32)
    total: Out(32)
    difference: Out(32)
    product: Out(32)
    larger: Out(32)
    smaller: Out(32)
    bf16: Out(16)
    fp16: Out(16)
    from_bf16: Out(32)
    from_fp16: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.adder = adder = fp32.Adder()
        m.submodules.subtractor = subtractor = fp32.Adder()
        m.submodules.multiplier = multiplier = fp32.Multiplier()
        m.submodules.first = first = fp32.Converter()
        m.submodules.second = second = fp32.Converter()
        for unit in (adder, subtractor, multiplier):
            m.d.comb += [unit.a.eq(self.a), unit.b.eq(self.b)]
        m.d.comb += [
            subtractor.subtract.eq(1), self.total.eq(adder.o), self.difference.eq(subtractor.o),
            self.product.eq(multiplier.o), self.larger.eq(fp32.maximum(self.a, self.b)),
            self.smaller.eq(fp32.maximum(self.a, self.b, minimum=1)),
            self.bf16.eq(fp32.to_bf16(self.a)),
            self.fp16.eq(fp32.to_fp16(m, self.a, name="narrow")),
            first.i.eq(self.a[:16]), first.bf16.eq(1), self.from_bf16.eq(first.o),
            second.i.eq(self.a[:16]), second.fp16.eq(1), self.from_fp16.eq(second.o)]
        return m


def canonical(values):
    """Bits of float32 values, every NaN replaced by the canonical one."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return np.where(np.isnan(values), np.uint32(NAN), bits)


def expected(a, b):
    """What every output has to be, from the patterns of the inputs."""
    x, y = a.view(np.float32), b.view(np.float32)
    low = a.astype(np.uint16)
    nan = np.isnan(x) | np.isnan(y)
    # order of the patterns as sign and magnitude: -0 below +0
    key_a, key_b = (np.where(v >> 31, -(v & 0x7FFFFFFF).astype(np.int64) - 1, v) for v in (a, b))
    with np.errstate(all="ignore"):
        half = x.astype(np.float16)
        brain = x.astype(ml_dtypes.bfloat16)
        return {
            "total": canonical(x + y), "difference": canonical(x - y), "product": canonical(x * y),
            "larger": np.where(nan, NAN, np.where(key_a >= key_b, a, b)),
            "smaller": np.where(nan, NAN, np.where(key_a <= key_b, a, b)),
            "bf16": np.where(np.isnan(x), 0x7FC0, brain.view(np.uint16)),
            "fp16": np.where(np.isnan(x), 0x7E00, half.view(np.uint16)),
            "from_bf16": canonical(low.view(ml_dtypes.bfloat16).astype(np.float32)),
            "from_fp16": canonical(low.view(np.float16).astype(np.float32))}


async def check(dut, a, b):
    a, b = np.asarray(a, np.uint32), np.asarray(b, np.uint32)
    want = {name: [int(v) for v in values] for name, values in expected(a, b).items()}
    for index, (first, second) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        dut.a.value, dut.b.value = first, second
        await Timer(1, "ns")
        for name, values in want.items():
            got = int(getattr(dut, name).value)
            assert got == values[index], \
                f"{name} of {first:08x}, {second:08x}: {got:08x}, not {values[index]:08x}"


@cocotb.test()
async def edge_values_in_every_pair(dut):
    edges = EDGES + [value | 1 << 31 for value in EDGES]
    await check(dut, [a for a in edges for _ in edges], edges * len(edges))


@cocotb.test()
async def random_patterns(dut):
    words = [random.getrandbits(32) for _ in range(2500)]
    await check(dut, words, [random.getrandbits(32) for _ in words])


@cocotb.test()
async def near_exponents_cancel_and_round(dut):
    """Exponents within 30 of each other, with few ones in the mantissas: ties are frequent."""
    def draw(exponent):
        mantissa = random.getrandbits(23) & random.choice([-1, -1 << 11, -1 << 20, 0x400001])
        return random.getrandbits(1) << 31 | min(max(exponent, 0), 254) << 23 | mantissa % (1 << 23)
    a, b = [], []
    for _ in range(2500):
        exponent = random.choice([0, 1, 20, 127, 140, 250, 254])
        a.append(draw(exponent))
        b.append(draw(exponent + random.choice([0, 0, 1, -1, random.randrange(-30, 30)])))
    await check(dut, a, b)


@cocotb.test()
async def products_around_the_smallest_and_largest_numbers(dut):
    a, b = [], []
    for _ in range(2500):
        exponent = random.randrange(0, 255)
        other = min(max(random.choice([127 - exponent, 127 + 254 - exponent])
                        + random.randrange(-26, 4), 0), 254)
        mask = random.choice([-1, -1 << 16])
        a.append(exponent << 23 | random.getrandbits(23) & mask)
        b.append(random.getrandbits(1) << 31 | other << 23 | random.getrandbits(23) & mask)
    await check(dut, np.array(a, np.int64) & 0xFFFFFFFF, np.array(b, np.int64) & 0xFFFFFFFF)


@cocotb.test()
async def half_precision_around_subnormals_and_overflow(dut):
    a = []
    for _ in range(2000):
        mantissa = random.getrandbits(23) & random.choice([-1, -1 << 12, -1 << 13, -1 << 20])
        exponent = random.choice([random.randrange(98, 116), random.randrange(140, 145)])
        a.append(random.getrandbits(1) << 31 | exponent << 23 | mantissa % (1 << 23))
    await check(dut, a, a)


@cocotb.test()
async def every_16_bit_pattern_converts(dut):
    await check(dut, np.arange(0, 65536, 13), np.arange(0, 65536, 13))


@sim.on_simulators
def test_fp32(tmp_path, simulator):
    sim.run(Units(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
