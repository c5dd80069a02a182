"""Measurements: each module has ``run(options) -> Outcome``; ``BENCHES`` names them."""
from host.bench import attention, embed, ffn, gemm, gemm_layers, noc, simspeed

BENCHES = {"gemm": gemm.run, "gemm_layers": gemm_layers.run, "attention": attention.run,
           "attention_decode": attention.run_decode, "ffn": ffn.run, "embed": embed.run,
           "noc": noc.run, "simspeed": simspeed.run}
