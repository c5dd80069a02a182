# amaranth: UnusedElaboratable=no
"""Refused parameters of rtl/common/reorder.py."""
import pytest

from rtl.common.reorder import Reorder


@pytest.mark.parametrize("places_log2", [0, -1, 1.5])
def test_wrong_number_of_places(places_log2):
    with pytest.raises(ValueError, match="Places must be a positive integer"):
        Reorder(8, places_log2=places_log2)
