"""Verilog of the chiplets for use elsewhere, checked by two simulators; the table of packages."""
from chiplets import verilog
from chiplets.compute import ComputeChiplet
from chiplets.io import IoChiplet
from chiplets.network import NetworkChiplet
from chiplets.packages import PACKAGES, package
from cosim.build.lint import lint, lint_placed
from rtl.link.link import D2dLink
from rtl.pe.element import ProcessingElement

NAME = "mtia450"        # package that the tops are of


def _pe(compute):
    return ProcessingElement(lines=compute.local_lines, banks=compute.local_banks,
                             rows=compute.dot_rows, lanes=compute.mx4_lanes)


TOPS = {
    "compute": lambda p: ComputeChiplet(p.compute),
    "io": lambda p: IoChiplet(dies=p.compute_chiplets, package_id=p.number),
    "pe": lambda p: _pe(p.compute),
    "link": lambda p: D2dLink(),
    "network": lambda p: NetworkChiplet(
        nics=p.network.nics, qps=p.network.qps, dies=p.network_dies[0],
        link_latency_cycles=p.compute.link_latency_cycles),
}
SIZES = ("sim", "full")


def package_names():
    """Names of the packages that exist in size ``sim``."""
    return sorted({name for name, size in PACKAGES if size == "sim"})


CHANNEL_BYTES = 16      # of a pseudo-channel, a clock of its commands


def package_rows(size="sim"):
    """What is published of each package, and structure and peaks at a size, by name.

    Units are those that each key says.
    """
    rows = {}
    for name in package_names():
        p = package(name, size)
        c, said = p.compute, p.published
        pes, channels = p.compute_chiplets * c.pes, p.compute_chiplets * c.addresses.channels
        peak = 32 * c.dot_rows * pes            # MACs a cycle, MX8
        tera = 2 * peak * p.core_megahertz / 1e6
        rows[name] = {
            "published_HBM_TB_per_s": said.hbm_tbps, "published_HBM_GB": said.hbm_gb,
            "published_BF16_PFLOPS": said.bf16, "published_MX8_PFLOPS": said.mx8,
            "published_MX4_PFLOPS": said.mx4,
            "compute_chiplets": p.compute_chiplets, "io_chiplets": p.io_chiplets,
            "network_chiplets": p.network_chiplets,
            "NICs": p.network_chiplets * p.network.nics,
            "message_engines": p.compute_chiplets * c.engines, "PEs": pes,
            "spare_PEs": p.compute_chiplets * c.columns, "core_clock_MHz": p.core_megahertz,
            "local_memory_KiB_per_PE": c.local_lines * 64 >> 10, "SRAM_MiB": p.sram_bytes >> 20,
            "HBM_pseudo_channels": channels,
            "HBM_MiB": p.compute_chiplets * c.addresses.hbm_bytes >> 20,
            "configured_HBM_GB_per_s": channels * CHANNEL_BYTES * p.hbm_megahertz / 1e3,
            "configured_BF16_TFLOPS": tera / 2, "configured_MX8_TFLOPS": tera,
            "configured_MX4_TFLOPS": tera * c.mx4_lanes,
        }
    return rows


def generate(top, folder, *, size="sim", check=True):
    """Write ``<folder>/<top>.v``; returns the path and the checkers' findings, one a line."""
    path = verilog.write(TOPS[top](package(NAME, size)), name=top, path=folder / f"{top}.v",
                         attributes=True)
    if not check:
        return path, []
    return path, list(lint(top, path) if size == "sim" else lint_placed(path))
