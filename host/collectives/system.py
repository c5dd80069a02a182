"""Packages joined by a network: queue pairs between ranks, and memory that NICs may use."""
from collections import Counter
from dataclasses import dataclass

import numpy as np

from host.isa import LINE, Region, address
from host.network_isa import (
    NIC_QUEUE_PAIRS,
    NIC_REGIONS,
    QUEUE_PAIR,
    REGION,
    QpState,
    completion_port,
    doorbells,
    line,
    nic_window,
)

DOMAIN = 1              # protection domain of all that the library sets up
KEY = 0x4D580000        # of the regions; the number of the region in the low bits


def mac_address(rank, nic):
    """Address of a NIC of a package: bytes 02, NIC, rank in four, the first one lowest."""
    return int.from_bytes(bytes([2, nic]) + rank.to_bytes(4, "big"), "little")


@dataclass(frozen=True)
class Port:
    """A NIC as a compute die reaches it: its link and place there, its number in the package."""

    link: int = 0
    nic: int = 0
    number: int = 0


@dataclass(frozen=True)
class Rail:
    """A compute die with a message engine, and the NICs that its lanes use in turn."""

    die: int = 0
    ports: tuple = (Port(),)


def rails_of(package):
    """Rails of a description of a package (``chiplets.packages``): one for each compute die."""
    nics = package.network.nics
    ports = {}
    for chiplet, _, die, link in sorted(package.network_links):
        ports.setdefault(die, []).extend(
            Port(link, nic, nics * chiplet + nic) for nic in range(nics))
    return [Rail(die, tuple(of_die)) for die, of_die in sorted(ports.items())]


@dataclass(frozen=True)
class Transport:
    """How NICs repeat what is lost; this project's choice.

    Parameters
    ----------
    timeout_log2 : int
        Cycles without progress until a NIC sends again; a quarter of it after a message that found
        no receive [log2].
    tries : int
        Times that it does before it gives up. A rank may start so much later than its peers.
    window : int
        Frames under way.
    """

    timeout_log2: int = 13
    tries: int = 255
    window: int = 16


class System:
    """Ranks: a driver each, and how their NICs are reached. All ranks are of this process.

    Collectives use the NICs that are for scale-up. Those for scale-out get an address and memory,
    and no queue pairs: these are for whoever connects racks.

    Parameters
    ----------
    devices : list of host.driver.Device
        By rank.
    rails : list of Rail
        The same for all ranks; rail k of one rank is connected to rail k of the others.
    queue_pairs : int
        Of a NIC.
    transport : Transport
    scale_out : set of int
        Numbers of the NICs of a package that are for scale-out. :exc:`ValueError` if a package has
        no such NIC, or a rail no other one.
    """

    def __init__(self, devices, rails=(Rail(),), *, queue_pairs=16, transport=None, scale_out=()):
        self.devices, self.rails, self.queue_pairs = list(devices), list(rails), queue_pairs
        self.transport = transport or Transport()
        self.connections, self.free, self.ends, self.resets = {}, {}, {}, []
        self.under_way, self.scale_out = Counter(), set(scale_out)
        there = {port.number for rail in self.rails for port in rail.ports}
        if not self.scale_out <= there:
            raise ValueError(f"NICs for scale-out must be among {sorted(there)}, not "
                             f"{sorted(self.scale_out - there)}")
        for number, rail in enumerate(self.rails):
            if not self._scale_up(rail):
                raise ValueError(f"Rail {number} needs a NIC for scale-up beside "
                                 f"{sorted(self.scale_out)}")
        for rank, device in enumerate(self.devices):
            for rail in self.rails:
                for port in rail.ports:
                    self.free.setdefault((rank, port.number), list(range(queue_pairs)))
                    self._set_up_nic(device, rank, rail, port)
        for device in self.devices:
            device.synchronize()

    def _write(self, device, at, made, stream=0):
        return device.write(at, np.frombuffer(made.tobytes(), np.uint8), stream=stream)

    def _set_up_nic(self, device, rank, rail, port):
        """Give a NIC its address, and the memory of the rail's die, for its own requests alone."""
        window = nic_window(rail.die, port.link, port.nic)
        own = np.zeros((2, LINE // 8), "<u8")
        own[:, 0] = mac_address(rank, port.number), port.number in self.scale_out
        for number, words in enumerate(own):
            self._write(device, window + LINE * number, words)
        c = device.configuration
        for region, size in ((Region.SRAM, c.sram_bytes), (Region.HBM, c.hbm_bytes)):
            at = address(rail.die, region)
            number = self.key(at) - KEY
            self._write(device, window + NIC_REGIONS + LINE * number,
                        line(REGION, key=KEY + number, domain=DOMAIN, base=at, length=size))

    def end_of(self, device, stream):
        """The event that marks the end of a stream, for streams that wait for it."""
        if (device, stream) not in self.ends:
            self.ends[device, stream] = device.event()
        return self.ends[device, stream]

    def key(self, at):
        """Key of the region that holds an address: the SRAM or the HBM of its die."""
        return KEY + 2 * (at >> 44) + (at >> 40 & 15)

    def rail_of(self, at):
        """Number of the rail whose die holds an address; :exc:`ValueError` if none does."""
        for number, rail in enumerate(self.rails):
            if rail.die == at >> 44:
                return number
        raise ValueError(f"Die {at >> 44} has no message engine: buffers must be on die "
                         f"{', '.join(str(r.die) for r in self.rails)}, not at {at:#x}")

    def connect(self, needed, rail, *, stream=0):
        """Doorbells of queue pairs, by (rank, peer, lane); those that are missing are made.

        Waits only for the writes that make them, in ``stream``.

        ``needed``: such triples, both ways. If a NIC has no more, and nothing is under way,
        connections that are not needed are given up. :exc:`RuntimeError` if that does not help.
        """
        for key in needed:
            if (*key, rail) in self.connections:
                self.connections[*key, rail] = self.connections.pop((*key, rail))   # used last
        kept, written = {(*key, rail) for key in needed}, []
        for rank, peer, lane in needed:
            if (rank, peer, lane, rail) not in self.connections:
                written += self._connect(rank, peer, lane, rail, kept, stream)
        for event in written:       # of both ends, before one of them sends
            event.wait()
        return {key: self.connections[*key, rail][1] for key in needed}

    def _scale_up(self, rail):
        return [port for port in rail.ports if port.number not in self.scale_out]

    def _port(self, rail, lane):
        ports = self._scale_up(self.rails[rail])
        return ports[lane % len(ports)]

    def _connect(self, rank, peer, lane, rail, kept, stream):
        port = self._port(rail, lane)
        ends = [(rank, peer), (peer, rank)]
        numbers, written = [self._take(end, port, kept) for end, _ in ends], []
        while self.resets:      # perhaps in another stream
            self.resets.pop().wait()
        for (end, other), mine, theirs in zip(ends, numbers, numbers[::-1], strict=True):
            window = nic_window(self.rails[rail].die, port.link, port.nic)
            written.append(self._context(end, rail, lane, mine, line(
                QUEUE_PAIR, state=QpState.READY, domain=DOMAIN, peer_qp=theirs,
                peer_mac=mac_address(other, port.number),
                completions=completion_port(self.rails[rail].die),
                timeout_log2=self.transport.timeout_log2, tries=self.transport.tries,
                window=self.transport.window), stream))
            self.connections[end, other, lane, rail] = mine, doorbells(window, mine)
        return written

    def _context(self, rank, rail, lane, number, made, stream=0):
        port = self._port(rail, lane)
        window = nic_window(self.rails[rail].die, port.link, port.nic)
        return self._write(self.devices[rank], window + NIC_QUEUE_PAIRS + LINE * number, made,
                           stream)

    def _take(self, rank, port, kept):
        """A free queue pair of a NIC; gives up the connection that was used longest ago."""
        free = self.free[rank, port.number]
        while not free:
            old = next((key for key in self.connections if key not in kept and key[0] == rank
                        and self._port(key[3], key[2]).number == port.number), None)
            if old is None or any(self.under_way.values()):
                raise RuntimeError(f"NIC {port.number} of rank {rank} has {self.queue_pairs} "
                                   f"queue pairs, all in use: take fewer lanes")
            self.disconnect(*old)
        return free.pop(0)

    def disconnect(self, rank, peer, lane, rail):
        """Reset a connection at both ends, and give their queue pairs back."""
        for end, other in ((rank, peer), (peer, rank)):
            number, _ = self.connections.pop((end, other, lane, rail))
            self.resets.append(self._context(end, rail, lane, number,
                                             line(QUEUE_PAIR, state=QpState.RESET)))
            self.free[end, self._port(rail, lane).number].append(number)

    def forget(self, rail, ranks):
        """Reset all connections of some ranks on a rail: after an error nothing is known of them.

        They are made again when they are needed.
        """
        for key in [k for k in self.connections if k[3] == rail and k[0] in ranks]:
            if key in self.connections:
                self.disconnect(*key)
