"""System tests: PEs that read the same lines together, and such that wait for others in vain."""
import numpy as np
import pytest

from host.bench import multicast
from host.driver import DeviceError
from host.isa import LINE, Code, Group, Region, address
from host.program import Program, use

pytestmark = pytest.mark.system


@pytest.mark.parametrize("region", [Region.SRAM, Region.HBM])
def test_each_line_is_fetched_once_for_a_group(device, region):
    weights = np.random.default_rng(2).integers(0, 256, 1 << 16, dtype=np.uint8)
    weights = np.resize(weights, multicast.PIECES * multicast.PIECE * LINE)
    c = device.configuration
    for group, readers in ((Group.ROW, c.columns), (Group.ALL, c.rows * c.columns)):
        found = multicast.measure(device, region, group, weights)
        lines = len(weights) // LINE
        assert found.exact
        assert found.fetched == lines * len(device.pes) // readers
        assert found.fetched + found.saved == lines * len(device.pes)


def test_members_that_never_come_only_cost_time(device):
    """One PE of a column reads with the group, and one with a group that reads other lines."""
    source = device.alloc(0, 4 * LINE)
    data = np.arange(4 * LINE, dtype=np.uint32).astype(np.uint8)
    device.write(source, data).wait()
    targets, programs = {}, {}
    for pe, group in ((1, Group.COLUMN), (3, Group.ROW)):
        made, targets[pe] = Program(), device.alloc(0, 4 * LINE)
        buffer = made.buffer(4)
        made.dma_in(use(buffer, wait=4, release=4), source, row_bytes=4 * LINE, group=group)
        made.dma_out(use(buffer, wait=4, release=4), targets[pe], row_bytes=4 * LINE)
        programs[pe] = made
    event = device.launch(0, programs)
    event.wait(200_000)
    assert event.completion.cycles > 8000
    for at in targets.values():
        np.testing.assert_array_equal(device.read(at, 4 * LINE), data)


@pytest.mark.parametrize("at", [address(0, Region.REGISTERS, 0), address(0, Region.CONTROL, 0),
                                address(1, Region.SRAM, 0)])
def test_only_memory_of_the_die_is_read_together(device, at):
    program = Program()
    buffer = program.buffer(4)
    program.dma_in(use(buffer, release=1), at, row_bytes=LINE, group=Group.ALL)
    with pytest.raises(DeviceError) as caught:
        device.launch(0, dict.fromkeys(device.pes, program)).wait(200_000)
    assert caught.value.completion.code == Code.BAD_ADDRESS
