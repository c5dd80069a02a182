"""A router of the mesh: a queue for each way through it, the oldest packet first."""
from functools import reduce

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from rtl.common.clockgate import gated_domain
from rtl.noc import routes
from rtl.noc.packets import COORDINATE_BITS, MeshLayout, place_layout
from rtl.noc.routes import STEP

AGE_BITS = 8


def counters_layout():
    """What a router or a mesh carried and lost since reset; sums over its outputs, modulo 2^32.

    ``hops``: packets that went to another router. ``delivered``: to a node. ``blocked``: cycles in
    which an output with packets carried none, for want of a slot or of the node's ready.
    ``conflicts``: cycles in which an output carried one packet while another could have gone.
    ``lost``: packets dropped since no port leads to their target. ``busiest``: ``hops`` of the one
    link that had most.
    """
    return data.StructLayout({"hops": 32, "delivered": 32, "blocked": 32, "conflicts": 32,
                              "lost": 32, "busiest": 32})


def greatest(m, values):
    """The greatest of some values of 32 bits."""
    def greater(a, b):
        found = Signal(32)
        m.d.comb += found.eq(Mux(a > b, a, b))
        return found
    return reduce(greater, values)


class Link(wiring.Signature):
    """A link between two routers, seen by the one that sends.

    The receiver has a queue for each of its own ways on. ``valid``: queues that take the packet in
    this cycle, at most those that are ``ready``; a multicast goes into several. ``born``: when the
    packet entered the mesh.
    """

    def __init__(self, shape, *, ways):
        self.shape, self.ways = shape, ways
        super().__init__({"valid": Out(ways), "ready": In(ways), "born": Out(AGE_BITS),
                          "packet": Out(shape)})

    def __eq__(self, other):
        return (isinstance(other, Link) and (other.shape, other.ways) == (self.shape, self.ways))


class Router(wiring.Component):
    """Passes single-flit packets: first along the row, then along the column, then out.

    Latency is 1 cycle. Throughput is one packet a cycle at each input and each output. There is a
    queue for each way from an input to an output, so packets for other outputs wait for nobody, and
    those between the same input and output keep their order. An output takes the oldest packet (by
    its entry to the mesh) that finds a slot in its next queue; of equally old ones, that of the
    first input. A multicast goes into all its next queues in one cycle; when it is the oldest, the
    output waits until all have a slot. A packet waits for no younger one but those that are in
    its queues before it; ages count modulo 2^8, so one that stays for 2^7 cycles or more takes
    turns with younger ones. A node's input is ready while each of its queues has a slot.
    All ``ready`` of inputs and all ``valid`` and payloads of nodes' outputs are functions of
    registers. The clock stops while no packet is here or at an input.
    Source: Dally, Towles, "Principles and Practices of Interconnection Networks", ch. 8, 17, 18.

    Parameters
    ----------
    shape : data.StructLayout
        A packet; has a field ``target`` of :func:`rtl.noc.packets.node_layout`, and for multicast
        ``members`` of :func:`rtl.noc.packets.members_layout`.
    layout : rtl.noc.packets.MeshLayout
        The mesh that it is in. :exc:`TypeError` if it is none.
    ports : rtl.noc.routes.Ports
        Ports that exist.
    ahead : tuple of (str, tuple of str, tuple of str)
        For each link that leaves: its port, the ways on from it at the next router, as
        :meth:`Ports.ways` has them, and the ports there that are links.
    depth : int
        Slots of each queue [packet]. :exc:`ValueError` unless at least 2.
    multicast : bool
        Heed ``members``.

    Members
    -------
    here : In(place_layout())
        Row and column of this router; constant.
    now : In(8)
        Time, counted while any router of the mesh is awake [cycle].
    i_<port> : In(Link(shape, ...)) or In(stream.Signature(shape))
        Packets from a router or a node.
    o_<port> : Out(Link(shape, ...)) or Out(stream.Signature(shape))
        Packets to a router or a node.
    awake : Out(1)
        The registers take the coming edge of the clock.
    counters : Out(counters_layout())
        Registers.
    """

    def __init__(self, shape, *, layout, ports, ahead, depth=4, multicast=False):
        if not isinstance(layout, MeshLayout):
            raise TypeError(f"Layout must be a MeshLayout, not {layout!r}")
        if not isinstance(depth, int) or depth < 2:
            raise ValueError(f"Depth must be an integer of at least 2, not {depth!r}")
        self.shape, self.layout, self.ports, self.ahead = shape, layout, ports, tuple(ahead)
        self.depth, self.multicast = depth, multicast
        packets, ways = stream.Signature(shape), {port: ways for port, ways, _ in self.ahead}
        super().__init__({
            "here": In(place_layout()), "now": In(AGE_BITS), "awake": Out(1),
            "counters": Out(counters_layout()),
            **{f"i_{port.lower()}": In(Link(shape, ways=len(ports.ways(port)))
                                       if port in ports.links else packets)
               for port in ports.inputs},
            **{f"o_{port.lower()}": Out(Link(shape, ways=len(ways[port]))
                                        if port in ports.links else packets)
               for port in ports.outputs}})

    def leads(self, packet, place, output, links):
        """Condition under which a packet leaves the router at ``place`` by ``output``."""
        alone = routes.unicast(packet.target, place, output, links=links)
        if not self.multicast:
            return alone
        among = routes.multicast(packet.members, place, output, links=links,
                                 cluster=self.layout.cluster)
        return Mux(packet.members.multicast, among, alone)

    def _place(self, m, name, row, column):
        """The :class:`rtl.noc.routes.Place` some steps from here, as signals that are constant."""
        at = [Signal(COORDINATE_BITS, name=f"{name}_{axis}") for axis in ("row", "column")]
        m.d.comb += [at[0].eq(self.here.row + row), at[1].eq(self.here.column + column)]
        found = routes.place(*at, layout=self.layout)
        masks = {}
        for field in ("above", "own_rows", "below", "left", "own_columns", "right"):
            bits = self.layout.rows if field in ("above", "own_rows", "below") \
                else self.layout.columns
            masks[field] = Signal(bits, name=f"{name}_{field}")
            m.d.comb += masks[field].eq(getattr(found, field))
        return routes.Place(*at, **masks)

    def elaborate(self, platform):
        m = Module()
        ports, queues, pending = self.ports, {}, []
        slot_bits, stores = ceil_log2(self.depth), {}
        for output in ports.outputs:
            if count := len(ports.turns(output)):   # slots of a queue, then the number of the queue
                stores[output] = store = Memory(
                    shape=self.shape, depth=1 << slot_bits + ceil_log2(count), init=[])
                m.submodules[f"store_{output.lower()}"] = store
        places = {port: self._place(m, f"ahead_{port.lower()}", *STEP[port])
                  for port, _, _ in self.ahead}
        here = self._place(m, "at", 0, 0)
        ahead = {port: (ways, links) for port, ways, links in self.ahead}
        lost = []

        for source in ports.inputs:
            i, ways = getattr(self, f"i_{source.lower()}"), ports.ways(source)
            for output in ways:
                width = len(ahead[output][0]) if output in ahead else 0
                queue = Queue(depth=self.depth, ways=width, multicast=self.multicast)
                m.submodules[f"queue_{source.lower()}_{output.lower()}"] = \
                    DomainRenamer("work")(queue)
                queues[source, output] = queue
            mine = [queues[source, output] for output in ways]
            free = ~Cat(queue.full for queue in mine)
            if source in ports.links:
                packet, born, pushes = i.packet, i.born, i.valid
                m.d.comb += i.ready.eq(free)
                pending.append(i.valid.any())
            else:
                packet, born, pushes = i.payload, self.now, Signal(len(ways))
                m.d.comb += i.ready.eq(free.all())
                for bit, output in zip(pushes, ways, strict=True):
                    m.d.comb += bit.eq(i.valid & i.ready
                                       & self.leads(packet, here, output, ports.links))
                pending.append(i.valid)
                lost.append(i.valid & i.ready & ~pushes.any())
            for push, output, queue in zip(pushes, ways, mine, strict=True):
                write = stores[output].write_port(domain="work")
                number = C(ports.turns(output).index(source), len(write.addr) - slot_bits)
                m.d.comb += [queue.push.eq(push), queue.i.born.eq(born), write.en.eq(push),
                             write.data.eq(packet), write.addr.eq(Cat(queue.write, number))]
                if self.multicast:
                    m.d.comb += queue.i.multicast.eq(packet.members.multicast)
                if output in ahead:
                    m.d.comb += queue.i.ways.eq(Cat(
                        self.leads(packet, places[output], way, ahead[output][1])
                        for way in ahead[output][0]))
                pending.append(queue.valid)
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.awake)
        m.d.comb += self.awake.eq(Cat(pending).any())
        events = []
        for output, store in stores.items():
            mine = [queues[source, output] for source in ports.turns(output)]
            events.append(self._serve(m, output, mine, store))
        self._count(m, events, lost)
        return m

    def _serve(self, m, output, queues, store):
        """Connects an output: the oldest head that may go, goes. Returns what happened, as bits."""
        name, o = output.lower(), getattr(self, f"o_{output.lower()}")
        link, read = output in self.ports.links, store.read_port(domain="comb")
        record = queues[0].o.shape()
        shape = data.StructLayout({"record": record, "slot": len(read.addr)})
        slot_bits = len(queues[0].read)

        def fits(ways):
            return ~(ways & ~o.ready).any() if link else C(1)

        def older(a, b):
            """The older of two heads that may go; the first if there is no difference."""
            asks, head = Signal(), Signal(shape)
            younger = (b[1].record.born - a[1].record.born)[AGE_BITS - 1]
            m.d.comb += [asks.eq(a[0] | b[0]),
                         head.eq(Mux(a[0] & ~(b[0] & younger), a[1].as_value(), b[1].as_value()))]
            return asks, head

        heads, able = [], Signal(len(queues), name=f"{name}_able")
        for i, queue in enumerate(queues):
            head, asks = Signal(shape, name=f"{name}_head{i}"), able[i]
            m.d.comb += [able[i].eq(queue.valid & fits(queue.o.ways)), head.eq(Cat(
                queue.o, queue.read, C(i, len(read.addr) - slot_bits)))]
            if link and self.multicast:     # waits here for its slots when it is the oldest
                asks = queue.valid & (able[i] | queue.o.multicast)
            heads.append((asks, head))
        asks, first = reduce(older, heads)
        slot, sent = Signal.like(read.addr, name=f"{name}_slot"), Signal(name=f"{name}_sent")
        m.d.comb += read.addr.eq(slot)
        if link:
            goes = fits(first.record.ways) if self.multicast else C(1)
            m.d.comb += [slot.eq(first.slot), sent.eq(asks & goes),
                         o.valid.eq(Mux(sent, first.record.ways, 0)),
                         o.born.eq(first.record.born), o.packet.eq(read.data)]
        else:
            stalled, held = Signal(name=f"{name}_stalled"), Signal.like(slot, name=f"{name}_held")
            m.d.comb += [slot.eq(Mux(stalled, held, first.slot)), sent.eq(asks & o.ready),
                         o.valid.eq(asks), o.payload.eq(read.data)]
            m.d.work += [stalled.eq(asks & ~o.ready), held.eq(slot)]
        for i, queue in enumerate(queues):
            m.d.comb += queue.pop.eq(sent & (slot[slot_bits:] == i))
        waits = Cat(queue.valid for queue in queues).any() if link else asks
        return {"link": link, "sent": sent, "blocked": waits & ~sent,
                "conflict": sent & (able & (able - 1)).any(),
                "lost": sent & ~first.record.ways.any() if link else C(0)}

    def _count(self, m, events, lost):
        """Counts what the outputs did; ``lost`` are packets that a node sent nowhere."""
        def add(counter, bits):
            with m.If(Cat(bits).any()):
                m.d.work += counter.eq(counter + sum(bits))

        counters, links = self.counters, []
        for event in events:
            if event["link"]:
                links.append(count := Signal(32))
                add(count, [event["sent"]])
        add(counters.delivered, [e["sent"] for e in events if not e["link"]])
        add(counters.blocked, [e["blocked"] for e in events])
        add(counters.conflicts, [e["conflict"] for e in events])
        add(counters.lost, [*lost, *(e["lost"] for e in events if e["link"])])
        if links:
            m.d.comb += [counters.hops.eq(sum(links)),
                         counters.busiest.eq(greatest(m, links))]


class Queue(wiring.Component):
    """Order of the packets that wait on one way through a router; they themselves wait elsewhere.

    Latency is 1 cycle. Empty after reset.

    Parameters
    ----------
    depth : int
        Slots [packet].
    ways : int
        Queues of the next router among which a packet goes on; 0 if a node takes it.
    multicast : bool
        Keep whether it is a multicast.

    Members
    -------
    push, i, write : In(1), In(...), Out(...)
        A packet comes: what to know of it, and its slot. Only while not ``full``.
    valid, o, read, pop : Out(1), Out(...), Out(...), In(1)
        The first packet, its slot, and that it goes.
    full : Out(1)
        No slot is free; a function of registers.
    """

    def __init__(self, *, depth, ways, multicast):
        self.depth = depth
        self.first, self.last = (Signal(ceil_log2(depth) + 1, name=name)
                                 for name in ("first", "last"))
        record = data.StructLayout({"born": AGE_BITS, "ways": ways, "multicast": int(multicast)})
        slot = ceil_log2(depth)
        self.records = Memory(shape=record, depth=1 << slot, init=[])
        super().__init__({"push": In(1), "i": In(record), "write": Out(slot), "full": Out(1),
                          "valid": Out(1), "o": Out(record), "read": Out(slot), "pop": In(1)})

    def elaborate(self, platform):
        m = Module()
        first, last = self.first, self.last
        m.submodules.records = records = self.records
        write, read = records.write_port(), records.read_port(domain="comb")
        m.d.comb += [write.en.eq(self.push), write.addr.eq(last), write.data.eq(self.i),
                     read.addr.eq(first), self.o.eq(read.data),
                     self.write.eq(last), self.read.eq(first), self.valid.eq(first != last),
                     self.full.eq((last - first)[:len(last)] == self.depth)]
        with m.If(self.push):
            m.d.sync += last.eq(last + 1)
        with m.If(self.pop):
            m.d.sync += first.eq(first + 1)
        return m
