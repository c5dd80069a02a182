"""The program that loads one HBM pseudo-channel with requests, for :mod:`cosim.hbm`."""
import functools
import inspect
import subprocess
from importlib.metadata import version
from pathlib import Path

from chiplets import packages, verilog
from cosim.build import compiler
from cosim.build.cache import cached, digest
from cosim.build.model import clock_once, conversion, separate
from cosim.build.tools import verilator_environment
from rtl.memory.hbm.channel import HbmChannel
from rtl.memory.hbm.counters import counters_layout
from rtl.memory.hbm.timing import BANKS, HbmTiming
from rtl.memory.interfaces import channel_request_layout, channel_response_layout
from rtl.memory.tile import name_layout

__all__ = ["BANKS", "HbmTiming", "build", "default", "parameters_of"]

FOLDER = Path(__file__).parents[1]
NATIVE = [FOLDER / "hbm" / name for name in ("bench.cpp", "traffic.hpp", "options.hpp")]
DEVICES = FOLDER / "devices"
HEADERS = [DEVICES / name for name in ("hbm_pseudo.hpp", "hbm_faults.hpp", "hbm_code.hpp")]


def layout_header(name_bits):
    """Bit positions of the payloads for the C++ side."""
    lines = [f"constexpr int {prefix}_{name.upper()} = {field.offset};"
             for prefix, layout in (("REQUEST", channel_request_layout(name_bits=name_bits)),
                                    ("RESPONSE", channel_response_layout(name_bits=name_bits)))
             for name, field in layout]
    names = ", ".join(f'"{name}"' for name, _ in counters_layout())
    return "\n".join([*lines, f"constexpr int NAME_BITS = {name_bits};",
                      f"const char* const COUNTERS[] = {{{names}}};", ""])


def default(name):
    """What :class:`HbmChannel` takes for a parameter that it is not given."""
    return inspect.signature(HbmChannel).parameters[name].default


@functools.cache
def build(wrap=None, **parameters):
    """Path of the program for an :class:`HbmChannel`.

    ``wrap`` makes what is simulated of a function that gives the channel; then with assertions.
    """
    def make_channel():
        return HbmChannel(**parameters)

    component = wrap(make_channel) if wrap else make_channel()
    source = "\n".join(verilog.modules(component, name="dut").values())
    header = layout_header(parameters.get("name_bits", default("name_bits")))
    key = digest("pseudo", compiler.identity(), version("pyosys"), conversion(), source, header,
                 bool(wrap), *(s.read_text() for s in NATIVE + HEADERS))

    def make(folder):
        (folder / "dut.il").write_text(source)
        separate("chiplets.verilog.convert", folder / "dut.il", folder / "dut.v")
        text, evaluations = clock_once((folder / "dut.v").read_text())
        if evaluations != 1:
            raise compiler.BuildError("The channel has registers of an unknown clock")
        (folder / "dut.v").write_text(text)
        (folder / "layout.hpp").write_text(header)
        level = "-O1" if wrap else "-O2 -march=native"
        flags = f"-std=c++20 {level} -I{DEVICES} -I{NATIVE[0].parent} -I{folder}"
        result = subprocess.run(
            ["verilator", "--cc", "--exe", "--build", "-O3", "--assert" if wrap else "--no-assert",
             "--x-assign", "fast", "--x-initial", "fast", "-Wno-fatal", "-Wno-WIDTH",
             "--top-module", "dut", "-CFLAGS", flags, "-o", "bench", "dut.v", NATIVE[0]],
            cwd=folder, env=verilator_environment(), text=True, capture_output=True, check=False)
        if result.returncode:
            raise compiler.BuildError(result.stdout[-3000:] + result.stderr[-3000:])
    return cached(f"pseudo_{key}", make)[0] / "obj_dir" / "bench"


def parameters_of(name, size="sim"):
    """Parameters of a pseudo-channel as a package has it, and clocks of package and HBM [MHz]."""
    package = packages.package(name, size)
    bits = name_layout(package.compute.layout).size
    return ({"rows": package.compute.hbm_rows, "name_bits": bits}, package.core_megahertz,
            package.hbm_megahertz)
