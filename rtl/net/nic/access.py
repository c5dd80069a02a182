"""The window of a NIC: doorbells, contexts, regions, registers."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.common.queue import Queue
from rtl.net.interfaces import MAC_BITS, NIC_WINDOW_LOG2, QP_BITS, qp_layout
from rtl.net.nic.layouts import post_layout, send_context_layout
from rtl.pe.interfaces import LINE_BITS, AccessError, request_layout, response_layout

WAITING = 16        # work requests of either kind that wait to be looked at
COUNTER_LINE = 4


class Window(enum.Enum, shape=4):
    """Parts of the window, by the upper 4 bits of an offset in it; the next 10 are a number."""

    REGISTERS = 0
    CONTEXTS = 1
    REGIONS = 2
    SEND = 4        # and 5 to 7
    RECEIVE = 8     # and 9 to 15


class NicAccess(wiring.Component):
    """Does what accesses to the window of a NIC say, and answers them in order.

    A write is answered when it has taken effect, one to a doorbell when its request waits in a
    queue of 16. Throughput is one access in 2 cycles. An access to what does not exist, and a write
    of less than a line, are answered with ``AccessError.ADDRESS``.

    Parameters
    ----------
    qps, regions : int
        Queue pairs and regions.

    Members
    -------
    access, access_response : In(stream.Signature(request_layout())), Out(...)
        Accesses; of an address the lower 20 bits count.
    set : Out(stream.Signature(data.StructLayout({"qp": 16, "line": 512}))).array(2)
        Contexts, to the sending and the receiving side; both take each.
    send, receive : Out(stream.Signature(post_layout()))
        Work requests.
    region_valid, region_index, region_line : Out
        A region is written.
    look_qp, look : Out, In(send_context_layout())
        A context, in the next cycle.
    mac, scale_out : Out(48), Out(1)
        Registers: address of this NIC, what it is for.
    counters : In(data.ArrayLayout(32, 16))
        Shown in the registers.
    active : Out(1)
        Something is under way.
    """

    def __init__(self, *, qps, regions):
        self.qps, self.regions = qps, regions
        contexts = stream.Signature(data.StructLayout({"qp": QP_BITS, "line": qp_layout()}))
        super().__init__({
            "access": In(stream.Signature(request_layout())),
            "access_response": Out(stream.Signature(response_layout())),
            "set": Out(contexts).array(2), "send": Out(stream.Signature(post_layout())),
            "receive": Out(stream.Signature(post_layout())), "region_valid": Out(1),
            "region_index": Out(range(regions)), "region_line": Out(LINE_BITS),
            "look_qp": Out(range(qps)), "look": In(send_context_layout()), "mac": Out(MAC_BITS),
            "scale_out": Out(1), "counters": In(data.ArrayLayout(32, 16)), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.accesses = accesses = Queue(request_layout())
        m.submodules.answers = answers = Queue(response_layout())
        connect(m, flipped(self.access), accesses.i)
        connect(m, answers.o, flipped(self.access_response))
        access, answer = accesses.o.payload, answers.i.payload
        offset = access.address[:NIC_WINDOW_LOG2]
        part, number = offset[16:], offset[6:16]
        sends = part[2:] == 1
        receives = part[3]
        queue_pair = Mux(sends, offset[6:18], Mux(receives, offset[6:19], number))
        known, done, whole = Signal(), Signal(), access.mask.all()
        looked = Signal()       # a context stands on `look`
        posts = [self._posts(m, name, queue_pair, access) for name in ("send", "receive")]
        kinds = {"context": part == Window.CONTEXTS, "region": part == Window.REGIONS,
                 "register": (part == Window.REGISTERS) & (number < 16)}
        exists = queue_pair < self.qps
        m.d.comb += known.eq(kinds["register"] | exists & (kinds["context"] | sends | receives)
                             | kinds["region"] & (number < self.regions))
        active = accesses.o.valid & answers.i.ready
        writes = active & access.write & whole & known
        m.d.comb += done.eq(1)
        m.d.sync += looked.eq(active & kinds["context"] & ~access.write & ~looked)
        self._set(m, writes & kinds["context"], queue_pair, access)
        with m.If(writes & kinds["context"]):
            m.d.comb += done.eq(self.set_done)
        with m.If(active & ~access.write & kinds["context"] & exists):
            m.d.comb += done.eq(looked)
        for (fifo, room), chosen in zip(posts, (sends, receives), strict=True):
            m.d.comb += fifo.w_en.eq(writes & chosen & room)
            with m.If(writes & chosen):
                m.d.comb += done.eq(room)
        m.d.comb += [
            self.region_valid.eq(writes & kinds["region"]), self.region_index.eq(number),
            self.region_line.eq(access.data), self.look_qp.eq(queue_pair),
            answers.i.valid.eq(accesses.o.valid & done), accesses.o.ready.eq(active & done),
            answer.tag.eq(access.tag), answer.write.eq(access.write),
            answer.error.eq(Mux(known & (whole | ~access.write), AccessError.NONE,
                                AccessError.ADDRESS)),
            answer.data.eq(Mux(access.write, 0, Mux(
                kinds["context"] & exists, self.look,
                Mux(kinds["register"], self._register(m, number), 0))))]
        with m.If(writes & kinds["register"] & (number == 0)):
            m.d.sync += self.mac.eq(access.data)
        with m.If(writes & kinds["register"] & (number == 1)):
            m.d.sync += self.scale_out.eq(access.data)
        m.d.comb += self.active.eq(Cat(
            self.access.valid, accesses.o.valid, answers.o.valid, looked,
            (fifo.level != 0 for fifo, _ in posts)).any())
        return m

    def _register(self, m, number):
        value = Signal(LINE_BITS)
        with m.Switch(number):
            with m.Case(0):
                m.d.comb += value.eq(self.mac)
            with m.Case(1):
                m.d.comb += value.eq(self.scale_out)
            with m.Case(COUNTER_LINE):
                m.d.comb += value.eq(self.counters)
        return value

    def _posts(self, m, name, queue_pair, access):
        """A queue of work requests; gives it, and whether it has room."""
        fifo = SyncFIFOBuffered(width=post_layout().size, depth=WAITING)
        m.submodules[f"{name}s"] = fifo
        post, out = Signal(post_layout()), getattr(self, name)
        m.d.comb += [post.qp.eq(queue_pair), post.work.eq(access.data), fifo.w_data.eq(post),
                     out.payload.as_value().eq(fifo.r_data), out.valid.eq(fifo.r_rdy),
                     fifo.r_en.eq(out.ready)]
        return fifo, fifo.w_rdy

    def _set(self, m, valid, queue_pair, access):
        """Both sides take a context."""
        taken = Signal(2)
        self.set_done = Signal()
        now = Cat(taken[n] | s.ready for n, s in enumerate(self.set))
        m.d.comb += self.set_done.eq(now.all())
        m.d.sync += taken.eq(Mux(valid & ~now.all(), now, 0))
        for n, s in enumerate(self.set):
            m.d.comb += [s.valid.eq(valid & ~taken[n]), s.payload.qp.eq(queue_pair),
                         s.payload.line.eq(access.data)]
