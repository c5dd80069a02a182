# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/memory/hbm_controller.py."""
import pytest

from rtl.memory.hbm_controller import HbmController


@pytest.mark.parametrize(("name", "value"), [
    ("rows", 1), ("rows", 24), ("rows", "many"), ("depth", 2), ("depth", 33), ("depth", 8.0)])
def test_sizes_must_be_powers_of_two(name, value):
    with pytest.raises(ValueError, match=f"{name.capitalize()} must be a power of two"):
        HbmController(**({"rows": 16} | {name: value}))


def test_timing_must_be_a_timing():
    with pytest.raises(TypeError, match="Timing must be an HbmTiming, not 3"):
        HbmController(rows=16, timing=3)
