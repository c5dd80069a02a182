"""Placing one elaborated component many times by ``Instance``."""
import hashlib

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In


class Library:
    """Platform of an elaboration: collects the modules placed by :class:`Place`.

    Members are ``modules``, a dict from module name to the component that describes it. The
    build elaborates each of them once (see ``chiplets.verilog``).
    """

    def __init__(self):
        self.modules = {}

    def require(self, name, component):
        self.modules.setdefault(name, component)


def module_name(component):
    """Verilog module name of a component: its class name and a digest of its parameters."""
    parameters = sorted((k, repr(v)) for k, v in vars(component).items()
                        if isinstance(v, (int, str, bool, tuple, float, type(None)))
                        or hasattr(v, "__dataclass_fields__"))
    ports = [(port, is_input, repr(Value.cast(value).shape()))
             for port, is_input, value in flat_ports(component)]
    text = repr((type(component).__module__, type(component).__qualname__, parameters, ports))
    return f"{type(component).__name__}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def flat_ports(component):
    """Ports of a component as ``(verilog name, is_input, value)``."""
    for path, member, value in component.signature.flatten(component):
        yield "__".join(str(p) for p in path), member.flow is In, value


class Place(wiring.Component):
    """Stands for ``component`` with the same ports; elaborated once however often it is placed.

    Elaborated with a :class:`Library` as platform it becomes an ``Instance`` of a module that the
    library then holds; with any other platform it contains the component itself. Latency 0.

    Parameters
    ----------
    component : wiring.Component
        What is placed. It uses the clock domain ``sync`` only.
    domain : str
        Clock domain that drives the component's ``sync``.
    """

    def __init__(self, component, *, domain="sync"):
        self.component = component
        self.domain = domain
        component._MustUse__silence = True  # the library elaborates only one of its equals
        super().__init__(component.signature)

    def elaborate(self, platform):
        m = Module()
        if not isinstance(platform, Library):
            m.submodules.placed = DomainRenamer(self.domain)(self.component)
            ports = zip(flat_ports(self), flat_ports(self.component), strict=True)
            for (_, is_input, own), (_, _, inner) in ports:     # connect() refuses arrays
                m.d.comb += inner.eq(own) if is_input else own.eq(inner)
            return m
        name = module_name(self.component)
        platform.require(name, self.component)
        ports = {"i_clk": ClockSignal(self.domain), "i_rst": ResetSignal(self.domain)}
        for port, is_input, value in flat_ports(self):
            ports[("i_" if is_input else "o_") + port] = Value.cast(value)
        m.submodules.placed = Instance(name, **ports)
        return m
