# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/memory/secded.py."""
import pytest

from rtl.memory.secded import SecdedDecoder


@pytest.mark.parametrize("value", [0, -1, 2.0, "64"])
def test_data_bits_must_be_positive(value):
    with pytest.raises(ValueError, match=f"Data bits must be a positive integer, not {value!r}"):
        SecdedDecoder(data_bits=value)
