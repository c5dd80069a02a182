"""Tests of the encoder's kernels: programs executed by golden machines, compared bit for bit."""
from dataclasses import dataclass

import numpy as np
import pytest

from cosim.golden import formats as number_formats
from cosim.golden import transformer as golden
from host import embed
from host.bench import embed as bench
from host.driver import Device
from host.embed import Encoder, Phase
from host.isa import Format, Region, Rule
from host.kernels import transformer as kernels
from host.kernels.attention import runs_of
from host.models import minilm
from host.tensor import pack
from testbenches.host_fake import Configuration, FakePackage


@dataclass
class Weights:
    qkv: object
    qkv_bias: object


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def spans(lengths):
    ends = np.cumsum(lengths)
    return [(int(e - n), int(e)) for e, n in zip(ends, lengths, strict=True)]


def attended(lengths, *, heads=3, head=32, form=Format.E4M3, weights=Format.E4M3,
             probabilities=Format.E4M3, pes=2):
    """Projections and attention on golden machines; compares the quantised heads."""
    device = Device(FakePackage(Configuration(dies=1, pes=pes)))
    shape = kernels.Shape(width=heads * head, heads=heads)
    tokens, sentences = sum(lengths), spans(lengths)
    x, w = numbers(1, tokens, shape.width) * 2, numbers(2, 3 * shape.width, shape.width) / 12
    bias = numbers(3, 3 * shape.width)
    packed_x, packed_w = pack(x, form, rule=Rule.RCEIL), pack(w, weights, rule=Rule.EVEN)
    act = kernels.Activations(
        None, device.put(packed_x, 0), device.empty(0, tokens, shape.width, form), None, None)
    placed = Weights(device.put(packed_w, 0), device.put(pack(bias[None], Format.FP32), 0))
    programs = kernels.attend(placed, act, sentences, pes=device.pes, shape=shape,
                              rule=Rule.RCEIL, probabilities=probabilities)
    device.launch(0, programs).wait()
    arithmetic = golden.Arithmetic(
        number_formats.Format(weights), number_formats.Format(form), Rule.EVEN, Rule.RCEIL,
        None if probabilities is None else number_formats.Format(probabilities))
    mixed = golden.mixed(golden.bits(x), Weights(packed_w.operand, bias), sentences, heads,
                         arithmetic)
    wanted = pack(mixed.view(np.float32), form, rule=Rule.RCEIL)
    np.testing.assert_array_equal(device.read(act.heads.address, act.heads.element_bytes),
                                  wanted.elements.reshape(-1))
    got = device.read(act.heads.scales, wanted.scales.size).reshape(wanted.scales.shape)
    np.testing.assert_array_equal(got[:, :shape.width // 32],
                                  wanted.scales[:, :shape.width // 32])
    return mixed.view(np.float32), (x, w, bias), programs


@pytest.mark.parametrize("probabilities", [Format.E4M3, Format.FP16, Format.BF16, None])
@pytest.mark.parametrize("lengths", [[1], [16], [3, 17, 40], [128], [100, 28, 50, 5]])
def test_sentences_of_any_length(lengths, probabilities):
    attended(lengths, probabilities=probabilities)


@pytest.mark.parametrize("probabilities", [Format.E4M3, None])
@pytest.mark.parametrize("lengths", [[129], [200, 31], [7, 256]])
def test_sentences_of_several_blocks_of_keys(lengths, probabilities):
    attended(lengths, probabilities=probabilities)


@pytest.mark.parametrize("form", [Format.E4M3, Format.E5M2, Format.E2M1])
@pytest.mark.parametrize("weights", [Format.E4M3, Format.E2M1])
@pytest.mark.parametrize("probabilities", [Format.E4M3, Format.FP16])
def test_formats(form, weights, probabilities):
    attended([20, 45], form=form, weights=weights, probabilities=probabilities)


@pytest.mark.parametrize("probabilities", [Format.E4M3, None])
def test_heads_of_64_and_pes_without_a_head(probabilities):
    attended([33, 20], heads=2, head=64, pes=3, probabilities=probabilities)


@pytest.mark.parametrize("probabilities", [Format.E4M3, Format.FP16, None])
def test_result_is_near_float64(probabilities):
    lengths, head = [30, 150], 32
    got, (x, w, bias), _ = attended(lengths, probabilities=probabilities)
    qkv = x.astype(np.float64) @ w.T + bias
    q, k, v = np.split(qkv, 3, axis=1)
    exact = np.zeros_like(q)
    for first, last in spans(lengths):
        for at in range(0, q.shape[1], head):
            a, b, c = (m[first:last, at:at + head] for m in (q, k, v))
            scores = a @ b.T / np.sqrt(head)
            p = np.exp(scores - scores.max(1, keepdims=True))
            exact[first:last, at:at + head] = p @ c / p.sum(1, keepdims=True)
    error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
    assert 0.001 < error < 0.1  # Q, K, V in MXFP8: not exact


def opcodes(programs):
    return [int(c[0]) & 255 for p in programs.values() for c in p.commands]


def test_the_attention_unit_is_used_where_it_is_asked_for():
    fused, separate = (opcodes(attended([20, 30], probabilities=p)[2])
                       for p in (Format.E4M3, None))
    assert fused.count(0x22) == fused.count(0x23) == 3 * (2 + 2) and 0x22 not in separate
    # a tile of weights is loaded once for both sentences
    assert fused.count(0x21) == 3 * 6


def test_runs_hold_whole_sentences():
    assert runs_of(spans([60, 60, 8, 1, 200, 5])) == [
        [(0, 60), (60, 120), (120, 128)], [(128, 129)], [(129, 329)], [(329, 334)]]


def encoder(attention, fused=None, *, package=None, layers=2):
    parameters = minilm.load()
    parameters = minilm.Weights(parameters.words, parameters.positions, parameters.norm,
                                parameters.layers[:layers])
    device = Device(package or FakePackage(Configuration(attention=attention)))
    return Encoder(device, parameters, weight_format=Format.E2M1, weight_rule=Rule.EVEN,
                   rule=Rule.RCEIL, fused=fused)


@pytest.mark.parametrize("attention, fused", [(True, None), (True, False), (False, None)])
def test_encoder_with_and_without_attention_unit(attention, fused):
    job = encoder(attention, fused)
    assert (job.probabilities is not None) == (attention and fused is None)
    result = job.run(minilm.tokenise(["A small test.", "Two short sentences are enough.", "Yes."]))
    states, vectors = job.golden(result.shares)
    for mine, theirs in zip(result.states, states, strict=True):
        for x, y in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(result.vectors.view(np.uint32), vectors)


def test_no_attention_unit_to_be_used():
    with pytest.raises(ValueError, match="have no attention unit"):
        encoder(False, fused=True)


def test_attention_alone_both_ways():
    job = encoder(True)
    result = job.run(minilm.tokenise(["Two short sentences are enough.", "Yes."]))
    attention = bench.phases(job, result)
    assert list(attention.phases) == [True, False] and attention.exact
    assert all(p.compared == sum(x.size for x in result.states[0])
               for p in attention.phases.values())
    result.states[-1][0][3] ^= 1 << 22      # other hidden states: a difference must be seen
    assert job.attend(result, fused=True).equal < attention.phases[True].compared


def test_without_attention_unit_one_way_is_reported():
    job = encoder(False)
    result = job.run(minilm.tokenise(["Yes."]))
    assert list(bench.phases(job, result).phases) == [False]
    with pytest.raises(ValueError, match="have no attention unit"):
        job.attend(result, fused=True)


def test_projections_alone_are_all_products_and_nothing_else():
    """They run over more heads and runs than a buffer holds results of."""
    device = Device(FakePackage(Configuration(dies=1, pes=2)))
    shape = kernels.Shape(width=96, heads=3)
    x, w = pack(numbers(1, 190, 96), Format.E4M3), pack(numbers(2, 288, 96), Format.E4M3)
    act = kernels.Activations(None, device.put(x, 0), None, None, None)
    placed = Weights(device.put(w, 0), device.put(pack(numbers(3, 1, 288), Format.FP32), 0))
    programs = kernels.attend(placed, act, spans([100, 20, 70]), pes=device.pes, shape=shape,
                              alone=True)
    device.launch(0, programs).wait()
    assert opcodes(programs).count(0x21) == 2 * 3 * 6
    assert not {0x22, 0x23, 0x30, 0x40, 0x11} & set(opcodes(programs))


def test_attention_figures():
    both = bench.Attention({True: Phase(50, 1, 1), False: Phase(75, 1, 1)}, 40)
    assert both.exact and both.metrics("_x") == {
        "projection_cycles_x": 40, "attention_phase_cycles_without_unit_x": 75,
        "attention_phase_cycles_x": 50, "attention_phase_speedup_x": 1.5,
        "attention_speedup_x": 3.5}
    one = bench.Attention({False: Phase(75, 2, 1)}, 40)
    assert not one.exact and one.metrics() == {
        "projection_cycles": 40, "attention_phase_cycles_without_unit": 75}


class Reordered(FakePackage):
    """Executes one submission at a time, of the first stream in ``order`` that has one."""

    def __init__(self, order):
        super().__init__()
        self.order, self.queues = order, {stream: [] for stream in order}

    def run_until_interrupt(self, cycles):
        self.cycle += 1
        base, entries = self.registers["submission_base_lo"], 1 << self.registers["submission_size"]
        while self.head != self.registers["submission_tail"]:
            at = base + self.head * 64
            words = [int(w) for w in self.host_memory[at:at + 64].view("<u4")]
            self.queues[words[0] >> 8 & 255].append(words)
            self.head = (self.head + 1) % entries
        for stream in self.order:
            if self.queues[stream]:
                self._execute(self.queues[stream].pop(0))
                return


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_dies_in_any_order(order):
    """One die's steps before the other's as far as the host allows, and the other way round."""
    package = Reordered(order)
    job = encoder(True, package=package, layers=4)
    result = job.run(minilm.tokenise(["Two short sentences are enough.", "Yes."]))
    states, vectors = job.golden(result.shares)
    for mine, theirs in zip(result.states, states, strict=True):
        for x, y in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(result.vectors.view(np.uint32), vectors)


def test_many_tokens_and_little_memory(monkeypatch):
    """Hidden states go to HBM, programs come one at a time."""
    monkeypatch.setattr(embed, "STATE_BYTES", 300_000)
    monkeypatch.setattr(embed, "AHEAD_BYTES", 1)
    job = encoder(True, package=FakePackage(Configuration(sram_bytes=4_500_000)), layers=3)
    result = job.run(minilm.tokenise([minilm.SENTENCES[1] * 8, "Yes."]))
    regions = {Region(state.address >> 40 & 15) for share in result.shares
               for state in share.states}
    assert regions == {Region.SRAM, Region.HBM}
    states, _ = job.golden(result.shares)
    np.testing.assert_array_equal(result.states[-1][0], states[-1][0])
