"""System tests of a cache of keys and values: written and attended on the co-simulated package."""
import pytest

from host.driver import Device
from host.isa import Format, Rule
from host.outcome import Options
from host.transport import open_package
from testbenches.cache_case import Case, check_attention

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def device():
    with open_package(Options(threads=2)) as transport:
        yield Device(transport)


@pytest.mark.parametrize("form, p", [(Format.E4M3, Format.E4M3), (Format.BF16, Format.FP16)])
def test_cache_is_written_and_attended(device, form, p):
    case = Case(150, 160, 64, heads=4, form=form, bias=True, pages=[2, 0], device=device)
    case.check(Rule.RCEIL)
    check_attention(case, p)
