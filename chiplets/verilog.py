"""Verilog of a component and of every module it places."""
from amaranth import ClockDomain, Fragment, Value
from amaranth.back import rtlil
from pyosys import libyosys

from rtl.common.place import Library, flat_ports


def to_rtlil(component, *, name, library):
    """RTLIL text of one component; what it places by ``Place`` goes to ``library``.

    The module always has the ports ``clk`` and ``rst``, used or not, so that every placed module
    can be connected in the same way.
    """
    fragment = Fragment.get(component, library)
    domain = ClockDomain("sync")
    fragment.add_domains(domain)
    named = {port: (Value.cast(v), None) for port, _, v in flat_ports(component)}
    named |= {"clk": (domain.clk, None), "rst": (domain.rst, None)}
    return rtlil.convert_fragment(fragment, ports=named, name=name, emit_src=False)[0]


def modules(component, *, name):
    """RTLIL texts by module name: the component's own, then those of everything it places."""
    library, done = Library(), {}
    done[name] = to_rtlil(component, name=name, library=library)
    while pending := [n for n in library.modules if n not in done]:
        for module in pending:
            done[module] = to_rtlil(library.modules[module], name=module, library=library)
    return done


def write(component, *, name, path, attributes=False):
    """Write the Verilog of ``component`` as module ``name`` into the file ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".il")
    source.write_text("\n".join(modules(component, name=name).values()))
    design = libyosys.Design()
    noattr = "" if attributes else "-noattr"
    for step in (f"read_rtlil {source}", "proc -noopt", "opt_clean", "memory_collect",
                 "opt_clean", f"write_verilog {noattr} {path}"):
        libyosys.run_pass(f"tee -q {step}", design)
    return path
