"""Description of the dies of a system: what the engine is told to step."""
from dataclasses import dataclass, field

from cosim.build.model import SECOND_CLOCK, Model

CLOCKS = ("clk", "rst", SECOND_CLOCK)   # ports that the engine itself drives


@dataclass(frozen=True)
class Join:
    """Two models of a die joined port by port: ``a_prefix + name`` of one to ``b_prefix + name``.

    Every port of ``b`` that starts with its prefix has its partner, but for ``clk``, ``rst`` and
    those that start with one of ``apart``.
    """

    a: str
    a_prefix: str
    b: str
    b_prefix: str = ""
    apart: tuple = ()


@dataclass(frozen=True)
class Gate:
    """A model that need not be evaluated while it sleeps.

    It sleeps once ``idle`` has been high, and every valid or pulse bit of its inputs and outputs
    low, for ``linger_cycles``. If there is ``wake``, only bits whose names end so count. The model
    promises that nothing in it changes then: the cycles that it spends on work after ``idle`` rose,
    such as answers to accesses, are at most ``linger_cycles`` apart. ``idle`` may be empty. An
    input ``now`` of 64 bits brings it the time since the reset [cycle].

    A model with the ports ``hbm_rest`` and ``hbm_skipped`` misses at most so many edges of the
    second clock in a sleep as the first says, and is told by the other how many it has missed.
    """

    idle: str = "idle"
    linger_cycles: int = 32
    wake: str = ""


@dataclass(frozen=True)
class Device:
    """A native device model of a die.

    ``pins`` maps the device's roles to ``(model, port)``; ``memory_bytes`` of sparse memory are
    shared with Python under the name ``<die>.<name>``. ``second_clock``: it is stepped at the
    edges of the die's second clock. ``ports`` are pins of its own, ends of channels: role to width
    and whether a channel drives it; no model of the die may then have its name.
    """

    kind: str
    name: str
    pins: dict[str, tuple[str, str]]
    parameters: dict[str, int] = field(default_factory=dict)
    memory_bytes: int = 0
    second_clock: bool = False
    ports: dict[str, tuple[int, bool]] = field(default_factory=dict)


@dataclass
class Die:
    """One chiplet: its models by name, and what they are connected to inside.

    A model with ``held`` inputs is evaluated after its neighbours in each cycle. It must not sleep
    or be joined to another such model, and all its joined inputs are held, else :exc:`ValueError`.

    Parameters
    ----------
    name : str
        Name in messages, memories and statistics.
    models : dict
        Built models by instance name; the same model may stand under several names.
    joins : list of Join
    ties : dict
        Constant inputs: ``(model, port)`` to value.
    gates : dict
        Models that may sleep, by name.
    devices : list of Device
    lanes : dict
        Ports whose changes are recorded when tracing is on: lane name to ``(model, port)``.
    second_clock : (int, int)
        Edges of ``hbm_clk`` of the models that have one, in as many cycles; they fall on edges of
        ``clk`` and are as evenly spaced as these. :exc:`ValueError` if they are more than these.
    broken : list of str
        Models whose outputs are random in every cycle, the same in every run.
    """

    name: str
    models: dict[str, Model]
    joins: list[Join] = field(default_factory=list)
    ties: dict[tuple[str, str], int] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    lanes: dict[str, tuple[str, str]] = field(default_factory=dict)
    second_clock: tuple[int, int] = (0, 1)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self):
        ticks, cycles = self.second_clock
        if not 0 <= ticks <= cycles or not cycles:
            raise ValueError(f"The second clock must have at most as many edges as the first, "
                             f"not {ticks!r} in {cycles!r} cycles")
        for device in self.devices:
            if device.ports and device.name in self.models:
                raise ValueError(f"A device with ports must have a name of its own, not that of "
                                 f"the model {self.name}.{device.name}")

    def port_bits(self, part, port):
        """Width of a port of a model, or of a device that has ports."""
        if part in self.models:
            return self.models[part].ports[port].bits
        return next(d.ports[port][0] for d in self.devices if d.name == part)

    def copies(self):
        """Connections of the joins: ``(to, port, from, port)``; :exc:`ValueError` if one is odd."""
        for join in self.joins:
            ports = self.models[join.b].ports
            names = [n for n in ports if n.startswith(join.b_prefix) and n not in CLOCKS
                     and not n.startswith(join.apart)]
            for name in names:
                partner = join.a_prefix + name[len(join.b_prefix):]
                other = self.models[join.a].ports.get(partner)
                if other is None or other.bits != ports[name].bits \
                        or other.input == ports[name].input:
                    raise ValueError(f"Port {join.b}.{name} must have a partner of its width and "
                                     f"the other direction, not {join.a}.{partner}: {other!r}")
                ends = ((join.b, name), (join.a, partner))
                (to, to_port), (source, port) = ends if ports[name].input else ends[::-1]
                held = self.models[to].held
                if held and (self.models[source].held or not to_port.startswith(held)
                             or to in self.gates):
                    raise ValueError(f"Input {to}.{to_port} must be held, {to} not sleep, and "
                                     f"{source} hold none")
                yield to, to_port, source, port

    def guard(self, model, port):
        """Valid bit of the stream that an output is the payload of, or ``""``."""
        stem, _, last = port.rpartition("__")
        valid = f"{stem}__valid" if stem else "valid"
        return valid if last == "payload" and valid in self.models[model].ports else ""

    def pulses(self, model):
        """Bits that wake a model or keep it awake: one bit wide, no payload, no ready."""
        for port in self.models[model].ports.values():
            last = port.name.rpartition("__")[2]
            if port.bits == 1 and port.name not in (*CLOCKS, self.gates[model].idle) \
                    and last not in ("payload", "ready") \
                    and port.name.endswith(self.gates[model].wake):
                yield port.name


@dataclass(frozen=True)
class Channel:
    """Phits from one die to another.

    Each end is ``(die, model, valid port, data port)``; a device with ports may be the model.
    """

    name: str
    source: tuple[str, str, str, str]
    target: tuple[str, str, str, str]
    latency_cycles: int = 16


def bus_pins(model, instance, prefix):
    """Pins of a bus: the names of the model's ports without ``prefix`` are the roles."""
    return {name.removeprefix(prefix): (instance, name)
            for name in model.ports if name.startswith(prefix)}


def host_memory(model, instance, prefix, *, memory_bytes, **parameters):
    """Host memory behind an AXI4 master; parameters as in ``cosim/devices/host.hpp``."""
    if memory_bytes < 64 or memory_bytes % 64:
        raise ValueError(f"Memory must be a positive multiple of 64 bytes, not {memory_bytes!r}")
    return Device("host_memory", "host", bus_pins(model, instance, prefix), parameters,
                  memory_bytes)


def register_master(model, instance, prefix):
    """Master on an AXI4-Lite port, for :meth:`Engine.access`."""
    return Device("register_master", "registers", bus_pins(model, instance, prefix))
