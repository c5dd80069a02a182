"""Measurements: each module has ``run(options) -> Outcome``; ``BENCHES`` names them."""
from host.bench import attention, embed, gemm, simspeed

BENCHES = {"gemm": gemm.run, "embed": embed.run, "simspeed": simspeed.run,
           "attention": attention.run, "attention_decode": attention.run_decode}
