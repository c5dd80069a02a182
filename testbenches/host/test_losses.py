"""Tests of host/losses.py."""
import numpy as np
import pytest

from host.losses import CLOCKS, EVENTS, HbmCounts
from rtl.memory.hbm.counters import counters_layout


def test_counters_are_those_of_the_hardware_in_its_order():
    assert ("clocks", *CLOCKS, *EVENTS) == tuple(name for name, _ in counters_layout())


def test_shares_are_of_what_was_counted_in_between():
    before = np.zeros((1, 2, 16), int)
    before[0, :, 0] = (1 << 32) - 40        # the clocks wrap around
    after = before.copy()
    after[0, :, 0] = 60
    after[0, 0, 1], after[0, 1, 2], after[0, :, 7] = 64, 16, (36, 84)
    after[0, :, 9] = 1, 4
    counts = HbmCounts(after).since(HbmCounts(before))
    assert counts.share("reading") == 0.32 and counts.share("writing") == 0.08
    assert counts.metrics()["hbm_idle_share"] == 0.6
    assert counts.metrics()["hbm_lines_of_an_activate"] == pytest.approx(80 / 4 / 5)
    rows = dict(counts.rows())
    assert rows["die 0 channel 1"]["writing"] == 0.16 and rows["die 0 channel 0"]["idle"] == 0.36
