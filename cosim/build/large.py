"""A package with the HBM of the largest generation, and little else: what memory alone costs."""
from chiplets import packages

# 4 dies as in the 500, 8 pseudo-channels of 16 GiB each: 512 GiB.
LARGE = packages.Package(
    name="large500", size="sim", compute_chiplets=4, io_chiplets=1,
    compute=packages.ComputeParameters(rows=1, columns=2, local_lines=256, local_banks=4,
                                       dot_rows=1, mx4_lanes=1, bank_lines=1024, hbm_tiles=2,
                                       tile_channels=4, hbm_rows=1 << 20, grid=(2, 2)))
