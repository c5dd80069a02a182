"""A memory tile: an SRAM slice and HBM pseudo-channels at one port of the mesh."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.arbiter import RoundRobin
from rtl.common.place import Place
from rtl.common.queue import Queue
from rtl.common.select import one_of
from rtl.memory.interfaces import ChannelPort
from rtl.memory.sram import SramBank
from rtl.noc.address import OFFSET_BITS, REGION_BITS, AddressMap, Region
from rtl.noc.interleave import spread
from rtl.noc.packets import node_layout, request_packet_layout, response_packet_layout
from rtl.pe.interfaces import TAG_BITS


def origin_layout():
    """Name of a request in a tile: where its response goes."""
    return data.StructLayout({"source": node_layout(), "tag": TAG_BITS})


class MemoryTile(wiring.Component):
    """Does what request packets ask of the memories of a tile, and answers them.

    SRAM addresses are lines of the slice; lines of HBM addresses are spread over pseudo-channels in
    turn. Latency is that of the memory, throughput a packet a cycle each way. Answers come in
    any order; accesses to one line take effect in the order in which they came. A request for a
    memory that takes none at the moment holds up those behind it. Answers of the pseudo-channels
    take 1 cycle, all other ways 0.

    Parameters
    ----------
    addresses : AddressMap
        Addresses of the die.
    channels : int
        Pseudo-channels of this tile: none, or as many as every tile with HBM has.

    Members
    -------
    i_packets : In(stream.Signature(request_packet_layout()))
        From the request network.
    o_packets : Out(stream.Signature(response_packet_layout()))
        To the response network.
    hbm<n> : Out(ChannelPort(...))
        The pseudo-channels.
    sram_access, hbm_access : Out(1)
        A request of that kind is accepted in this cycle.
    """

    def __init__(self, addresses, *, channels=0):
        if not isinstance(addresses, AddressMap):
            raise TypeError(f"Addresses must be an AddressMap, not {addresses!r}")
        if channels not in (0, addresses.tile_channels):
            raise ValueError(f"Channels must be 0 or {addresses.tile_channels}, not {channels!r}")
        self.addresses, self.channels = addresses, channels
        port = ChannelPort(origin_layout().size)
        super().__init__({"i_packets": In(stream.Signature(request_packet_layout())),
                          "o_packets": Out(stream.Signature(response_packet_layout())),
                          "sram_access": Out(1), "hbm_access": Out(1),
                          **{f"hbm{n}": Out(port) for n in range(channels)}})

    def elaborate(self, platform):
        m = Module()
        addresses = self.addresses
        m.submodules.slice = sram = Place(SramBank(lines=addresses.bank_lines,
                                                   name_bits=origin_layout().size))
        memories = [getattr(self, f"hbm{n}") for n in range(self.channels)]
        packet, body = self.i_packets.payload, self.i_packets.payload.body
        origin = Signal(origin_layout())
        line = body.address[6:OFFSET_BITS]
        hbm = body.address[OFFSET_BITS:OFFSET_BITS + REGION_BITS] == Region.HBM
        to_hbm = hbm if memories else 0
        _, scratch = spread(line, addresses.banks)
        m.d.comb += [
            origin.source.eq(packet.source), origin.tag.eq(body.tag),
            sram.request.valid.eq(self.i_packets.valid & ~to_hbm),
            sram.request.payload.line.eq(scratch)]
        requests = [sram.request]
        ready = sram.request.ready
        if memories:
            _, mine = spread(line[:addresses.hbm_line_bits], addresses.hbm_tiles)
            number, within = spread(mine, self.channels)
            chosen = Array(memory.request.ready for memory in memories)[number]
            ready = Mux(hbm, chosen, ready)
            for n, memory in enumerate(memories):
                request = memory.request
                requests.append(request)
                m.d.comb += [request.payload.line.eq(within), request.payload.registers.eq(0),
                             request.valid.eq(self.i_packets.valid & hbm & (number == n))]
        m.d.comb += self.i_packets.ready.eq(ready)
        for request in requests:
            to = request.payload
            m.d.comb += [to.name.eq(origin), to.write.eq(body.write), to.data.eq(body.data),
                         to.mask.eq(body.mask)]
        accepted = self.i_packets.valid & ready
        m.d.comb += [self.sram_access.eq(accepted & ~to_hbm), self.hbm_access.eq(accepted & to_hbm)]
        responses = [sram.response]
        for n, memory in enumerate(memories):   # no path from its valid to its ready
            m.submodules[f"answers{n}"] = queue = Queue(memory.response.payload.shape())
            connect(m, flipped(memory.response), queue.i)
            responses.append(queue.o)
        self._answer(m, responses)
        return m

    def _answer(self, m, responses):
        """The memories' answers become packets, in turn."""
        m.submodules.turn = turn = RoundRobin(len(responses))
        answer = data.View(responses[0].payload.shape(),
                           one_of(turn.grant, [r.payload for r in responses]))
        origin = data.View(origin_layout(), answer.name)
        out = self.o_packets
        m.d.comb += [
            turn.requests.eq(Cat(r.valid for r in responses)), turn.ready.eq(out.ready),
            out.valid.eq(turn.requests.any()), out.payload.target.eq(origin.source),
            out.payload.body.tag.eq(origin.tag), out.payload.body.write.eq(answer.write),
            out.payload.body.error.eq(answer.error), out.payload.body.data.eq(answer.data)]
        m.d.comb += [r.ready.eq(turn.grant[n] & out.ready) for n, r in enumerate(responses)]
