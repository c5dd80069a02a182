"""Measurements: each module has ``run(options) -> Outcome``; ``BENCHES`` names them."""
from host.bench import embed, ffn, gemm, gemm_layers, simspeed

BENCHES = {"gemm": gemm.run, "gemm_layers": gemm_layers.run, "ffn": ffn.run, "embed": embed.run,
           "simspeed": simspeed.run}
