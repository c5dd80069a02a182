"""System tests: the meshes count what they carry, and what they could not."""
import numpy as np
import pytest

from host.isa import LINE, Region
from host.kernels.rows import array
from host.losses import NocCounts
from host.program import Program

pytestmark = pytest.mark.system


def test_every_access_is_a_packet_of_each_mesh(device):
    """Reading the counters is one as well, and is counted when it comes to the registers."""
    counts = [NocCounts.read(device)]
    at = device.alloc(0, 64 * LINE, Region.SRAM)
    device.write(at, np.arange(64 * LINE, dtype=np.uint8)).wait()
    counts.append(NocCounts.read(device))
    device.read(at, 48 * LINE)
    counts.append(NocCounts.read(device))
    for before, after, lines in zip(counts, counts[1:], (64, 48), strict=False):
        new = after.since(before)
        assert new["delivered"][0].tolist() == [lines + 1, lines + 1]
        assert new["delivered"][1].tolist() == [1, 1]   # nothing else on the other die
        assert not new["lost"].any() and (new["hops"][0] >= lines).all()
    c = device.configuration
    links = 2 * (c.rows * (c.columns - 1) + c.columns * (c.rows - 1))
    pes, tiles = c.rows * c.columns, 2 * c.rows
    others = sum(c.grid) - 2 + c.engines + c.networks
    assert counts[0].links.tolist() == [[links, links]] * c.dies
    assert counts[0].outputs.tolist() == [
        [links + pes + tiles + 1 + others, links + pes + 2 + others]] * c.dies


def test_shares_say_where_the_time_of_outputs_went(device):
    """All PEs read one bank's lines: the way there is full, the others wait."""
    size = 128 * LINE
    source = device.alloc(0, size, Region.SRAM)
    device.write(source, np.zeros(size, np.uint8)).wait()
    programs = {}
    for pe in device.pes:
        programs[pe] = p = Program()
        buffer = p.buffer(1024)
        p.dma_in(array(buffer, 1024), source, row_bytes=LINE, rows=1024,
                 local_stride=LINE)
    launch = device.prepare(0, programs)
    before = NocCounts.read(device)
    cycles = device.run_together([launch])
    new = NocCounts.read(device).since(before)
    shares = new.metrics()
    assert cycles <= new.cycles[0] < cycles + 3000
    assert new["delivered"][0, 0] >= 1024 * len(programs)
    assert new["blocked"][0, 0] > 0.05 * new.cycles[0] * new.outputs[0, 0]
    assert new["busiest"][0, 1] > 0.5 * cycles      # of the one bank all answers come from
    for mesh in ("requests", "responses"):
        parts = [shares[f"noc_{mesh}_{part}_share"] for part in ("carried", "blocked", "idle")]
        assert sum(parts) == pytest.approx(1) and min(parts) >= 0 and parts[0] > 0
        assert 0 < shares[f"noc_{mesh}_link_use"] <= shares[f"noc_{mesh}_busiest_link_use"] <= 1
