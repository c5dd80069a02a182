"""A matrix product with all operands in HBM, on all PEs of the package."""
from host.bench import gemm
from host.isa import Region

JOB = gemm.Job(1024, 1024, 4096)


def run(options, job=JOB):
    """As :func:`host.bench.gemm.run`, with operands and result in HBM."""
    outcome = gemm.run(options, job, region=Region.HBM)
    outcome.name = "gemm_hbm"
    return outcome
