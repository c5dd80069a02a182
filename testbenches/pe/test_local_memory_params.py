# amaranth: UnusedElaboratable=no
"""Tests of wrong parameters of rtl/pe/local_memory.py."""
import pytest

from rtl.pe.local_memory import LocalMemory


@pytest.mark.parametrize("wrong", [{"banks": 3}, {"lines": 30}, {"lines": 4}, {"readers": 0},
                                   {"writers": 0}])
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(ValueError):
        LocalMemory(**{"lines": 32, "banks": 4, "readers": 1, "writers": 1} | wrong)
