"""Verilog of a component and of every module it places."""
import re
from pathlib import Path

from amaranth import ClockDomain, Fragment, Value
from amaranth.back import rtlil
from amaranth.hdl import _nir
from amaranth.hdl._ir import PortDirection
from pyosys import libyosys

from chiplets.byte_enables import fold
from rtl.common.place import Library, flat_ports

# Yosys writes a cell's signed operand as $signed(x), but an unsigned operand as plain x even if the
# wire x is declared signed, and Verilog then extends its sign. So no wire is declared signed.
SIGNED_WIRE = re.compile(r"^(\s*wire\b.*?) signed ", re.MULTILINE)
LARGE_BITS = 1 << 19  # memories of this size on are written without an initial value of zero


class LargeMemories:
    """While entered, a large memory whose initial value is zero is written without one.

    Amaranth lists every bit of it: 32 million for a bank of 4 MiB. Hardware has no such reset, and
    Verilator starts from zero by itself.
    """

    def __enter__(self):
        self.emit = emit = rtlil.ModuleEmitter.emit_memory

        def emit_memory(module, index, cell):
            if any(cell.init) or cell.width * cell.depth < LARGE_BITS:
                emit(module, index, cell)

        rtlil.ModuleEmitter.emit_memory = emit_memory

    def __exit__(self, *_):
        rtlil.ModuleEmitter.emit_memory = self.emit


class WideModules:
    """While entered, a module may have more than 65,536 bits of inputs, a cell of outputs.

    Amaranth (0.5) gives a net the number of its cell and, in the lower 16 bits, that of its bit.
    The base of a compute chiplet of full size has up to 250,000 bits of inputs.
    """

    BITS = 32
    CHANGED = ("from_cell", "cell", "bit")

    def __enter__(self):
        self.saved = {name: vars(_nir.Net)[name] for name in self.CHANGED}
        bits = self.BITS
        _nir.Net.from_cell = classmethod(lambda cls, cell, bit: cls(cell << bits | bit))
        _nir.Net.cell = property(lambda net: net >> bits)
        _nir.Net.bit = property(lambda net: net & (1 << bits) - 1)

    def __exit__(self, *_):
        for name, value in self.saved.items():
            setattr(_nir.Net, name, value)


def to_rtlil(component, *, name, library):
    """RTLIL text of one component; what it places by ``Place`` goes to ``library``.

    The module always has the ports ``clk`` and ``rst``, used or not, so that every placed module
    can be connected in the same way, and each port the direction of the signature: an output that
    nothing drives is one of constants.
    """
    fragment = Fragment.get(component, library)
    domain = ClockDomain("sync")
    fragment.add_domains(domain)
    directions = {True: PortDirection.Input, False: PortDirection.Output}
    named = {port: (Value.cast(value), directions[is_input])
             for port, is_input, value in flat_ports(component)}
    named |= {name: (getattr(domain, name), PortDirection.Input) for name in ("clk", "rst")}
    with LargeMemories(), WideModules():
        text = rtlil.convert_fragment(fragment, ports=named, name=name, emit_src=False)[0]
    return SIGNED_WIRE.sub(r"\1 ", text)


def modules(component, *, name, library=None):
    """RTLIL texts by module name: the component's own, then those of everything it places.

    ``library``, if given, then holds the components placed.
    """
    library, done = library or Library(), {}
    done[name] = to_rtlil(component, name=name, library=library)
    while pending := [n for n in library.modules if n not in done]:
        for module in pending:
            done[module] = to_rtlil(library.modules[module], name=module, library=library)
    return done


def convert(source, path, *, attributes=False):
    """Write the Verilog of the RTLIL file ``source`` into the file ``path``.

    The text depends on the source alone in the first call of a process; names that Yosys makes up
    differ in later ones.
    """
    design = libyosys.Design()
    noattr = "" if attributes else "-noattr"
    for step in (f"read_rtlil {source}", "proc -noopt", "opt_clean", "memory_collect",
                 "wreduce", "opt_clean", f"write_verilog {noattr} {path}"):
        libyosys.run_pass(f"tee -q {step}", design)
    Path(path).write_text(fold(Path(path).read_text()))
    return path


def write(component, *, name, path, attributes=False):
    """Write the Verilog of ``component`` as module ``name`` into the file ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".il")
    source.write_text("\n".join(modules(component, name=name).values()))
    return convert(source, path, attributes=attributes)
