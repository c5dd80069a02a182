# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/mx/accumulate.py and rtl/mx/decode.py."""
import pytest

from rtl.mx.accumulate import Fp32Accumulate, Fp32AccumulateShort
from rtl.mx.decode import Mx4Decoder


@pytest.mark.parametrize("kind", [Fp32Accumulate, Fp32AccumulateShort])
@pytest.mark.parametrize("wrong", [{"width": 1}, {"width": 121}, {"width": "8"},
                                   {"exponent_bits": 0}, {"exponent_bits": 13}, {"bias": 2001}])
def test_wrong_parameters_are_refused(kind, wrong):
    with pytest.raises(ValueError, match="must be in"):
        kind(**({"width": 14, "exponent_bits": 9, "bias": 256} | wrong))


def test_wrong_side_is_refused():
    with pytest.raises(ValueError, match="must be 'a' or 'b', not 'c'"):
        Mx4Decoder(side="c")
