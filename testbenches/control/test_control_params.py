# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/control are refused."""
import pytest

from rtl.control.block import ControlBlock
from rtl.control.context import PacketContext
from rtl.control.registers import RegisterLines


@pytest.mark.parametrize("make, message", [
    (lambda: ControlBlock(pes=0), "PEs must be an integer in 1 to 80, not 0"),
    (lambda: ControlBlock(pes=81), "PEs must be an integer in 1 to 80, not 81"),
    (lambda: ControlBlock(pes=80, engines=1), "PEs must be an integer in 1 to 79, not 80"),
    (lambda: ControlBlock(pes=2, networks=3), "Networks must be an integer in 0 to 2, not 3"),
    (lambda: ControlBlock(pes=2, contexts=0), "Contexts must be an integer in 1 to 8, not 0"),
    (lambda: ControlBlock(pes=2, peers=3), "Peers must be an integer in 0 to 2, not 3"),
    (lambda: PacketContext(pes=2, patience_log2=-1),
     "Patience must be a non-negative integer, not -1"),
    (lambda: RegisterLines(count=3), "Count must be a power of two of at least 2, not 3"),
    (lambda: ControlBlock(pes=2, tiles=17), "Tiles must be an integer in 0 to 16, not 17"),
])
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
