"""Tests of host/kernels/ffn.py: programs executed by golden machines."""
import numpy as np
import pytest

from cosim.golden import ffn as golden
from cosim.golden.ffn import Kind
from host.driver import Device
from host.isa import Format, Rule
from host.kernels.ffn import Weights, ffn
from host.kernels.schedule import Load, Work, cuts, interleave
from host.tensor import pack
from testbenches.host_fake import Configuration, FakePackage


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(kind, tokens, width, inner, *, pes=6, lines=8192, form=Format.E2M1,
          middle=Format.E4M3, rule=Rule.FLOOR):
    device = Device(FakePackage(Configuration(dies=1, pes=pes), lines=lines))
    x = pack(numbers(1, tokens, width), Format.E4M3)
    gate, up = (pack(numbers(s, inner, width), form) for s in (2, 3))
    down = pack(numbers(4, width, inner), form)
    zeros = device.alloc(0, 128)
    device.write(zeros, np.zeros(128, np.uint8))
    weights = Weights(device.put(up, 0), device.put(down, 0),
                      device.put(gate, 0) if kind.gated else None, zeros)
    y = device.empty(0, tokens, width, Format.FP32)
    programs = ffn(device.put(x, 0), weights, device.empty(0, tokens, inner, middle), y, kind=kind,
                   pes=device.pes, rule=rule, local_lines=lines)
    device.launch(0, programs).wait()
    wanted = golden.ffn(x.operand, gate.operand, up.operand, down.operand, kind, form=middle,
                        rule=rule)
    np.testing.assert_array_equal(device.get(y).view(np.uint32), wanted)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda k: k.name)
@pytest.mark.parametrize("form", [Format.E2M1, Format.E4M3], ids=lambda f: f.name)
def test_every_kind_and_weight_format(kind, form):
    check(kind, 20, 64, 128, form=form)


@pytest.mark.parametrize("tokens, width, inner", [(1, 32, 32), (1, 100, 70), (37, 40, 17),
                                                  (70, 130, 250), (5, 32, 20)])
@pytest.mark.parametrize("pes", [1, 4])
def test_ragged_sizes(tokens, width, inner, pes):
    check(Kind.SWIGLU, tokens, width, inner, pes=pes)


def test_width_and_inner_width_beyond_an_a_buffer():
    check(Kind.SWIGLU, 3, 2200, 96, pes=2)
    check(Kind.SWIGLU, 9, 2200, 40, pes=1, lines=2000)
    check(Kind.GELU, 3, 64, 2500, pes=2, form=Format.E4M3)


def test_tokens_that_do_not_fit_into_local_memory_at_once():
    check(Kind.GEGLU, 150, 96, 130, pes=2, lines=700)
    check(Kind.GEGLU, 40, 96, 130, pes=1, lines=400)


def test_other_rules_and_formats_of_the_intermediate():
    check(Kind.SWIGLU, 10, 64, 96, middle=Format.E5M2, rule=Rule.EVEN)


def test_shapes_that_do_not_fit_are_refused():
    device = Device(FakePackage(Configuration(dies=1, pes=1)))
    x, w = (device.put(pack(numbers(1, n, 64), Format.E4M3), 0) for n in (4, 96))
    inner, y = device.empty(0, 4, 96, Format.E4M3), device.empty(0, 4, 64, Format.FP32)
    down = device.put(pack(numbers(2, 64, 96), Format.E4M3), 0)
    for weights, kind, text in (
            (Weights(w, down), Kind.SWIGLU, "Gate and up must be 96x64"),
            (Weights(down, w), Kind.GELU, "Gate and up must be 96x64"),
            (Weights(w, w), Kind.GELU, "Down must be a matrix of 64x96"),
            (Weights(w, down), Kind.RELU, "ReLU needs zeros")):
        with pytest.raises(ValueError, match=text):
            ffn(x, weights, inner, y, kind=kind, pes=[0])


def test_loads_run_ahead_as_far_as_the_queue_takes_and_their_place_is_free():
    loads = [Load(n, 1, 2, after) for n, after in enumerate((-1, -1, -1, 0, 1))]
    works = [Work("a", 1, (0,)), Work("b", 1, (1,)), Work("c", 1, (4,))]
    order = [item.what for item in interleave(loads, works)]
    assert order == [0, 1, 2, "a", 3, "b", 4, "c"]


@pytest.mark.parametrize("total, step, group", [(1, 1, 1), (128, 128, 1), (43, 15, 3), (64, 9, 3)])
def test_cuts_cover_all_rows_in_order(total, step, group):
    for runs in cuts(total, step, 4, group):
        assert runs[0][0] == 0 and runs[-1][1] == total
        assert all(a[1] == b[0] and (a[1] - a[0]) % group == 0
                   for a, b in zip(runs, runs[1:], strict=False))
        assert all(0 < b - a <= step for a, b in runs)
