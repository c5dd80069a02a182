# amaranth: UnusedElaboratable=no
"""Wrong parameters of NICs, their parts and network chiplets."""
import pytest

from chiplets.network import NetworkChiplet
from rtl.net.nic.fetch import PayloadFetch
from rtl.net.nic.frame_in import FrameReceiver
from rtl.net.nic.layouts import event_layout
from rtl.net.nic.nic import Nic
from rtl.net.nic.place import PayloadWriter


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Nic(qps=3), "Queue pairs must be a power of two in 2 to 4096, not 3"),
    (lambda: Nic(regions=2048), "Regions must be a power of two in 2 to 1024, not 2048"),
    (lambda: PayloadFetch(lines=6), "Lines must be a power of two from 4 on, not 6"),
    (lambda: PayloadWriter(event_layout(), lines=2), "Lines must be a power of two from 4 on"),
    (lambda: PayloadWriter(event_layout(), events=0), "Events must be a positive integer, not 0"),
    (lambda: FrameReceiver(beats=256), "Beats must be a power of two of at least 512, not 256"),
    (lambda: NetworkChiplet(nics=0), "NICs must be an integer in 1 to 12, not 0"),
    (lambda: NetworkChiplet(nics=1, dies=(0, 1, 2)), "Links must be an integer in 1 to 2, not 3"),
    (lambda: NetworkChiplet(dies=(16,)), "Die must be an integer in 0 to 15, not 16"),
])
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
