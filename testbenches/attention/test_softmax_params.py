# amaranth: UnusedElaboratable=no
"""Tests of wrong parameters of rtl/attention/softmax.py."""
import pytest

from rtl.attention.softmax import SoftmaxUnit


@pytest.mark.parametrize("rows", [0, 17, 8.0, "16"])
def test_rows_are_one_to_sixteen(rows):
    with pytest.raises(ValueError, match=f"Rows must be in 1 to 16, not {rows!r}"):
        SoftmaxUnit(lines=64, rows=rows)


@pytest.mark.parametrize("lines", [1, 64.0, None])
def test_lines_are_at_least_two(lines):
    with pytest.raises(ValueError, match="Lines must be an integer of at least 2"):
        SoftmaxUnit(lines=lines)
