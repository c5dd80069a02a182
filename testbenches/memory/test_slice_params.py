# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/memory/slice/slice.py."""
import pytest

from rtl.memory.slice.slice import SramSlice


@pytest.mark.parametrize(("name", "value", "message"), [
    ("lines", 48, "Lines must be a power of two of at least 32, not 48"),
    ("lines", 16, "Lines must be a power of two of at least 32, not 16"),
    ("lines", "many", "Lines must be a power of two of at least 32, not 'many'"),
    ("ways", 3, "Ways must be a power of two from 2 to 16, not 3"),
    ("ways", 32, "Ways must be a power of two from 2 to 16, not 32"),
    ("banks", 0, "Banks must be a power of two from 1 to 64, not 0"),
    ("banks", 6, "Banks must be a power of two from 1 to 64, not 6"),
    ("name_bits", 0, "Name bits must be a positive integer, not 0"),
    ("mshrs", 1, "Mshrs must be an integer from 2 to 256, not 1"),
    ("targets", 15, "Targets must be an integer of at least 16, not 15")])
def test_sizes_are_checked(name, value, message):
    with pytest.raises(ValueError, match=message):
        SramSlice(**({"lines": 256} | {name: value}))


def test_targets_are_twice_the_entries():
    assert SramSlice(lines=256, mshrs=4).targets == 8
