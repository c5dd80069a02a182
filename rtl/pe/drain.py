"""Finished sums of the dot products, on their way to the reduction engine."""
from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import LINE_BITS

SLOTS = 8           # groups under way or waiting: covers the pipeline at one block a row


class Drain(wiring.Component):
    """Queue of finished groups: takes up to ``lanes`` lines at once, gives one line a cycle.

    A place is reserved when the last beat of a group is issued, so that a group always finds one.
    The first line of a group comes 2 cycles after it was put. Empty after reset. Source: this
    project's choice.

    Parameters
    ----------
    lanes : int
        Lines of a group.

    Members
    -------
    room : Out(1)
        A place can be reserved.
    reserve : In(1)
        Reserve it.
    put : In(1)
        A group is finished: ``group`` of the ``lines``, lane 0 first.
    group : In(range(lanes + 1))
        Lines of the group, at least 1.
    lines : In(512).array(lanes)
        The lines.
    o : Out(stream.Signature(512))
        Lines in order.
    """

    def __init__(self, *, lanes):
        self.lanes = lanes
        super().__init__({"room": Out(1), "reserve": In(1), "put": In(1),
                          "group": In(range(lanes + 1)), "lines": In(LINE_BITS).array(lanes),
                          "o": Out(stream.Signature(LINE_BITS))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.groups = groups = memory.Memory(shape=range(self.lanes + 1), depth=SLOTS,
                                                     init=[])
        group_write, group_read = groups.write_port(), groups.read_port(domain="comb")
        free = Signal(range(SLOTS + 1), init=SLOTS)
        filled = Signal(range(SLOTS + 1))
        write, read = Signal(range(SLOTS)), Signal(range(SLOTS))
        lane, which = Signal(range(self.lanes)), Signal(range(self.lanes))
        outputs = []
        step, leaves = Signal(), Signal()
        m.d.comb += [
            self.room.eq(free != 0),
            group_write.addr.eq(write), group_write.data.eq(self.group),
            group_write.en.eq(self.put), group_read.addr.eq(read),
            step.eq((filled != 0) & (~self.o.valid | self.o.ready)),
            leaves.eq(step & (lane == group_read.data - 1)),
        ]
        m.d.sync += [Assert(~self.put | (free + filled < SLOTS), "a group without a place"),
                     free.eq(free - self.reserve + leaves), filled.eq(filled + self.put - leaves),
                     write.eq(write + self.put), read.eq(read + leaves)]
        for i in range(self.lanes):
            m.submodules[f"lane{i}"] = store = memory.Memory(shape=LINE_BITS, depth=SLOTS, init=[])
            port, out = store.write_port(), store.read_port()
            m.d.comb += [port.addr.eq(write), port.en.eq(self.put), port.data.eq(self.lines[i]),
                         out.addr.eq(read), out.en.eq(step & (lane == i))]
            outputs.append(out.data)
        m.d.comb += self.o.payload.eq(Array(outputs)[which])
        with m.If(step):
            m.d.sync += [self.o.valid.eq(1), which.eq(lane), lane.eq(Mux(leaves, 0, lane + 1))]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
