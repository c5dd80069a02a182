# amaranth: UnusedElaboratable=no
"""Wrong parameters of chiplets/io.py, and its pins."""
import pytest

from chiplets.io import IoChiplet


@pytest.mark.parametrize("dies", [0, 5, "2"])
def test_wrong_dies_are_refused(dies):
    with pytest.raises(ValueError, match=f"Dies must be 1 to 4, not {dies!r}"):
        IoChiplet(dies=dies)


def test_pins_have_the_names_of_axi():
    members = IoChiplet(dies=1).signature.members
    assert {"s_axil_awaddr", "s_axil_rdata", "m_axi_awid", "m_axi_wstrb", "m_axi_rlast",
            "irq", "link0"} <= set(members) and "link1" not in members
