"""Finished sums of the dot products, on their way to the reduction engine or softmax unit."""
from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import LINE_BITS

SLOTS = 8           # groups under way or waiting: covers the pipeline at one block a row


class Drain(wiring.Component):
    """Queue of finished groups: takes up to ``lanes`` lines at once, gives one line a cycle.

    A place is reserved when the last beat of a group is issued, so that a group always finds one.
    The first line of a group comes 2 cycles after it was put. Lines leave in order, those of scores
    and all others on streams of their own; a line that is stalled holds up all that follow. Empty
    after reset. Source: this project's choice.

    Parameters
    ----------
    lanes : int
        Lines of a group.
    attention : bool
        Groups may be scores.

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
    scores : In(1)
        With ``attention``: they are scores.
    o : Out(stream.Signature(512))
        Lines in order.
    o_scores : Out(stream.Signature(512))
        With ``attention``: scores in order.
    """

    def __init__(self, *, lanes, attention=False):
        self.lanes = lanes
        self.attention = attention
        super().__init__({"room": Out(1), "reserve": In(1), "put": In(1),
                          "group": In(range(lanes + 1)), "lines": In(LINE_BITS).array(lanes),
                          "o": Out(stream.Signature(LINE_BITS))} | ({
                              "scores": In(1), "o_scores": Out(stream.Signature(LINE_BITS))}
                              if attention else {}))

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
        valid, ready = self.o.valid, self.o.ready       # of the line that leaves
        if self.attention:
            valid, ready = self._route(m, write, read, step)
        m.d.comb += [
            self.room.eq(free != 0),
            group_write.addr.eq(write), group_write.data.eq(self.group),
            group_write.en.eq(self.put), group_read.addr.eq(read),
            step.eq((filled != 0) & (~valid | ready)),
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
            m.d.sync += [valid.eq(1), which.eq(lane), lane.eq(Mux(leaves, 0, lane + 1))]
        with m.Elif(ready):
            m.d.sync += valid.eq(0)
        return m

    def _route(self, m, write, read, step):
        """Offer the line that leaves to the stream it belongs to; gives its valid and ready."""
        kinds, scores = Signal(SLOTS), Signal()     # of the groups that wait, of that line
        valid, ready = Signal(), Signal()
        with m.If(self.put):
            m.d.sync += kinds.bit_select(write, 1).eq(self.scores)
        with m.If(step):
            m.d.sync += scores.eq(kinds.bit_select(read, 1))
        m.d.comb += [self.o.valid.eq(valid & ~scores), self.o_scores.valid.eq(valid & scores),
                     self.o_scores.payload.eq(self.o.payload),
                     ready.eq(Mux(scores, self.o_scores.ready, self.o.ready))]
        return valid, ready
