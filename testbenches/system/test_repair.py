"""System tests: packages with bad PEs, which say random things from the first cycle on."""
import numpy as np
import pytest

from host.bench import gemm
from host.boot import Settings
from host.driver import Device
from host.isa import Format
from host.kernels import rows
from host.outcome import Options
from host.tensor import pack
from host.transport import open_package

pytestmark = pytest.mark.system

DIES, ROWS, COLUMNS = 2, 2, 3       # of mtia450, a spare row beside
JOB = gemm.Job(128, 96, 256)


def results(bad):
    """Bits and cycles of a product on all dies and of a row kernel on one, with these PEs bad."""
    rng = np.random.default_rng(5)
    x, w = (gemm.random_operand(rng, n, JOB.k, JOB.form) for n in (JOB.m, JOB.n))
    values = rng.standard_normal((20, 100)).astype(np.float32)
    with open_package(Options(settings=Settings(bad_pes=bad))) as transport:
        device = Device(transport)
        product = gemm.execute(device, JOB, x, w)
        tx, ty = device.put(pack(values, Format.FP32), 1), device.empty(1, 20, 100, Format.FP32)
        event = device.launch(1, rows.softmax_rows(tx, ty, pes=device.pes))
        event.wait(1_000_000)
        return (product.result.tobytes(), product.cycles, device.get(ty).tobytes(),
                event.completion.cycles)


@pytest.fixture(scope="module")
def healthy():
    return results(())


@pytest.mark.parametrize("seed", range(3))
def test_one_bad_pe_in_each_column_changes_no_bit_and_no_cycle(healthy, seed):
    rng = np.random.default_rng(seed)
    bad = tuple((die, int(rng.integers(ROWS + 1)), column)
                for die in range(DIES) for column in range(COLUMNS))
    assert results(bad) == healthy
