"""System tests: PEs of the co-simulated package work with the memory of the other die."""
import numpy as np
import pytest

from host.bench import gemm
from host.driver import DeviceError
from host.isa import Code, Format, Region, address
from host.kernels import split_dies
from host.kernels.matmul import matmul
from host.program import Program, use
from host.tensor import pack

pytestmark = pytest.mark.system


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("region", [Region.SRAM, Region.HBM])
@pytest.mark.parametrize("die", [0, 1])
def test_copies_from_and_to_the_other_die(device, region, die):
    """The PEs of ``die`` bring a matrix from the other die, and take another one there."""
    packed = pack(numbers(die, 50, 300), Format.E4M3)
    far, near = device.put(packed, 1 - die, region), device.empty(die, 50, 300, Format.E4M3, region)
    back = device.empty(1 - die, 50, 300, Format.E4M3, region)
    for source, target in ((far, near), (near, back)):
        device.launch(die, split_dies.copy(source, target, pes=device.pes)).wait(200_000)
        got = device.read(target.address, target.element_bytes)
        np.testing.assert_array_equal(got, packed.elements.reshape(-1))
        got = device.read(target.scales, target.rows * target.scale_stride)
        np.testing.assert_array_equal(got, packed.scales.reshape(-1))


@pytest.mark.parametrize("copies", [False, True])
def test_product_of_both_dies_has_the_bits_of_one(device, copies):
    """X in die 1, W shared out, Y in die 0."""
    m, n, k = 37, 120, 160
    x, w = pack(numbers(1, m, k), Format.E4M3), pack(numbers(2, n, k), Format.E2M1)
    tx, y, y1 = device.put(x, 1), *(device.empty(0, m, n, Format.FP32) for _ in range(2))
    tw = split_dies.put_shared(device, w, device.dies)
    mine = {0: device.empty(0, m, k, Format.E4M3)} if copies else None
    split_dies.launch(device, split_dies.matmul_dies(tx, tw, y, pes=device.pes, copies=mine))
    device.launch(0, matmul(device.put(x, 0), device.put(w, 0), y1, pes=device.pes)).wait(2_000_000)
    result = device.get(y).view(np.uint32)
    np.testing.assert_array_equal(result, device.get(y1).view(np.uint32))
    wanted = gemm.golden(w, x)
    np.testing.assert_array_equal(result, wanted.view(np.uint32))


def test_an_address_that_the_other_die_does_not_have(device):
    program = Program()
    buffer = program.buffer(4)
    program.dma_in(use(buffer, release=4), address(1, Region.SRAM, 1 << 39), row_bytes=256)
    with pytest.raises(DeviceError) as caught:
        device.launch(0, {2: program}).wait(200_000)
    assert caught.value.completion.code == Code.BAD_ADDRESS and caught.value.completion.pe == 2
