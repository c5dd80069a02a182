# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/link/link.py."""
import pytest

from rtl.link.link import D2dLink


@pytest.mark.parametrize("wrong, text", [
    ({"latency_cycles": 0}, "Latency must be a positive integer, not 0"),
    ({"credits": 0}, "Credits must be a positive integer, not 0"),
    ({"retry_flits": 12}, "Retry depth must be a power of two, not 12"),
    ({"sequence_bits": 6}, "Sequence width must .*, not 6"),
    ({"sequence_bits": 17}, "Sequence width must .*, not 17"),
    ({"timeout_cycles": 10}, "Time-out must be at least the round trip, not 10"),
    ({"tries": 0}, "Tries must be a positive integer, not 0"),
])
def test_wrong_parameters_are_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        D2dLink(**wrong)
