"""Tests of host/kernels/flash.py: programs executed by golden machines."""
from dataclasses import replace

import numpy as np
import pytest

from host.bench import attention as bench
from host.driver import Device, DeviceError
from host.isa import Format
from host.kernels.flash import Head, Mask, PageTable, flash, sink_row
from host.tensor import Tensor, unpack_codes
from testbenches.host_fake import Configuration, FakePackage
from testbenches.pool import pooled


def check(job, *, lines=8192, tiles=None):
    """The kernel's result on golden machines equals the golden model's, bit for bit."""
    device = Device(FakePackage(Configuration(dies=1, pes=1), lines=lines))
    operands = bench.packed(job)
    head = bench.place(device, 0, job, operands)
    tiles = range(bench.upper(job.queries, 16)) if tiles is None else tiles
    program = flash(head, p=job.p, mask=job.mask, tiles=tiles, local_lines=lines, cap=job.cap,
                    sinks=bench.place_sinks(device, 0, job))
    device.launch(0, {0: program}).wait()
    out = Tensor(head.out.row(tiles[0] * job.head), len(tiles) * job.head, 16, Format.FP32)
    got = bench.rows_of(job, device.get(out), tiles)
    wanted = bench.expected(job, operands, tiles)
    np.testing.assert_array_equal(got.view(np.uint32), wanted)
    return got, program


@pytest.mark.parametrize("form, p", [(Format.E4M3, Format.E4M3), (Format.BF16, Format.BF16),
                                     (Format.BF16, Format.FP16), (Format.E2M1, Format.E4M3),
                                     (Format.FP16, Format.E4M3)])
@pytest.mark.parametrize("mask", [Mask(), Mask(causal=True), Mask(causal=True, first=130),
                                  Mask(causal=True, window=40), Mask(causal=True, share=2)])
def test_masks_and_formats(form, p, mask):
    check(bench.Job(queries=37, keys=200, head=32, form=form, p=p, mask=mask))


@pytest.mark.parametrize("head", [32, 64, 96, 128, 256])
def test_head_sizes(head):
    got, _ = check(bench.Job(queries=20, keys=150, head=head))
    assert np.isfinite(got).all() and np.abs(got).max() > 0.1


@pytest.mark.parametrize("queries", [1, 5, 8])
@pytest.mark.parametrize("form, p", [(Format.E4M3, Format.E4M3), (Format.BF16, Format.FP16),
                                     (Format.E2M1, Format.E4M3)])
def test_few_rows_are_done_in_pairs(queries, form, p):
    check(bench.Job(queries=queries, keys=391, head=64, form=form, p=p, mask=Mask(share=3)))
    check(bench.Job(queries=queries, keys=300, head=64, form=form, p=p,
                    mask=Mask(causal=True, first=250, share=1)))


def test_keys_that_do_not_fit_stream_again():
    job = bench.Job(queries=40, keys=700, head=64, mask=Mask(causal=True, first=400))
    check(job)
    check(job, lines=1600)


@pytest.mark.parametrize("cap, sinks", [(0.7, ()), (50.0, (0.5, -1.0)), (None, (2.0,)),
                                        (None, (-np.inf, 0.0, 1.0, 3.0))])
@pytest.mark.parametrize("queries", [37, 8])
@pytest.mark.parametrize("lines", [8192, 1100])
def test_soft_cap_and_sinks(cap, sinks, queries, lines):
    """With all keys in local memory and streamed; in tiles and as a pair; a sink for each head."""
    job = bench.Job(queries=queries, keys=500, head=64, cap=cap, sinks=sinks,
                    mask=Mask(causal=True, first=300, share=max(len(sinks) - 1, 0).bit_length()))
    got, _ = check(job, lines=lines)
    plain, _ = check(replace(job, cap=None, sinks=()), lines=lines)
    assert (got != plain).any(1).sum() >= queries / 2


def test_sinks_take_their_share_of_each_row():
    """Against float64: each head's own sink, also where a row sees no key."""
    job = bench.Job(queries=32, keys=200, head=64, form=Format.BF16, p=Format.FP16,
                    mask=Mask(causal=True, first=-2, share=2), sinks=(-np.inf, 0.0, 1.0, 3.0))
    got, _ = check(job)
    q, k, v = (bench.pack(x, job.form).operand for x in job.values())
    q, k, v = (bench.number_formats.decode(x.format, x.codes) for x in (q, k, v))
    for row in range(job.queries):
        keys = max(row // 4 - 1, 0)
        weights = np.exp(np.append(k[:keys] @ q[row] / 8, job.sinks[row % 4]))
        total = weights.sum()
        wanted = weights[:keys] @ v[:keys] / total if total else np.zeros(64)
        np.testing.assert_allclose(got[row], wanted, atol=1e-3)


def test_the_row_of_sinks():
    for logits in (1.5, [1.5], [1, 2], np.arange(8.0), list(range(16))):
        packed = sink_row(logits)
        x = unpack_codes(packed.elements, Format.FP32).view(np.float32)[0]
        wanted = np.tile(np.float32(np.array(logits, float).reshape(-1) * np.log2(np.e)), 16)[:16]
        np.testing.assert_array_equal(x, wanted)
    for wrong in ([], [1, 2, 3], np.zeros(32), np.zeros((2, 4))):
        with pytest.raises(ValueError, match="Sinks must be 1, 2, 4, 8 or 16 logits"):
            sink_row(wrong)


def test_some_tiles_alone():
    check(bench.Job(queries=100, keys=300, head=32, mask=Mask(causal=True, window=30)),
          tiles=range(2, 5))


def test_rows_that_see_nothing_are_zero():
    got, _ = check(bench.Job(queries=32, keys=100, head=32, mask=Mask(causal=True, first=-20)))
    assert not got[:20].any() and got[21:].any(1).all()


def test_blocks_that_no_row_sees_are_left_out():
    job = bench.Job(queries=256, keys=256, head=32)
    count = [sum(int(c[0]) & 255 == 0x22 for c in check(replace(job, mask=mask))[1].commands)
             for mask in (Mask(), Mask(causal=True), Mask(causal=True, window=20))]
    assert count == [32, 24, 18]


@pytest.mark.parametrize("queries, lines", [(20, 8192), (40, 2600), (4, 1600)])
@pytest.mark.parametrize("form", [Format.E4M3, Format.BF16])
def test_pages_anywhere_in_a_pool(queries, lines, form):
    """Keys and values in shuffled pages of a pool, whose other pages hold other numbers."""
    device = Device(FakePackage(Configuration(dies=1, pes=1), lines=lines))
    job = bench.Job(queries=queries, keys=600 if form == Format.E4M3 else 300, head=64, form=form,
                    mask=Mask(causal=True, first=300))
    operands = bench.packed(job)
    order = np.random.default_rng(1).permutation(9)[:bench.upper(job.keys, 128)]
    q = device.put(operands.q, 0)
    k, vt = (device.put(pooled(p, order, rows), 0)
             for p, rows in ((operands.k, 128), (operands.vt, job.head)))
    out = device.empty(0, bench.upper(queries, 16) * job.head, 16, Format.FP32)
    table = device.alloc(0, 64)
    device.write(table, order.astype("<u4"))
    head = Head(q, k, vt, out, PageTable(table, job.keys))
    device.launch(0, {0: flash(head, p=job.p, mask=job.mask, local_lines=lines)}).wait()
    tiles = range(bench.upper(queries, 16))
    got = bench.rows_of(job, device.get(out), tiles)
    np.testing.assert_array_equal(got.view(np.uint32), bench.expected(job, operands))


@pytest.mark.parametrize("word, value, field", [
    (6, 1, 6), (7, 1, 6), (13, 1, 13), (14, 1, 14), (8, 0, 8), (1, 7 << 20, 1)])
def test_the_golden_machine_refuses_what_the_unit_refuses(word, value, field):
    """The second SCORE of a tile, with one word changed."""
    device = Device(FakePackage(Configuration(dies=1, pes=1)))
    job = bench.Job(queries=16, keys=200, head=32)
    head = bench.place(device, 0, job, bench.packed(job))
    program = flash(head)
    wrong = [words for words in program.commands if words[0] & 255 == 0x22][1]
    wrong[word] = wrong[word] | value if value else 0
    with pytest.raises(DeviceError) as caught:
        device.launch(0, {0: program}).wait()
    assert (caught.value.completion.code, caught.value.completion.field) == (2, field)


def test_wrong_arguments():
    device = Device(FakePackage(Configuration(dies=1, pes=1)))
    job = bench.Job(queries=20, keys=150, head=32)
    head = bench.place(device, 0, job, bench.packed(job))
    with pytest.raises(ValueError, match="P must be E4M3, BF16 or FP16, not E2M1"):
        flash(head, p=Format.E2M1)
    with pytest.raises(ValueError, match="do not make an attention"):
        flash(Head(head.q, head.q, head.vt, head.out))
    with pytest.raises(ValueError, match="O\\^T must be 64x16 in FP32"):
        flash(Head(head.q, head.k, head.vt, head.q))
    with pytest.raises(ValueError, match="Two blocks of keys need"):
        flash(head, local_lines=200)
    with pytest.raises(ValueError, match="A sequence of 129 keys does not fit into a pool of 128"):
        k = Tensor(0, 128, 32, Format.E4M3, 0)
        vt = Tensor(0, 32, 128, Format.E4M3, 0)
        flash(Head(head.q, k, vt, head.out, PageTable(0, 129)))
    for cap in (0, -50.0, float("inf"), float("nan"), 1e308):
        with pytest.raises(ValueError, match="Cap must be a positive number, not"):
            flash(head, cap=cap)
    with pytest.raises(ValueError, match="Sinks must be 1x16 in FP32, not 20x32 in E4M3"):
        flash(head, sinks=head.q)
    for wrong in ({"window": 3}, {"causal": True, "window": 0}, {"share": 5}):
        with pytest.raises(ValueError, match="must be"):
            Mask(**wrong)
