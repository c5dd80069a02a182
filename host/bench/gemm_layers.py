"""Matrix products of whole layers with operands in SRAM, each on all PEs of the package."""
import numpy as np

from host.bench import gemm
from host.driver import Device
from host.isa import Format
from host.outcome import Outcome
from host.transport import open_package

ROWS = 128              # tokens: what one job of embeddings has, about
ACTIVATIONS, WEIGHTS = Format.E4M3, Format.E2M1
LAYERS = {              # N and K of each product [column]
    "minilm": {         # width 384, inner 1536, 12 heads of 32
        "qkv": (1152, 384), "out": (384, 384), "up": (1536, 384), "down": (384, 1536)},
    "llama": {          # width 512, inner 1536, 8 query heads and 2 KV heads of 64; P
        "qkv": (768, 512), "out": (512, 512), "gate_up": (3072, 512), "down": (512, 1536)}}


def run(options, layers=LAYERS, rows=ROWS):
    """Measure the utilisation of each product, and compare every element with the golden model."""
    jobs = {f"{layer}_{name}": gemm.Job(rows, n, k) for layer, products in layers.items()
            for name, (n, k) in products.items()}
    used, exact, compared = {}, True, 0
    with open_package(options) as transport:
        device = Device(transport)
        pes = len(device.pes) * len(device.dies)
        peak = device.shape.macs(ACTIVATIONS)   # MX4 weights decode into the cells of MX8
        weights = WEIGHTS if device.shape.mx4_lanes else ACTIVATIONS
        for number, (name, job) in enumerate(jobs.items()):
            options.step(number, len(jobs), name)
            rng = np.random.default_rng(number)
            x = gemm.random_operand(rng, job.m, job.k, ACTIVATIONS)
            w = gemm.random_operand(rng, job.n, job.k, weights)
            done = gemm.execute(device, job, x, w)
            used[name] = job.m * job.n * job.k / (peak * pes) / done.cycles
            expected = gemm.golden(w, x)
            exact &= np.array_equal(done.result.view(np.uint32), expected.view(np.uint32))
            compared += expected.size
    options.step(len(jobs), len(jobs), "done")
    outcome = Outcome("gemm_layers", options.package)
    outcome.metrics = {
        "utilization_min": min(used.values()),
        "utilization_mean": sum(used.values()) / len(used),
        **{f"utilization_{name}": value for name, value in used.items()},
        "elements_compared": compared}
    outcome.checks = {"bit_exact": exact}
    outcome.config = {"rows": rows, "activations": ACTIVATIONS.name, "weights": weights.name,
                      "pes": pes, "peak_macs_per_cycle": peak * pes,
                      "columns_and_k": {name: [job.n, job.k] for name, job in jobs.items()}}
    return outcome
