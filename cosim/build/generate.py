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


def package_rows():
    """Structure and peaks of each package of size ``sim``, by name [as each key says]."""
    rows = {}
    for name in package_names():
        p = package(name)
        c = p.compute
        pes = p.compute_chiplets * c.pes
        block = 32 * c.dot_rows
        rows[name] = {
            "compute_chiplets": p.compute_chiplets, "io_chiplets": p.io_chiplets,
            "PEs": pes, "local_memory_KiB_per_PE": c.local_lines * 64 >> 10,
            "SRAM_MiB": p.sram_bytes >> 20,
            "HBM_channels": p.compute_chiplets * c.addresses.channels,
            "BF16_MACs_per_cycle": pes * block // 2, "MX8_MACs_per_cycle": pes * block,
            "MX4_MACs_per_cycle": pes * block * c.mx4_lanes,
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
