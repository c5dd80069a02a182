"""Tests of host/boot.py."""
import pytest

from host.boot import OPEN, BootError, Settings
from testbenches.host_fake import Configuration


def test_configuration_of_each_die():
    c = Configuration(dies=3)
    settings = Settings(bad_pes=((0, 0, 0), (0, 2, 1), (2, 1, 2), (2, 1, 2)))
    assert settings.lines(c) == [1 | 3 << 4 | OPEN, OPEN, 2 << 8 | OPEN]
    assert Settings().lines(c) == [OPEN] * 3
    assert Settings(cache_ways=4, scrub_log2=10).lines(c) == [4 << 64 | 10 << 72 | OPEN] * 3
    assert Settings(request_rate=256, request_burst=255).lines(c)[2] == (
        256 << 96 | 255 << 112 | OPEN)
    assert Settings(cache_ways=4).lines(Configuration(dies=1, hbm_channels=0)) == [OPEN]


@pytest.mark.parametrize("settings, message", [
    (Settings(bad_pes=((0, 0, 1), (0, 2, 1))),
     "Column 1 of die 0 has two bad PEs, in rows 0 and 2, and one spare"),
    (Settings(bad_pes=((0, 3, 1),)), "Bad PE 0:3:1 does not exist"),
    (Settings(bad_pes=((2, 0, 0),)), "Bad PE 2:0:0 does not exist; dies are 0 to 1"),
    (Settings(cache_ways=9), "Cache ways must be 0 to 8, not 9"),
    (Settings(scrub_log2=32), "Scrub time must be 0 to 31, not 32"),
    (Settings(request_rate=257), "Request rate must be 0 to 256, not 257"),
    (Settings(request_burst=256), "Request burst must be 0 to 255, not 256")])
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(BootError, match=message):
        settings.lines(Configuration())
