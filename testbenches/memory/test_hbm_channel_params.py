# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/memory/hbm."""
import pytest

from rtl.common.crossing import Crossing
from rtl.memory.hbm.banks import HbmBanks
from rtl.memory.hbm.channel import HbmChannel


@pytest.mark.parametrize(("name", "value"), [
    ("rows", 1), ("rows", 24), ("rows", "many"), ("depth", 2), ("depth", 33), ("depth", 8.0)])
def test_sizes_must_be_powers_of_two(name, value):
    with pytest.raises(ValueError, match=f"{name.capitalize()} must be a power of two"):
        HbmChannel(**({"rows": 16} | {name: value}))


def test_there_is_a_line_number_for_every_line():
    with pytest.raises(ValueError, match="Rows must be a power of two of at most 4194304"):
        HbmChannel(rows=1 << 23)


def test_timing_must_be_a_timing():
    for make in (lambda: HbmChannel(rows=16, timing=3), lambda: HbmBanks(timing=3)):
        with pytest.raises(TypeError, match="Timing must be an HbmTiming, not 3"):
            make()


@pytest.mark.parametrize(("name", "words"), [("patience", "Patience"), ("name_bits", "Name bits")])
@pytest.mark.parametrize("value", [0, -3, 2.5])
def test_counts_must_be_positive(name, words, value):
    with pytest.raises(ValueError, match=f"{words} must be a positive integer, not {value}"):
        HbmChannel(rows=16, **{name: value})


@pytest.mark.parametrize("value", [1, "all", None])
def test_the_way_of_refreshing_must_be_a_choice(value):
    with pytest.raises(TypeError, match=f"All banks must be True or False, not {value!r}"):
        HbmChannel(rows=16, all_banks=value)


@pytest.mark.parametrize("value", [1, 12, 8.0])
def test_depth_of_a_crossing_must_be_a_power_of_two(value):
    with pytest.raises(ValueError, match="Depth must be a power of two of at least 2"):
        Crossing(8, depth=value, w="a", w_free="a", r="b", r_free="b")
