"""A router of the mesh: input queues, X-then-Y routing, one arbiter for each output."""
from amaranth import *
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.arbiter import RoundRobin
from rtl.common.clockgate import gated_domain
from rtl.noc.packets import Port, place_layout

OPPOSITE = {"NORTH": "SOUTH", "SOUTH": "NORTH", "EAST": "WEST", "WEST": "EAST"}


class Router(wiring.Component):
    """Passes single-flit packets: first along the row, then along the column, then out.

    Latency is 1 cycle. Throughput is one packet a cycle at each input and each output. Packets
    between the same input and output keep their order. Each output serves its inputs round robin.
    All ``ready`` of inputs and all ``valid`` and payloads of outputs are functions of registers.
    The clock stops while no packet is here or at an input.
    Source: Dally, Towles, "Principles and Practices of Interconnection Networks", ch. 8 and 16.

    Parameters
    ----------
    shape : data.StructLayout
        A packet; has a field ``target`` of :func:`rtl.noc.packets.node_layout`.
    inputs, outputs : tuple of str
        Ports that exist, as names of :class:`rtl.noc.packets.Port`.
    links : tuple of str
        Ports that lead to another router. Any other port holds a node.
    depth : int
        Slots of each input queue [packet]. :exc:`ValueError` unless at least 2.

    Members
    -------
    here : In(place_layout())
        Row and column of this router; constant.
    i_<port> : In(stream.Signature(shape))
        Packets in.
    o_<port> : Out(stream.Signature(shape))
        Packets out.
    awake : Out(1)
        The registers take the coming edge of the clock.
    """

    def __init__(self, shape, *, inputs, outputs, links, depth=2):
        if not isinstance(depth, int) or depth < 2:
            raise ValueError(f"Depth must be an integer of at least 2, not {depth!r}")
        for port in (*inputs, *outputs, *links):
            if port not in Port.__members__:
                raise ValueError(f"Port must be one of {list(Port.__members__)}, not {port!r}")
        self.shape = shape
        self.inputs, self.outputs, self.links = tuple(inputs), tuple(outputs), tuple(links)
        self.depth = depth
        packets = stream.Signature(shape)
        super().__init__({"here": In(place_layout()), "awake": Out(1),
                          **{f"i_{port.lower()}": In(packets) for port in inputs},
                          **{f"o_{port.lower()}": Out(packets) for port in outputs}})

    def turns(self, output):
        """Inputs from which X-then-Y routing can lead to ``output``."""
        def possible(source):
            if source not in self.links:
                return True  # a node sends anywhere, itself included
            if source == output:
                return False
            return source in ("EAST", "WEST") or output not in self.links or \
                output == OPPOSITE[source]
        return [source for source in self.inputs if possible(source)]

    def wants(self, target, output):
        """Condition under which a packet for ``target`` leaves by ``output``."""
        row, column = target.place.row, target.place.column
        in_column, here = column == self.here.column, target.place == self.here
        if output not in self.links:
            return here & (target.port == Port[output])
        return {"EAST": column > self.here.column, "WEST": column < self.here.column,
                "SOUTH": in_column & (row > self.here.row),
                "NORTH": in_column & (row < self.here.row)}[output]

    def elaborate(self, platform):
        m = Module()
        queues, heads, taken = {}, {}, {port: [] for port in self.inputs}
        for port in self.inputs:
            name = port.lower()
            queues[port] = queue = fifo.SyncFIFO(width=self.shape.size, depth=self.depth)
            m.submodules[f"queue_{name}"] = DomainRenamer("work")(queue)
            wiring.connect(m, wiring.flipped(getattr(self, f"i_{name}")), queue.w_stream)
            heads[port] = data.View(self.shape, queue.r_data)
        for port in self.outputs:
            name, sources = port.lower(), self.turns(port)
            o = getattr(self, f"o_{name}")
            if not sources:
                continue
            arbiter = RoundRobin(len(sources))
            m.submodules[f"arbiter_{name}"] = DomainRenamer("work")(arbiter)
            requests = Cat(queues[source].r_rdy & self.wants(heads[source].target, port)
                           for source in sources)
            payload = heads[sources[-1]].as_value()
            for i, source in reversed([*enumerate(sources)][:-1]):
                payload = Mux(arbiter.grant[i], heads[source].as_value(), payload)
            m.d.comb += [arbiter.requests.eq(requests), arbiter.ready.eq(o.ready),
                         o.valid.eq(arbiter.grant.any()), o.payload.as_value().eq(payload)]
            for i, source in enumerate(sources):
                taken[source].append(arbiter.grant[i] & o.ready)
        for port, queue in queues.items():
            m.d.comb += queue.r_en.eq(Cat(taken[port]).any())
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.awake)
        m.d.comb += self.awake.eq(Cat(
            queue.w_en | queue.r_rdy for queue in queues.values()).any())
        return m
