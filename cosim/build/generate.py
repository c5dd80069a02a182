"""Verilog of the chiplets for use elsewhere, checked by two simulators; the table of packages."""
import shutil
import subprocess

from chiplets import verilog
from chiplets.compute import ComputeChiplet
from chiplets.io import IoChiplet
from chiplets.packages import PACKAGES, package
from cosim.build.tools import verilator_environment, verilator_root
from rtl.link.link import D2dLink
from rtl.pe.element import ProcessingElement

SIM = package("mtia450").compute
TOPS = {
    "compute": lambda: ComputeChiplet(SIM),
    "io": lambda: IoChiplet(dies=2, package_id=450),
    "pe": lambda: ProcessingElement(lines=SIM.local_lines, banks=SIM.local_banks,
                                    rows=SIM.dot_rows, lanes=SIM.mx4_lanes),
    "link": lambda: D2dLink(),
}
# Findings that are left alone, with the reason for each.
ACCEPTED = {
    "DECLFILENAME": "all modules of a top are in one file",
    "WIDTH": "Yosys writes constants and shifts wider than their use",
    "CASEOVERLAP": "Yosys writes priority as overlapping wildcards",
    "UNUSEDSIGNAL": "ports of a stream that one side does not need",
    "UNDRIVEN": "initial values of memories are left out",
    "SYMRSVDWORD": "port names of the documented interface",
    "CMPCONST": "range checks of fields whose every value is allowed in this configuration",
    "PINMISSING": "outputs that the enclosing module does not use",
}


def package_names():
    """Names of the packages that exist in size ``sim``."""
    return sorted({name for name, size in PACKAGES if size == "sim"})


CHANNEL_BYTES = 16      # of a pseudo-channel, a clock of its commands


def package_rows():
    """What is published of each package, and structure and peaks at size ``sim``, by name.

    Units are those that each key says.
    """
    rows = {}
    for name in package_names():
        p = package(name)
        c, said = p.compute, p.published
        pes, channels = p.compute_chiplets * c.pes, p.compute_chiplets * c.addresses.channels
        peak = 32 * c.dot_rows * pes            # MACs a cycle, MX8
        tera = 2 * peak * p.core_megahertz / 1e6
        rows[name] = {
            "published_HBM_TB_per_s": said.hbm_tbps, "published_HBM_GB": said.hbm_gb,
            "published_BF16_PFLOPS": said.bf16, "published_MX8_PFLOPS": said.mx8,
            "published_MX4_PFLOPS": said.mx4,
            "compute_chiplets": p.compute_chiplets, "io_chiplets": p.io_chiplets,
            "network_chiplets_not_modelled": p.network_chiplets, "PEs": pes,
            "spare_PEs": p.compute_chiplets * c.columns, "core_clock_MHz": p.core_megahertz,
            "local_memory_KiB_per_PE": c.local_lines * 64 >> 10, "SRAM_MiB": p.sram_bytes >> 20,
            "HBM_pseudo_channels": channels,
            "HBM_MiB": p.compute_chiplets * c.addresses.hbm_bytes >> 20,
            "configured_HBM_GB_per_s": channels * CHANNEL_BYTES * p.hbm_megahertz / 1e3,
            "configured_BF16_TFLOPS": tera / 2, "configured_MX8_TFLOPS": tera,
            "configured_MX4_TFLOPS": tera * c.mx4_lanes,
        }
    return rows


def generate(top, folder, *, check=True):
    """Write ``<folder>/<top>.v``; returns the path and the checkers' findings, one a line."""
    path = verilog.write(TOPS[top](), name=top, path=folder / f"{top}.v", attributes=True)
    return path, (list(lint(top, path)) if check else [])


def lint(top, path):
    """Findings of Verilator and, where it is installed, Icarus."""
    waived = [f"-Wno-{name}" for name in ACCEPTED]
    commands = [[str(verilator_root() / "bin" / "verilator"), "--lint-only", *waived,
                 "--top-module", top, str(path)]]
    if shutil.which("iverilog"):
        commands.append(["iverilog", "-g2012", "-t", "null", "-s", top, str(path)])
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False,
                                env=verilator_environment())
        for line in (result.stdout + result.stderr).splitlines():
            if result.returncode or "%Warning" in line or "warning:" in line:
                yield f"{top}: {line}"
