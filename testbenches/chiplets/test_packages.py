"""Tests of chiplets/packages.py."""
import re
from pathlib import Path

import pytest

from chiplets.packages import PACKAGES, ComputeParameters, Package, package


def test_packages_have_their_published_structure():
    small = package("mtia450")
    assert (small.compute_chiplets, small.io_chiplets, small.compute.pes) == (2, 1, 6)
    assert small.sram_bytes == 2 * 16 << 20 and small.compute.local_lines * 64 == 512 << 10
    assert all(key == (p.name, p.size) for key, p in PACKAGES.items())


@pytest.mark.parametrize("name, pes, stacks", [
    ("mtia300", 12 * 6, 6), ("mtia400", 8 * 6, 4), ("mtia450", 8 * 6, 4), ("mtia500", 8 * 4, 3)])
def test_full_size_is_what_was_published(name, pes, stacks):
    """Bandwidth and capacity of the HBM within 0.1 %, each stack with as many channels."""
    full, small = package(name, "full"), package(name)
    addresses, dies = full.compute.addresses, full.compute_chiplets
    assert (dies, full.io_chiplets, full.compute.grid, full.compute.mx4_lanes) == (
        small.compute_chiplets, small.io_chiplets, small.compute.grid, small.compute.mx4_lanes)
    assert full.compute.pes == pes and len(addresses.layout.nodes) > pes
    bandwidth = dies * addresses.channels * 16 * full.hbm_megahertz * 1e6
    assert bandwidth == pytest.approx(full.published.hbm_tbps * 1e12, rel=1e-3)
    assert dies * addresses.hbm_bytes / 2 ** 30 == pytest.approx(full.published.hbm_gb, rel=1e-3)
    assert addresses.channels in (32 * stacks, 64 * stacks)


@pytest.mark.parametrize("grid, links", [
    ((1, 1), []), ((1, 2), [(0, 1, 0)]), ((2, 1), [(0, 1, 0)]),
    ((2, 2), [(0, 1, 0), (2, 3, 0), (0, 2, 1), (1, 3, 1)])])
def test_links_join_the_dies_of_a_row_and_of_a_column(grid, links):
    compute = ComputeParameters(rows=1, columns=2, grid=grid)
    count = grid[0] * grid[1]
    shape = Package(name="x", size="x", compute_chiplets=count, io_chiplets=1, compute=compute)
    assert shape.peer_links == links and len(compute.peers) == sum(grid) - 2


@pytest.mark.parametrize("name, links, dies", [
    ("mtia300", [(0, 0, 0, 0), (1, 0, 0, 1)], [(0,), (0,)]),
    ("mtia400", [(0, 0, 0, 0), (1, 0, 1, 0)], [(0,), (1,)]),
    ("mtia450", [(0, 0, 0, 0), (1, 0, 1, 0)], [(0,), (1,)]),
    ("mtia500", [(0, 0, 0, 0), (0, 1, 1, 0), (1, 0, 2, 0), (1, 1, 3, 0)], [(0, 1), (2, 3)])])
@pytest.mark.parametrize("size", ["sim", "full"])
def test_every_compute_chiplet_has_a_way_to_a_network_chiplet(name, links, dies, size):
    shape = package(name, size)
    assert shape.network_links == links and shape.network_dies == dies
    assert len(shape.compute.nets) == shape.compute.addresses.networks == len(links) // (
        shape.compute_chiplets)
    assert shape.compute.addresses.engines == 1
    assert (shape.network.nics, shape.network.qps) == {"sim": (1, 16), "full": (6, 1024)}[size]


@pytest.mark.parametrize("chiplets, networks, each", [(2, 0, 1), (2, 1, 0), (4, 3, 1), (2, 2, 2)])
def test_links_of_compute_chiplets_that_lead_nowhere_are_refused(chiplets, networks, each):
    compute = ComputeParameters(rows=1, columns=2, networks=each)
    with pytest.raises(ValueError, match=f"those of {networks} for {chiplets} compute chiplets, "
                                         f"not {each} of each"):
        Package(name="x", size="x", compute_chiplets=chiplets, io_chiplets=1, compute=compute,
                network_chiplets=networks)


def test_a_package_may_have_no_network_chiplet():
    shape = Package(name="x", size="x", compute_chiplets=2, io_chiplets=1,
                    compute=ComputeParameters(rows=1, columns=2))
    assert shape.network_links == shape.network_dies == shape.compute.nets == []


def test_a_grid_that_is_not_all_compute_chiplets_is_refused():
    compute = ComputeParameters(rows=1, columns=2, grid=(1, 2))
    with pytest.raises(ValueError, match="Grid must have 4 compute chiplets or .1, 1., not .1, 2."):
        Package(name="x", size="x", compute_chiplets=4, io_chiplets=1, compute=compute)


def test_an_unknown_package_is_refused():
    with pytest.raises(ValueError, match="must be one of .*, mtia500 sim, .*not 'mtia9' 'sim'"):
        package("mtia9")


def test_the_entry_that_the_documents_show_is_a_package():
    text = (Path(__file__).parents[2] / "docs" / "packages.md").read_text()
    made = eval(re.search(r"```python\n(.*?)```", text, re.S)[1])
    assert made.compute.addresses.channels == 12 and len(made.peer_links) == 4
    ratio = made.compute.addresses.channels / package("mtia500").compute.addresses.channels
    assert ratio == pytest.approx(4 / 3)


@pytest.mark.parametrize("wrong, message", [
    ({"hbm_tiles": 5, "tile_channels": 2}, "Memory tiles with HBM must be a power of two or"),
    ({"hbm_tiles": 4, "tile_channels": 5}, "Pseudo-channels of a tile must be a power of two or"),
    ({"hbm_tiles": 8, "tile_channels": 1}, "Memory tiles with HBM must be at most 4"),
    ({"hbm_tiles": 4, "tile_channels": 4, "hbm_rows": 1 << 28}, "HBM of a die must be at most"),
    ({"grid": (1, 3)}, "Grid must have 1 compute chiplets"),
    ({"columns": 1}, "Columns must be an integer of at least 2")])
def test_parts_that_do_not_fit_together_are_refused(wrong, message):
    """When the description is made, by the rule that it breaks."""
    with pytest.raises(ValueError, match=message):
        Package(name="x", size="x", compute_chiplets=1, io_chiplets=1,
                compute=ComputeParameters(**{"rows": 2, "columns": 2} | wrong))
