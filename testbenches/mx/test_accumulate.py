"""Tests of rtl/mx/accumulate.py: the cocotb tests, then the pytest function that runs them."""
import random
from fractions import Fraction
from math import inf, nan

import cocotb
import numpy as np
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import Timer

from rtl.mx.accumulate import Fp32Accumulate, Fp32AccumulateShort
from testbenches import sim
from testbenches.golden.oracle import add, bits

SHAPES = {"short": (14, 9, 256), "block": (71, 10, 286), "group": (53, 11, 1050),
          "narrow": (14, 9, 256)}  # width, exponent width, bias
FP32 = [0, 1, 2, 3, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF, 0x01000000, 0x3F800000,
        0x3F800001, 0x3FFFFFFF, 0x7F7FFFFF, 0x7F7FFFFE, 0x7F000000, 0x7F800000, 0x7FC00000,
        0x7F800001, 0x7FFFFFFF]


class Accumulators(wiring.Component):
    """Every form of the accumulator that the cells use, side by side."""

    def __init__(self):
        members = {"acc": In(32), "nan": In(1), "pinf": In(1), "ninf": In(1)}
        for name, (width, exponent_bits, _) in SHAPES.items():
            members |= {f"d_{name}": In(width), f"exponent_{name}": In(exponent_bits),
                        f"o_{name}": Out(32)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        for name, (width, exponent_bits, bias) in SHAPES.items():
            kind = Fp32AccumulateShort if name == "short" else Fp32Accumulate
            m.submodules[name] = unit = kind(width=width, exponent_bits=exponent_bits, bias=bias)
            m.d.comb += [unit.acc.eq(self.acc), unit.nan.eq(self.nan),
                         unit.d.eq(getattr(self, f"d_{name}")),
                         unit.exponent.eq(getattr(self, f"exponent_{name}")),
                         getattr(self, f"o_{name}").eq(unit.o)]
            if kind is Fp32Accumulate:
                m.d.comb += [unit.pinf.eq(self.pinf), unit.ninf.eq(self.ninf)]
        return m


def value(code):
    return float(np.uint32(code).view(np.float32))


def random_fp32(rng):
    match rng.randrange(4):
        case 0:
            code = rng.choice(FP32)
        case 1:
            code = rng.choice(FP32) + rng.randrange(-3, 4)
        case 2:
            code = rng.getrandbits(9) << 22 | (rng.getrandbits(2) << 20 if rng.random() < .5 else 0)
        case _:
            code = rng.getrandbits(31)
    return (max(code, 0) & 0x7FFFFFFF) | rng.getrandbits(1) << 31


def random_integer(rng, width):
    top = (1 << (width - 1)) - 1
    size = rng.getrandbits(rng.randrange(width))
    size = rng.choice([size, size, 1 << rng.randrange(width - 1), 0, top, top - 1])
    size ^= rng.choice([0, 0, 1])
    return min(size, top) * rng.choice([1, -1])


def near(rng, acc, d, shape):
    """An exponent that brings ``d`` near ``acc``, so that they overlap or cancel."""
    width, exponent_bits, bias = shape
    lsb = max(acc >> 23 & 255, 1) - 150 + bias
    place = lsb + 23 - max(d.bit_length() - 1, 0)
    place += rng.choice([0, 0, 1, -1, rng.randrange(-90, 90)])
    return min(max(place, 0), (1 << exponent_bits) - 1)


def cancelling(rng, acc, shape):
    """The integer and exponent that cancel ``acc`` but for the last bits."""
    width, exponent_bits, bias = shape
    lsb = max(acc >> 23 & 255, 1) - 150 + bias
    mantissa = (acc & 0x7FFFFF) | (0x800000 if acc >> 23 & 255 else 0)
    depth = rng.randrange(-10, width - 24) if width > 24 else 24 - width + rng.randrange(1, 10)
    size = mantissa << depth if width > 24 and depth > 0 else mantissa >> abs(depth)
    size = min(max(size + rng.choice([0, 0, 1, -1, 3]), 0), (1 << (width - 1)) - 1)
    place = lsb - depth if width > 24 else lsb + depth
    return size * (1 if acc >> 31 else -1), min(max(place, 0), (1 << exponent_bits) - 1)


def expected(acc, d, place, bias, flags):
    special = nan if flags & 1 or flags & 6 == 6 else inf if flags & 2 else -inf if flags & 4 else 0
    total = special if special else Fraction(d) * Fraction(2) ** (place - bias)
    return bits(add(value(acc), total))


@cocotb.test()
async def sums_are_rounded_once(dut):
    rng = random.Random(1)
    counts = dict.fromkeys(["zero", "subnormal", "inf", "nan"], 0)
    for _ in range(20_000):
        acc = random_fp32(rng)
        flags = rng.choice([0] * 20 + [1, 2, 4, 6, 7, 3])
        dut.acc.value, dut.nan.value = acc, flags & 1
        dut.pinf.value, dut.ninf.value = flags >> 1 & 1, flags >> 2 & 1
        wanted = {}
        for name, shape in SHAPES.items():
            d = random_integer(rng, shape[0])
            place = rng.choice([near(rng, acc, d, shape), rng.getrandbits(shape[1])])
            if rng.random() < 0.3:
                d, place = cancelling(rng, acc, shape)
            getattr(dut, f"d_{name}").value = d & (1 << shape[0]) - 1
            getattr(dut, f"exponent_{name}").value = place
            wanted[name] = expected(acc, d, place, shape[2], flags & (1 if name == "short" else 7))
        await Timer(1, unit="ns")
        for name, code in wanted.items():
            assert int(getattr(dut, f"o_{name}").value) == code, (name, hex(acc), hex(code))
            size = code & 0x7FFFFFFF
            counts["zero"] += size == 0
            counts["subnormal"] += 0 < size < 0x800000
            counts["inf"] += size == 0x7F800000
            counts["nan"] += size > 0x7F800000
    assert min(counts.values()) > 500, counts


@sim.on_simulators
def test_accumulate(tmp_path, simulator):
    sim.run(Accumulators(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
