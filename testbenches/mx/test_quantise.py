"""Tests of rtl/mx/quantise.py against cosim/golden/quantise.py."""
import random

import cocotb
import numpy as np
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import Timer

from cosim.golden import quantise as golden
from rtl.mx.formats import Format
from rtl.mx.quantise import BlockScale, ElementQuantiser, Mixer, Rule
from testbenches import sim

FORMATS = [3, 4, 5]


class Quantiser(wiring.Component):
    """Scale of one magnitude, code of one element, hash of one place."""

    x: In(32)
    scale: In(8)
    format: In(Format)
    rule: In(Rule)
    stochastic: In(1)
    place: In(32)
    code: Out(8)
    block: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.scale = scale = BlockScale()
        m.submodules.element = element = ElementQuantiser()
        m.submodules.mixer = mixer = Mixer()
        m.d.comb += [
            scale.magnitude.eq(self.x[:31]), scale.format.eq(self.format),
            scale.rule.eq(self.rule), self.block.eq(scale.o), mixer.i.eq(self.place),
            element.x.eq(self.x), element.scale.eq(self.scale), element.format.eq(self.format),
            element.stochastic.eq(self.stochastic), element.random.eq(mixer.o[9:]),
            self.code.eq(element.o)]
        return m


def draw(count):
    """FP32 patterns of all kinds: any bits, few bits (ties), subnormal."""
    words = []
    for _ in range(count):
        mantissa = random.getrandbits(23) & random.choice(
            [-1, -1 << 19, -1 << 20, -1 << 21, -1 << 22, (-1 << 19) | 1])
        exponent = random.choice([0, 1, 2, 127, random.randrange(255)])
        words.append(random.getrandbits(1) << 31 | exponent << 23 | mantissa % (1 << 23))
    return np.array(words, np.uint32)


async def check(dut, values, scales, format, places, *, stochastic):
    bits = (golden.mix(places) >> np.uint32(9)).astype(np.int64) if stochastic else None
    codes = golden.round_elements(values, scales, format, bits)
    dut.format.value, dut.stochastic.value = format, int(stochastic)
    for value, scale, place, code in zip(values.tolist(), scales.tolist(), places.tolist(),
                                         codes.tolist(), strict=True):
        dut.x.value, dut.scale.value, dut.place.value = value, scale, place
        await Timer(1, "ns")
        assert dut.code.value == code, f"{value:08x} at scale {scale}"


@cocotb.test()
@cocotb.parametrize(format=FORMATS, stochastic=[False, True])
async def elements_round_as_the_golden_model(dut, format, stochastic):
    values = draw(1500)
    field = (values >> 23 & 0xFF).astype(np.int64)
    shift = np.random.default_rng(random.getrandbits(32)).integers(-20, 24, len(values))
    places = np.array([random.getrandbits(32) for _ in values], np.uint32)
    await check(dut, values, np.clip(field + shift, 0, 254), format, places,
                stochastic=stochastic)


@cocotb.test()
@cocotb.parametrize(format=FORMATS)
async def elements_at_any_scale(dut, format):
    values = draw(600)
    scales = np.array([random.choice([0, 1, 254, random.randrange(255)]) for _ in values])
    await check(dut, values, scales, format, values, stochastic=False)


@cocotb.test()
@cocotb.parametrize(format=FORMATS)
async def a_hair_beside_a_tie_decides(dut, format):
    """Ties at every exponent down to below the smallest subnormal, and their neighbours."""
    words = [(127 - e << 23 | m << 19) + hair for e in range(-3, 22) for m in range(16)
             for hair in (-1, 0, 1)]
    values = np.array(words, np.uint32)
    await check(dut, values, np.full(len(words), 127), format, values, stochastic=False)


@cocotb.test()
async def a_block_with_a_nan_scale_has_zero_codes(dut):
    dut.scale.value, dut.stochastic.value = 0xFF, 0
    for value in (0x7FC00000, 0xFF800000, 0xBF800000):
        for format in FORMATS:
            dut.x.value, dut.format.value = value, format
            await Timer(1, "ns")
            assert dut.code.value == 0


@cocotb.test()
@cocotb.parametrize(format=FORMATS, rule=[0, 1, 2, 3])
async def scales_follow_the_rules(dut, format, rule):
    edges = [0, 1, 0x3FFFFF, 0x400000, 0x400001, 0x5FFFFF, 0x600000, 0x600001, 0x6FFFFF, 0x700000,
             0x77FFFF, 0x780000, 0x7FFFFF]
    values = [e << 23 | random.choice(edges) for e in range(256)]
    values += [e << 23 | m for e in (0, 1, 2, 8, 9, 15, 16, 127, 254, 255) for m in edges]
    block = np.zeros((len(values), 32), np.uint32)
    block[:, 0] = values
    want = golden.scale_bytes(block, format, rule).tolist()
    dut.format.value, dut.rule.value = format, rule
    for value, scale in zip(values, want, strict=True):
        dut.x.value = value | random.getrandbits(1) << 31
        await Timer(1, "ns")
        assert dut.block.value == scale, f"{value:08x}"


@sim.on_simulators
def test_quantise(tmp_path, simulator):
    sim.run(Quantiser(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
