"""The compute chiplet: PEs and a message engine on a mesh with SRAM banks, HBM and links."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from chiplets.packages import ComputeParameters
from rtl.common.place import Place
from rtl.common.queue import Queue
from rtl.common.repair import ColumnRepair
from rtl.control.block import ControlBlock
from rtl.link.interfaces import PhitPort
from rtl.link.link import D2dLink
from rtl.link.on_die import OnDieLink, OnDiePort
from rtl.link.transmitter import LinkState
from rtl.memory.interfaces import ChannelPort
from rtl.memory.tile import WAYS, MemoryTile, name_layout
from rtl.net.engine import MessageEngine
from rtl.net.interfaces import MessageEnginePort
from rtl.noc.address import DIE_BITS
from rtl.noc.bridge import Bridge
from rtl.noc.combine import Combiner
from rtl.noc.endpoints import Requester, Target
from rtl.noc.group import GroupMembers
from rtl.noc.guard import Guard
from rtl.noc.mesh import Mesh
from rtl.noc.packets import request_packet_layout, response_packet_layout
from rtl.noc.peer import PeerBridge, link_tags
from rtl.pe.command_processor import UNITS
from rtl.pe.element import ProcessingElement
from rtl.pe.interfaces import LINE_BITS, PePort, Unit


def states_layout(*, tiles):
    """What the chiplet without its PEs did in the cycle before.

    ``sram`` and ``hbm``: a tile accepted an access. ``request`` and ``response``: a message came
    from the link, went to it. ``packets``: 3 bits of :class:`rtl.control.context.ContextState`
    each.
    """
    return data.StructLayout({"sram": tiles, "hbm": tiles, "request": 1, "response": 1,
                              "packets": 24})


class ComputeBase(wiring.Component):
    """A compute chiplet without PEs, message engine and HBM pseudo-channels: see its ports.

    There is one row of PEs more than is used: in each column one, bad or spare, is left out, as the
    configuration says. Until it opens them, no PE is listened to: accesses to their registers are
    answered with an error, packets for them refused. A PE's read of SRAM takes 3 + 2 x (rows apart
    + columns apart) cycles when nobody is in its way, from its request to its response; each bank
    serves one line of 64 bytes a cycle. A read of SRAM of a neighbour in the grid takes 27 + 2 x
    ``link_latency_cycles`` + 2 x (rows and columns from the PE to its bridge, and from the far
    bridge to the bank); a link brings 3 lines in 4 cycles, if nothing goes the other way but their
    requests. Every output is a function of registers.

    Parameters
    ----------
    parameters : ComputeParameters
        Sizes.

    Members
    -------
    pe<n> : In(PePort())
        A PE, as it sees itself, row-major, the spare row last.
    link : Out(PhitPort()), with a host on the die Out(OnDiePort())
        Pins of the die-to-die link to the I/O chiplet, or wires to the host's interface.
    engine : In(MessageEnginePort())
        The message engine, as it sees itself, if there is one.
    peer<n> : Out(PhitPort())
        Pins of the link to the other chiplet of the row of the grid, then to that of the column.
    net<n> : Out(PhitPort())
        Pins of a link to a network chiplet.
    hbm<n> : Out(ChannelPort(...))
        A pseudo-channel, those of the first tile first.
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
        channel = ChannelPort(name_layout(parameters.layout).size)
        engine = {"engine": In(MessageEnginePort())} if parameters.engines else {}
        super().__init__({
            **{f"pe{i}": In(PePort()) for i in range(parameters.built_pes)}, **engine,
            **{f"hbm{i}": Out(channel) for i in range(addresses.channels)},
            **{name: Out(PhitPort()) for name in (*parameters.peers, *parameters.nets)},
            "link": Out(OnDiePort() if parameters.host else PhitPort()), "die": In(DIE_BITS),
            "states": Out(states_layout(tiles=addresses.banks))})

    def elaborate(self, platform):
        m = Module()
        layout, addresses = self.parameters.layout, self.parameters.addresses
        pes, tiles, peers, nets = ([f"{kind}{n}" for n in range(len(layout.group(kind)))]
                                   for kind in ("pe", "tile", "peer", "net"))
        others = ["engine", *nets] if addresses.engines else nets
        m.submodules.requests = requests = Mesh(
            request_packet_layout(layout), layout,
            sources=(*pes, "control", "bridge", *peers, *others),
            targets=(*pes, *tiles, "control", *peers, *others))
        m.submodules.responses = responses = Mesh(
            response_packet_layout(layout), layout,
            sources=(*pes, *tiles, "control", *peers, *others),
            targets=(*pes, "control", "bridge", *peers, *others), multicast=True)
        m.submodules.control = control = Place(ControlBlock(
            pes=len(pes), rows=self.parameters.rows + 1, peers=len(peers), tiles=len(tiles),
            ways=WAYS if addresses.channels else 0, engines=addresses.engines, networks=len(nets)))
        ports = self._repair(m, control)
        events = self._settings(m, control.configuration)
        combined = []
        memories = [self._tile(m, i, requests, responses, control, events, combined)
                    for i in range(len(tiles))]
        m.submodules.bridge = bridge = Bridge()
        m.submodules.link = link = Place(
            OnDieLink() if self.parameters.host
            else D2dLink(latency_cycles=self.parameters.link_latency_cycles))
        faults = {}

        def requester(name, request, response, **options):
            m.submodules[f"requester_{name}"] = end = Place(Requester(addresses, **options))
            connect(m, request, end.request)
            connect(m, end.response, response)
            connect(m, end.o_packets, getattr(requests, f"i_{name}"))
            connect(m, getattr(responses, f"o_{name}"), end.i_packets)
            m.d.comb += [end.die.eq(self.die), end.node.eq(layout.nodes[name].const())]
            faults[name] = end.fault
            return end

        def target(name, request, response):
            m.submodules[f"target_{name}"] = end = Place(Target(layout))
            connect(m, end.request, request)
            connect(m, response, end.response)
            connect(m, getattr(requests, f"o_{name}"), end.i_packets)
            connect(m, end.o_packets, getattr(responses, f"i_{name}"))

        def started(number, port):
            connect(m, control.launches[number], port.launch)
            connect(m, port.report, control.reports[number])
            m.d.comb += [control.arrive[number].eq(port.arrive),
                         control.idle[number].eq(port.idle),
                         port.proceed.eq(control.proceed[number]),
                         port.abort.eq(control.abort[number]),
                         port.go.eq(control.go[number]), port.drop.eq(control.drop[number])]

        window, anywhere = self.parameters.far_requests, tuple(addresses.ways)
        for i, name in enumerate(pes):
            port = ports[i]
            end = requester(name, port.request, port.response, ways=anywhere, networks=True,
                            window=window)
            m.d.comb += [end.rate.eq(control.configuration.rate),
                         end.burst.eq(control.configuration.burst)]
            self._group(m, i, port.request.payload.group, end.members)
            m.submodules[f"guard_{name}"] = guard = Guard()
            m.d.comb += guard.open.eq(control.configuration.open)
            connect(m, guard.unit, port.access)
            connect(m, port.access_response, guard.unit_response)
            target(name, guard.access, guard.access_response)
            started(i, port)
        if addresses.engines:
            port = flipped(self.engine)
            requester("engine", port.request, port.response, ways=anywhere, networks=True,
                      window=window)
            target("engine", port.access, port.access_response)
            started(len(pes), port)
        requester("control", control.request, control.response)
        target("control", control.access, control.access_response)
        requester("bridge", bridge.request, bridge.response, networks=True, window=window)
        connect(m, bridge.packets, control.packets)
        connect(m, bridge.aborts, control.aborts)
        connect(m, control.completions, bridge.completions)
        connect(m, bridge.link, link.port)
        connect(m, link.phits, flipped(self.link))
        useless = [bridge.fault, *self._chiplets(m, requests, responses, requester, control)]
        self._observe(m, control, bridge, link, faults, memories, useless, combined)
        m.d.comb += control.noc_counters.eq(Cat(*(
            Cat(mesh.counters, C(mesh.links, 16), C(mesh.outputs, 16))
            for mesh in (requests, responses))))
        return m

    def _group(self, m, pe, group, members):
        """Who reads with a PE: its row, its column, or all."""
        row, column = divmod(pe, self.parameters.columns)
        m.submodules[f"group{pe}"] = own = Place(GroupMembers(self.parameters.layout))
        m.d.comb += [own.group.eq(group), own.row.eq(1 << row), own.column.eq(1 << column),
                     members.eq(own.members)]

    def _repair(self, m, control):
        """Ports of the PEs that are used, row-major; the reduction ring goes past those."""
        rows, columns = self.parameters.rows, self.parameters.columns
        places = [None] * self.parameters.pes
        for column in range(columns):
            m.submodules[f"column{column}"] = repair = ColumnRepair(PePort(), rows)
            for row in range(rows + 1):
                connect(m, flipped(getattr(self, f"pe{row * columns + column}")),
                        getattr(repair, f"unit{row}"))
            bad = control.configuration.repair[column]
            m.d.comb += [repair.bad.eq(Mux(bad == 0, rows, bad - 1)),
                         repair.open.eq(control.configuration.open)]
            for row in range(rows):
                places[row * columns + column] = getattr(repair, f"place{row}")
        for sender, receiver in self.parameters.ring:
            queue = Queue(LINE_BITS)    # what a program left in it is gone when the next one starts
            m.submodules[f"ring{sender}"] = ResetInserter(
                control.go[receiver] | control.abort[receiver])(queue)
            connect(m, places[sender].ring_out, queue.i)
            connect(m, queue.o, places[receiver].ring_in)
        return places

    def _settings(self, m, configuration):
        """Events for the memory tiles: flush, scrub, inject."""
        flushed, injected, time = Signal(), Signal(), Signal(32)
        m.d.sync += [flushed.eq(configuration.flush[0]), injected.eq(configuration.inject.valid)]
        log2 = configuration.scrub_log2[:5]
        with m.If(log2 != 0):
            m.d.sync += time.eq(time + 1)
        due = (time & ((1 << log2) - 1)[:32]) == (1 << log2)[:32] - 1
        return {"flush": flushed ^ configuration.flush[0], "tick": due & (log2 != 0),
                "inject": injected ^ configuration.inject.valid}

    def _tile(self, m, number, requests, responses, control, events, combined):
        """A memory tile at its node, and its pseudo-channels."""
        addresses = self.parameters.addresses
        channels = addresses.tile_channels if number < addresses.hbm_tiles else 0
        m.submodules[f"tile{number}"] = tile = Place(MemoryTile(addresses, channels=channels))
        m.submodules[f"combiner{number}"] = combiner = Place(Combiner(addresses.layout))
        connect(m, getattr(requests, f"o_tile{number}"), combiner.i)
        connect(m, combiner.o, tile.i_packets)
        combined.append(combiner.combined)
        connect(m, tile.o_packets, getattr(responses, f"i_tile{number}"))
        configuration, settings = control.configuration, tile.settings
        m.d.comb += [
            settings.cache_ways.eq(configuration.cache_ways if channels else 0),
            settings.flush.eq(events["flush"]), settings.tick.eq(events["tick"]),
            settings.inject.eq(configuration.inject), settings.inject.valid.eq(
                events["inject"] & (configuration.tile == number)),
            control.tile_counters[number].eq(tile.counters)]
        for n in range(channels):
            port = getattr(self, f"hbm{number * channels + n}")
            connect(m, getattr(tile, f"hbm{n}"), flipped(port))
        return tile

    def _chiplets(self, m, requests, responses, requester, control):
        """Links to other compute dies and to network chiplets; gives the faults of their bridges.

        A bridge has room for all that those who may send to it have under way, see
        docs/decisions/0012-peers.md and 0018-network-chiplets.md.
        """
        p, addresses, faults = self.parameters, self.parameters.addresses, []
        tags, window = link_tags(p.link_latency_cycles), p.far_requests
        senders, onward = p.pes + p.engines, tuple(addresses.ways)

        def chiplet(name, counters, *, capacity, **options):
            m.submodules[name] = bridge = Place(
                PeerBridge(addresses.layout, capacity=capacity, tags=tags))
            m.submodules[f"{name}_link"] = link = Place(
                D2dLink(latency_cycles=p.link_latency_cycles))
            requester(name, bridge.request, bridge.response, **options)
            connect(m, getattr(requests, f"o_{name}"), bridge.i_packets)
            connect(m, bridge.o_packets, getattr(responses, f"i_{name}"))
            connect(m, bridge.link, link.port)
            connect(m, link.phits, flipped(getattr(self, name)))
            m.d.comb += [bridge.down.eq(link.state == LinkState.DOWN), counters.eq(
                Cat(link.counters, link.state, C(0, 30), bridge.counters))]
            faults.append(bridge.fault)

        for n, name in enumerate(p.peers):
            onward = onward[1:]     # what came along the row goes on along the column alone
            chiplet(name, control.peer_counters[n], capacity=senders * window + n * tags,
                    ways=onward, networks=True)
        for n, name in enumerate(p.nets):   # the host as well, and what came from other dies
            chiplet(name, control.network_counters[n],
                    capacity=(senders + 1) * window + len(p.peers) * tags)
        return faults

    def _observe(self, m, control, bridge, link, faults, tiles, useless, combined):
        """Registers of the control block, and what it does."""
        addresses, identity, states = self.parameters.addresses, control.identity, self.states
        sram = Cat(tile.sram_access for tile in tiles)
        hbm = Cat(tile.hbm_access for tile in tiles)
        events = [
            sum(faults[f"pe{n}"] for n in range(self.parameters.pes)),
            faults["control"], faults["bridge"], sum(useless), sum(sram), sum(hbm),
            sum((faults[name] for name in self.parameters.peers), C(0, 1)), sum(combined),
            faults.get("engine", C(0, 1)),
            sum((faults[name] for name in self.parameters.nets), C(0, 1))]
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
            identity.engines.eq(addresses.engines), identity.networks.eq(addresses.networks),
            control.link_counters.eq(Cat(link.counters, link.state))]
        requested, responded = bridge.link.i_request, bridge.link.o_response
        m.d.sync += [states.sram.eq(sram), states.hbm.eq(hbm), states.packets.eq(control.states),
                     states.request.eq(requested.valid & requested.ready),
                     states.response.eq(responded.valid & responded.ready)]


def pe_units(parameters):
    """Units of a PE beside its command processor."""
    return tuple(u for u in UNITS if u is not Unit.SOFTMAX or parameters.attention)


class ComputeChiplet(wiring.Component):
    """A compute chiplet: :class:`ComputeBase` with its PEs and its message engine.

    Parameters
    ----------
    parameters : ComputeParameters
        Sizes.

    Members
    -------
    link, peer<n>, net<n>, hbm<n>, die, states
        As those of :class:`ComputeBase`.
    pe<n>_states : Out(18)
        ``states`` of a PE.
    engine_states : Out(4)
        ``states`` of the message engine, if there is one.
    """

    def __init__(self, parameters):
        self.parameters = parameters
        self.base = Place(ComputeBase(parameters))
        inner = {"engine", *(f"pe{i}" for i in range(parameters.built_pes))}
        outer = {name: member for name, member in self.base.signature.members.items()
                 if name not in inner}
        outer |= {f"pe{i}_states": Out(2 * len(Unit)) for i in range(parameters.built_pes)}
        if parameters.engines:
            outer["engine_states"] = Out(4)
        super().__init__(outer)

    def elaborate(self, platform):
        m = Module()
        parameters = self.parameters
        m.submodules.base = base = self.base
        for i in range(parameters.built_pes):
            m.submodules[f"pe{i}"] = pe = Place(ProcessingElement(
                lines=parameters.local_lines, banks=parameters.local_banks,
                rows=parameters.dot_rows, lanes=parameters.mx4_lanes,
                units=pe_units(parameters)))
            self._join(m, pe, getattr(base, f"pe{i}"), PePort())
            m.d.comb += getattr(self, f"pe{i}_states").eq(pe.states)
        if parameters.engines:
            m.submodules.engine = engine = Place(MessageEngine())
            self._join(m, engine, base.engine, MessageEnginePort())
            m.d.comb += self.engine_states.eq(engine.states)
        connect(m, base.link, flipped(self.link))
        channels = [f"hbm{i}" for i in range(parameters.addresses.channels)]
        for name in (*parameters.peers, *parameters.nets, *channels):
            connect(m, getattr(base, name), flipped(getattr(self, name)))
        m.d.comb += [base.die.eq(self.die), self.states.eq(base.states)]
        return m

    @staticmethod
    def _join(m, unit, port, signature):
        """Connect what a unit has of ``signature`` to its port at the base."""
        for name, member in signature.members.items():
            its, mine = getattr(unit, name), getattr(port, name)
            if member.is_signature:
                connect(m, its, mine)
            else:
                m.d.comb += mine.eq(its) if member.flow is Out else its.eq(mine)
