"""The network chiplet: NICs on a small mesh, and links to compute dies."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out, connect, flipped

from rtl.common.place import Place
from rtl.link.interfaces import PhitPort
from rtl.link.link import D2dLink
from rtl.link.transmitter import LinkState
from rtl.net.interfaces import MacPort
from rtl.net.mesh import MemoryMap, WindowMap, network_layout
from rtl.net.nic.nic import REQUESTS, Nic
from rtl.noc.address import DIE_BITS
from rtl.noc.endpoints import Requester, Target
from rtl.noc.mesh import Mesh
from rtl.noc.packets import request_packet_layout, response_packet_layout
from rtl.noc.peer import PeerBridge, link_tags

FAR_CYCLES = 200    # to HBM of the compute die and back under load (this project's choice)


def states_layout(*, nics):
    """What the chiplet did in the cycle before: beats of frames that left and came, by NIC."""
    return data.StructLayout({"sent": nics, "received": nics})


class NetworkChiplet(wiring.Component):
    """NICs that reach the memory of compute dies over links, and that these dies command.

    A NIC reads and writes memory of the dies that the chiplet has a link to; an access of another
    is answered with an error. A link takes 3 lines in 4 cycles each way, 48 bytes a cycle. All
    outputs are functions of registers. The clocks stop where nothing is under way.

    Parameters
    ----------
    nics : int
        NICs. :exc:`ValueError` unless in 1 to 12.
    qps : int
        Queue pairs of each, see :class:`rtl.net.nic.nic.Nic`.
    dies : tuple of int
        Numbers of the compute dies, a link each; at most two for each NIC.
    link_latency_cycles : int
        Latency of the channels of the links one way [cycle].

    Members
    -------
    link<n> : Out(PhitPort())
        Pins of the links, in the order of ``dies``.
    nic<n> : Out(MacPort())
        The NICs' frames.
    idle : Out(1)
        Register: nothing changes until a valid comes in.
    states : Out(states_layout(...))
        Register.
    """

    def __init__(self, *, nics=1, qps=16, dies=(0,), link_latency_cycles=16):
        self.layout = network_layout(nics=nics, links=len(dies))
        for die in dies:
            if not isinstance(die, int) or not 0 <= die < 1 << DIE_BITS:
                raise ValueError(f"Die must be an integer in 0 to {(1 << DIE_BITS) - 1}, "
                                 f"not {die!r}")
        self.nics, self.qps, self.dies = nics, qps, tuple(dies)
        self.link_latency_cycles = link_latency_cycles
        super().__init__({
            **{f"link{n}": Out(PhitPort()) for n in range(len(dies))},
            **{f"nic{n}": Out(MacPort()) for n in range(nics)}, "idle": Out(1),
            "states": Out(states_layout(nics=nics))})

    def elaborate(self, platform):
        m = Module()
        layout, self.moving = self.layout, []
        nics, links = ([f"{kind}{n}" for n in range(count)] for kind, count in (
            ("pe", self.nics), ("peer", len(self.dies))))
        # A NIC may be slow to take accesses to its window; what NICs ask of memory must not wait
        # behind these, as it is always taken at the links.
        m.submodules.requests = requests = Mesh(
            request_packet_layout(layout), layout, sources=nics, targets=links)
        m.submodules.accesses = accesses = Mesh(
            request_packet_layout(layout), layout, sources=links, targets=nics)
        m.submodules.responses = responses = Mesh(
            response_packet_layout(layout), layout, sources=(*nics, *links),
            targets=(*nics, *links))

        def requester(name, mesh, addresses, request, response):
            m.submodules[f"requester_{name}"] = end = Place(Requester(addresses))
            connect(m, request, end.request)
            connect(m, end.response, response)
            connect(m, end.o_packets, getattr(mesh, f"i_{name}"))
            connect(m, getattr(responses, f"o_{name}"), end.i_packets)
            m.d.comb += end.node.eq(layout.nodes[name].const())

        for n, name in enumerate(nics):
            m.submodules[f"nic{n}"] = nic = Place(Nic(qps=self.qps))
            requester(name, requests, MemoryMap(layout, self.dies), nic.request, nic.response)
            m.submodules[f"target_{name}"] = end = Place(Target(layout))
            connect(m, end.request, nic.access)
            connect(m, nic.access_response, end.response)
            connect(m, getattr(accesses, f"o_{name}"), end.i_packets)
            connect(m, end.o_packets, getattr(responses, f"i_{name}"))
            connect(m, nic.mac, flipped(getattr(self, f"nic{n}")))
            self.moving.append(nic.awake)
        tags = link_tags(self.link_latency_cycles, FAR_CYCLES)
        for n, name in enumerate(links):
            m.submodules[name] = bridge = Place(PeerBridge(
                layout, capacity=self.nics * REQUESTS, tags=tags))
            m.submodules[f"{name}_link"] = link = Place(
                D2dLink(latency_cycles=self.link_latency_cycles))
            requester(name, accesses, WindowMap(layout), bridge.request, bridge.response)
            connect(m, getattr(requests, f"o_{name}"), bridge.i_packets)
            connect(m, bridge.o_packets, getattr(responses, f"i_{name}"))
            connect(m, bridge.link, link.port)
            connect(m, link.phits, flipped(getattr(self, f"link{n}")))
            m.d.comb += bridge.down.eq(link.state == LinkState.DOWN)
            self.moving += [link.awake, bridge.awake]
        macs = [getattr(self, f"nic{n}") for n in range(self.nics)]
        self.moving += [mesh.awake for mesh in (requests, accesses, responses)]
        self.moving += [mac.rx_tvalid for mac in macs]
        m.d.sync += [
            self.idle.eq(~Cat(self.moving).any()),
            self.states.sent.eq(Cat(mac.tx_tvalid & mac.tx_tready for mac in macs)),
            self.states.received.eq(Cat(mac.rx_tvalid for mac in macs))]
        return m
