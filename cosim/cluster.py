"""Several packages in one simulation, each with a host of its own, and the fabric between them."""
import dataclasses
import time

from cosim import trace as chrome
from cosim.build import dies as build
from cosim.build.cache import building_seconds
from cosim.engine import Engine
from cosim.engine.engine import FREE_QUANTUM, WATCH
from cosim.fabric import RunningFabric, Wiring, connect
from cosim.member import Member

HOST_MEMORY_BYTES = 1 << 28     # this project's choice; sparse


class Cluster:
    """Packages that run together; a context manager.

    ``members`` are what the drivers of the hosts take, in the order of their ranks, ``packages``
    what they are, and ``fabric`` is what orders to the fabric go to, None if there is none. A
    driver that waits lets time pass for all: submit on all ranks first, then wait. The result is
    the same for any ``threads`` and ``processes``.

    Parameters
    ----------
    packages : list
        Package of each rank: a name, see ``chiplets.packages``, or a description of one's own.
        :exc:`ValueError` if there is none or their clocks differ.
    size : str
        Of those that are named.
    fabric : cosim.fabric.Fabric
        How their NICs are connected; None: not at all.
    threads, processes : int
        Workers that step the dies; one of the two must be 1.
    waves, trace : pathlib.Path
        As of :class:`cosim.package.Package`, with ``p<rank>.`` before the name of the die.
    record, gating, host_memory_bytes
        As of :class:`cosim.package.Package`; the memory is that of each host.
    broken : list of (int, int, int, int)
        Rank, die, row and column of PEs that do not work.
    network : bool
        With the network chiplets; by default if there is a fabric.
    prefixed : bool
        False: dies are called as in a package, of which there is only one.
    """

    def __init__(self, packages, size="sim", *, fabric=None, threads=1, processes=1, waves=None,
                 trace=None, record=False, gating=True, broken=(),
                 host_memory_bytes=HOST_MEMORY_BYTES, network=None, prefixed=True):
        self.packages = [build.describe(package, size) for package in packages]
        clocks = {package.core_megahertz for package in self.packages}
        if len(clocks) != 1:
            raise ValueError(f"Packages must be one or more with the same clock, not "
                             f"{', '.join(p.name for p in self.packages) or 'none'}")
        network = fabric is not None if network is None else network
        start = time.monotonic()
        prefixes = [f"p{rank}." if prefixed else "" for rank in range(len(self.packages))]
        ranks, channels = [], []
        for prefix, package in zip(prefixes, self.packages, strict=True):
            dies, own = build.package_dies(package, host_memory_bytes=host_memory_bytes,
                                           waves=waves is not None, network=network)
            rename(dies, prefix)
            ranks.append(dies)
            channels += [renamed(channel, prefix) for channel in own]
        self.build_seconds = time.monotonic() - start
        for rank, die, row, column in broken:
            columns = self.packages[rank].compute.columns
            ranks[rank][die].broken.append(f"pe{row * columns + column}")
        # Conditions are looked at as often as in a package alone, however long cables are.
        quantum = min((c.latency_cycles for c in channels), default=FREE_QUANTUM)
        wiring = connect(fabric, ranks) if fabric else Wiring([], [], {})
        channels += wiring.channels
        dies = [die for dies in ranks for die in dies] + wiring.dies
        self.cold_build_seconds = building_seconds(
            {m.library.parent for die in dies for m in die.models.values()})
        self.trace, self.clock_hertz = trace, clocks.pop() * 1e6
        hosts = [(prefix + build.host_die(package), build.HOST, "irq")
                 for prefix, package in zip(prefixes, self.packages, strict=True)]
        self.engine = Engine(
            dies, channels, threads=threads, processes=processes, waves=waves, gating=gating,
            quantum_cycles=min([quantum, *(c.latency_cycles for c in wiring.channels)]),
            trace=record or trace is not None, watch=hosts)
        self.members = [
            Member(self.engine, package, prefix=prefix, watch=rank,
                   build_seconds=self.build_seconds, cold_build_seconds=self.cold_build_seconds)
            for rank, (prefix, package) in enumerate(zip(prefixes, self.packages, strict=True))]
        self.fabric = RunningFabric(self.engine, fabric, wiring) if fabric else None

    @property
    def cycle(self):
        """Cycles simulated so far."""
        return self.engine.cycle

    def run(self, cycles):
        """Simulate ``cycles`` cycles."""
        self.engine.run(cycles)

    def run_until_interrupt(self, max_cycles, ranks=None):
        """Simulate until an interrupt of ``ranks`` (by default any) is high between two quanta.

        Returns the ranks whose interrupts are; none if they stayed low.
        """
        ranks = list(range(len(self.members))) if ranks is None else list(ranks)
        self.engine.run(max_cycles, until=WATCH, watch=ranks)
        return [rank for rank in ranks if self.members[rank].interrupted]

    def write_registers(self, register, values):
        """Write a register of several hosts in the same cycle: ``values`` by rank; time passes."""
        self.engine.access_each([(*self.members[rank].register(register), int(value))
                                 for rank, value in values.items()])

    def close(self):
        """Write the trace, stop the workers; host memories stay readable."""
        if self.trace is not None:
            chrome.write(self.trace, self.engine.events(), end_cycle=self.cycle,
                         clock_hertz=self.clock_hertz)
            self.trace = None
        self.engine.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def rename(dies, prefix):
    """Put a prefix before the names of dies."""
    for die in dies:
        die.name = prefix + die.name


def renamed(channel, prefix):
    """The channel between dies that were renamed."""
    return dataclasses.replace(channel, name=prefix + channel.name,
                               source=(prefix + channel.source[0], *channel.source[1:]),
                               target=(prefix + channel.target[0], *channel.target[1:]))
