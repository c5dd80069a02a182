"""System tests of fused attention: jobs and mistakes on the co-simulated package."""
import numpy as np
import pytest

from host.bench import attention as bench
from host.driver import DeviceError
from host.isa import Code, Format, Op, Region, Rule, Unit, address
from host.kernels.flash import Head, Mask, PageTable, flash
from host.program import Program, use
from testbenches.cache_case import Case, check_attention
from testbenches.pool import pooled

pytestmark = pytest.mark.system


JOBS = {
    "whole tiles": bench.Job(queries=32, keys=256, head=64),
    "causal, ragged": bench.Job(queries=40, keys=300, head=32, mask=Mask(causal=True, first=100)),
    "window, BF16": bench.Job(queries=20, keys=200, head=64, form=Format.BF16, p=Format.BF16,
                              mask=Mask(causal=True, window=50, first=100)),
    "heads that share keys": bench.Job(queries=24, keys=140, head=96,
                                       mask=Mask(causal=True, share=2, first=70)),
    "decoding": bench.Job(queries=8, keys=300, head=64, mask=Mask(share=3)),
    "soft cap": bench.Job(queries=40, keys=300, head=128, cap=2.0,
                          mask=Mask(causal=True, first=100)),
    "sinks of four heads": bench.Job(queries=24, keys=200, head=64, sinks=(-np.inf, 0.0, 1.0, 3.0),
                                     mask=Mask(causal=True, share=2, first=-3)),
    "decoding with soft cap and sinks": bench.Job(
        queries=8, keys=300, head=64, form=Format.BF16, p=Format.FP16, cap=0.5,
        sinks=tuple(np.arange(8.0) / 2), mask=Mask(share=3)),
    "decoding in MXFP4": bench.Job(queries=5, keys=300, head=96, form=Format.E2M1),
    "FP16 P, head of 256": bench.Job(queries=16, keys=130, head=256, form=Format.BF16,
                                     p=Format.FP16),
}


@pytest.mark.parametrize("name", JOBS)
def test_attention_is_bit_exact(device, name):
    done = bench.execute(device, JOBS[name], heads=2, dies=(0, 1))
    assert done.compared == done.equal > 0


def test_keys_in_pages_of_a_pool(device):
    """Decoding from a paged cache: page numbers go through the index list of the DMA."""
    job = bench.Job(queries=8, keys=500, head=64, mask=Mask(share=3))
    operands, order = bench.packed(job), np.array([6, 2, 7, 0])
    q = device.put(operands.q, 1)
    k, vt = (device.put(pooled(p, order, rows), 1)
             for p, rows in ((operands.k, 128), (operands.vt, job.head)))
    out = device.empty(1, job.head, 16, Format.FP32)
    table = device.alloc(1, 64)
    device.write(table, order.astype("<u4"))
    program = flash(Head(q, k, vt, out, PageTable(table, job.keys)), mask=job.mask)
    device.launch(1, {4: program}).wait(2_000_000)
    got = bench.rows_of(job, device.get(out), range(1))
    np.testing.assert_array_equal(got.view(np.uint32), bench.expected(job, operands))


def test_keys_shared_out_to_all_pes(device):
    """Decoding and prefill over the reduction ring; sinks; fewer blocks than PEs in the last."""
    for die, job in enumerate((
            bench.Job(queries=8, keys=1500, head=64, mask=Mask(share=3)),
            bench.Job(queries=40, keys=800, head=32, mask=Mask(causal=True, first=300)))):
        done = bench.execute_split(device, job, die)
        assert done.compared == done.equal > 0
    done = bench.execute_split(device, bench.Job(queries=3, keys=300, head=96, cap=5.0,
                                                 sinks=(0.5,)), 0)
    assert done.compared == done.equal > 0


def test_a_ring_that_is_not_closed_is_found_by_the_watchdog(device):
    """One PE waits for lines that nobody sends, one sends lines that nobody wants; both go on."""
    waiting, sending = Program(), Program()
    waiting.reduce(use(waiting.buffer(8), wait=2, release=2), lines=2, receive=True)
    lines = sending.buffer(8)
    sending.dma_in(use(lines, wait=8, release=8), address(0, Region.SRAM), row_bytes=512)
    sending.reduce(use(lines), lines=8, source=use(lines, wait=8, release=8), send=True)
    ring = device.reduction_ring
    with pytest.raises(DeviceError) as caught:
        device.launch(0, {ring[1]: waiting, ring[3]: sending}, watchdog=2000).wait(2_000_000)
    completion = caught.value.completion
    assert (completion.code, completion.unit) == (Code.WATCHDOG, Unit.REDUCTION)
    assert completion.failed == 1 << ring[1] | 1 << ring[3]
    done = bench.execute_split(device, bench.Job(queries=5, keys=700, head=32))
    assert done.compared == done.equal > 0


@pytest.mark.parametrize("form, p", [(Format.E4M3, Format.E4M3), (Format.BF16, Format.FP16)])
def test_cache_is_written_and_attended(device, form, p):
    case = Case(150, 160, 64, heads=4, form=form, bias=True, pages=[2, 0], device=device)
    case.check(Rule.RCEIL)
    check_attention(case, p)


def refused(device, field, change, unit=Unit.SOFTMAX, code=Code.BAD_FIELD):
    """A program with a wrong SCORE or WEIGH ends in an error; then a right one runs."""
    program = Program()
    keys, scales, out = program.buffer(64), program.buffer(8), program.buffer(16)
    program.dma_in(use(keys, wait=48, release=48), address(0, Region.SRAM), row_bytes=48 * 64)
    program.dma_in(use(scales, wait=4, release=4), address(0, Region.SRAM), row_bytes=256)
    program.load_a(use(keys, wait=16), use(scales, wait=1), form=Format.E4M3, rows=16, blocks=2,
                   stride=1, scale_stride=2)
    change(program, keys, scales, out)
    with pytest.raises(DeviceError) as caught:
        device.launch(0, {2: program}, watchdog=5000).wait(2_000_000)
    completion = caught.value.completion
    assert (completion.code, completion.unit) == (code, unit)
    assert code == Code.WATCHDOG or completion.field == field
    done = bench.execute(device, bench.Job(queries=5, keys=40, head=32), heads=3)
    assert done.compared == done.equal > 0


def score(program, elements, scales, **changes):
    options = {"a": Format.E4M3, "b": Format.E4M3, "p": Format.E4M3, "keys": 32, "blocks": 2,
               "stride": 1, "scale_stride": 2, "low": -100, "high": 100, "factor": 1.0,
               "first": True, "last": True, "release_a": True} | changes
    program.score(use(elements, wait=32), use(scales, wait=1), **options)


@pytest.mark.parametrize("field, changes", [
    (1, {"p": Format.E2M1}), (1, {"share": 5}), (8, {"keys": 129}), (8, {"keys": 0}),
    (6, {"first": False, "sinks": use(0, wait=1)})])
def test_fields_that_the_softmax_unit_does_not_take(device, field, changes):
    refused(device, field, lambda p, k, s, o: score(p, k, s, **changes))


@pytest.mark.parametrize("word, value", [(13, 1), (14, 0x80000000), (1, 1 << 25)])
def test_words_of_a_soft_cap_without_a_soft_cap(device, word, value):
    def change(program, keys, scales, out):
        score(program, keys, scales)
        program.commands[-1][word] |= value
    refused(device, word, change)


def test_sinks_that_are_not_there_are_found_by_the_watchdog(device):
    """The operand waits for a line that nobody fills."""
    def change(program, keys, scales, out):
        score(program, keys, scales, sinks=use(out, wait=1))
    refused(device, None, change, code=Code.WATCHDOG)


def test_sinks_past_their_buffer(device):
    def change(program, keys, scales, out):
        score(program, keys, scales, sinks=use(out, offset=16, wait=1))
    refused(device, 2, change, code=Code.CB_TOO_SMALL)


def test_a_page_past_the_pool_is_named(device):
    """The report names the GATHER and its index; then a right program runs on the same PE."""
    job = bench.Job(queries=4, keys=300, head=64)
    operands = bench.packed(job)
    q = device.put(operands.q, 0)
    k, vt = (device.put(pooled(p, [0, 1, 2], rows), 0)
             for p, rows in ((operands.k, 128), (operands.vt, job.head)))
    out = device.empty(0, job.head, 16, Format.FP32)
    table = device.alloc(0, 64)
    device.write(table, np.array([0, k.rows // 128, 1], "<u4"))
    program = flash(Head(q, k, vt, out, PageTable(table, job.keys)))
    gathers = [at for at, words in enumerate(program.commands) if words[0] & 255 == Op.GATHER]
    with pytest.raises(DeviceError, match="BAD_FIELD") as caught:
        device.launch(0, {2: program}).wait(2_000_000)
    completion = caught.value.completion
    assert (completion.unit, completion.field) == (Unit.DMA_IN, 12)
    assert completion.command in gathers
    device.write(table, np.array([0, 1, 2], "<u4"))
    device.launch(0, {2: flash(Head(q, k, vt, out, PageTable(table, job.keys)))}).wait(2_000_000)
    got = bench.rows_of(job, device.get(out), range(1))
    np.testing.assert_array_equal(got.view(np.uint32), bench.expected(job, operands))


@pytest.mark.parametrize("field, changes", [
    (1, {"a": Format.E5M2}), (8, {"blocks": 1}), (8, {"blocks": 0}), (9, {"scale_stride": 3})])
def test_fields_that_the_dot_product_engine_does_not_take(device, field, changes):
    refused(device, field, lambda p, k, s, o: score(p, k, s, **changes), unit=Unit.DOT)


@pytest.mark.parametrize("field, p, blocks", [(1, Format.BF16, 2), (8, Format.E4M3, 2)])
def test_p_of_another_kind(device, field, p, blocks):
    def change(program, keys, scales, out):
        score(program, keys, scales)
        program.weigh(use(keys, wait=16), use(scales, wait=1), use(out, wait=16, release=16), p=p,
                      b=Format.E4M3, rows=16, blocks=blocks, stride=1, scale_stride=2,
                      out_stride=1, first=True, last=True)
    refused(device, field, change, unit=Unit.DOT)


def test_weighing_without_scores_is_found_by_the_watchdog(device):
    def change(program, keys, scales, out):
        program.weigh(use(keys, wait=16), use(scales, wait=1), use(out, wait=16, release=16),
                      p=Format.E4M3, b=Format.E4M3, rows=16, blocks=1, stride=1, scale_stride=2,
                      out_stride=1, first=True, last=True)
    refused(device, None, change, unit=Unit.DOT, code=Code.WATCHDOG)
