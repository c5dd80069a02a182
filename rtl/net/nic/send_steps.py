"""What each event does to the context of a queue pair on the sending side.

Functions of the module and of its :class:`rtl.net.nic.send.SendQueues`; each adds statements to the
state of its FSM in which it is called, and says which is next.
"""
from amaranth import *

from rtl.net.interfaces import PSN_BITS, FrameKind, Opcode, QpState, Status, Syndrome
from rtl.net.nic.frame_in import WIRE_TYPE
from rtl.net.nic.layouts import (
    LONGEST,
    MTU_BYTES,
    MTU_LOG2,
    POSTS,
    SLOTS,
    AnswerKind,
    frames_of,
)
from rtl.net.nic.regions import allows
from rtl.pe.interfaces import ADDRESS_BITS

FRAME_KINDS = {Opcode.SEND: FrameKind.SEND, Opcode.WRITE: FrameKind.WRITE,
               Opcode.WRITE_IMM: FrameKind.WRITE_IMM, Opcode.READ: FrameKind.READ_REQUEST,
               Opcode.READ_RESPONSE: FrameKind.READ_RESPONSE}


def between(number, start):
    """How far a frame's number is from ``start``, round the circle."""
    return (number - start)[:PSN_BITS]


def fail(m, s, status):
    """The oldest request ends with ``status``, the others are flushed."""
    m.d.sync += s.status.eq(status)
    m.next = "LOOK"


def break_off(m, s, status):
    """Something outside of the send queue failed: so does a queue pair that was ready."""
    m.next = "STORE"
    with m.If(s.context.state == QpState.READY):
        fail(m, s, status)


def shrink(m, s):
    """Half the window, unless frames before the last time are still under way."""
    c = s.context
    with m.If(~between(c.oldest, c.recover)[-1]):
        m.d.sync += [c.limit.eq(Mux(c.limit > 1, c.limit >> 1, 1)), c.grown.eq(0),
                     c.recover.eq(c.highest)]


def set_context(m, s):
    """The host resets, starts or stops the queue pair."""
    c, line = s.context, s.set.payload.line
    with m.If(line.state == QpState.ERROR):
        fail(m, s, Status.FLUSHED)
    with m.Else():
        m.next = "STORE"
        m.d.sync += [getattr(c, name).eq(getattr(line, name)) for name in (
            "state", "domain", "peer_qp", "peer_mac", "timeout_log2", "tries", "window")]
        m.d.sync += [getattr(c, name).eq(line.send_psn) for name in (
            "head_psn", "oldest", "next", "highest", "recover")]
        m.d.sync += [getattr(c, name).eq(0) for name in (
            "head", "send", "tail", "frame", "grown", "held", "reads_done")]
        m.d.sync += [c.limit.eq(line.window), c.left.eq(line.tries), c.stamp.eq(s.now)]
        with m.If(line.window == 0):
            m.d.sync += [c.limit.eq(1), c.window.eq(1)]


def complete(m, s, *, opcode, cookie, length, status, then):
    """A completion goes out; ``then()`` once it is taken."""
    o = s.out["completion"].i
    m.d.comb += [o.valid.eq(1), o.payload.opcode.eq(opcode), o.payload.status.eq(status),
                 o.payload.cookie.eq(cookie), o.payload.qp.eq(s.qp), o.payload.length.eq(length)]
    with m.If(o.ready):
        then()


def post(m, s):
    """A work request is checked and stored, or ends at once."""
    c, work, own = s.context, s.post.payload.work, s.post.payload.own
    count, status = (c.tail - c.head)[:len(c.tail)], Signal(Status)
    allowed = allows(m, s.region, key=work.local_key, domain=c.domain, address=work.local,
                     length=work.length)
    known = Cat(work.opcode == kind for kind in (
        Opcode.SEND, Opcode.WRITE, Opcode.WRITE_IMM, Opcode.READ)).any()
    far = work.local[ADDRESS_BITS:].any() | work.remote[ADDRESS_BITS:].any()
    with m.If(c.state != QpState.READY):
        m.d.comb += status.eq(Mux(c.state == QpState.RESET, Status.STATE, Status.FLUSHED))
    with m.Elif(count >= Mux(own, SLOTS - 1, POSTS)):
        m.d.comb += status.eq(Status.OVERRUN)
    with m.Elif(~own & (~known | far | (work.length >= LONGEST))):
        m.d.comb += status.eq(Status.FIELD)
    with m.Elif(~own & ~allowed & (work.length != 0)):
        m.d.comb += status.eq(Status.LOCAL_PROTECTION)
    write = s.entry_write
    m.d.comb += [write.addr.eq(Cat(c.tail[:-1], s.qp))]
    m.d.comb += [getattr(write.data, name).eq(getattr(work, name))
                 for name in write.data.shape().members]

    def refuse():
        m.next = "STORE"
        with m.If(c.state == QpState.READY):
            fail(m, s, Status.FLUSHED)

    with m.If(status == Status.OK):
        m.d.comb += write.en.eq(1)
        m.d.sync += c.tail.eq(c.tail + 1)
        m.next = "STORE"
    with m.Elif(own):
        refuse()
    with m.Else():
        complete(m, s, opcode=work.opcode, cookie=work.cookie, length=work.length, status=status,
                 then=refuse)


def answer(m, s):
    """The peer tells which frame it expects, or that the answer to a READ is there."""
    c, a = s.context, s.answer.payload
    ahead, known = between(a.psn, c.oldest), Signal()
    m.d.comb += known.eq((ahead <= between(c.highest, c.oldest)) & (c.state == QpState.READY))
    grown = Signal(9)
    m.d.comb += grown.eq(c.grown + ahead[:8])
    m.next = "LOOK"
    with m.If((a.kind == AnswerKind.READ_DONE) | (a.kind == AnswerKind.READ_GOES_ON)):
        m.d.sync += [c.reads_done.eq(c.reads_done + (a.kind == AnswerKind.READ_DONE)),
                     c.left.eq(c.tries), c.stamp.eq(s.now)]
    with m.Elif(known):
        m.d.sync += c.oldest.eq(a.psn)
        with m.If(ahead != 0):
            m.d.sync += [c.left.eq(c.tries), c.stamp.eq(s.now)]
        with m.If(between(c.next, a.psn)[-1]):      # it had gone back further than it had to
            m.d.sync += [c.next.eq(a.psn), s.rewind.eq(1)]
        with m.If(a.echo):
            shrink(m, s)
        with m.Elif((a.kind == AnswerKind.ACK) & (ahead != 0)):
            with m.If(grown < c.limit):
                m.d.sync += c.grown.eq(grown)
            with m.Else():
                m.d.sync += [c.grown.eq(0), c.limit.eq(c.limit + (c.limit < c.window))]
        with m.If(a.kind == AnswerKind.NAK):
            _refused(m, s, ahead)


def _refused(m, s, ahead):
    """A NAK: frames are sent again, or the request fails."""
    c, syndrome = s.context, s.answer.payload.syndrome
    again = (syndrome == Syndrome.SEQUENCE) | (syndrome == Syndrome.NOT_READY)
    with m.If(again):
        m.d.sync += [c.next.eq(s.answer.payload.psn), s.rewind.eq(1),
                     c.held.eq(syndrome == Syndrome.NOT_READY)]
        with m.If(ahead == 0):
            m.d.sync += c.left.eq(c.left - 1)
            with m.If(c.left == 0):
                fail(m, s, Mux(syndrome == Syndrome.NOT_READY, Status.NOT_READY,
                               Status.UNREACHABLE))
        with m.If(syndrome == Syndrome.SEQUENCE):
            shrink(m, s)
    for code, status in ((Syndrome.PROTECTION, Status.REMOTE_PROTECTION),
                         (Syndrome.MEMORY, Status.REMOTE_MEMORY),
                         (Syndrome.LENGTH, Status.LENGTH), (Syndrome.FIELD, Status.REMOTE_FIELD)):
        with m.If(syndrome == code):
            fail(m, s, status)


def look_at_time(m, s):
    """After too long a time without an answer, go back; a queue pair that was held goes on."""
    c, age = s.context, Signal.like(s.now)
    waiting = (c.head != c.send) | (c.oldest != c.next)
    m.d.comb += age.eq(s.now - c.stamp)
    m.next = "STORE"
    with m.If((c.state == QpState.READY) & c.held):
        with m.If((age << 2)[:len(age)] >> c.timeout_log2 != 0):
            m.d.sync += [c.held.eq(0), c.stamp.eq(s.now)]
    with m.Elif((c.state == QpState.READY) & waiting & (age >> c.timeout_log2 != 0)):
        m.d.sync += s.timeouts.eq(s.timeouts + 1)
        with m.If(c.left == 0):
            fail(m, s, Status.UNREACHABLE)
        with m.Else():
            m.d.sync += [c.left.eq(c.left - 1), c.stamp.eq(s.now), c.next.eq(c.oldest),
                         s.rewind.eq(1)]
            shrink(m, s)
            m.next = "LOOK"


def sendable(c):
    """Whether a queue pair has a frame to send, and may."""
    return ((c.state == QpState.READY) & ~c.held & (c.send != c.tail)
            & (between(c.next, c.oldest) < c.limit))


def send(m, s):
    """A frame goes out: its header, and where its payload is."""
    c, e, start = s.context, s.entry, s.frame_start
    o, payload, read = (s.out[name].i for name in ("header", "payload", "read_start"))
    header, reads = o.payload, e.opcode == Opcode.READ
    last, again = c.frame + 1 == frames_of(e), c.next != c.highest
    under_way = between(c.next, c.oldest)
    left = Signal(32)
    m.d.comb += [start.eq(c.frame << MTU_LOG2), left.eq(e.length - start)]
    m.d.comb += [
        header.destination.eq(c.peer_mac), header.source.eq(s.mac), header.type.eq(WIRE_TYPE),
        header.qp.eq(c.peer_qp), header.source_qp.eq(s.qp), header.psn.eq(c.next),
        header.first.eq(c.frame == 0), header.last.eq(last), header.total.eq(e.length),
        header.ask.eq(last | (under_way + 1 >= c.limit) | (c.next[:2] == 3)),
        header.length.eq(Mux(reads, 0, Mux(left > MTU_BYTES, MTU_BYTES, left))),
        header.address.eq(e.remote), header.key.eq(e.remote_key),
        header.immediate.eq(e.immediate),
        payload.payload.address.eq(e.local + start), payload.payload.count.eq(header.length),
        read.payload.qp.eq(s.qp), read.payload.address.eq(e.local),
        read.payload.length.eq(e.length)]
    for opcode, kind in FRAME_KINDS.items():
        with m.If(e.opcode == opcode):
            m.d.comb += header.kind.eq(kind)
    m.next = "STORE"
    with m.If(sendable(c)):
        m.d.comb += [o.valid.eq(1), payload.valid.eq(header.length != 0),
                     read.valid.eq(reads & ~again)]
        m.d.sync += [c.next.eq(c.next + 1), c.frame.eq(c.frame + 1)]
        with m.If(again):
            m.d.sync += s.repeated.eq(s.repeated + 1)
        with m.Else():
            m.d.sync += c.highest.eq(c.next + 1)
        with m.If(under_way == 0):
            m.d.sync += c.stamp.eq(s.now)
        with m.If(last):
            m.d.sync += [c.send.eq(c.send + 1), c.frame.eq(0)]


def retire(m, s):
    """The oldest request ends if all of it was acknowledged, or as a failure has it end.

    A READ ends when its answer is there as well.
    """
    c, e = s.context, s.entry
    frames, failing = frames_of(e), s.status != Status.OK
    some, reads = c.head != c.tail, e.opcode == Opcode.READ
    acknowledged = between(c.oldest, c.head_psn) >= frames
    done = some & acknowledged & (~reads | (c.reads_done != 0)) & (s.status != Status.FLUSHED)

    def leave():
        m.d.sync += [c.head.eq(c.head + 1), c.head_psn.eq(c.head_psn + frames)]
        with m.If(done & reads):
            m.d.sync += c.reads_done.eq(c.reads_done - 1)
        with m.If(~done):
            m.d.sync += s.status.eq(Status.FLUSHED)
        m.next = "LOOK"

    with m.If(done | failing & some):
        with m.If(e.opcode == Opcode.READ_RESPONSE):
            leave()
        with m.Else():
            complete(m, s, opcode=e.opcode, cookie=e.cookie, length=e.length,
                     status=Mux(done, Status.OK, s.status), then=leave)
    with m.Else():
        m.next = "STORE"
        with m.If(failing):
            m.d.sync += c.state.eq(QpState.ERROR)
        with m.If(s.rewind):
            m.d.sync += [c.send.eq(c.head), s.seek_psn.eq(c.head_psn), s.seeking.eq(1)]
            m.next = "LOOK"


def seek(m, s):
    """From the oldest request on, find that of the frame ``next``."""
    c = s.context
    frames, apart = frames_of(s.entry), between(c.next, s.seek_psn)
    with m.If((apart >= frames) & (c.send != c.tail)):
        m.d.sync += [c.send.eq(c.send + 1), s.seek_psn.eq(s.seek_psn + frames)]
        m.next = "LOOK"
    with m.Else():
        m.d.sync += c.frame.eq(apart)
        m.next = "STORE"


def store(m, s, write, ready, waits):
    """The context is kept, and with it whether there is something to send or to wait for."""
    c = s.context
    bit = (1 << s.qp)[:s.qps]
    waiting = (c.state == QpState.READY) & ((c.head != c.send) | (c.oldest != c.next) | c.held)
    m.d.comb += [write.en.eq(1), write.addr.eq(s.qp), write.data.eq(c), s.ends.eq(1)]
    m.d.sync += [ready.eq((ready & ~bit) | Mux(sendable(c), bit, 0)),
                 waits.eq((waits & ~bit) | Mux(waiting, bit, 0))]
    m.d.comb += [s.stopped_qp.eq(s.qp),
                 s.stopped_valid.eq((c.state == QpState.ERROR) & (s.status != Status.OK))]
