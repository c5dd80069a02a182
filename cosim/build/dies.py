"""The dies of a package: chiplets built as models, described for the engine."""
import dataclasses
import os
import time
from functools import cache
from pathlib import Path

from chiplets import packages, registers
from chiplets.compute import ComputeBase, pe_units
from chiplets.io import IoChiplet
from chiplets.network import NetworkChiplet
from cosim import engine
from cosim.build.model import Recipe, build_beside
from rtl.memory.hbm.channel import HbmChannel
from rtl.memory.hbm.timing import HbmTiming
from rtl.memory.tile import name_layout
from rtl.net.engine import MessageEngine
from rtl.pe.dot_array import PathArray
from rtl.pe.element import ProcessingElement

ROOT = Path(__file__).parents[2]
HOST = "host"               # model of the host's interface; it rests while nothing is to be done
HOST_GATE = engine.Gate(linger_cycles=0, wake="valid")
NETWORK = "network"         # model of a network chiplet; it rests as the host's interface does
NETWORK_GATE = HOST_GATE
ENGINE_GATE = engine.Gate(linger_cycles=2)      # its states are told a cycle late
HBM_ROW_BYTES = 16 * 1024   # a row of each of the 16 banks of a pseudo-channel
HBM_PINS = ("row_command", "column_command", "write_data", "read_data")


@cache
def register_offsets():
    """Byte offsets of the I/O chiplet's registers by name."""
    return {name: register.offset for name, register in registers.load("io").items()}


def process_start():
    """Time at which this process began, as files' times are given [s]."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


@cache
def sources():
    """Text of everything that decides what a chiplet becomes.

    A file that changed since this process began may not be what it imported; then the text is
    nobody else's, so that nothing is found under it.
    """
    files = [p for folder in ("rtl", "chiplets") for p in sorted((ROOT / folder).rglob("*"))
             if p.suffix in (".py", ".rdl")]
    changed = max(p.stat().st_mtime for p in files) > process_start()
    own = f"{os.getpid()} {time.time()}" if changed else ""
    return own + "\0".join(f"{p.relative_to(ROOT)}\0{p.read_text()}" for p in files)


def is_mx4_array(component):
    """Whether it is the array of MXFP4 cells: half of the work of a busy package."""
    return isinstance(component, PathArray) and component.path == "MX4"


def neighbours(parameters):
    """Names of the models beside the base of a compute die: PEs, pseudo-channels, engines."""
    return ([f"pe{i}" for i in range(parameters.built_pes)],
            [f"hbm{i}" for i in range(parameters.addresses.channels)],
            ["engine"] * parameters.engines)


def recipes(package, *, waves=False, network=False):
    """What the models of a package are built from, by kind: base, PE, pseudo-channel, host...

    Those of the network chiplets, ``network<n>``, only if asked for.
    """
    parameters = package.compute
    pes, channels, engines = neighbours(parameters)
    held = ("die", *(f"{neighbour}__" for neighbour in (*pes, *channels, *engines)))
    held += ("link__",) if parameters.host else ()
    name_bits = name_layout(parameters.layout).size
    link = None if parameters.host else (("latency_cycles", parameters.link_latency_cycles),)
    made = {
        "base": Recipe(lambda: ComputeBase(parameters), (sources(), "base", repr(parameters)),
                       "ComputeBase", waves, held=held),
        "pe": Recipe(
            lambda: ProcessingElement(lines=parameters.local_lines, banks=parameters.local_banks,
                                      rows=parameters.dot_rows, lanes=parameters.mx4_lanes,
                                      units=pe_units(parameters)),
            (sources(), "pe", parameters.local_lines, parameters.local_banks, parameters.dot_rows,
             parameters.mx4_lanes, parameters.attention), "ProcessingElement", waves,
            is_mx4_array),
        HOST: Recipe(
            lambda: IoChiplet(dies=package.compute_chiplets, package_id=package.number, link=link),
            (sources(), "io", package.compute_chiplets, package.number, link), "IoChiplet",
            waves)}
    if channels:
        made["hbm"] = Recipe(lambda: HbmChannel(rows=parameters.hbm_rows, name_bits=name_bits),
                             (sources(), "hbm", parameters.hbm_rows, name_bits), "HbmChannel",
                             waves)
    if engines:
        made["engine"] = Recipe(MessageEngine, (sources(), "engine"), "MessageEngine", waves)
    for number, dies in enumerate(package.network_dies if network else ()):
        made[f"{NETWORK}{number}"] = network_recipe(package, dies, waves=waves)
    return made


def network_recipe(package, dies, *, waves):
    """What a network chiplet with links to compute chiplets ``dies`` is built from."""
    network, latency = package.network, package.compute.link_latency_cycles
    return Recipe(
        lambda: NetworkChiplet(nics=network.nics, qps=network.qps, dies=dies,
                               link_latency_cycles=latency),
        (sources(), "network", network, dies, latency), "NetworkChiplet", waves)


def compute_die(name, number, package, built, *, network=False):
    """A compute chiplet as one model for its base, one a PE, a pseudo-channel and an engine.

    Without ``network`` nothing comes from network chiplets.
    """
    parameters = package.compute
    pes, channels, engines = neighbours(parameters)
    models = {"base": built["base"]} | dict.fromkeys(pes, built["pe"])
    models |= dict.fromkeys(channels, built.get("hbm"))
    models |= dict.fromkeys(engines, built.get("engine"))
    alone = [] if network else parameters.nets
    timing = dataclasses.asdict(HbmTiming())
    devices = [engine.Device("hbm_pseudo", channel, {pin: (channel, pin) for pin in HBM_PINS},
                             timing, parameters.hbm_rows * HBM_ROW_BYTES, second_clock=True)
               for channel in channels]
    return engine.Die(
        name, models,
        joins=[engine.Join("base", f"{pe}__", pe) for pe in pes]
        + [engine.Join("base", f"{channel}__", channel, apart=(*HBM_PINS, "awake", "hbm_"))
           for channel in channels]
        + [engine.Join("base", f"{unit}__", unit, apart=("states", "awake")) for unit in engines],
        ties={("base", "die"): number} | {("base", f"{net}__rx_valid"): 0 for net in alone},
        # all of them at rest say so themselves
        gates={pe: engine.Gate(linger_cycles=0) for pe in pes}
        | {channel: engine.Gate(idle="", linger_cycles=0) for channel in channels}
        | dict.fromkeys(engines, ENGINE_GATE),
        devices=devices, lanes={pe: (pe, "states") for pe in pes},
        second_clock=(package.hbm_megahertz, package.core_megahertz))


def host_die(package):
    """Name of the die that the host's interface is on."""
    return "compute0" if package.compute.host else "io"


def package_dies(package, *, host_memory_bytes, waves=False, network=False):
    """Dies and channels of a package; the I/O chiplet, if there is one, comes last.

    ``network``: with its network chiplets, dies ``net<n>`` whose MAC ports are left open. Without
    them, what the compute chiplets send them is lost: their links go down.
    """
    count = package.compute_chiplets
    kinds = recipes(package, waves=waves, network=network)
    built = dict(zip(kinds, build_beside(kinds.values()), strict=True))
    dies = [compute_die(f"compute{i}", i, package, built, network=network) for i in range(count)]
    pairs = [((f"compute{a}", "base", f"peer{n}__"), (f"compute{b}", "base", f"peer{n}__"))
             for a, b, n in package.peer_links]
    if network:
        dies += [engine.Die(f"net{n}", {NETWORK: built[f"{NETWORK}{n}"]},
                            gates={NETWORK: NETWORK_GATE})
                 for n in range(package.network_chiplets)]
        pairs += [((f"net{chiplet}", NETWORK, f"link{link}__"),
                   (f"compute{die}", "base", f"net{net}__"))
                  for chiplet, link, die, net in package.network_links]
    model = built[HOST]
    devices = [engine.host_memory(model, HOST, "m_axi_", memory_bytes=host_memory_bytes),
               engine.register_master(model, HOST, "s_axil_")]
    if package.compute.host:
        dies[0].models[HOST] = model
        dies[0].joins += [engine.Join("base", f"link__{a}", HOST, f"link0__{b}")
                          for a, b in (("tx_", "rx_"), ("rx_", "tx_"))]
        dies[0].devices += devices
        dies[0].gates[HOST] = HOST_GATE
    else:
        dies.append(engine.Die("io", {HOST: model}, gates={HOST: HOST_GATE}, devices=devices))
        pairs = [((f"compute{i}", "base", "link__"), ("io", HOST, f"link{i}__"))
                 for i in range(count)] + pairs
    return dies, [channel for here, there in pairs
                  for channel in both_ways(here, there, package.compute.link_latency_cycles)]


def both_ways(here, there, latency_cycles):
    """The channels of a link between two ends, each a die, a model and the prefix of its pins."""
    for (a, model_a, prefix_a), (b, model_b, prefix_b) in ((here, there), (there, here)):
        yield engine.Channel(
            f"{a}->{b}", (a, model_a, f"{prefix_a}tx_valid", f"{prefix_a}tx_data"),
            (b, model_b, f"{prefix_b}rx_valid", f"{prefix_b}rx_data"), latency_cycles)


def describe(name, size):
    """The package of that name and size, see ``chiplets.packages``, or ``name`` if it is one."""
    return name if isinstance(name, packages.Package) else packages.package(name, size)
