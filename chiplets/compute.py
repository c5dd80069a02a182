"""The compute chiplet: PEs on a mesh with SRAM banks, HBM, a control block and a link."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from chiplets.packages import ComputeParameters
from rtl.common.place import Place
from rtl.control.block import ControlBlock
from rtl.link.interfaces import PhitPort
from rtl.link.link import D2dLink
from rtl.memory.hbm_controller import HbmController
from rtl.memory.sram import SramBank
from rtl.noc.address import DIE_BITS
from rtl.noc.bridge import Bridge
from rtl.noc.endpoints import Requester, Target
from rtl.noc.mesh import Mesh
from rtl.noc.packets import request_packet_layout, response_packet_layout
from rtl.pe.command_processor import UNITS
from rtl.pe.element import ProcessingElement
from rtl.pe.interfaces import PePort, Unit

RING = ("ring_in", "ring_out")
HBM_PINS = ("row_command", "column_command", "write_data", "write_mask", "read_data")


def hbm_pins(controller):
    """Signature of the device side of an HBM controller."""
    return wiring.Signature({name: controller.signature.members[name] for name in HBM_PINS})


def base_port():
    """Signature of a PE towards the rest of its chiplet; the ring goes from PE to PE."""
    return wiring.Signature({name: member for name, member in PePort().members.items()
                             if name not in RING})


def states_layout(*, banks, channels):
    """What the chiplet without its PEs did in the cycle before.

    ``sram`` and ``hbm``: an access was accepted. ``request`` and ``response``: a message came from
    the link, went to it. ``packets``: 3 bits of :class:`rtl.control.context.ContextState` each.
    """
    return data.StructLayout({"sram": banks, "hbm": channels, "request": 1, "response": 1,
                              "packets": 12})


class ComputeBase(wiring.Component):
    """A compute chiplet without its PEs; these are connected to its ports.

    A PE's read of SRAM takes 3 + 2 x (rows apart + columns apart) cycles when nobody is in its way,
    from its request to its response; each bank serves one line of 64 bytes a cycle. Every output is
    a function of registers.

    Parameters
    ----------
    parameters : ComputeParameters
        Sizes.

    Members
    -------
    pe<n> : In(base_port())
        A PE, as it sees itself, row-major; all of it but its neighbours in the reduction ring.
    link : Out(PhitPort())
        Pins of the die-to-die link to the I/O chiplet.
    hbm<n> : Out(hbm_pins(...))
        Pins of an HBM channel, see :class:`rtl.memory.hbm_controller.HbmController`.
    die : In(4)
        Number of this die; constant.
    states : Out(states_layout(...))
        Register.
    """

    def __init__(self, parameters):
        if not isinstance(parameters, ComputeParameters):
            raise TypeError(f"Parameters must be ComputeParameters, not {parameters!r}")
        self.parameters = parameters
        addresses = parameters.addresses
        controller = HbmController(rows=parameters.hbm_rows)
        controller._MustUse__silence = True  # it only lends its signature
        pins = hbm_pins(controller)
        super().__init__({
            **{f"pe{i}": In(base_port()) for i in range(parameters.pes)},
            **{f"hbm{i}": Out(pins) for i in range(parameters.hbm_channels)},
            "link": Out(PhitPort()), "die": In(DIE_BITS),
            "states": Out(states_layout(banks=addresses.banks, channels=addresses.channels))})

    def elaborate(self, platform):
        m = Module()
        layout, addresses = self.parameters.layout, self.parameters.addresses
        pes, banks, channels = (
            [name for name in layout.nodes if name.startswith(prefix)]
            for prefix in ("pe", "sram", "hbm"))
        memories = {}
        for name in banks:
            memories[name] = Place(SramBank(lines=self.parameters.bank_lines)), 4, len(banks)
        for i, name in enumerate(channels):
            controller = Place(HbmController(rows=self.parameters.hbm_rows))
            memories[name] = controller, 64, len(channels)
            for pin in HBM_PINS:
                mine, its = getattr(getattr(self, f"hbm{i}"), pin), getattr(controller, pin)
                m.d.comb += its.eq(mine) if pin == "read_data" else mine.eq(its)

        m.submodules.requests = requests = Mesh(
            request_packet_layout(layout), layout, sources=(*pes, "control", "bridge"),
            targets=(*pes, *memories, "control"))
        m.submodules.responses = responses = Mesh(
            response_packet_layout(layout), layout, sources=(*pes, *memories, "control"),
            targets=(*pes, "control", "bridge"), multicast=True)
        m.submodules.control = control = Place(ControlBlock(pes=len(pes)))
        m.submodules.bridge = bridge = Bridge()
        m.submodules.link = link = Place(
            D2dLink(latency_cycles=self.parameters.link_latency_cycles))
        faults = {}

        def requester(name, request, response):
            m.submodules[f"requester_{name}"] = end = Place(Requester(addresses))
            connect(m, request, end.request)
            connect(m, end.response, response)
            connect(m, end.o_packets, getattr(requests, f"i_{name}"))
            connect(m, getattr(responses, f"o_{name}"), end.i_packets)
            m.d.comb += [end.die.eq(self.die), end.node.eq(layout.nodes[name].const())]
            faults[name] = end.fault

        def target(name, request, response, *, depth=4, interleave=1):
            m.submodules[f"target_{name}"] = end = Place(
                Target(layout, depth=depth, interleave=interleave))
            connect(m, end.request, request)
            connect(m, response, end.response)
            connect(m, getattr(requests, f"o_{name}"), end.i_packets)
            connect(m, end.o_packets, getattr(responses, f"i_{name}"))

        for name, (memory, depth, interleave) in memories.items():
            m.submodules[name] = memory
            target(name, memory.request, memory.response, depth=depth, interleave=interleave)
        for i, name in enumerate(pes):
            port = getattr(self, name)
            requester(name, flipped(port.request), flipped(port.response))
            target(name, flipped(port.access), flipped(port.access_response))
            connect(m, control.launches[i], flipped(port.launch))
            connect(m, flipped(port.report), control.reports[i])
            m.d.comb += [control.arrive[i].eq(port.arrive), control.idle[i].eq(port.idle),
                         port.proceed.eq(control.proceed[i]), port.abort.eq(control.abort[i])]
        requester("control", control.request, control.response)
        target("control", control.access, control.access_response)
        requester("bridge", bridge.request, bridge.response)
        connect(m, bridge.packets, control.packets)
        connect(m, bridge.aborts, control.aborts)
        connect(m, control.completions, bridge.completions)
        connect(m, bridge.link, link.port)
        connect(m, link.phits, flipped(self.link))
        accesses = {name: memory.request.valid & memory.request.ready
                    for name, (memory, _, _) in memories.items()}
        self._observe(m, control, bridge, link, faults, accesses)
        return m

    def _observe(self, m, control, bridge, link, faults, accesses):
        """Registers of the control block, and what it does."""
        addresses, identity, states = self.parameters.addresses, control.identity, self.states
        sram = Cat(accepted for name, accepted in accesses.items() if name.startswith("sram"))
        hbm = Cat(accepted for name, accepted in accesses.items() if name.startswith("hbm"))
        events = [
            sum(fault for name, fault in faults.items() if name.startswith("pe")),
            faults["control"], faults["bridge"], bridge.fault, sum(sram),
            sum(hbm) if len(hbm) else C(0, 1)]
        for counter, event in zip(control.counters, events, strict=False):
            count = Signal(32)
            m.d.sync += count.eq(count + event)
            m.d.comb += counter.eq(count)
        m.d.comb += [
            identity.die.eq(self.die), identity.rows.eq(self.parameters.rows),
            identity.columns.eq(self.parameters.columns),
            identity.sram_kib.eq(addresses.sram_bytes >> 10),
            identity.hbm_channels.eq(addresses.channels),
            identity.hbm_mib.eq(addresses.hbm_bytes >> 20),
            control.link_counters.eq(Cat(link.counters, link.state))]
        requested, responded = bridge.link.i_request, bridge.link.o_response
        m.d.sync += [states.sram.eq(sram), states.hbm.eq(hbm), states.packets.eq(control.states),
                     states.request.eq(requested.valid & requested.ready),
                     states.response.eq(responded.valid & responded.ready)]


def pe_units(parameters):
    """Units of a PE beside its command processor."""
    return tuple(u for u in UNITS if u is not Unit.SOFTMAX or parameters.attention)


class ComputeChiplet(wiring.Component):
    """A compute chiplet: :class:`ComputeBase` with its PEs.

    Parameters
    ----------
    parameters : ComputeParameters
        Sizes.

    Members
    -------
    link, hbm<n>, die, states
        As those of :class:`ComputeBase`.
    pe<n>_states : Out(18)
        ``states`` of a PE.
    """

    def __init__(self, parameters):
        self.parameters = parameters
        self.base = Place(ComputeBase(parameters))
        outer = {name: member for name, member in self.base.signature.members.items()
                 if not name.startswith("pe")}
        outer |= {f"pe{i}_states": Out(2 * len(Unit)) for i in range(parameters.pes)}
        super().__init__(outer)

    def elaborate(self, platform):
        m = Module()
        parameters = self.parameters
        m.submodules.base = base = self.base
        pes = []
        for i in range(parameters.pes):
            m.submodules[f"pe{i}"] = pe = Place(ProcessingElement(
                lines=parameters.local_lines, banks=parameters.local_banks,
                rows=parameters.dot_rows, lanes=parameters.mx4_lanes,
                units=pe_units(parameters)))
            pes.append(pe)
            port = getattr(base, f"pe{i}")
            for name, member in base_port().members.items():
                its, mine = getattr(pe, name), getattr(port, name)
                if member.is_signature:
                    connect(m, its, mine)
                else:
                    m.d.comb += mine.eq(its) if member.flow is Out else its.eq(mine)
            m.d.comb += getattr(self, f"pe{i}_states").eq(pe.states)
        for sender, receiver in parameters.ring:
            connect(m, pes[sender].ring_out, pes[receiver].ring_in)
        connect(m, base.link, flipped(self.link))
        for i in range(parameters.hbm_channels):
            connect(m, getattr(base, f"hbm{i}"), flipped(getattr(self, f"hbm{i}")))
        m.d.comb += [base.die.eq(self.die), self.states.eq(base.states)]
        return m
