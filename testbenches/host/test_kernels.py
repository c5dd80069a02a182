"""Tests of host/kernels: programs executed by golden machines, compared with the golden models."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.golden import formats, simd
from cosim.golden import transformer as golden
from cosim.golden.function_tables import Function
from cosim.golden.norm import Norm
from host.bench.gemm import golden as product
from host.driver import Device
from host.isa import Format, Group, Op
from host.kernels import rows, transformer
from host.kernels.matmul import matmul, partition, upper
from host.tensor import pack
from testbenches.host_fake import Configuration, FakePackage

OPERANDS = [Format.E2M1, Format.E4M3, Format.E5M2, Format.BF16, Format.FP16]


def device(*, pes=6, lines=8192):
    return Device(FakePackage(Configuration(dies=1, pes=pes), lines=lines))


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check_product(m, n, k, a, b, **options):
    d = device(**options)
    x, w = pack(numbers(1, m, k), b), pack(numbers(2, n, k), a)
    tx, tw = d.put(x, 0), d.put(w, 0)
    ty = d.empty(0, m, n, Format.FP32)
    lines = options.get("lines", 8192)
    d.launch(0, matmul(tx, tw, ty, pes=d.pes, local_lines=lines)).wait()
    result, wanted = d.get(ty), product(w, x)
    assert result.shape == (m, n)
    np.testing.assert_array_equal(result.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("a", OPERANDS)
@pytest.mark.parametrize("b", OPERANDS)
def test_product_of_every_format_pair(a, b):
    check_product(9, 21, 96, a, b, pes=2)


@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (1, 17, 33), (50, 16, 64), (7, 100, 130)])
@pytest.mark.parametrize("form", [Format.E2M1, Format.E4M3])
def test_product_with_ragged_edges(m, n, k, form):
    check_product(m, n, k, form, form)


@pytest.mark.parametrize("a, b", [(Format.E4M3, Format.E4M3), (Format.E2M1, Format.BF16),
                                  (Format.BF16, Format.E4M3)])
def test_product_with_k_beyond_a_buffer(a, b):
    check_product(5, 19, 2500, a, b, pes=2)


def test_product_that_does_not_fit_into_local_memory_at_once():
    check_product(60, 90, 256, Format.E4M3, Format.E4M3, pes=1, lines=400)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 12), st.sampled_from([1, 3]))
def test_partition_covers_every_element_once(m, n, pes, group):
    covered = np.zeros((m, upper(n, 16)), int)
    for (r0, r1), (t0, t1) in partition(m, n, pes, group):
        covered[r0:r1, t0:t1] += 1
    assert (covered == 1).all()


def run_rows(kernel, y_format, *arrays, **options):
    d = device(pes=4, lines=2048)
    tensors = [d.put(pack(a, Format.FP32), 0) for a in arrays]
    y = d.empty(0, arrays[0].shape[0], arrays[0].shape[1], y_format)
    d.launch(0, kernel(*tensors, y, pes=d.pes, local_lines=2048, **options)).wait()
    if y_format == Format.FP32:
        return d.get(y).view(np.uint32)
    return d.read(y.address, y.element_bytes), d.read(y.scales, y.scale_bytes)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 70), st.integers(1, 130))
def test_softmax_of_any_shape(m, n):
    x = numbers(m, m, n) * 4
    wanted = golden.softmax(golden.bits(x), 0.25)
    np.testing.assert_array_equal(run_rows(rows.softmax_rows, Format.FP32, x, scale=0.25), wanted)
    exact = np.exp2((x - x.max(1, keepdims=True)) * 0.25 / np.log(2))
    exact /= exact.sum(1, keepdims=True)
    assert abs(wanted.view(np.float32) - exact).max() < 1e-5


def test_layer_norm_of_ragged_rows():
    x = numbers(3, 45, 100)
    gamma, beta = numbers(4, 1, 100), numbers(5, 1, 100)
    result = run_rows(lambda x, g, b, y, **o: rows.layer_norm_rows(x, g, b, y, **o), Format.FP32,
                      x, gamma, beta)
    wanted = golden.layer_norm(golden.bits(x), gamma[0], beta[0], 1e-5)
    np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("form", [Format.FP32, Format.E4M3, Format.E2M1])
def test_rms_norm_in_any_format(form):
    x, gamma = numbers(3, 45, 96), numbers(4, 1, 96)
    result = run_rows(lambda x, g, y, **o: rows.rms_norm_rows(x, g, y, epsilon=1e-6, **o), form,
                      x, gamma)
    wanted = simd.simd(golden.bits(x), golden.bits(gamma), norm=Norm.RMS, epsilon=1e-6,
                       destination=form)
    check_codes(result, wanted, form, 45, 96)


def check_codes(result, wanted, form, m, n):
    if form == Format.FP32:
        np.testing.assert_array_equal(result, wanted)
        return
    elements, scales = (part.reshape(-1) for part in result)
    stride = -(-len(formats.pack(form, wanted[0][0])) // 64) * 64
    for r in range(m):
        codes = formats.pack(form, wanted[0][r])
        np.testing.assert_array_equal(elements[r * stride:r * stride + len(codes)], codes)
    blocks = -(-n // 32)
    step = 1 << (blocks - 1).bit_length()
    np.testing.assert_array_equal(scales[:m * step].reshape(m, step)[:, :blocks], wanted[1])


@pytest.mark.parametrize("form", [Format.FP32, Format.E4M3])
def test_rotary_embedding_by_positions(form):
    m, n = 77, 64
    d = device(pes=3)
    x = numbers(1, m, n)
    angle = np.arange(50)[:, None] * 10000.0 ** (-np.arange(0, n, 2) / n)
    table = np.stack([np.cos(angle), np.sin(angle)], -1).reshape(50, n).astype(np.float32)
    positions = np.random.default_rng(1).integers(0, 50, m).astype("<u4")
    at = d.alloc(0, positions.nbytes)
    d.write(at, positions)
    y = d.empty(0, m, n, form)
    tx, tt = (d.put(pack(a, Format.FP32), 0) for a in (x, table))
    d.launch(0, rows.rotary_rows(tx, tt, at, y, pes=d.pes, local_lines=400)).wait()
    wanted = simd.simd(golden.bits(x), golden.bits(table[positions]),
                       operation=simd.Operation.ROTATE, destination=form)
    if form == Format.FP32:
        result = d.get(y).view(np.uint32)
    else:
        result = d.read(y.address, y.element_bytes), d.read(y.scales, y.scale_bytes)
    check_codes(result, wanted, form, m, n)


def test_first_hidden_state_plain_and_quantised():
    """Gather, sum, LayerNorm in FP32, and the same quantised, as the encoder starts."""
    m, n = 53, 96
    d = device(pes=4)
    shape = transformer.Shape(width=n, heads=3, inner=128, epsilon=1e-12)
    words, positions, gamma, beta = (numbers(i, r, n) for i, r in enumerate((200, 64, 1, 1)))
    index = [np.random.default_rng(i).integers(0, 64, m).astype("<u4") for i in range(2)]
    at = [d.alloc(0, i.nbytes) for i in index]
    for address, values in zip(at, index, strict=True):
        d.write(address, values)
    tables, norm = ([d.put(pack(a, Format.FP32), 0) for a in pair]
                    for pair in ((words, positions), (gamma, beta)))
    act = transformer.Activations(d.empty(0, m, n, Format.FP32), d.empty(0, m, n, Format.E4M3),
                                  *[None] * 3)
    d.launch(0, transformer.embed(tables, at, act, norm, pes=d.pes, shape=shape)).wait()
    wanted = golden.embed(words[index[0]], positions[index[1]], (gamma[0], beta[0]), 1e-12)
    np.testing.assert_array_equal(d.get(act.x).view(np.uint32), wanted)
    coded = d.read(act.xq.address, act.xq.element_bytes), d.read(act.xq.scales, act.xq.scale_bytes)
    check_codes(coded, simd.simd(wanted, destination=Format.E4M3), Format.E4M3, m, n)


def test_a_rotary_table_of_another_width_is_refused():
    d = device()
    x, table = (d.put(pack(numbers(1, 4, k), Format.FP32), 0) for k in (32, 16))
    with pytest.raises(ValueError, match="not 16 for 32"):
        rows.rotary_rows(x, table, 0, x, pes=d.pes)


def test_gelu_quantised_on_the_way_out():
    x = numbers(6, 33, 96)
    elements, scales = run_rows(rows.gelu, Format.E4M3, x)
    codes, wanted = simd.simd(golden.bits(x), function=Function.GELU,
                              destination=Format.E4M3)
    np.testing.assert_array_equal(elements.reshape(33, -1)[:, :96], codes)
    np.testing.assert_array_equal(scales[:33 * 4].reshape(33, 4)[:, :3], wanted)


def test_residual_addition():
    a, b = numbers(7, 40, 50), numbers(8, 40, 50)
    np.testing.assert_array_equal(run_rows(rows.add, Format.FP32, a, b), (a + b).view(np.uint32))


def test_gather_takes_rows_in_any_order():
    d = device(pes=3)
    table = numbers(9, 100, 40)
    index = np.random.default_rng(1).integers(0, 100, 77).astype("<u4")
    tensor = d.put(pack(table, Format.FP32), 0)
    at = d.alloc(0, index.nbytes)
    d.write(at, index)
    y = d.empty(0, 77, 40, Format.FP32)
    d.launch(0, rows.gather_rows(tensor, at, y, pes=d.pes)).wait()
    np.testing.assert_array_equal(d.get(y), table[index])


@pytest.mark.parametrize("m, n, k", [(4, 48, 64), (60, 96, 160), (64, 96, 2560)])
def test_pes_that_read_together_ask_for_the_same(m, n, k):
    """Along a row the same lines of X, along a column the same of W, in the same order."""
    d, rng = device(), np.random.default_rng(3)
    x, w = (pack(rng.standard_normal((r, k)).astype(np.float32), Format.E4M3) for r in (m, n))
    tx, tw, ty = d.put(x, 0), d.put(w, 0), d.empty(0, m, n, Format.FP32)
    programs = matmul(tx, tw, ty, pes=d.pes, grid=(2, 3))
    loads = {pe: [[int(n) for n in words] for words in np.array(program.words()).reshape(-1, 16)
                  if words[0] & 0xFF == Op.DMA_IN] for pe, program in programs.items()}
    for pe in d.pes:
        for group, members in ((Group.ROW, [pe // 3 * 3 + i for i in range(3)]),
                               (Group.COLUMN, [pe % 3, pe % 3 + 3])):
            same = [[words for words in loads[member] if words[1] >> 2 == group]
                    for member in members]
            assert same[0] and same.count(same[0]) == len(same)
    d.launch(0, programs).wait()
    np.testing.assert_array_equal(d.get(ty).view(np.uint32), product(w, x).view(np.uint32))


@pytest.mark.parametrize("m, n", [(5, 48), (4, 40), (4, 32)])
def test_uneven_shares_do_not_read_together(m, n):
    d = device()
    x, w = (d.put(pack(numbers(1, r, 64), Format.E4M3), 0) for r in (m, n))
    with pytest.raises(ValueError, match=f"not {m} and {n}"):
        matmul(x, w, d.empty(0, m, n, Format.FP32), pes=d.pes, grid=(2, 3))


def test_shapes_that_do_not_fit_are_refused():
    d = device()
    x, w = (d.put(pack(numbers(1, 4, k), Format.E4M3), 0) for k in (32, 64))
    y = d.empty(0, 4, 4, Format.FP32)
    with pytest.raises(ValueError, match="do not make a product"):
        matmul(x, w, y, pes=d.pes)
    with pytest.raises(ValueError, match="must be positive, not 0x4"):
        d.empty(0, 0, 4, Format.FP32)
