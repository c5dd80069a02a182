"""A memory tile: an SRAM slice and HBM pseudo-channels at one port of the mesh."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.arbiter import RoundRobin
from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.common.queue import Queue
from rtl.common.select import one_of
from rtl.memory.interfaces import ChannelPort, settings_layout
from rtl.memory.slice.interfaces import COUNTERS
from rtl.memory.slice.slice import SramSlice
from rtl.noc.address import OFFSET_BITS, REGION_BITS, AddressMap, Region
from rtl.noc.interleave import spread
from rtl.noc.packets import (
    members_layout,
    node_layout,
    request_packet_layout,
    response_packet_layout,
)
from rtl.pe.interfaces import TAG_BITS

WAYS = 8        # of a slice; each is scratch memory or last-level cache; this project's choice
MSHRS = 64      # lines under way from HBM to a slice; this project's choice


def origin_layout(layout):
    """Name of a request in a tile of a mesh: where its response goes."""
    return data.StructLayout({"source": node_layout(), "members": members_layout(layout),
                              "tag": TAG_BITS})


def name_layout(layout):
    """Name of a request to a pseudo-channel: an origin, or if ``cache`` a number of the slice."""
    return data.StructLayout({"cache": 1, "origin": origin_layout(layout)})


class MemoryTile(wiring.Component):
    """Does what request packets ask of the memories of a tile, and answers them.

    SRAM addresses are lines of the slice; lines of HBM addresses are spread over pseudo-channels in
    turn, and go through the slice while it has ways that are cache. Latency is that of the memory,
    throughput a packet a cycle each way. Answers come in any order; accesses to one line take
    effect in the order in which they came. A request for a memory that takes none at the moment
    holds up those behind it. Requests to the pseudo-channels and their answers take 1 cycle more;
    all other ways are combinational, but none leads from an input of ``hbm<n>`` to an output.

    Parameters
    ----------
    addresses : AddressMap
        Addresses of the die.
    channels : int
        Pseudo-channels of this tile: none, or as many as every tile with HBM has.

    Members
    -------
    i_packets : In(stream.Signature(request_packet_layout(...)))
        From the request network.
    o_packets : Out(stream.Signature(response_packet_layout(...)))
        To the response network.
    hbm<n> : Out(ChannelPort(...))
        The pseudo-channels.
    settings : In(settings_layout())
        Of the slice; ``cache_ways`` of a tile without HBM must be 0.
    busy, lost : Out(1)
        As those of the slice.
    counters : Out(data.ArrayLayout(32, 16))
        Those of the slice.
    sram_access, hbm_access : Out(1)
        A request of that kind is accepted in this cycle.
    """

    def __init__(self, addresses, *, channels=0):
        if not isinstance(addresses, AddressMap):
            raise TypeError(f"Addresses must be an AddressMap, not {addresses!r}")
        if channels not in (0, addresses.tile_channels):
            raise ValueError(f"Channels must be 0 or {addresses.tile_channels}, not {channels!r}")
        self.addresses, self.channels = addresses, channels
        layout = addresses.layout
        self.origin, self.name = origin_layout(layout), name_layout(layout)
        port = ChannelPort(self.name.size)
        super().__init__({"i_packets": In(stream.Signature(request_packet_layout(layout))),
                          "o_packets": Out(stream.Signature(response_packet_layout(layout))),
                          "settings": In(settings_layout()), "busy": Out(1), "lost": Out(1),
                          "counters": Out(data.ArrayLayout(32, COUNTERS)),
                          "sram_access": Out(1), "hbm_access": Out(1),
                          **{f"hbm{n}": Out(port) for n in range(channels)}})

    def elaborate(self, platform):
        m = Module()
        m.submodules.slice = sram = Place(SramSlice(
            lines=self.addresses.bank_lines, ways=WAYS, name_bits=self.origin.size,
            mshrs=MSHRS))
        packet, body, settings = (self.i_packets.payload, self.i_packets.payload.body,
                                  self.settings)
        origin = Signal(self.origin)
        line, region = body.address[6:OFFSET_BITS], body.address[OFFSET_BITS:][:REGION_BITS]
        _, scratch = spread(line, self.addresses.banks)
        hbm = region == Region.HBM
        m.d.comb += [
            origin.source.eq(packet.source), origin.members.eq(packet.members),
            origin.tag.eq(body.tag),
            sram.cache_ways.eq(settings.cache_ways), sram.flush.eq(settings.flush),
            sram.tick.eq(settings.tick), sram.inject.eq(settings.inject),
            self.busy.eq(sram.busy), self.lost.eq(sram.lost), self.counters.eq(sram.counters),
            sram.request.payload.line.eq(scratch), sram.request.payload.name.eq(origin),
            sram.request.payload.write.eq(body.write), sram.request.payload.data.eq(body.data),
            sram.request.payload.mask.eq(body.mask), sram.request.payload.hint.eq(body.hint)]
        if not self.channels:
            m.d.comb += [sram.request.valid.eq(self.i_packets.valid),
                         self.i_packets.ready.eq(sram.request.ready),
                         self.sram_access.eq(self.i_packets.valid & self.i_packets.ready),
                         self.hbm_access.eq(0)]     # else the output floats: a tile is placed
            self._answer(m, sram, [])
            return m
        # After a change of the ways the slice is busy from the next cycle on.
        ways, cached = Signal.like(settings.cache_ways), Signal()
        m.d.sync += ways.eq(settings.cache_ways)
        m.d.comb += cached.eq(sram.busy | (ways != 0) | (settings.cache_ways != 0))
        direct = (hbm & ~cached) | (region == Region.CHANNEL)
        _, mine = spread(line[:self.addresses.hbm_line_bits], self.addresses.hbm_tiles)
        m.d.comb += [
            sram.request.valid.eq(self.i_packets.valid & ~direct),
            sram.request.payload.cached.eq(hbm)]
        with m.If(hbm):
            m.d.comb += sram.request.payload.line.eq(mine)
        self.moving = []    # what makes the clock of the queues run
        channels = [self._channel(m, n, hbm, direct, origin, mine, sram)
                    for n in range(self.channels)]
        gated_domain(m, name="channels", enable=ResetSignal("sync") | Cat(self.moving).any())
        m.d.comb += self.i_packets.ready.eq(
            Mux(direct, Cat(taken for taken, _, _ in channels).any(), sram.request.ready))
        m.d.comb += sram.memory_request.ready.eq(Cat(fed for _, fed, _ in channels).any())
        accepted = self.i_packets.valid & self.i_packets.ready
        m.d.comb += [self.sram_access.eq(accepted & ~direct & ~hbm),
                     self.hbm_access.eq(accepted & hbm)]
        self._answer(m, sram, [answers for _, _, answers in channels])
        return m

    def _channel(self, m, n, hbm, direct, origin, mine, sram):
        """Requests for a pseudo-channel, of the network and of the slice in turn.

        Gives whether one of each is taken, and the queue of its answers.
        """
        port, body = getattr(self, f"hbm{n}"), self.i_packets.payload.body
        requests, answers = Queue(port.request.payload.shape()), Queue(
            port.response.payload.shape())
        m.submodules[f"requests{n}"] = DomainRenamer("channels")(requests)
        m.submodules[f"answers{n}"] = DomainRenamer("channels")(answers)
        self.moving += [q.valid for queue in (requests, answers) for q in (queue.i, queue.o)]
        m.submodules[f"turn{n}"] = turn = RoundRobin(2)
        wire, other = requests.i.payload, sram.memory_request.payload
        number, within = spread(mine, self.channels)
        register, _ = spread(body.address[6:14], self.channels)
        wanted, there = spread(other.line[:self.addresses.hbm_line_bits], self.channels)
        name = data.View(self.name, wire.name)
        m.d.comb += [
            turn.requests.eq(Cat(
                self.i_packets.valid & direct & (Mux(hbm, number, register) == n),
                sram.memory_request.valid & (wanted == n))),
            turn.ready.eq(requests.i.ready), requests.i.valid.eq(turn.requests.any()),
            name.cache.eq(turn.grant[1])]
        with m.If(turn.grant[1]):
            m.d.comb += [
                wire.line.eq(there), name.origin.eq(other.name), wire.write.eq(other.write),
                wire.poison.eq(other.poison), wire.data.eq(other.data), wire.mask.eq(other.mask)]
        with m.Else():
            m.d.comb += [
                wire.line.eq(Mux(hbm, within, 0)), wire.registers.eq(~hbm), name.origin.eq(origin),
                wire.write.eq(body.write), wire.data.eq(body.data), wire.mask.eq(body.mask)]
        connect(m, requests.o, flipped(port.request))
        connect(m, flipped(port.response), answers.i)
        return (turn.grant[0] & requests.i.ready, turn.grant[1] & requests.i.ready, answers.o)

    def _answer(self, m, sram, channels):
        """Answers of the memories become packets in turn; those to the slice go there."""
        out, names = self.o_packets, []
        sources = [(sram.response.valid, sram.response.payload)]
        back = sram.memory_response
        if channels:
            m.submodules.refill = refill = RoundRobin(len(channels))
            names = [data.View(self.name, c.payload.name) for c in channels]
            m.d.comb += [
                refill.requests.eq(Cat(c.valid & name.cache for c, name
                                       in zip(channels, names, strict=True))),
                refill.ready.eq(back.ready), back.valid.eq(refill.requests.any())]
            chosen = data.View(channels[0].payload.shape(),
                               one_of(refill.grant, [c.payload for c in channels]))
            m.d.comb += [back.payload.name.eq(data.View(self.name, chosen.name).origin),
                         back.payload.write.eq(chosen.write), back.payload.error.eq(chosen.error),
                         back.payload.data.eq(chosen.data)]
            sources += [(c.valid & ~name.cache, c.payload)
                        for c, name in zip(channels, names, strict=True)]
        m.submodules.turn = turn = RoundRobin(len(sources))
        m.d.comb += [turn.requests.eq(Cat(valid for valid, _ in sources)),
                     turn.ready.eq(out.ready), out.valid.eq(turn.requests.any()),
                     sram.response.ready.eq(turn.grant[0] & out.ready)]
        for n, channel in enumerate(channels):
            m.d.comb += channel.ready.eq(Mux(names[n].cache, refill.grant[n] & back.ready,
                                             turn.grant[1 + n] & out.ready))
        origins = [sram.response.payload.name,
                   *(name.origin.as_value() for name in names)]
        fields = {name: one_of(turn.grant, [payload[name] for _, payload in sources])
                  for name in ("write", "error", "data")}
        origin = data.View(self.origin, one_of(turn.grant, origins))
        answer = out.payload.body
        m.d.comb += [
            out.payload.target.eq(origin.source),
            out.payload.members.eq(origin.members), answer.tag.eq(origin.tag),
            answer.write.eq(fields["write"]), answer.error.eq(fields["error"]),
            answer.data.eq(fields["data"])]
