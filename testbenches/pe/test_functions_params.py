# amaranth: UnusedElaboratable=no
"""Tests of wrong parameters of rtl/pe/functions.py."""
import pytest

from rtl.pe.functions import Function, FunctionUnit


@pytest.mark.parametrize("functions", [(), (Function.NONE,), (Function.EXP2, Function.NONE)])
def test_functions_have_a_table(functions):
    with pytest.raises(ValueError, match="Functions must be some that have a table, not"):
        FunctionUnit(functions)
