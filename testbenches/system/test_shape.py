"""System tests: the requests of PEs are shaped where they enter the mesh."""
import numpy as np
import pytest

from host.isa import LINE, Region
from host.kernels.rows import array
from host.program import Program

pytestmark = pytest.mark.system
LINES = 512


@pytest.fixture
def copy(device):
    """A function: every PE copies 32 KiB in HBM; it checks the copies and gives the cycles."""
    data = np.random.default_rng(5).integers(0, 256, LINES * LINE, dtype=np.uint8)
    source = device.alloc(0, len(data), Region.HBM)
    device.write(source, data).wait()
    targets = {pe: device.alloc(0, len(data), Region.HBM) for pe in device.pes}

    def run():
        programs = {}
        for pe, target in targets.items():
            programs[pe] = p = Program()
            buffer = p.buffer(LINES)
            p.dma_in(array(buffer, LINES), source, row_bytes=len(data))
            p.dma_out(array(buffer, LINES), target, row_bytes=len(data))
            device.write(target, np.zeros_like(data)).wait()
        event = device.launch(0, programs)
        event.wait(400_000)
        for target in targets.values():
            np.testing.assert_array_equal(device.read(target, len(data)), data)
        return event.completion.cycles
    return run


def test_a_pe_asks_no_faster_than_its_rate(device, copy):
    fast = copy()
    with device.shaped(32, 16):
        slow = copy()
    requests = 2 * LINES    # and those for the program
    assert fast < 256 / 32 * (requests - 16) < slow < 256 / 32 * (requests + 64) + 1000
    assert abs(copy() - fast) < fast / 8    # as before
