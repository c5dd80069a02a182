"""Tests of rtl/attention/softmax_round.py against cosim/golden/attention.py."""
import cocotb
import numpy as np
from cocotb.triggers import Timer

from cosim.golden import attention as golden
from cosim.golden.formats import Format
from rtl.attention.softmax_round import WeightRounder
from testbenches import sim
from testbenches.pe.unit_bench import seed

ONE, NAN = 0x3F800000, 0x7FC00000
KEPT = {Format.BF16: 7, Format.FP16: 10, Format.E4M3: 3}    # mantissa bits


def weights(format):
    """From 0 to 1: every exponent, codes and halfway between codes, and just beside those."""
    exponents = np.arange(128, dtype=np.uint32)[:, None] << 23
    mantissas = np.random.randint(0, 1 << 23, (128, 3), dtype=np.uint32)
    near = []
    for dropped in range(23 - KEPT[format], 24):    # the more, the deeper a subnormal code
        upper = np.random.randint(0, 1 << (23 - dropped), 128, dtype=np.uint32) << dropped
        half = upper | 1 << (dropped - 1)
        near += [upper, half, half - 1, half + 1, (half | 1 << 23) - 1 & 0x7FFFFF]
    every = exponents | np.concatenate([mantissas, np.array(near, np.uint32).T], 1)
    return np.concatenate([every[every <= ONE], [0, 1, 2, 0x7FFFFF, 0x800000, ONE, NAN]]).astype(
        np.uint32)


@cocotb.test()
@cocotb.parametrize(format=list(KEPT))
async def codes_and_values_are_golden(dut, format):
    seed()
    p = weights(format)
    codes, values = golden.rounded(p, format)
    scaled = golden.sink_weight(p, format)
    codes = codes.astype(int) * (0x101 if format == Format.E4M3 else 1)
    dut.format.value = int(format)
    for given, *wanted in zip(p.tolist(), codes.tolist(), values.tolist(), scaled.tolist(),
                              strict=True):
        dut.p.value = given
        await Timer(1, unit="ns")
        got = [int(port.value) for port in (dut.code, dut.value, dut.scaled)]
        assert got == wanted, f"{given:08x}: {got}, not {wanted}"


def test_softmax_round(tmp_path):
    """On one simulator; the unit's tests have it on both."""
    sim.run(WeightRounder(), test_module=__name__, build_dir=tmp_path,
            simulator=sim.simulators()[0])
