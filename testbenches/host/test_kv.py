"""Tests of host/kernels/kv.py: caches written by golden machines, and attention over them."""
from dataclasses import replace

import numpy as np
import pytest

from cosim.golden import formats as number_formats
from host.isa import Format, Rule
from host.kernels.kv import cache, chunking
from host.tensor import Tensor
from testbenches.cache_case import Case, check_attention


@pytest.mark.parametrize("tokens", [1, 16, 37, 128, 300])
@pytest.mark.parametrize("form", [Format.E4M3, Format.E2M1, Format.BF16])
def test_tokens_of_any_number(tokens, form):
    Case(tokens, 128, 64, form=form).check()


@pytest.mark.parametrize("x", [Format.E4M3, Format.E5M2, Format.E2M1, Format.BF16])
@pytest.mark.parametrize("w", [Format.E4M3, Format.E2M1, Format.BF16])
def test_formats_of_tokens_and_weights(x, w):
    Case(50, 160, 32, x=x, w=w, form=Format.E4M3, v_form=Format.FP16).check(Rule.RCEIL)


@pytest.mark.parametrize("size", [32, 96, 128, 256])
@pytest.mark.parametrize("bias", [False, True])
def test_head_sizes_and_biases(size, bias):
    Case(140, 256, size, heads=1, bias=bias).check(Rule.EVEN)


def test_width_that_is_multiplied_in_chunks():
    case = Case(150, 1280, 64, lines=3000)
    assert chunking(case.tensor, case.heads[0], local_lines=3000) == (128, 2)
    programs = case.check()
    dots = [c for c in programs[0].commands if int(c[0]) & 255 == 0x21]
    assert sum(int(c[1]) >> 9 & 1 for c in dots) == len(dots) * 9 // 10    # accumulate
    assert not any(int(c[0]) & 255 == 0x40 for p in programs.values() for c in p.commands)


def test_little_memory_holds_one_chunk():
    case = Case(40, 256, 64, lines=2200)
    assert chunking(case.tensor, case.heads[0], local_lines=2200)[1] == 1
    case.check()


def test_pages_anywhere_in_a_pool():
    Case(300, 128, 32, heads=3, pages=[4, 0, 2]).check()


def test_near_float64():
    case = Case(200, 256, 64, heads=1, bias=True, form=Format.BF16)
    case.check()
    (codes, _), turned = case.expected(0)
    x, wk, wv = (exact(p.operand) for p in (case.x, *case.weights[0]))
    wanted = x @ wk.T + case.biases[0][0]
    bf16 = number_formats.Format.BF16
    np.testing.assert_allclose(number_formats.decode(bf16, codes), wanted, rtol=2 ** -8, atol=1e-5)
    wanted = (x @ wv.T + case.biases[0][1]).T
    got = np.concatenate([number_formats.decode(bf16, page) for page, _ in turned], 1)[:, :200]
    np.testing.assert_allclose(got, wanted, rtol=2 ** -8, atol=1e-5)


def exact(operand):
    values = number_formats.decode(operand.format, operand.codes)
    return values * np.repeat(number_formats.scale_value(operand.scales), 32, 1)


@pytest.mark.parametrize("form, p", [(Format.E4M3, Format.E4M3), (Format.E2M1, Format.E4M3),
                                     (Format.BF16, Format.FP16)])
@pytest.mark.parametrize("pages", [None, [3, 1, 6]])
def test_attention_over_the_written_cache(form, p, pages):
    case = Case(290, 128, 64, heads=1, form=form, pages=pages)
    case.run()
    check_attention(case, p)


def test_wrong_arguments():
    case = Case(150, 128, 32)
    head = case.heads[0]

    def refused(message, heads=(head,), x=case.tensor, **options):
        with pytest.raises(ValueError, match=message):
            cache(x, list(heads), pes=[0], **options)
    refused("2 different numbers", pages=[1, 1])
    refused("2 different numbers", pages=[1])
    refused("Page 2 is outside", pages=[0, 2])
    refused("Page 1 is outside", pages=[1, 0])
    refused("Columns of K and V", [replace(head, k=head.vt)])
    refused("do not make keys", [replace(head, wv=head.k)])
    refused("in MX or 16-bit formats", [replace(head, k=replace(head.k, format=Format.FP32))])
    refused("same size and formats",
            [head, replace(head, k=replace(head.k, format=Format.BF16))])
    refused("Width must be", x=replace(case.tensor, columns=96),
            heads=[replace(head, wk=replace(head.wk, columns=96),
                           wv=replace(head.wv, columns=96))])
    refused("No chunk of the 128", local_lines=400)
    small = Tensor(0, 16, 128, Format.E4M3, 0)
    refused("Head size must be", [replace(head, wk=small, wv=small)])
