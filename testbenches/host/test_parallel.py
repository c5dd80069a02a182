"""A layer split over ranks: golden model against float64, programs on packages without time."""
from dataclasses import replace

import numpy as np
import pytest

from cosim.golden import transformer as golden
from cosim.golden.formats import Format as NumberFormat
from host.bench import tp
from host.collectives import Port, Rail, System
from host.driver import Device
from host.embed import MATRICES
from host.isa import Format
from host.kernels import parallel as kernels
from host.kernels.parallel import share_heads
from host.models import parallel as model
from host.models.parallel import Sizes
from host.outcome import Outcome
from host.parallel import Job, LayerError, OnePackage, Packet, Ranks, packets
from testbenches.host_fake import Configuration, FakePackage
from testbenches.network_fake import World

SMALL = Sizes(sentences=3, tokens=7, width=128, heads=4, inner=256)


def ranks_of(job):
    world = World(job.ranks)
    return Ranks(System(world.devices, [Rail(0, (Port(0, 0, 0),)), Rail(1, (Port(0, 0, 1),))]),
                 job)


@pytest.mark.parametrize(("ranks", "sums", "pieces", "weights"), [
    (2, Format.FP32, 2, Format.E4M3), (2, Format.BF16, 1, Format.E2M1),
    (4, Format.BF16, 2, Format.E4M3), (4, Format.FP32, 1, Format.E4M3)])
def test_ranks_and_one_package_have_the_bits_of_the_golden_model(ranks, sums, pieces, weights):
    job = Job(SMALL, ranks=ranks, sums=sums, pieces=pieces, weights=weights)
    wanted = job.golden()
    split = ranks_of(job)
    split.run()
    for own in split.packages:
        np.testing.assert_array_equal(own.result(), wanted)
    one = OnePackage(Device(FakePackage()), job)
    one.run()
    np.testing.assert_array_equal(one.result(), wanted)


def test_a_wrong_order_of_ranks_gives_other_bits():
    """The bits depend on the order and on the format: a comparison can fail."""
    job = Job(SMALL, ranks=4, sums=Format.FP32)
    rng = np.random.default_rng(0)
    parts = [golden.bits(rng.normal(size=(8, 64))) for _ in range(4)]
    for form in (NumberFormat.FP32, NumberFormat.BF16):
        right = model.ordered_sum(parts, form)
        assert (right != model.ordered_sum(parts[::-1], form)).any()
        np.testing.assert_allclose(right.view(np.float32),
                                   sum(p.view(np.float32).astype(np.float64) for p in parts),
                                   atol={NumberFormat.FP32: 1e-6, NumberFormat.BF16: 0.1}[form])
    assert (job.golden() != replace(job, sums=Format.BF16).golden()).any()
    assert (job.golden() != replace(job, ranks=2).golden()).any()


def test_the_golden_model_is_near_the_layer_in_float64():
    """One rank has the bits of the encoder's golden model; errors are those of the formats."""
    job = Job(SMALL, ranks=1, sums=Format.FP32)
    layer = job.layer
    coded = replace(layer, **{name: golden.weight(getattr(layer, name), job.arithmetic(True))
                              for name in MATRICES})
    whole = golden.encoder_layer(golden.bits(job.input), coded, job.spans, SMALL.heads,
                                 model.EPSILON, job.arithmetic(True))
    np.testing.assert_array_equal(job.golden(), whole)
    exact = model.reference(job.input, layer, job.spans, SMALL.heads)
    for ranks in (1, 2, 4):
        found = replace(job, ranks=ranks).golden().view(np.float32)
        assert np.sqrt(np.mean((found - exact) ** 2)) < 0.06
        assert tp.cosine(found, exact).min() > 0.995
    shifted = model.reference(job.input, layer, [(0, 14), (14, 21)], SMALL.heads)
    assert np.abs(shifted - exact).max() > 0.1      # sentences count


def test_ranks_have_all_of_a_layer_once():
    layer, n = model.random_layer(SMALL), 4
    shares = [model.share(layer, SMALL.heads, n, rank) for rank in range(n)]
    parts = np.concatenate([s.qkv.reshape(3, -1, SMALL.width) for s in shares], axis=1)
    np.testing.assert_array_equal(parts.reshape(layer.qkv.shape), layer.qkv)
    for name, axis in (("out", 1), ("up", 0), ("up_bias", 0), ("down", 1)):
        whole = np.concatenate([getattr(s, name) for s in shares], axis=axis)
        np.testing.assert_array_equal(whole, getattr(layer, name))


def test_a_package_stays_ahead_of_what_a_stage_needs():
    assert packets(1) == [Packet(("mix", 0)), Packet(None, ("mix", 0)),
                          Packet(("spread", 0)), Packet(None, ("spread", 0)),
                          Packet(("close", 0))]
    for pieces in (2, 3):
        found, ended = packets(pieces), set()
        assert len(found) == 3 * pieces and all(packet.stage for packet in found)
        for packet in found:
            name, piece = packet.stage
            needed = {"spread": "mix", "close": "spread"}.get(name)
            assert needed is None or ("sum", needed, piece) in ended
            assert packet.reduce is None or packet.reduce in ended
            ended |= {packet.stage, ("sum", *(packet.reduce or ()))}


@pytest.mark.parametrize(("heads", "ranks", "sentences"), [
    (2, 1, 3), (4, 1, 2), (1, 1, 1), (2, 8, 4), (5, 2, 7)])
def test_each_head_of_each_sentence_is_done_once(heads, ranks, sentences):
    device = Device(FakePackage(Configuration(dies=1)))
    job = Job(Sizes(sentences, 5, 32 * heads * ranks, heads * ranks, 32 * ranks), ranks=ranks)
    own = OnePackage(device, job).package
    work, (piece,) = own.dies[0]
    done = [(rank, head, span) for items in share_heads(work, piece.spans)
            for rank, (first, last), part in items for head in range(first, last)
            for span in part]
    assert len(done) == len(set(done)) == heads * ranks * sentences


@pytest.mark.parametrize(("change", "words"), [
    ({"ranks": 3}, "Ranks must divide the 4 heads, as 3 do not"),
    ({"pieces": 0}, "Pieces must be at least 1, not 0"),
    ({"sizes": replace(SMALL, heads=3)}, "multiple of 32 for each of 3 heads"),
    ({"sizes": replace(SMALL, width=4096)}, "Width must be at most 2048"),
    ({"sizes": replace(SMALL, inner=96)}, "multiple of 32 for each of 2 ranks, not 96"),
    ({"sizes": replace(SMALL, inner=8192)}, "at most 2048 for each of 2 ranks"),
    ({"sums": Format.FP16}, "FP32 or BF16, not FP16")])
def test_layers_that_cannot_be_split(change, words):
    with pytest.raises(LayerError, match=words):
        Job(**({"sizes": SMALL, "ranks": 2} | change))


def test_wrong_stage_and_number_of_devices_and_size():
    with pytest.raises(ValueError, match="must be one of mix, spread, close, not 'begin'"):
        kernels.stage("begin", None, None, None)
    world = World(2)
    with pytest.raises(ValueError, match="must be as many as ranks, 4, not 2"):
        Ranks(System(world.devices), Job(SMALL, ranks=4))
    long = Job(Sizes(1, 300, 2048, 4, 128), ranks=1)
    with pytest.raises(LayerError, match="too large for a PE's local memory"):
        OnePackage(Device(FakePackage()), long).run()
    with pytest.raises(LayerError, match="too large for the memory of a die"):
        OnePackage(Device(FakePackage(Configuration(sram_bytes=1 << 14))), Job(SMALL))
    with pytest.raises(LayerError, match="Weights must be mxfp8 on mtia300"):
        tp.job_of("mtia300", "mxfp4")


def test_parts_of_the_time():
    """Cycles of compute and communication, of both at once, and of neither."""
    lane = tp.Lane(0, 0, [(10, 20), (15, 30), (50, 60)], [(25, 55), (55, 58), (90, 95)])
    assert tp.union(lane.compute) == [(10, 30), (50, 60)]
    assert tp.parts(lane, (10, 110)).tolist() == [30, 38, 5 + 8, 100 - (30 + 38 - 13)]
    assert tp.window_of([lane]) == (10, 60)
    job = Job(SMALL, pieces=1)
    runs = {(0, 0): [[(0, 9), (20, 29), (40, 49)], []]}
    sums = [[(0, 10, 19), (0, 30, 39)]]
    assert tp.ordered(runs, sums, lambda stamp: stamp, job)
    assert not tp.ordered(runs, sums, lambda stamp: stamp - 1, job)
    assert not tp.ordered(runs, sums, lambda stamp: stamp + 1, job)
    lanes = tp.lanes_of(runs, sums, lambda stamp: stamp + 8)
    assert lanes == [tp.Lane(0, 0, [(0, 10), (20, 30), (40, 50)], [(18, 27), (38, 47)])]


def report(checks=True):
    lane = tp.Lane(0, 0, [(10, 20)], [(15, 25)])
    metrics = {"cycles": 20, "cycles_one_package": 30, "speedup": 1.5, "elements_compared": 7,
               "communication_hidden": 0.5, "max_abs_error": 0.1, "min_cosine": 0.99,
               **{f"{name}_cycles": 5 for name in tp.PARTS}}
    outcome = Outcome("tp", "none", metrics, dict.fromkeys(
        ("bit_exact", "same_as_one_package", "all_reduces_between_their_stages"), checks),
        {"ranks": 1, "sentences": 1, "tokens": 1, "width": 1, "heads": 1, "inner": 1,
         "pieces": 1, "weights": "E4M3", "sums": "BF16"})
    return tp.Report(outcome, [lane], [np.array([10, 10, 5, 5])], (10, 30))


def test_the_report_and_its_picture(tmp_path, capsys):
    from rich.console import Console

    from host.report_parallel import picture, print_parallel
    print_parallel(report(), Console(width=120))
    text = capsys.readouterr().out
    assert "1.50 times as fast" in text and "bit-exact on every rank: yes" in text
    print_parallel(report(False), Console(width=120))
    assert "same bits as one package: NO" in capsys.readouterr().out
    path = picture(report(), tmp_path / "new")
    assert path.read_bytes().startswith(b"\x89PNG")
