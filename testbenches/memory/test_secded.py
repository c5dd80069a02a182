"""Tests of rtl/memory/secded.py against cosim/golden/secded.py."""
import random

import cocotb
import numpy as np
import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import Timer

from cosim.golden import secded as golden
from rtl.memory.secded import SecdedDecoder, check_bits, columns, encode
from testbenches import sim


class Bench(wiring.Component):
    """An encoder and a decoder side by side."""

    def __init__(self, data_bits):
        self.decoder = SecdedDecoder(data_bits=data_bits)
        super().__init__({"encoded": In(data_bits), "bits": Out(check_bits(data_bits)),
                          **dict(self.decoder.signature.members)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = self.decoder
        m.d.comb += [self.bits.eq(encode(self.encoded)), decoder.word.eq(self.word),
                     decoder.check.eq(self.check), self.o.eq(decoder.o),
                     self.corrected.eq(decoder.corrected),
                     self.uncorrectable.eq(decoder.uncorrectable)]
        return m


def number(bits):
    return int("".join(str(b) for b in bits[::-1]), 2)


@cocotb.test()
async def wrong_bits_are_found_as_the_model_finds_them(dut):
    """No, one (each once), two or more wrong bits in random words."""
    width, extra = len(dut.word), len(dut.check)
    rng = np.random.default_rng(random.getrandbits(32))
    flips = [(), *((n,) for n in range(width + extra)),
             *(tuple(rng.choice(width + extra, count, replace=False))
               for count in (0, 2, 2, 2, 2, 3, 4) for _ in range(40))]
    for wrong in flips:
        word = rng.integers(0, 2, width)
        stored = np.concatenate([word, golden.encode(word)])
        dut.encoded.value = number(word)
        for bit in wrong:
            stored[bit] ^= 1
        dut.word.value, dut.check.value = number(stored[:width]), number(stored[width:])
        await Timer(1, unit="ns")
        assert dut.bits.value == number(golden.encode(word))
        read, verdict = golden.decode(stored[:width], stored[width:])
        assert dut.o.value == number(read)
        assert dut.corrected.value == (verdict == golden.Verdict.CORRECTED)
        assert dut.uncorrectable.value == (verdict == golden.Verdict.UNCORRECTABLE)
        if len(wrong) < 2:
            assert dut.o.value == number(word) and dut.corrected.value == len(wrong)
        elif len(wrong) == 2:
            assert dut.uncorrectable.value


@sim.on_simulators
@pytest.mark.parametrize("data_bits", [5, 64, 256])
def test_secded(tmp_path, data_bits, simulator):
    sim.run(Bench(data_bits), test_module=__name__, build_dir=tmp_path, simulator=simulator)


@pytest.mark.parametrize("data_bits", [1, 4, 5, 64, 256])
def test_columns_are_those_of_the_model(data_bits):
    matrix = golden.parity_check(data_bits)
    assert check_bits(data_bits) == len(matrix)
    assert list(columns(data_bits)) == [number(column) for column in matrix.T[:data_bits]]
