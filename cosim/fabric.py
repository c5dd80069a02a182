"""The fabric between the packages of a system: switches, cables, and what goes wrong in them.

Each switch is a die without models; a device beside each NIC is the other end of its cable.
"""
import re
from dataclasses import dataclass, field, fields

from cosim import engine

BEAT_BYTES = 16
LONGEST_FRAME = 4160    # bytes: three beats of header, 4,096 of payload, a beat with the CRC
PHIT_BITS = 133         # of cosim/devices/fabric_link.hpp
NIC = re.compile(r"nic(\d+)__tx_tdata$")
FOREVER = 2**64 - 1
FLOWS = ("drop", "pause")
SETTINGS = ("loss", "duplicate", "reorder", "corrupt", "reorder_cycles", "down_from", "down_cycles",
            "down_period")
COUNTERS = ("in_frames", "in_bytes", "out_frames", "out_bytes", "lost", "overflowed", "link_down",
            "restarted", "unknown", "wrong", "duplicated", "reordered", "corrupted", "marked",
            "longest_queue", "longest_held", "pauses", "paused_cycles")
DROPS = COUNTERS[4:10]  # frames dropped, by cause
FIRST_COUNTER, PORT_WORDS = 16, 64  # of PortWords in cosim/devices/fabric_port.hpp


def mac_address(rank, nic):
    """MAC address of a NIC: 48 bits, the first byte on the wire lowest, as frames have it.

    The bytes: 02 (locally administered; source: IEEE 802, clause 8.4), NIC, rank in four bytes.
    """
    return int.from_bytes(bytes([2, nic]) + rank.to_bytes(4, "big"), "little")


@dataclass(frozen=True)
class Faults:
    """What happens to frames that come to a switch by a port; :exc:`ValueError` unless 0 to 1.

    Parameters
    ----------
    loss, duplicate, corrupt, reorder : float
        Share of the frames that is lost; comes twice; has one to three bits anywhere inverted; is
        held back, so that others overtake it. A duplicate comes in its turn.
    reorder_cycles : int
        For how long [cycle].
    """

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    reorder_cycles: int = 1000

    def __post_init__(self):
        for name in ("loss", "duplicate", "corrupt", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Share of frames ({name}) must be 0 to 1, "
                                 f"not {getattr(self, name)!r}")
        if self.reorder_cycles < 0:
            raise ValueError(f"Reorder time must be 0 cycles or more, not {self.reorder_cycles!r}")

    def words(self):
        """The settings of a port that this makes, by name."""
        return {f.name: getattr(self, f.name) if f.name == "reorder_cycles"
                else round(getattr(self, f.name) * 2**32) for f in fields(self)}


@dataclass(frozen=True)
class Fabric:
    """Switches, and a cable to each NIC that carries a beat of 16 bytes a cycle each way.

    A switch stores a frame before it sends it. A frame of ``n`` beats that waits for no other has
    left the NIC and come to the other one after ``2 latency_cycles + forward_cycles + 2 (n - 1)``
    cycles, counted from its first beat to its last. All numbers are this project's choice.

    Parameters
    ----------
    rails : int
        Switches: NIC ``k`` of every package is at switch ``k % rails``. 0: one for each NIC of a
        package.
    latency_cycles : int
        Of a cable, one way [cycle].
    latencies : dict
        Of single ones, by rank and NIC: ``{(3, 0): 500}``.
    forward_cycles : int
        From the last beat of a frame to the first that the switch sends of it [cycle].
    flow : str
        ``drop``: ``buffer_bytes`` bound the queue of an output, and what does not fit is dropped.
        ``pause``: they bound what is there from an input, whose NIC is asked to pause in time, so
        that nothing is dropped.
    buffer_bytes, mark_bytes : int
        That bound; a frame that finds more than ``mark_bytes`` in its queue is marked as one that
        met congestion, 0: none is [byte].
    faults : Faults
        Of every port, until changed.
    seed : int
        Of all faults: the same seed gives the same ones.

    :exc:`ValueError` if something must be larger, or the flow is another one.
    """

    rails: int = 0
    latency_cycles: int = 200
    latencies: dict = field(default_factory=dict)
    forward_cycles: int = 100
    flow: str = "drop"
    buffer_bytes: int = 1 << 16
    mark_bytes: int = 1 << 14
    faults: Faults = Faults()
    seed: int = 1

    def __post_init__(self):
        if self.flow not in FLOWS:
            raise ValueError(f"Flow must be one of {', '.join(FLOWS)}, not {self.flow!r}")
        for name, least in (("rails", 0), ("latency_cycles", 1), ("forward_cycles", 0),
                            ("mark_bytes", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)!r}")
        for where, cycles in self.latencies.items():
            if cycles < 1:
                raise ValueError(f"Latency of the cable to {where} must be 1 or more, "
                                 f"not {cycles!r}")
        for cycles in (self.latency_cycles, *self.latencies.values()):
            least = 2 * LONGEST_FRAME
            if self.flow == "pause":
                least += self.headroom(cycles)
            if self.buffer_bytes < least:
                raise ValueError(f"Buffer must be {least} bytes or more (flow {self.flow}, cable "
                                 f"of {cycles} cycles), not {self.buffer_bytes!r}")

    @staticmethod
    def headroom(latency_cycles):
        """Bytes that come by a cable after a pause was asked for: a round trip and a frame."""
        return 2 * latency_cycles * BEAT_BYTES + LONGEST_FRAME

    def latency(self, rank, nic):
        """Latency of the cable to a NIC [cycle]."""
        return self.latencies.get((rank, nic), self.latency_cycles)


@dataclass(frozen=True)
class Wiring:
    """A fabric around some packages, for the engine.

    ``places`` are switch and port of each NIC, by rank and NIC.
    """

    dies: list
    channels: list
    places: dict


def nics_of(dies):
    """NICs of a package in their order: ``(die, model, prefix of its ports)``."""
    return [(die, name, f"nic{number}__") for die in dies for name, model in die.models.items()
            for number in sorted(int(m[1]) for m in map(NIC.match, model.ports) if m)]


def connect(fabric, ranks):
    """Give every NIC of ``ranks`` (the dies of each) a MAC and a cable; returns a :class:`Wiring`.

    A port of a chiplet whose name starts with ``nic<n>__`` belongs to a NIC (``MacPort`` of
    ``rtl/net/interfaces.py``). Its station is :func:`mac_address` of rank and NIC, counted over
    all chiplets of the package in their order.
    """
    members = {}    # of each switch: rank, NIC, die, device
    for rank, dies in enumerate(ranks):
        found = nics_of(dies)
        for nic, (die, model, prefix) in enumerate(found):
            name = f"mac_{model}_{prefix.rstrip('_')}"
            die.devices.append(engine.Device(
                "mac", name, engine.bus_pins(die.models[model], model, prefix),
                ports=end_ports("out", "in")))
            members.setdefault(nic % (fabric.rails or len(found)), []).append(
                (rank, nic, die.name, name))
    wiring = Wiring([], [], {})
    for number, stations in sorted(members.items()):
        wiring.dies.append(switch(fabric, f"switch{number}", stations))
        for port, (rank, nic, die, mac) in enumerate(stations):
            wiring.places[rank, nic] = (f"switch{number}", port)
            ends = (die, mac), (f"switch{number}", "ports")
            for (a, part_a, out), (b, part_b, into) in (
                    ((*ends[0], "out"), (*ends[1], f"in{port}")),
                    ((*ends[1], f"out{port}"), (*ends[0], "in"))):
                wiring.channels.append(engine.Channel(
                    f"{a}.{part_a}.{out}->{b}.{part_b}.{into}",
                    (a, part_a, f"{out}_valid", f"{out}_data"),
                    (b, part_b, f"{into}_valid", f"{into}_data"), fabric.latency(rank, nic)))
    return wiring


def end_ports(out, into):
    """Ports of a device that has an end of a cable."""
    return {f"{name}_{what}": (bits, name == into) for name in (out, into)
            for what, bits in (("valid", 1), ("data", PHIT_BITS))}


def switch(fabric, name, stations):
    """A switch as a die; ``stations`` as :func:`connect` has them."""
    parameters = {
        "ports": len(stations), "stations": len(stations), "seed": fabric.seed,
        "longest_frame": LONGEST_FRAME, "forward_cycles": fabric.forward_cycles,
        "pause": int(fabric.flow == "pause"), "buffer_bytes": fabric.buffer_bytes,
        "mark_bytes": fabric.mark_bytes}
    ports = {}
    for port, (rank, nic, _, _) in enumerate(stations):
        room = fabric.buffer_bytes - fabric.headroom(fabric.latency(rank, nic))
        parameters |= {f"station{port}": mac_address(rank, nic) | port << 48,
                       f"pause_bytes{port}": max(room, 0)}
        ports |= end_ports(f"out{port}", f"in{port}")
    memory_bytes = 8 * PORT_WORDS * (len(stations) + 1)
    return engine.Die(name, {}, devices=[
        engine.Device("switch", "ports", {}, parameters, memory_bytes, ports=ports)])


class RunningFabric:
    """The fabric of a running system: its counters, and orders to it, obeyed from the next cycle.

    ``rank`` and ``nic`` name a NIC, or the port of the switch that it is at.
    """

    def __init__(self, system, fabric, wiring):
        self.fabric, self.places, self._engine = fabric, wiring.places, system
        self._words = {die.name: system.memory(f"{die.name}.ports").view("<u8")
                       .reshape(-1, PORT_WORDS) for die in wiring.dies}
        for rank, nic in self.places:
            self.set_faults(rank, nic, fabric.faults)

    @property
    def switches(self):
        """Names of the switches."""
        return list(self._words)

    def _port(self, rank, nic):
        if (rank, nic) not in self.places:
            raise ValueError(f"NIC must be one of {len(self.places)} at the fabric, "
                             f"not NIC {nic} of rank {rank}")
        name, port = self.places[rank, nic]
        return self._words[name][port]

    @staticmethod
    def _set(words, **settings):
        for name, value in settings.items():
            words[SETTINGS.index(name)] = value

    def set_faults(self, rank, nic, faults):
        """What happens from now on to frames that come from a NIC."""
        self._set(self._port(rank, nic), **faults.words())

    def link_down(self, rank, nic, *, at=None, cycles=FOREVER, period=0):
        """Take a link down, now or at cycle ``at``, for ``cycles``, and again each ``period``.

        Another order to the same link takes the place of this one.
        """
        self._down(self._port(rank, nic), at, cycles, period)

    def link_up(self, rank, nic):
        """Forget what :meth:`link_down` was told."""
        self._set(self._port(rank, nic), down_cycles=0)

    def restart(self, switch, *, at=None, cycles=10_000):
        """Restart a switch, now or at cycle ``at``: it is away for ``cycles``, empty after that."""
        if switch not in self._words:
            raise ValueError(f"Switch must be one of {', '.join(self._words)}, not {switch!r}")
        self._down(self._words[switch][-1], at, cycles, 0)

    def _down(self, words, at, cycles, period):
        if cycles < 1 or (period and period <= cycles):
            raise ValueError(f"A link must be down for a cycle or more, and for less than its "
                             f"period, not {cycles!r} of {period!r}")
        start = self._engine.cycle if at is None else at
        self._set(words, down_from=start, down_cycles=cycles, down_period=period)

    def counters(self, rank, nic):
        """Counters of the port of a NIC, by name."""
        counts = self._port(rank, nic)[FIRST_COUNTER:]
        return {name: int(value) for name, value in zip(COUNTERS, counts, strict=False)}

    def totals(self):
        """The same over all ports: sums, and of the longest ones the longest."""
        counts = [self.counters(*where) for where in self.places]
        return {name: (max if name.startswith("longest") else sum)(c[name] for c in counts)
                if counts else 0 for name in COUNTERS}
