"""Tests of host/kernels/split_dies.py: products of a package of golden machines."""
import numpy as np
import pytest

from host.bench.gemm import golden as product
from host.driver import Device, DeviceError
from host.isa import Format, Region
from host.kernels import split_dies
from host.kernels.matmul import matmul
from host.tensor import Part, pack
from testbenches.host.test_kernels import numbers
from testbenches.host_fake import Configuration, FakePackage

GRIDS = {1: (1, 1), 2: (1, 2), 4: (2, 2)}


def device(dies, *, pes=2, lines=8192, grid=None):
    return Device(FakePackage(Configuration(dies=dies, pes=pes, grid=grid or GRIDS[dies]),
                              lines=lines))


def put_rows(d, packed, bounds, dies):
    """Parts of X by rows, a part to each of ``dies``."""
    return [d.put(type(packed)(b - a, packed.columns, packed.format, packed.elements[a:b],
                               None if packed.scales is None else packed.scales[a:b]), die)
            for (a, b), die in zip(bounds, dies, strict=True)]


@pytest.mark.parametrize("dies", [2, 4])
@pytest.mark.parametrize("a, b", [(Format.E2M1, Format.E2M1), (Format.E4M3, Format.E4M3),
                                  (Format.E2M1, Format.BF16)])
@pytest.mark.parametrize("region", [Region.SRAM, Region.HBM])
def test_bits_are_those_of_one_die(dies, a, b, region):
    """X in the last die, W shared out, Y in die 0: X and Y cross the links."""
    m, n, k = 13, 100, 96
    x, w = pack(numbers(1, m, k), b), pack(numbers(2, n, k), a)
    d = device(dies)
    tx, y = d.put(x, dies - 1, region), d.empty(0, m, n, Format.FP32)
    tw = split_dies.put_shared(d, w, d.dies, region)
    assert [split_dies.die_of(part) for part in tw] == list(d.dies)
    split_dies.launch(d, split_dies.matmul_dies(tx, tw, y, pes=d.pes))
    one = device(1)
    y1 = one.empty(0, m, n, Format.FP32)
    one.launch(0, matmul(one.put(x, 0), one.put(w, 0), y1, pes=one.pes)).wait()
    result = d.get(y).view(np.uint32)
    np.testing.assert_array_equal(result, one.get(y1).view(np.uint32))
    np.testing.assert_array_equal(result, product(w, x).view(np.uint32))
    moved = d.transport.device_memory.moved
    assert all(moved[dies - 1, die] >= x.elements.size for die in range(dies - 1))
    assert all(moved[die, 0] == 4 * m * tw[die].rows for die in range(1, dies - 1))


@pytest.mark.parametrize("copies", [False, True])
def test_x_in_parts_and_y_where_it_was_made(copies):
    """Rows of X in every die; each die keeps its columns of Y."""
    m, n, k = 64, 90, 200
    x, w = pack(numbers(1, m, k), Format.E4M3), pack(numbers(2, n, k), Format.E2M1)
    d = device(4)
    tx = put_rows(d, x, [(0, 16), (16, 40), (40, 48), (48, 64)], [2, 0, 3, 1])
    tw = split_dies.put_shared(d, w, d.dies)
    ty = [d.empty(die, m, part.rows, Format.FP32) for die, part in zip(d.dies, tw, strict=True)]
    mine = {die: d.empty(die, m, k, Format.E4M3) for die in (0, 3)} if copies else None
    launches = split_dies.matmul_dies(tx, tw, ty, pes=d.pes, copies=mine)
    split_dies.launch(d, launches)
    result = np.concatenate([d.get(t) for t in ty], axis=1).view(np.uint32)
    np.testing.assert_array_equal(result, product(w, x).view(np.uint32))
    if copies:      # X comes once, however many PEs multiply it
        x_bytes = [part.element_bytes + part.scale_bytes for part in tx]
        moved = d.transport.device_memory.moved
        assert [moved[die, 0] for die in (2, 3, 1)] == [x_bytes[n] for n in (0, 2, 3)]
        for die, tensor in mine.items():
            np.testing.assert_array_equal(
                d.read(tensor.address, tensor.element_bytes).reshape(m, -1), x.elements)
            assert sum(at == die for at, _ in launches) == 4 + 1
    else:
        first = [next(p for at, p in launches if at == die) for die in d.dies]
        assert all(first) and len(launches) == 16


def test_more_columns_than_tiles_of_a_die_and_k_beyond_a_buffer():
    x, w = pack(numbers(1, 5, 2500), Format.E4M3), pack(numbers(2, 17, 2500), Format.E4M3)
    d = device(2)
    tx, y = d.put(x, 1), d.empty(1, 5, 17, Format.FP32)
    tw = split_dies.put_shared(d, w, d.dies)
    assert [part.rows for part in tw] == [16, 1]
    split_dies.launch(d, split_dies.matmul_dies(tx, tw, y, pes=d.pes))
    np.testing.assert_array_equal(d.get(y).view(np.uint32),
                                  product(w, x).view(np.uint32))


def test_a_copy_on_another_die():
    packed = pack(numbers(3, 77, 500), Format.E2M1)
    d = device(2, pes=3, lines=64)
    source, target = d.put(packed, 0), d.empty(1, 77, 500, Format.E2M1)
    d.launch(1, split_dies.copy(source, target, pes=d.pes, local_lines=64)).wait()
    np.testing.assert_array_equal(
        d.read(target.address, target.element_bytes).reshape(77, -1), packed.elements)
    np.testing.assert_array_equal(
        d.read(target.scales, 77 * target.scale_stride).reshape(77, -1), packed.scales)


def test_dies_that_no_link_joins_cannot_read_each_other():
    d = device(2, grid=(1, 1))
    x, w = pack(numbers(1, 4, 32), Format.E4M3), pack(numbers(2, 32, 32), Format.E4M3)
    tx, y, tw = d.put(x, 0), d.empty(0, 4, 32, Format.FP32), split_dies.put_shared(d, w, d.dies)
    with pytest.raises(DeviceError, match="BAD_ADDRESS"):
        split_dies.launch(d, split_dies.matmul_dies(tx, tw, y, pes=d.pes))


def test_what_does_not_fit_is_refused():
    d = device(2)
    x, w = (d.put(pack(numbers(1, rows, 32), Format.E4M3), 0) for rows in (8, 24))
    y = d.empty(0, 8, 48, Format.FP32)
    with pytest.raises(ValueError, match="multiple of 16 rows, not .24, 24."):
        split_dies.matmul_dies(x, [w, w], y, pes=d.pes)
    with pytest.raises(ValueError, match="Y must have 8 rows and .24. columns, not ..8, 48.."):
        split_dies.matmul_dies(x, [w], y, pes=d.pes)
    with pytest.raises(ValueError, match="Y must have 16 rows and .24. columns, not ..8, 24.."):
        split_dies.matmul_dies([x, x], [w], [d.empty(0, 8, 24, Format.FP32)], pes=d.pes)
    with pytest.raises(ValueError, match="at least 17 for 2 dies, not 16"):
        split_dies.shared_rows(16, 2)
    with pytest.raises(ValueError, match="A copy must be alike, not 8x48 FP32 for 8x32 E4M3"):
        split_dies.copy(x, y, pes=d.pes)
    with pytest.raises(ValueError, match="scales of whole lines, not of 1 bytes a row"):
        w.slice(8, 8)
    with pytest.raises(ValueError, match="Rows must lie in 0 to 8, not 4 to 9"):
        y.slice(4, 5)
    for part in ((0, 8, 8, 16), (1, 8, 0, 16), (0, 8, 48, 16)):
        with pytest.raises(ValueError, match="A part must start on a line of an FP32 matrix"):
            Part(y, *part)
    assert Part(y, 1, 7, 16, 32).row(2) == y.row(3) + 64
