"""Measurements: each module has ``run(options) -> Outcome``; ``BENCHES`` names them."""
from host.bench import (
    allreduce,
    attention,
    collectives,
    embed,
    faults,
    ffn,
    gemm,
    gemm_hbm,
    gemm_layers,
    generations,
    hbm,
    launch,
    multicast,
    noc,
    overlap,
    simspeed,
    stream_add,
)

BENCHES = {"gemm": gemm.run, "gemm_layers": gemm_layers.run, "attention": attention.run,
           "attention_decode": attention.run_decode, "ffn": ffn.run, "embed": embed.run,
           "embed_packages": embed.run_packages,
           "launch": launch.run, "multicast": multicast.run, "noc": noc.run, "hbm": hbm.run,
           "gemm_hbm": gemm_hbm.run,
           "stream_add": stream_add.run, "generations": generations.run,
           "simspeed": simspeed.run, "allreduce": allreduce.run,
           "collectives": collectives.run, "overlap": overlap.run, "faults": faults.run}
