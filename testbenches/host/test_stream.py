"""Tests of host/kernels/stream.py on golden machines."""
import numpy as np
import pytest

from cosim.golden import formats as golden
from cosim.golden import simd
from host.driver import Device
from host.isa import Format, Region
from host.kernels.stream import (
    PIECE_RUNS,
    RUN_LINES,
    add,
    elements_of,
    maxima,
    maxima_places,
    request_shape,
)
from testbenches.host_fake import Configuration, FakePackage

PIECE = RUN_LINES * PIECE_RUNS


@pytest.mark.parametrize("form", [Format.BF16, Format.FP16, Format.FP32])
@pytest.mark.parametrize("lines", [1, RUN_LINES, 3 * RUN_LINES + 5, 4 * PIECE, 9 * PIECE + 5])
def test_sum_of_any_length(form, lines):
    """Every element, and nothing past the last line."""
    device, rng = Device(FakePackage(Configuration(dies=1, pes=4))), np.random.default_rng(lines)
    count = lines * elements_of(form) - 3 * (lines > 1)
    codes = [rng.integers(0, 1 << form.bits, count, dtype=np.uint64).astype(f"<u{form.bits // 8}")
             for _ in range(2)]
    places = [device.alloc(0, count * form.bits // 8, Region.HBM) for _ in range(3)]
    guard = device.alloc(0, 64, Region.HBM)
    device.write(guard, np.full(64, 77, np.uint8))
    for at, data in zip(places, codes, strict=False):
        device.write(at, data)
    device.launch(0, add(*places, count, pes=device.pes, form=form)).wait()
    got = device.read(places[2], count * form.bits // 8).view(codes[0].dtype)
    kind = golden.Format(form)
    wanted = simd.simd(codes[0][None], codes[1][None], format0=kind, format1=kind,
                       operation=simd.Operation.ADD, destination=kind)[0]
    np.testing.assert_array_equal(got, wanted)
    assert (device.read(guard, 64) == 77).all()


def test_all_together_ask_for_a_little_less_than_the_pins_carry():
    assert request_shape(2.6, 6)[0] * 6 / 256 == pytest.approx(0.957 * 2.6, rel=0.01)
    assert request_shape(5.2, 3)[0] == 256      # a request a cycle, more there cannot be


def test_maxima_of_runs():
    device, rng = Device(FakePackage(Configuration(dies=1, pes=4))), np.random.default_rng(1)
    lines = 1024 * 4 * 3
    values = rng.standard_normal(lines * 16).astype("<f4")
    at, out = device.alloc(0, values.nbytes, Region.HBM), device.alloc(0, lines // 8)
    device.write(at, values)
    device.launch(0, maxima(at, out, values.size, pes=device.pes)).wait()
    got = device.read(out, lines // 8).view("<f4")
    places = maxima_places(values.size, 4)
    assert sorted(places) == list(range(lines // 32))
    np.testing.assert_array_equal(got, values.reshape(-1, 512).max(axis=1)[places])


def test_other_formats_and_nothing_are_refused():
    with pytest.raises(ValueError, match="Format must be BF16, FP16 or FP32, not E4M3"):
        add(0, 0, 0, 5, pes=[0], form=Format.E4M3)
    with pytest.raises(ValueError, match="Count must be a positive multiple of 16384, not 2049"):
        maxima(0, 0, 2049, pes=[0])
    with pytest.raises(ValueError, match="Count must be positive, not 0"):
        add(0, 0, 0, 0, pes=[0])
