"""The sending side of a NIC: work requests become frames, and end when they are acknowledged."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.net.interfaces import (
    MAC_BITS,
    PSN_BITS,
    QP_BITS,
    Status,
    completion_layout,
    header_layout,
    qp_layout,
)
from rtl.net.nic import send_steps as steps
from rtl.net.nic.fetch import payload_layout
from rtl.net.nic.layouts import (
    SLOTS,
    TIME_BITS,
    answer_layout,
    entry_layout,
    pick,
    post_layout,
    read_start_layout,
    send_context_layout,
)
from rtl.net.nic.regions import stored_layout

LOOK_LOG2 = 6       # log2 of the cycles between looks at the clock, of a queue pair each


class Event(enum.Enum, shape=4):
    """What the sending side does next, the most urgent first."""

    SET = 0         # the host writes a context
    ANSWER = 1      # the peer has answered
    STOP = 2        # the receiving side has found an error
    MEMORY = 3      # payload could not be read
    POST = 4        # a work request
    TIME = 5        # look whether a queue pair has waited for too long
    SEND = 6        # a frame


class SendQueues(wiring.Component):
    """Keeps the send queues: posts, frames, answers, repetitions, completions.

    One event at a time, 4 cycles each and 2 more for each request that ends. Go-back-N: nothing of
    a frame is kept but its request. The window in use shrinks to half, at most once for the frames
    that are under way, on a mark, a gap or a time-out, and grows by one for each window that was
    acknowledged. Queue pairs that can send take turns, frame by frame. Nothing here waits for the
    receiving side. Source: go-back-N as RFC 9293 section 3.8 has its time-out, additive increase
    and multiplicative decrease as RFC 5681; the rest is this project's choice.

    Parameters
    ----------
    qps : int
        Queue pairs, a power of two.

    Members
    -------
    set : In(stream.Signature(data.StructLayout({"qp": 16, "line": 512})))
        Contexts, as the host writes them; accepted when done.
    post : In(stream.Signature(post_layout()))
        Work requests.
    answer : In(stream.Signature(answer_layout()))
        Answers of the peers.
    stop_valid, stop_qp : In(1), In(16)
        The receiving side of this queue pair has failed.
    stopped_valid, stopped_qp : Out(1), Out(16)
        The sending side of this one has.
    failed_valid, failed_qp : In(1), In(16)
        Payload of a frame of this one could not be read.
    read_start : Out(stream.Signature(read_start_layout()))
        A READ goes out for the first time.
    header, payload : Out(stream.Signature(header_layout())), Out(...(payload_layout()))
        Frames to send.
    completion : Out(stream.Signature(completion_layout()))
        Ended requests.
    region_address, region : Out, In(stored_layout())
        Read port of the table of regions.
    mac : In(48)
        Address of this NIC.
    look_qp, look : In, Out(send_context_layout())
        A context, in the next cycle.
    repeated, timeouts : Out(32)
        Frames sent again; time-outs.
    active : Out(1)
        There is something to do, or to wait for.
    """

    def __init__(self, *, qps, regions=64):
        self.qps, self.regions = qps, regions
        super().__init__({
            "set": In(stream.Signature(data.StructLayout({"qp": QP_BITS, "line": qp_layout()}))),
            "post": In(stream.Signature(post_layout())),
            "answer": In(stream.Signature(answer_layout())),
            "stop_valid": In(1), "stop_qp": In(QP_BITS),
            "stopped_valid": Out(1), "stopped_qp": Out(QP_BITS),
            "failed_valid": In(1), "failed_qp": In(QP_BITS),
            "read_start": Out(stream.Signature(read_start_layout())),
            "header": Out(stream.Signature(header_layout())),
            "payload": Out(stream.Signature(payload_layout())),
            "completion": Out(stream.Signature(completion_layout())),
            "region_address": Out(range(regions)), "region": In(stored_layout()),
            "mac": In(MAC_BITS), "look_qp": In(range(qps)), "look": Out(send_context_layout()),
            "repeated": Out(32), "timeouts": Out(32), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.contexts = contexts = Memory(
            shape=send_context_layout(), depth=self.qps, init=[])
        m.submodules.entries = entries = Memory(
            shape=entry_layout(), depth=self.qps * SLOTS, init=[])
        self.context, self.entry = Signal(send_context_layout()), Signal(entry_layout())
        self.entry_read, self.entry_write = entries.read_port(), entries.write_port()
        self.event, self.qp = Signal(Event), Signal(range(self.qps))
        self.status = Signal(Status)                    # of what fails
        # Go back to the frame `next`: its request is looked for from the oldest on.
        self.rewind, self.seeking, self.seek_psn = Signal(), Signal(), Signal(PSN_BITS)
        self.now, self.frame_start = Signal(TIME_BITS), Signal(32)
        m.d.sync += self.now.eq(self.now + 1)
        read, write = contexts.read_port(), contexts.write_port()
        look = contexts.read_port()
        m.d.comb += [look.addr.eq(self.look_qp), self.look.eq(look.data)]
        out = {}
        for name in ("header", "payload", "completion", "read_start"):
            m.submodules[name] = out[name] = Queue(getattr(self, name).payload.shape())
            connect(m, out[name].o, flipped(getattr(self, name)))
        self.out = out
        ready, waits = Signal(self.qps), Signal(self.qps)
        event, qp = self._choose(m, ready, waits)
        m.d.comb += [
            read.addr.eq(qp), self.entry.eq(self.entry_read.data),
            self.entry_read.addr.eq(Cat(Mux(
                self.seeking, self.context.send[:-1], self.context.head[:-1]), self.qp)),
            self.region_address.eq(self.post.payload.work.local_key)]
        c = self.context
        with m.FSM():
            with m.State("IDLE"):
                with m.If(event.valid):
                    m.d.sync += [self.event.eq(event.kind), self.qp.eq(qp),
                                 self.status.eq(Status.OK), self.rewind.eq(0),
                                 self.seeking.eq(0)]
                    m.next = "LOAD"
            with m.State("LOAD"):
                loaded = read.data
                m.d.sync += c.eq(loaded)
                m.d.comb += self.entry_read.addr.eq(Cat(
                    Mux(self.event == Event.SEND, loaded.send[:-1], loaded.head[:-1]), self.qp))
                m.next = "ACT"
            with m.State("ACT"):
                self._act(m)
            with m.State("LOOK"):
                m.next = "RETIRE"
                with m.If(self.seeking):
                    m.next = "SEEK"
            with m.State("RETIRE"):
                steps.retire(m, self)
            with m.State("SEEK"):
                steps.seek(m, self)
            with m.State("STORE"):
                steps.store(m, self, write, ready, waits)
                m.next = "IDLE"
        m.d.comb += self.active.eq(Cat(
            event.valid, ready, waits, (queue.o.valid for queue in out.values()),
            self.event_busy).any())
        return m

    def _choose(self, m, ready, waits):
        """What comes next, and of which queue pair."""
        event = Signal(data.StructLayout({"valid": 1, "kind": Event}))
        qp, last, looked = (Signal(range(self.qps), name=n) for n in ("event_qp", "last", "looked"))
        stops, failures = Signal(self.qps), Signal(self.qps)
        self.event_busy = Signal()
        m.d.comb += self.event_busy.eq(Cat(stops, failures).any())
        due = Signal()
        with m.If(self.now[:LOOK_LOG2] == 0):
            m.d.sync += due.eq(1)
        can_send = (self.out["header"].i.ready & self.out["payload"].i.ready
                    & self.out["read_start"].i.ready)
        cases = [
            (Event.SET, self.set.valid, self.set.payload.qp),
            (Event.ANSWER, self.answer.valid, self.answer.payload.qp),
            (Event.STOP, stops.any(), pick(stops, last)),
            (Event.MEMORY, failures.any(), pick(failures, last)),
            (Event.POST, self.post.valid, self.post.payload.qp),
            (Event.TIME, due & waits.any(), pick(waits, looked)),
            (Event.SEND, ready.any() & can_send, pick(ready, last))]
        for kind, valid, number in reversed(cases):
            with m.If(valid):
                m.d.comb += [event.valid.eq(1), event.kind.eq(kind), qp.eq(number)]
        self.ends = Signal()            # the event is done
        bit = Mux(self.ends, 1 << self.qp, 0)
        for bits, valid, number, kind in (
                (stops, self.stop_valid, self.stop_qp, Event.STOP),
                (failures, self.failed_valid, self.failed_qp, Event.MEMORY)):
            new = Mux(valid, 1 << number[:len(qp)], 0)
            done = (self.event == kind) | (self.event == Event.SET)
            m.d.sync += bits.eq((bits & ~Mux(done, bit, 0)) | new)
        with m.If(self.ends):
            with m.If(self.event == Event.SEND):
                m.d.sync += last.eq(self.qp)
            with m.If(self.event == Event.TIME):
                m.d.sync += [looked.eq(self.qp), due.eq(0)]
        for stream_, kind in ((self.set, Event.SET), (self.answer, Event.ANSWER),
                              (self.post, Event.POST)):
            m.d.comb += stream_.ready.eq(self.ends & (self.event == kind))
        return event, qp

    def _act(self, m):
        """The event changes the context; what ends requests goes on to look at them."""
        with m.Switch(self.event):
            with m.Case(Event.SET):
                steps.set_context(m, self)
            with m.Case(Event.ANSWER):
                steps.answer(m, self)
            with m.Case(Event.STOP):
                steps.break_off(m, self, Status.FLUSHED)
            with m.Case(Event.MEMORY):
                steps.break_off(m, self, Status.MEMORY)
            with m.Case(Event.POST):
                steps.post(m, self)
            with m.Case(Event.TIME):
                steps.look_at_time(m, self)
            with m.Default():
                steps.send(m, self)
