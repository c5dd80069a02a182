"""Multicast reads: requests of several PEs for one line become one."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from rtl.common.clockgate import gated_domain
from rtl.noc.packets import MeshLayout, request_packet_layout
from rtl.pe.interfaces import GROUP_TAGS, LINE_BYTES

TAG_BITS = ceil_log2(GROUP_TAGS)


class Combiner(wiring.Component):
    """Holds multicast requests until each member has asked for the line, then lets one pass.

    The members of a multicast are the PEs in one of its rows and one of its columns. Each of them
    sends the same request, with a tag that is a function of the address; all get the one answer. A
    member asks for no second line with that tag before it. A request waits in a table, by group
    and tag. If the others do not come (another line stands in its place, or nobody came for
    ``2**patience_log2`` to twice as many cycles), each member that asked gets an answer of its
    own: what is read never depends on the others, nor does anything hang. Latency is 0 cycles,
    throughput a packet a cycle, less one cycle in ``2**patience_log2 / entries`` while a request
    waits. After reset the table is cleared, one entry a cycle; meanwhile multicasts wait. Source:
    this project's choice; multicast reads are published for the MTIA 300 (ISCA 2026).

    Parameters
    ----------
    layout : MeshLayout
        The mesh. :exc:`TypeError` if it is none.
    patience_log2 : int
        log2 of the cycles [cycle]. :exc:`ValueError` unless more than the table has entries.

    Members
    -------
    i, o : In(stream.Signature(request_packet_layout(layout))), Out(...)
        Packets from the network, and to the memories.
    combined : Out(1)
        High for one cycle: a request was taken that another one stands for.
    """

    def __init__(self, layout, *, patience_log2=13):
        if not isinstance(layout, MeshLayout):
            raise TypeError(f"Layout must be a MeshLayout, not {layout!r}")
        self.layout = layout
        self.entries = 1 << TAG_BITS + ceil_log2(1 + layout.rows + layout.columns)
        if not isinstance(patience_log2, int) or 1 << patience_log2 <= self.entries:
            raise ValueError(f"Patience must be more than {self.entries} cycles, not "
                             f"2**{patience_log2!r}")
        self.patience_log2 = patience_log2
        self.packet = request_packet_layout(layout)
        super().__init__({"i": In(stream.Signature(self.packet)),
                          "o": Out(stream.Signature(self.packet)), "combined": Out(1)})

    def elaborate(self, platform):
        top, m = Module(), Module()
        layout, packet = self.layout, self.i.payload
        pes = [(row, column) for row in range(layout.rows) for column in range(layout.columns)]
        entry = data.StructLayout({
            "valid": 1, "aged": 1, "line": len(packet.body.address) - ceil_log2(LINE_BYTES),
            "asked": len(pes)})
        m.submodules.table = table = memory.Memory(shape=entry, depth=self.entries, init=[])
        read, write = table.read_port(domain="comb"), table.write_port()
        own, members = Signal(len(pes)), Signal(len(pes))
        m.d.comb += [
            members.eq(Cat(packet.members.rows[r] & packet.members.columns[c] for r, c in pes)),
            own.eq(Cat(packet.source == node.const() for node in layout.group("pe")) & members)]
        shared = self.i.valid & packet.members.multicast & own.any()
        found, line = read.data, packet.body.address[ceil_log2(LINE_BYTES):]
        same = found.valid & (found.line == line)
        asked = Mux(same, found.asked, 0) | own
        alone = found.valid & ~same     # another line stands in its place
        sends = alone | (asked == members)
        cleared, place = Signal(), Signal(range(self.entries))
        live, standing = Signal(range(self.entries + 1)), Signal()
        due, looks = self._clock(m, cleared, place, live)
        held, left = Signal(entry), Signal(len(pes))
        lowest, out = left & (~left + 1)[:len(pes)], self.o.payload
        giving = Signal()       # up: those that asked get answers of their own
        m.d.sync += standing.eq(self.o.valid & ~self.o.ready)
        m.d.comb += [
            looks.eq(due & ~standing & ~giving), out.eq(packet), write.addr.eq(read.addr),
            read.addr.eq(Mux(looks, place, self._key(packet))), write.data.line.eq(line)]
        with m.If(giving):
            self._to(m, out, lowest, pes)
            m.d.comb += [self.o.valid.eq(1), out.body.eq(0),
                         out.body.address.eq(held.line << ceil_log2(LINE_BYTES)),
                         out.body.tag.eq((place - 1)[:TAG_BITS])]
            with m.If(self.o.ready):
                m.d.sync += [left.eq(left & ~lowest), giving.eq((left & ~lowest) != 0)]
        with m.Elif(looks):
            m.d.comb += [write.en.eq(found.valid), write.data.eq(found), write.data.aged.eq(1)]
            m.d.sync += [held.eq(found), left.eq(found.asked), place.eq(place + 1)]
            with m.If(found.valid & found.aged):
                m.d.comb += write.data.eq(0)
                m.d.sync += [live.eq(live - 1), giving.eq(1)]
        with m.Elif(~shared):
            m.d.comb += [self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready)]
        with m.Elif(cleared):
            m.d.comb += [self.o.valid.eq(sends), self.i.ready.eq(self.o.ready | ~sends),
                         self.combined.eq(~sends),
                         write.en.eq(~alone & self.i.ready & (found.valid | ~sends))]
            with m.If(alone):
                self._to(m, out, own, pes)
            with m.If(~sends):
                m.d.comb += [write.data.valid.eq(1), write.data.asked.eq(asked)]
                m.d.sync += live.eq(live + ~found.valid)
            with m.Elif(write.en):
                m.d.sync += live.eq(live - 1)
        with m.If(~cleared):
            m.d.comb += [write.en.eq(1), write.addr.eq(place), write.data.eq(0)]
        top.submodules.core = DomainRenamer("work")(m)
        gated_domain(top, name="work", enable=ResetSignal("sync") | shared | ~cleared
                     | (live != 0) | giving | due | standing)
        return top

    def _clock(self, m, cleared, place, live):
        """When the next entry of the table is looked at: cleared after reset, aged later."""
        due, looks = Signal(), Signal()
        pause = Signal(max(self.patience_log2 - ceil_log2(self.entries), 1))
        with m.If(~cleared):
            m.d.sync += [place.eq(place + 1), cleared.eq(place == self.entries - 1)]
        with m.Elif(live == 0):
            m.d.sync += [pause.eq(0), due.eq(0)]
        with m.Elif(looks):
            m.d.sync += due.eq(0)
        with m.Elif(~due):
            m.d.sync += [pause.eq(pause + 1), due.eq(pause == (1 << len(pause)) - 1)]
        return due, looks

    def _key(self, packet):
        """Place in the table: tag and group. A group is all, one row, or one column."""
        layout, members = self.layout, packet.members
        group = Signal(range(1 + layout.rows + layout.columns))
        with_all = members.rows.all() & members.columns.all()
        number = C(0, len(group))
        for column in range(layout.columns):
            number = Mux(members.columns == 1 << column, 1 + layout.rows + column, number)
        for row in range(layout.rows):
            number = Mux(members.rows == 1 << row, 1 + row, number)
        return Cat(packet.body.tag[:TAG_BITS], Mux(with_all, 0, number)[:len(group)])

    @staticmethod
    def _to(m, out, chosen, pes):
        """The answer goes to the one PE that is chosen, as a multicast."""
        m.d.comb += out.members.multicast.eq(1)
        for masks, at in ((out.members.rows, 0), (out.members.columns, 1)):
            m.d.comb += masks.eq(Cat(
                Cat(bit for bit, place in zip(chosen, pes, strict=True) if place[at] == n).any()
                for n in range(len(masks))))
