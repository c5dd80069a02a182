"""Puts the answers of an HBM channel back into the order of the requests."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.pe.interfaces import LINE_BITS, TAG_BITS, AccessError, response_layout


class HbmAnswers(wiring.Component):
    """Reorder buffer: a slot for each request, answered in the order in which slots were given.

    A slot given for a read is ready when its data have come, any other one at once. An answer can
    leave in the cycle after its data came. Throughput one a cycle. Empty after reset.

    Parameters
    ----------
    depth : int
        Slots, a power of two.
    cl : int
        Clocks from a read command on the pins to its data.

    Members
    -------
    give : In(1)
        Give a slot for :attr:`name`; only while not :attr:`full`.
    name : In(...)
        Tag, direction and error of the request.
    slot : Out(range(depth))
        The slot.
    full : Out(1)
        None is free.
    issued, issued_slot : In(1), In(range(depth))
        A read is given to the command register in this cycle; its slot.
    read_data : In(512)
        Comes ``cl + 1`` clocks after :attr:`issued`.
    response : Out(stream.Signature(response_layout()))
        The answers.
    active : Out(1)
        Some slot is given. A function of registers.
    """

    def __init__(self, *, depth, cl):
        self.depth, self.cl = depth, cl
        self.name_layout = data.StructLayout({"tag": TAG_BITS, "write": 1, "error": AccessError})
        super().__init__({
            "give": In(1), "name": In(self.name_layout), "slot": Out(range(depth)), "full": Out(1),
            "issued": In(1), "issued_slot": In(range(depth)), "read_data": In(LINE_BITS),
            "response": Out(stream.Signature(response_layout())), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        bits = exact_log2(self.depth)
        m.submodules.names = names = memory.Memory(shape=self.name_layout, depth=self.depth,
                                                   init=[])
        m.submodules.lines = lines = memory.Memory(shape=LINE_BITS, depth=self.depth, init=[])
        m.submodules.way = way = memory.Memory(shape=bits, depth=self.depth, init=[])
        m.submodules.done = done = memory.Memory(shape=1, depth=self.depth, init=[])
        name_write, name_read = names.write_port(), names.read_port(domain="comb")
        line_write, line_read = lines.write_port(), lines.read_port(domain="comb")
        way_write, way_read = way.write_port(), way.read_port(domain="comb")
        done_given, done_came, done_read = (done.write_port(), done.write_port(),
                                            done.read_port(domain="comb"))
        head, tail = Signal(bits + 1), Signal(bits + 1)
        sent, came = Signal(bits), Signal(bits)     # reads given to the device, and back
        due = Signal(self.cl + 1)
        response, given = self.response, name_read.data
        m.d.comb += [
            self.slot.eq(tail), self.full.eq((tail - head)[:bits + 1] == self.depth),
            self.active.eq(head != tail),
            name_write.en.eq(self.give), name_write.addr.eq(self.slot),
            name_write.data.eq(self.name),
            way_write.en.eq(self.issued), way_write.addr.eq(sent),
            way_write.data.eq(self.issued_slot), way_read.addr.eq(came),
            line_write.en.eq(due[-1]), line_write.addr.eq(way_read.data),
            line_write.data.eq(self.read_data),
            name_read.addr.eq(head), line_read.addr.eq(head),
            done_given.en.eq(self.give), done_given.addr.eq(self.slot),
            done_given.data.eq(self.name.write | (self.name.error != AccessError.NONE)),
            done_came.en.eq(due[-1]), done_came.addr.eq(way_read.data), done_came.data.eq(1),
            done_read.addr.eq(head), response.valid.eq(self.active & done_read.data),
            response.payload.tag.eq(given.tag), response.payload.write.eq(given.write),
            response.payload.error.eq(given.error), response.payload.data.eq(line_read.data)]
        m.d.sync += [
            tail.eq(tail + self.give), head.eq(head + (response.valid & response.ready)),
            sent.eq(sent + self.issued), came.eq(came + due[-1]), due.eq(Cat(self.issued, due))]
        return m
