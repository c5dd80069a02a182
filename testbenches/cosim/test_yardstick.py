"""Tests of cosim/yardstick.py."""
from cosim import yardstick


def test_yardstick_computes_what_its_definition_says():
    for cycles in (1, 2, 77):
        seconds, output = yardstick.run(cycles)
        assert seconds > 0 and output == yardstick.golden(cycles)


def test_speed_is_a_plausible_number():
    assert 1e4 < yardstick.cycles_per_second(20_000, repeats=1) < 1e9
