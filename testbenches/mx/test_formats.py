"""Tests of rtl/mx/formats.py."""
from cosim.golden import formats
from rtl.mx.formats import Format


def test_hardware_and_golden_model_use_the_same_codes():
    assert {f.name: f.value for f in Format} == {f.name: f.value for f in formats.Format}
