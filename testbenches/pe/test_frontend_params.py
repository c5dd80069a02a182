# amaranth: UnusedElaboratable=no
"""Tests of wrong parameters of rtl/pe/frontend.py."""
import pytest

from rtl.pe.frontend import UnitFrontend


def test_frontend_without_operands_is_refused():
    with pytest.raises(ValueError, match="at least one OperandField"):
        UnitFrontend(lines=64, operands=[])
