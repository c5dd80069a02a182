"""The receiving side of a NIC: frames become bytes in memory, acknowledgements and completions."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.net.interfaces import (
    MAC_BITS,
    QP_BITS,
    completion_layout,
    header_layout,
    qp_layout,
)
from rtl.net.nic import receive_steps as steps
from rtl.net.nic.layouts import (
    SLOTS,
    answer_layout,
    event_layout,
    pick,
    post_layout,
    read_start_layout,
    receive_context_layout,
    receive_layout,
)
from rtl.net.nic.place import placed_layout, placement_layout
from rtl.net.nic.regions import stored_layout


class Event(enum.Enum, shape=4):
    """What the receiving side does next, the most urgent first."""

    SET = 0         # the host writes a context
    STOP = 1        # the sending side has failed
    PLACED = 2      # a frame's bytes are in memory
    START = 3       # a READ goes out
    POST = 4        # a receive
    FRAME = 5       # a frame has come


class ReceiveQueues(wiring.Component):
    """Keeps the receive queues: takes frames in order, says where their bytes go, and answers.

    One event at a time, 4 cycles each and 2 more for each receive that an error ends; a frame is
    two events. A frame is acknowledged, and what it ends is completed, after its bytes and those of
    all frames before it are in memory. Frames that are not the next are dropped: older ones are
    acknowledged again, and for those after a gap one NAK is sent. Source: this project's choice.

    Parameters
    ----------
    qps : int
        Queue pairs, a power of two.
    regions : int
        Lines of the table of regions.

    Members
    -------
    set : In(stream.Signature(data.StructLayout({"qp": 16, "line": 512})))
        Contexts, as the host writes them; accepted when done.
    post : In(stream.Signature(post_layout()))
        Receives.
    frame : In(stream.Signature(header_layout()))
        Headers of frames with a right checksum.
    place : Out(stream.Signature(placement_layout(event_layout())))
        What becomes of their payloads.
    placed : In(stream.Signature(placed_layout(event_layout())))
        What is in memory.
    reply : Out(stream.Signature(header_layout()))
        Acknowledgements.
    completion : Out(stream.Signature(completion_layout()))
        Ended receives.
    answer : Out(stream.Signature(answer_layout()))
        To the sending side.
    respond : Out(stream.Signature(post_layout()))
        READs of the peer, for the sending side.
    read_start : In(stream.Signature(read_start_layout()))
        A READ goes out.
    stop_valid, stop_qp : In(1), In(16)
        The sending side of this queue pair has failed.
    stopped_valid, stopped_qp : Out(1), Out(16)
        The receiving side of this one has.
    region_address, region : Out, In(stored_layout())
        Read port of the table of regions.
    mac : In(48)
        Address of this NIC.
    dropped : Out(32)
        Frames that were not the next, or for no ready queue pair.
    active : Out(1)
        There is something to do.
    """

    def __init__(self, *, qps, regions=64):
        self.qps, self.regions = qps, regions
        event = event_layout()
        super().__init__({
            "set": In(stream.Signature(data.StructLayout({"qp": QP_BITS, "line": qp_layout()}))),
            "post": In(stream.Signature(post_layout())),
            "frame": In(stream.Signature(header_layout())),
            "place": Out(stream.Signature(placement_layout(event))),
            "placed": In(stream.Signature(placed_layout(event))),
            "reply": Out(stream.Signature(header_layout())),
            "completion": Out(stream.Signature(completion_layout())),
            "answer": Out(stream.Signature(answer_layout())),
            "respond": Out(stream.Signature(post_layout())),
            "read_start": In(stream.Signature(read_start_layout())),
            "stop_valid": In(1), "stop_qp": In(QP_BITS),
            "stopped_valid": Out(1), "stopped_qp": Out(QP_BITS),
            "region_address": Out(range(regions)), "region": In(stored_layout()),
            "mac": In(MAC_BITS), "dropped": Out(32), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.contexts = contexts = Memory(
            shape=receive_context_layout(), depth=self.qps, init=[])
        m.submodules.receives = receives = Memory(
            shape=receive_layout(), depth=self.qps * SLOTS, init=[])
        self.context, self.entry = Signal(receive_context_layout()), Signal(receive_layout())
        self.entry_write, entry_read = receives.write_port(), receives.read_port()
        m.submodules.reads = reads = Memory(
            shape=read_start_layout(), depth=self.qps * SLOTS, init=[])
        self.read_write, read_read = reads.write_port(), reads.read_port()
        self.read = read_read.data
        self.event, self.qp, self.failing = Signal(Event), Signal(range(self.qps)), Signal()
        read, write = contexts.read_port(), contexts.write_port()
        self.out = {}
        for name in ("place", "reply", "completion", "answer", "respond"):
            m.submodules[name] = self.out[name] = Queue(getattr(self, name).payload.shape())
            connect(m, self.out[name].o, flipped(getattr(self, name)))
        event, qp = self._choose(m)
        c = self.context
        m.d.comb += [
            read.addr.eq(qp), self.entry.eq(entry_read.data),
            entry_read.addr.eq(Cat(c.head[:-1], self.qp)),
            read_read.addr.eq(Cat(c.read_head[:-1], self.qp)),
            self.region_address.eq(Mux(self.event == Event.FRAME, self.frame.payload.key,
                                       self.post.payload.work.local_key))]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(event.valid):
                    m.d.sync += [self.event.eq(event.kind), self.qp.eq(qp), self.failing.eq(0)]
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += c.eq(read.data)
                m.d.comb += [entry_read.addr.eq(Cat(read.data.head[:-1], self.qp)),
                             read_read.addr.eq(Cat(read.data.read_head[:-1], self.qp))]
                m.next = "ACT"
            with m.State("ACT"):
                self._act(m)
            with m.State("LOOK"):
                m.next = "FLUSH"
            with m.State("FLUSH"):
                steps.flush(m, self)
            with m.State("STORE"):
                m.d.comb += [write.en.eq(1), write.addr.eq(self.qp), write.data.eq(c),
                             self.ends.eq(1), self.stopped_qp.eq(self.qp),
                             self.stopped_valid.eq(self.failing)]
                m.next = "IDLE"
        m.d.comb += self.active.eq(Cat(
            event.valid, self.placed.valid, self.frame.valid, self.stops,
            (queue.o.valid for queue in self.out.values())).any())
        return m

    def _choose(self, m):
        """What comes next, and of which queue pair."""
        event, qp = Signal(data.StructLayout({"valid": 1, "kind": Event})), Signal(range(self.qps))
        self.stops, self.ends = Signal(self.qps), Signal()
        room = Cat(queue.i.ready for queue in self.out.values()).all()
        number = self.frame.payload.qp
        cases = [
            (Event.SET, self.set.valid, self.set.payload.qp),
            (Event.STOP, self.stops.any(), pick(self.stops, self.qp)),
            (Event.PLACED, self.placed.valid & room, self.placed.payload.event.qp),
            (Event.START, self.read_start.valid, self.read_start.payload.qp),
            (Event.POST, self.post.valid, self.post.payload.qp),
            (Event.FRAME, self.frame.valid & room, number)]
        for kind, valid, chosen in reversed(cases):
            with m.If(valid):
                m.d.comb += [event.valid.eq(1), event.kind.eq(kind), qp.eq(chosen)]
        bit = (1 << self.qp)[:self.qps]
        stopped = (self.event == Event.STOP) | (self.event == Event.SET)
        m.d.sync += self.stops.eq(
            (self.stops & ~Mux(self.ends & stopped, bit, 0))
            | Mux(self.stop_valid, 1 << self.stop_qp[:len(qp)], 0))
        for stream_, kind in ((self.set, Event.SET), (self.placed, Event.PLACED),
                              (self.read_start, Event.START), (self.post, Event.POST),
                              (self.frame, Event.FRAME)):
            m.d.comb += stream_.ready.eq(self.ends & (self.event == kind))
        return event, qp

    def _act(self, m):
        """The event changes the context; an error goes on to end the receives that stand."""
        with m.Switch(self.event):
            with m.Case(Event.SET):
                steps.set_context(m, self)
            with m.Case(Event.STOP):
                steps.stop(m, self)
            with m.Case(Event.PLACED):
                steps.tell(m, self)
            with m.Case(Event.START):
                steps.start_read(m, self)
            with m.Case(Event.POST):
                steps.post(m, self)
            with m.Default():
                steps.take_frame(m, self)
