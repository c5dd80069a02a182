"""System test: a feed-forward network and a product of several runs on the co-simulated package."""
import numpy as np
import pytest

from cosim.golden import ffn as golden
from cosim.golden.ffn import Kind
from host.bench import ffn as bench
from host.bench import gemm_layers
from host.isa import Format, Rule
from host.kernels.ffn import Weights, ffn
from host.outcome import Options
from host.tensor import pack

pytestmark = pytest.mark.system


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda k: k.name)
def test_network_is_bit_exact(device, kind):
    x, gate, up, down = (pack(numbers(i, *shape), Format.E2M1 if i else Format.E4M3)
                         for i, shape in enumerate(((21, 96), (100, 96), (100, 96), (96, 100))))
    tensors = [device.put(t, 0) for t in (x, gate, up, down)]
    zeros = device.alloc(0, 128)
    device.write(zeros, np.zeros(128, np.uint8))
    y = device.empty(0, 21, 96, Format.FP32)
    programs = ffn(tensors[0], Weights(*tensors[2:], tensors[1], zeros),
                   device.empty(0, 21, 100, Format.E4M3), y, kind=kind, pes=device.pes,
                   rule=Rule.EVEN)
    device.launch(0, programs).wait(2_000_000)
    wanted = golden.ffn(x.operand, gate.operand, up.operand, down.operand, kind, rule=Rule.EVEN)
    np.testing.assert_array_equal(device.get(y).view(np.uint32), wanted)


def test_bench_of_a_small_network():
    outcome = bench.run(Options(threads=1), bench.Job(tokens=32, width=64, inner=192))
    assert outcome.passed and 0.1 < outcome.metrics["utilization"] < 1
    assert 0.5 < outcome.metrics["utilization_pe"] < 1


def test_bench_of_small_layers():
    outcome = gemm_layers.run(Options(threads=1), {"small": {"qkv": (200, 96), "down": (96, 320)}})
    assert outcome.passed and outcome.metrics["utilization_mean"] < 1
    assert outcome.metrics["utilization_min"] == min(
        outcome.metrics["utilization_small_qkv"], outcome.metrics["utilization_small_down"])
