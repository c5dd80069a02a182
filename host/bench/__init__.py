"""Measurements: each module has ``run(options) -> Outcome``; ``BENCHES`` names them."""
from host.bench import embed, gemm, simspeed

BENCHES = {"gemm": gemm.run, "embed": embed.run, "simspeed": simspeed.run}
