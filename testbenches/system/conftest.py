"""What system tests share: a package to each file of tests."""
import pytest

from host.driver import Device
from host.outcome import Options
from host.transport import open_package


@pytest.fixture(scope="module")
def device():
    """The driver of a package that the tests of a file share."""
    with open_package(Options(threads=2)) as transport:
        yield Device(transport)
