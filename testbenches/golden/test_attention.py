"""Golden model of fused attention, against softmax in float64."""
import numpy as np
import pytest

from cosim.golden import attention as golden
from cosim.golden.dot import Operand
from cosim.golden.formats import Format, decode
from cosim.golden.quantise import quantise
from cosim.golden.simd import narrow

HEAD = 64


def coded(values, format):
    """Operand of float values, and the values it holds."""
    values = np.ascontiguousarray(values, np.float32)
    if format in (Format.BF16, Format.FP16):
        codes = narrow(golden.bits(values), format)
        return Operand(format, codes), decode(format, codes)
    padded = np.zeros((len(values), golden.padded_keys(values.shape[1], format)), np.float32)
    padded[:, :values.shape[1]] = values
    codes, scales = quantise(padded, format)
    plain = decode(format, codes) * np.repeat(np.ldexp(1.0, scales.astype(np.int32) - 127), 32, 1)
    return Operand(format, codes, scales), plain[:, :values.shape[1]]


def case(rng, rows, keys, block, format):
    """Operands of random queries, keys and values, and the numbers that they hold."""
    q, k, v = (rng.standard_normal((n, HEAD)) for n in (rows, keys, keys))
    q, plain_q = coded(q, format)
    parts = [(coded(k[at:at + block], format), coded(padded(v[at:at + block].T, format), format))
             for at in range(0, keys, block)]
    plain_k = np.concatenate([p[0][1] for p in parts])
    plain_v = np.concatenate([p[1][1][:, :len(p[0][1])] for p in parts], 1).T
    return (q, [p[0][0] for p in parts], [p[1][0] for p in parts]), (plain_q, plain_k, plain_v)


def padded(turned, format):
    wide = np.zeros((turned.shape[0], golden.padded_keys(turned.shape[1], format)))
    wide[:, :turned.shape[1]] = turned
    return wide


def reference(q, k, v, seen, scale, cap=None, sinks=None):
    """Softmax in float64; a sink is one more column whose value is zero."""
    scores = q @ k.T * scale
    if cap is not None:
        scores = cap * np.tanh(scores / cap)
    scores = np.where(seen, scores, -np.inf)
    if sinks is not None:
        scores = np.concatenate([scores, np.asarray(sinks)[:, None]], 1)
        v = np.concatenate([v, np.zeros_like(v[:1])])
    top = scores.max(1, keepdims=True)
    p = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = p.sum(1, keepdims=True)
    return p @ v / np.where(total == 0, 1, total)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("format, of_p, bound", [
    (Format.BF16, Format.BF16, 2 ** -8), (Format.BF16, Format.FP16, 2 ** -11),
    (Format.E4M3, Format.E4M3, 2 ** -4), (Format.FP16, Format.FP16, 2 ** -11)])
def test_close_to_float64_with_any_mask(format, of_p, bound, lanes):
    rng = np.random.default_rng(1)
    operands, plain = case(rng, 8, 300, 128, format)
    low, high = rng.integers(-5, 200, 8), rng.integers(100, 320, 8)
    low[3], high[3] = 250, 20           # sees nothing
    low[4], high[4] = 130, 131          # nothing in the first block
    got = golden.attention(*operands, scale=HEAD ** -0.5, low=low, high=high, format=of_p,
                           lanes=lanes).view(np.float32)
    wanted = reference(*plain, golden.visible(300, low, high), HEAD ** -0.5)
    assert np.abs(got - wanted).max() < bound * np.abs(wanted).max()
    assert not got[3].any()


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("format, of_p, bound", [
    (Format.BF16, Format.BF16, 2 ** -8), (Format.BF16, Format.FP16, 2 ** -11),
    (Format.E4M3, Format.E4M3, 2 ** -4)])
@pytest.mark.parametrize("cap, sunk", [(0.5, False), (2.0, True), (50.0, True), (None, True)])
def test_soft_cap_and_sinks_are_close_to_float64(format, of_p, bound, lanes, cap, sunk):
    """A cap of 0.5 changes every weight; sinks from far below all scores to far above."""
    rng = np.random.default_rng(4)
    operands, plain = case(rng, 8, 300, 128, format)
    low, high = rng.integers(-5, 100, 8), rng.integers(200, 320, 8)
    low[3], high[3] = 250, 20           # sees its sink alone
    sinks = np.array([-np.inf, -200, -3, 0, 2.5, 7, 8, 40]) if sunk else None
    got = golden.attention(*operands, scale=HEAD ** -0.5, low=low, high=high, format=of_p,
                           lanes=lanes, cap=cap, sinks=sinks).view(np.float32)
    seen = golden.visible(300, low, high)
    if sunk:
        seen = np.concatenate([seen, np.ones((8, 1), bool)], 1)
    wanted = reference(*plain, seen[:, :300], HEAD ** -0.5, cap, sinks)
    assert np.abs(got - wanted).max() < bound * np.abs(wanted).max()
    assert not got[3].any() and got[4].any()
    without = reference(*plain, seen[:, :300], HEAD ** -0.5)
    assert np.abs(got - without).max() > 4 * np.abs(got - wanted).max()


@pytest.mark.parametrize("cap", [1.0, 15.0, 30.0, 50.0])
@pytest.mark.parametrize("scale", [1.0, 1 / 16])
def test_soft_cap_is_tanh_to_a_few_last_bits(cap, scale):
    error, score = golden.worst_cap_error(cap, scale, count=1 << 18)
    print(f"cap {cap}, scale {scale}: worst error of x {error:.2e}, at a score of {score:.4g}")
    assert 0 < error < 3 * cap * golden.LOG2_E * 2 ** -23


def test_soft_cap_of_special_scores():
    scores = golden.bits(np.float32([np.inf, -np.inf, np.nan, 0, -0.0, 3e38, -3e38]))
    cap = golden.Cap.of(50.0)
    x = golden.soft_capped(scores, np.float32(0.1), cap).view(np.float32)
    top = np.float32(50 * golden.LOG2_E)
    np.testing.assert_array_equal(x, [top, -top, np.nan, 0, 0, top, -top])


def test_the_weight_of_a_sink_is_not_rounded():
    """A sink of 1/3 below a maximum of 5; one without keys; one that is no number."""
    scores = golden.bits(np.float32([[4.5, 5], [1, 1], [1, 1], [1, 1], [-300, -300]]))
    sinks = golden.bits(np.float32([5 - 1 / 3, 2, -np.inf, np.nan, -150]))
    seen = np.array([[1, 1], [0, 0], [1, 1], [1, 1], [1, 1]], bool)
    for format, shift in golden.SHIFT.items():
        state = golden.State.start(5)
        golden.softmax_block(scores, seen, state, scale=np.float32(1), format=format, sinks=sinks)
        codes, values = golden.rounded(golden.bits(np.float32([2 ** -0.5])), format)
        p = values.view(np.float32)[0] / 2 ** shift
        total = state.total.view(np.float32) / np.float32(2 ** shift)
        wanted = [1 + p + 2 ** (-1 / 3), 1, 2, np.nan, 1]
        np.testing.assert_allclose(total, wanted, rtol=2 ** -22)
        np.testing.assert_array_equal(state.maximum.view(np.float32), [5, 2, 1, np.nan, -150])


def test_a_subnormal_weight_of_a_sink_counts_as_zero():
    for x, wanted in ((-126.0, 2.0 ** -118), (-126.5, 0), (-140.0, 0), (0.0, 256)):
        p = golden.apply(golden.Function.EXP2, golden.bits(np.float32([x])))
        assert golden.sink_weight(p, Format.E4M3).view(np.float32) == wanted


def test_long_rows_lose_nothing():
    rng = np.random.default_rng(2)
    operands, plain = case(rng, 1, 16384, 128, Format.FP16)
    got = golden.attention(*operands, scale=HEAD ** -0.5, low=[0], high=[16384],
                           format=Format.FP16).view(np.float32)
    wanted = reference(*plain, np.ones((1, 16384), bool), HEAD ** -0.5)
    assert np.abs(got - wanted).max() < 2 ** -11 * np.abs(wanted).max()


def test_whole_maxima_rescale_by_powers_of_two():
    rng = np.random.default_rng(3)
    state = golden.State.start(4)
    for step in range(6):
        scores = golden.bits(rng.standard_normal((4, 40)).astype(np.float32) * (4 << step))
        golden.softmax_block(scores, np.ones((4, 40), bool), state, scale=np.float32(1.3),
                             format=Format.BF16)
        assert (np.floor(state.maximum.view(np.float32)) == state.maximum.view(np.float32)).all()
        mantissa, _ = np.frexp(state.factor.view(np.float32))
        assert np.isin(mantissa, [0, 0.5]).all()


def test_special_scores():
    """NaN and +infinity make their row NaN, -infinity is a key that is not seen."""
    scores = np.zeros((5, 3), np.float32)
    scores[0, 1], scores[1, 2], scores[2, 0], scores[3] = np.nan, np.inf, -np.inf, -np.inf
    state = golden.State.start(5)
    codes = golden.softmax_block(golden.bits(scores), np.ones((5, 3), bool), state,
                                 scale=np.float32(1), format=Format.E4M3)
    total = state.total.view(np.float32)
    assert np.isnan(total[:2]).all() and (total[2:] == [512, 0, 768]).all()
    assert codes[2].tolist() == [0, 0x78, 0x78] and not codes[3].any()
    assert (golden.inverse(state)[3:].view(np.float32) == np.float32([0, 1 / 768])).all()


def test_e4m3_p_is_256_at_most():
    p = golden.bits(np.float32([1, 0.5, 2 ** -17, 2 ** -18, 2 ** -18 * 1.01, 0]))
    codes, values = golden.rounded(p, Format.E4M3)
    assert values.view(np.float32).tolist() == [256, 128, 2 ** -9, 0, 2 ** -9, 0]
    assert decode(Format.E4M3, codes).tolist() == values.view(np.float32).tolist()


def test_states_of_shared_out_keys_merge_exactly():
    """Rows merged from three PEs are as close to float64 as rows of one; unseen rows are zero."""
    rng = np.random.default_rng(4)
    (q, keys, values), plain = case(rng, 8, 384, 128, Format.BF16)
    low, high = np.zeros(8, int), np.array([383, 383, 300, 200, 120, 50, 0, -1])
    options = {"scale": HEAD ** -0.5, "format": Format.FP16}
    parts = [golden.attend(q, [block], [turned], low=low - 128 * n, high=high - 128 * n, **options)
             for n, (block, turned) in enumerate(zip(keys, values, strict=True))]
    got = golden.merge(parts).view(np.float32)
    alone = golden.attention(q, keys, values, low=low, high=high, **options).view(np.float32)
    assert np.abs(got - alone).max() < 2e-6 and not got[7].any() and not alone[7].any()
    lines = golden.merge(parts[::-1]).view(np.float32)
    assert np.abs(got - lines).max() < 2e-6
    for state in parts:     # whole maxima: the factors that the merge needs are powers of two
        seen = state.maximum != golden.MINUS_INFINITY
        assert (state.maximum[seen].view(np.float32) % 1 == 0).all()
