# amaranth: UnusedElaboratable=no
"""Tests of wrong parameters of the parts of a dot-product engine with attention."""
import pytest

from rtl.pe.beat_sequencer import Path
from rtl.pe.dot_array import PathArray
from rtl.pe.dot_engine import DotEngine
from rtl.pe.line_walk import LineWalk


def test_one_lane_is_too_few():
    with pytest.raises(ValueError, match="at least 2 for attention, not 1"):
        DotEngine(lines=64, lanes=1, attention=True)
    with pytest.raises(ValueError, match="at least 2 for pairs, not 1"):
        LineWalk(lines=64, lanes=1, pairs=True)


@pytest.mark.parametrize("wrong", [{"rows": 8}, {"lanes": 2}])
def test_halves_are_of_16_rows_and_one_lane(wrong):
    with pytest.raises(ValueError, match="16 rows and 1 lane"):
        PathArray(**{"path": Path.MX8, "rows": 16, "lanes": 1, "halves": True} | wrong)
