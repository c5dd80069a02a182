# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/memory/hbm."""
import pytest

from rtl.common.crossing import Crossing
from rtl.memory.hbm.banks import HbmBanks
from rtl.memory.hbm.channel import HbmChannel


@pytest.mark.parametrize("value", [1, 24.0, "many", (1 << 22) + 1])
def test_there_is_a_line_number_for_every_line(value):
    with pytest.raises(ValueError, match="Rows must be an integer in 2 to 4194304, not"):
        HbmChannel(rows=value)


@pytest.mark.parametrize("value", [2, 33, 8.0])
def test_depth_must_be_a_power_of_two(value):
    with pytest.raises(ValueError, match="Depth must be a power of two"):
        HbmChannel(rows=16, depth=value)


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
