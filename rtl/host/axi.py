"""AXI4 and AXI4-Lite: signatures, and the sharing of a master's channels by several clients.

Source: AMBA AXI and ACE protocol specification, IHI 0022H. Members have the names of the
specification in lower case, without handshakes packed into streams, since these are pins.
"""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.queue import Queue
from rtl.pe.interfaces import LINE_BITS, LINE_BYTES

HOST_ADDRESS_BITS = 64
MAX_BEATS = 16      # of 64 bytes: a burst that does not cross 1 KiB, so neither 4 KiB


class Response(enum.Enum, shape=2):
    """A3.4.4."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class AxiLite(wiring.Signature):
    """AXI4-Lite with 32 bits of data, seen by the master."""

    def __init__(self, *, address_bits):
        self.address_bits = address_bits
        super().__init__({
            "awaddr": Out(address_bits), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(address_bits), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1)})

    def __eq__(self, other):
        return isinstance(other, AxiLite) and other.address_bits == self.address_bits


class Axi(wiring.Signature):
    """AXI4 with 512 bits of data, 64 of address and one of id, seen by the master."""

    def __init__(self):
        address = {"id": 1, "addr": HOST_ADDRESS_BITS, "len": 8, "size": 3, "burst": 2}
        super().__init__({f"{p}{name}": Out(width) for p in ("aw", "ar")
                          for name, width in address.items()} | {
            "awvalid": Out(1), "awready": In(1), "arvalid": Out(1), "arready": In(1),
            "wdata": Out(LINE_BITS), "wstrb": Out(LINE_BYTES), "wlast": Out(1),
            "wvalid": Out(1), "wready": In(1),
            "bid": In(1), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "rid": In(1), "rdata": In(LINE_BITS), "rresp": In(2), "rlast": In(1),
            "rvalid": In(1), "rready": Out(1)})

    def __eq__(self, other):
        return isinstance(other, Axi)


def burst_layout():
    """A burst of whole lines: address on 64 bytes, beats less one."""
    return data.StructLayout({"address": HOST_ADDRESS_BITS, "length": 4})


def beat_layout():
    """A beat of a write burst."""
    return data.StructLayout({"data": LINE_BITS, "strobe": LINE_BYTES, "last": 1})


class AxiMaster(wiring.Component):
    """Shares an AXI4 master between two clients each way; client 0 goes first.

    A client's id is its number. It must have room for every beat that it asked for: there is no
    back-pressure on what comes back. A write burst holds the data channel from its address to
    its last beat. Latency is 1 cycle outwards and 0 inwards, throughput one beat a cycle less one
    cycle for each write burst.

    Members
    -------
    bus : Out(Axi())
        Pins; all outputs are registers.
    reads : In(stream.Signature(burst_layout())).array(2)
        Bursts to read.
    beat : Out(struct)
        What comes back: ``data``, ``error`` and, per client, ``valid``.
    writes : In(stream.Signature(burst_layout())).array(2)
        Bursts to write.
    beats : In(stream.Signature(beat_layout())).array(2)
        Their beats.
    written : Out(struct)
        Answers to write bursts: ``error`` and, per client, ``valid``.
    active : Out(1)
        A function of registers. While it is low, nothing changes until a client asks.
    """

    def __init__(self):
        bursts = In(stream.Signature(burst_layout())).array(2)
        super().__init__({
            "bus": Out(Axi()), "reads": bursts, "writes": bursts,
            "beat": Out(data.StructLayout({"data": LINE_BITS, "error": 1, "valid": 2})),
            "beats": In(stream.Signature(beat_layout())).array(2),
            "written": Out(data.StructLayout({"error": 1, "valid": 2})), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        for prefix, clients in (("aw", self.writes), ("ar", self.reads)):
            shape = data.StructLayout({"id": 1, "burst": burst_layout()})
            m.submodules[prefix] = queue = Queue(shape)
            first = clients[0].valid
            m.d.comb += [
                queue.i.payload.id.eq(~first),
                queue.i.payload.burst.eq(Mux(first, clients[0].payload, clients[1].payload)),
                getattr(self.bus, f"{prefix}id").eq(queue.o.payload.id),
                getattr(self.bus, f"{prefix}addr").eq(queue.o.payload.burst.address),
                getattr(self.bus, f"{prefix}len").eq(queue.o.payload.burst.length),
                getattr(self.bus, f"{prefix}size").eq(6), getattr(self.bus, f"{prefix}burst").eq(1),
                getattr(self.bus, f"{prefix}valid").eq(queue.o.valid),
                queue.o.ready.eq(getattr(self.bus, f"{prefix}ready"))]
            if prefix == "ar":
                m.d.comb += [queue.i.valid.eq(clients[0].valid | clients[1].valid),
                             clients[0].ready.eq(queue.i.ready),
                             clients[1].ready.eq(queue.i.ready & ~first)]
            else:
                self._write(m, queue, first)
        m.d.comb += [
            self.bus.rready.eq(1), self.bus.bready.eq(1),
            self.active.eq(self.bus.arvalid | self.bus.awvalid | self.bus.wvalid),
            self.beat.data.eq(self.bus.rdata), self.beat.error.eq(self.bus.rresp[1]),
            self.written.error.eq(self.bus.bresp[1])]
        for n in range(2):
            m.d.comb += [self.beat.valid[n].eq(self.bus.rvalid & (self.bus.rid == n)),
                         self.written.valid[n].eq(self.bus.bvalid & (self.bus.bid == n))]
        return m

    def _write(self, m, queue, first):
        """One burst at a time: its address, then its beats."""
        m.submodules.w = beats = Queue(beat_layout())
        locked, owner = Signal(), Signal()
        m.d.comb += [
            queue.i.valid.eq(~locked & (self.writes[0].valid | self.writes[1].valid)),
            self.writes[0].ready.eq(~locked & queue.i.ready),
            self.writes[1].ready.eq(~locked & queue.i.ready & ~first),
            beats.i.payload.eq(Mux(owner, self.beats[1].payload, self.beats[0].payload)),
            beats.i.valid.eq(locked & Mux(owner, self.beats[1].valid, self.beats[0].valid)),
            self.beats[0].ready.eq(locked & ~owner & beats.i.ready),
            self.beats[1].ready.eq(locked & owner & beats.i.ready),
            self.bus.wdata.eq(beats.o.payload.data), self.bus.wstrb.eq(beats.o.payload.strobe),
            self.bus.wlast.eq(beats.o.payload.last), self.bus.wvalid.eq(beats.o.valid),
            beats.o.ready.eq(self.bus.wready)]
        with m.If(queue.i.valid & queue.i.ready):
            m.d.sync += [locked.eq(1), owner.eq(~first)]
        with m.If(beats.i.valid & beats.i.ready & beats.i.payload.last):
            m.d.sync += locked.eq(0)


class Bursts(wiring.Component):
    """Cuts a run of lines into bursts that do not cross 1 KiB. Latency 1 cycle, one a cycle.

    Members
    -------
    i : In(stream.Signature(struct))
        First line's ``address``, and how many ``lines``, at least one.
    o : Out(stream.Signature(burst_layout()))
        Bursts.
    """

    i: In(stream.Signature(data.StructLayout({"address": HOST_ADDRESS_BITS, "lines": 27})))
    o: Out(stream.Signature(burst_layout()))

    def elaborate(self, platform):
        m = Module()
        address, left = Signal(HOST_ADDRESS_BITS), Signal(27)
        room, length = Signal(range(MAX_BEATS + 1)), Signal(range(MAX_BEATS + 1))
        m.d.comb += [
            self.i.ready.eq(left == 0), self.o.valid.eq(left != 0),
            room.eq(MAX_BEATS - address[6:10]), length.eq(Mux(left < room, left, room)),
            self.o.payload.address.eq(address), self.o.payload.length.eq(length - 1)]
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += [address.eq(self.i.payload.address), left.eq(self.i.payload.lines)]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [address.eq(address + (length << 6)), left.eq(left - length)]
        return m
