"""Tests of chiplets/packages.py."""
import pytest

from chiplets.packages import PACKAGES, ComputeParameters, Package, package


def test_packages_have_their_published_structure():
    small = package("mtia450")
    assert (small.compute_chiplets, small.io_chiplets, small.compute.pes) == (2, 1, 6)
    assert small.sram_bytes == 2 * 16 << 20 and small.compute.local_lines * 64 == 512 << 10
    assert all(key == (p.name, p.size) for key, p in PACKAGES.items())


@pytest.mark.parametrize("grid, links", [
    ((1, 1), []), ((1, 2), [(0, 1, 0)]), ((2, 1), [(0, 1, 0)]),
    ((2, 2), [(0, 1, 0), (2, 3, 0), (0, 2, 1), (1, 3, 1)])])
def test_links_join_the_dies_of_a_row_and_of_a_column(grid, links):
    compute = ComputeParameters(rows=1, columns=2, grid=grid)
    count = grid[0] * grid[1]
    shape = Package(name="x", size="x", compute_chiplets=count, io_chiplets=1, compute=compute)
    assert shape.peer_links == links and len(compute.peers) == sum(grid) - 2


def test_a_grid_that_is_not_all_compute_chiplets_is_refused():
    compute = ComputeParameters(rows=1, columns=2, grid=(1, 2))
    with pytest.raises(ValueError, match="Grid must have 4 compute chiplets or .1, 1., not .1, 2."):
        Package(name="x", size="x", compute_chiplets=4, io_chiplets=1, compute=compute)


def test_an_unknown_package_is_refused():
    with pytest.raises(ValueError, match="Package must be one of .*sim, not 'mtia9' 'sim'"):
        package("mtia9")
