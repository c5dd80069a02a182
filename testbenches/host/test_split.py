"""Tests of host/kernels/split.py: attention shared out over a ring of golden machines."""
import numpy as np
import pytest

from chiplets.packages import ComputeParameters
from host.bench import attention as bench
from host.driver import Device
from host.isa import Format
from host.kernels.flash import Mask
from host.kernels.split import flash_split
from testbenches.host_fake import Configuration, FakePackage


def result(job, *, rows=2, columns=3):
    device = Device(FakePackage(Configuration(dies=1, pes=rows * columns, rows=rows,
                                              columns=columns)))
    operands = bench.packed(job)
    head = bench.place(device, 0, job, operands)
    device.launch(0, flash_split(head, device.reduction_ring, p=job.p, mask=job.mask, cap=job.cap,
                                 sinks=bench.place_sinks(device, 0, job))).wait()
    got = bench.rows_of(job, device.get(head.out), range(bench.upper(job.queries, 16)))
    return got, operands


JOBS = {
    "decoding": bench.Job(queries=8, keys=900, head=64, mask=Mask(share=3)),
    "one query, BF16": bench.Job(queries=1, keys=800, head=32, form=Format.BF16, p=Format.FP16),
    "fewer blocks than PEs": bench.Job(queries=8, keys=300, head=32, mask=Mask(share=3)),
    "one block": bench.Job(queries=8, keys=100, head=32),
    "tiles, causal": bench.Job(queries=40, keys=800, head=32, mask=Mask(causal=True, first=300)),
    "window": bench.Job(queries=20, keys=800, head=32,
                        mask=Mask(causal=True, window=60, first=400)),
    "soft cap and sinks": bench.Job(queries=8, keys=700, head=32, mask=Mask(share=3), cap=2.0,
                                    sinks=(0.5, -1.0, 3.0, 4.0, -np.inf, 0.0, 2.0, 1.0)),
    "rows that see nothing": bench.Job(queries=32, keys=800, head=32,
                                       mask=Mask(causal=True, first=-20)),
}


@pytest.mark.parametrize("name", JOBS)
def test_shared_out_keys(name):
    """Bits are those of the golden model; the values those of one PE but for a rounding."""
    job = JOBS[name]
    got, operands = result(job)
    if job.keys > 128:      # else nothing is merged
        np.testing.assert_array_equal(got.view(np.uint32), bench.merged(job, operands, 6))
    alone = bench.expected(job, operands).view(np.float32)
    assert np.abs(got - alone).max() < 2e-3 < 0.1 < np.abs(got).max()


def test_the_ring_is_the_one_of_the_chiplet():
    for rows, columns in ((1, 1), (2, 3), (1, 4), (3, 2), (4, 4)):
        device = Device(FakePackage(Configuration(dies=1, pes=rows * columns, rows=rows,
                                                  columns=columns)))
        pairs = ComputeParameters(rows=rows, columns=columns).ring
        assert sorted(device.reduction_ring) == list(range(rows * columns))
        assert [a for a, _ in pairs] == (device.reduction_ring if rows * columns > 1 else [])
        for a, b in pairs[:-1]:
            assert abs(a // columns - b // columns) + abs(a % columns - b % columns) == 1
