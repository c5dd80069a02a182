"""What each event does to the context of a queue pair on the receiving side.

Functions of the module and of its :class:`rtl.net.nic.receive.ReceiveQueues`; each adds statements
to the state of its FSM in which it is called, and says which is next.
"""
from amaranth import *

from rtl.net.interfaces import (
    MTU_BYTES,
    PSN_BITS,
    FrameKind,
    Opcode,
    QpState,
    Status,
    Syndrome,
)
from rtl.net.nic.frame_in import WIRE_TYPE
from rtl.net.nic.layouts import LONGEST, POSTS, AnswerKind
from rtl.net.nic.regions import allows
from rtl.pe.interfaces import ADDRESS_BITS, AccessError


def set_context(m, r):
    """The host resets, starts or stops the queue pair."""
    c, line = r.context, r.set.payload.line
    with m.If(line.state == QpState.ERROR):
        stop(m, r)
    with m.Else():
        m.next = "STORE"
        m.d.sync += [getattr(c, name).eq(getattr(line, name)) for name in (
            "state", "domain", "peer_qp", "peer_mac")]
        m.d.sync += [getattr(c, name).eq(0) for name in (
            "closing", "head", "tail", "asked", "inside", "read_head", "read_tail")]
        m.d.sync += c.psn.eq(line.receive_psn)


def stop(m, r):
    """The queue pair goes to its error state: receives that stand are flushed."""
    m.next = "STORE"
    with m.If(r.context.state == QpState.READY):
        m.d.sync += [r.context.state.eq(QpState.ERROR), r.failing.eq(1)]
        m.next = "LOOK"


def flush(m, r):
    """The oldest receive ends, until none is left."""
    c, o = r.context, r.out["completion"].i
    with m.If(c.head != c.tail):
        m.d.comb += [o.valid.eq(1), o.payload.opcode.eq(Opcode.RECV), o.payload.qp.eq(r.qp),
                     o.payload.status.eq(Status.FLUSHED), o.payload.cookie.eq(r.entry.cookie)]
        with m.If(o.ready):
            m.d.sync += c.head.eq(c.head + 1)
            m.next = "LOOK"
    with m.Else():
        m.next = "STORE"


def start_read(m, r):
    """A READ goes out: its answer may come."""
    c, write = r.context, r.read_write
    m.d.comb += [write.en.eq(1), write.addr.eq(Cat(c.read_tail[:-1], r.qp)),
                 write.data.eq(r.read_start.payload)]
    m.d.sync += c.read_tail.eq(c.read_tail + 1)
    m.next = "STORE"


def post(m, r):
    """A receive is checked and stored, or ends at once."""
    c, work, o = r.context, r.post.payload.work, r.out["completion"].i
    status = Signal(Status)
    allowed = allows(m, r.region, key=work.local_key, domain=c.domain, address=work.local,
                     length=work.length)
    with m.If(c.state != QpState.READY):
        m.d.comb += status.eq(Mux(c.state == QpState.RESET, Status.STATE, Status.FLUSHED))
    with m.Elif((c.tail - c.head)[:len(c.tail)] >= POSTS):
        m.d.comb += status.eq(Status.OVERRUN)
    with m.Elif((work.opcode != Opcode.RECV) | work.local[ADDRESS_BITS:].any()
                | (work.length >= LONGEST)):
        m.d.comb += status.eq(Status.FIELD)
    with m.Elif(~allowed & (work.length != 0)):
        m.d.comb += status.eq(Status.LOCAL_PROTECTION)
    write, entry = r.entry_write, r.entry_write.data
    m.d.comb += [write.addr.eq(Cat(c.tail[:-1], r.qp)), entry.cookie.eq(work.cookie),
                 entry.length.eq(work.length), entry.address.eq(work.local)]
    with m.If(status == Status.OK):
        m.d.comb += write.en.eq(1)
        m.d.sync += c.tail.eq(c.tail + 1)
        m.next = "STORE"
    with m.Else():
        m.d.comb += [o.valid.eq(1), o.payload.opcode.eq(Opcode.RECV), o.payload.qp.eq(r.qp),
                     o.payload.status.eq(status), o.payload.cookie.eq(work.cookie)]
        with m.If(o.ready):
            stop(m, r)


def tell(m, r):
    """What a frame does once it is in memory. All streams that are needed have room."""
    c, event, error = r.context, r.placed.payload.event, r.placed.payload.error
    reply, completion, answer = (r.out[name].i for name in ("reply", "completion", "answer"))
    header, wrong, good = reply.payload, error != AccessError.NONE, c.state == QpState.READY
    m.d.comb += [
        reply.valid.eq(good & (event.reply | wrong)), header.destination.eq(c.peer_mac),
        header.source.eq(r.mac), header.type.eq(WIRE_TYPE), header.qp.eq(c.peer_qp),
        header.source_qp.eq(r.qp), header.first.eq(1), header.last.eq(1),
        header.kind.eq(Mux(wrong | event.negative, FrameKind.NAK, FrameKind.ACK)),
        header.syndrome.eq(Mux(wrong, Syndrome.MEMORY, event.syndrome)),
        header.psn.eq(event.psn - wrong), header.echo.eq(event.echo),
        completion.valid.eq(event.complete & (c.state != QpState.RESET)),
        completion.payload.opcode.eq(event.opcode), completion.payload.qp.eq(r.qp),
        completion.payload.cookie.eq(event.cookie), completion.payload.length.eq(event.length),
        completion.payload.immediate.eq(event.immediate),
        completion.payload.status.eq(Mux(~good, Status.FLUSHED,
                                         Mux(wrong, Status.MEMORY, event.status))),
        answer.valid.eq(good & (event.read_done | event.read_waits) & ~wrong),
        answer.payload.qp.eq(r.qp), answer.payload.kind.eq(Mux(
            event.read_done, AnswerKind.READ_DONE, AnswerKind.READ_GOES_ON))]
    m.next = "STORE"
    with m.If(event.fatal | wrong):
        stop(m, r)


def take_frame(m, r):
    """A frame: one that answers goes to the sending side, one with data to memory or nowhere."""
    c, frame = r.context, r.frame.payload
    answer, place = r.out["answer"].i, r.out["place"].i
    command, event = place.payload, place.payload.event
    known = ((frame.qp < r.qps) & (c.state == QpState.READY) & ~c.closing
             & (frame.source == c.peer_mac) & (frame.source_qp == c.peer_qp))
    nak = frame.kind == FrameKind.NAK
    replies = nak | (frame.kind == FrameKind.ACK)
    apart = (frame.psn - c.psn)[:PSN_BITS]
    m.d.comb += [
        answer.valid.eq(known & replies), answer.payload.qp.eq(r.qp),
        answer.payload.kind.eq(Mux(nak, AnswerKind.NAK, AnswerKind.ACK)),
        answer.payload.psn.eq(frame.psn), answer.payload.syndrome.eq(frame.syndrome),
        answer.payload.echo.eq(frame.echo),
        # What has no payload, and of which nothing follows, leaves no trace.
        place.valid.eq((frame.length != 0) | known & ~replies),
        command.count.eq(frame.length), event.qp.eq(r.qp), command.drop.eq(1),
        event.psn.eq(c.psn), event.echo.eq(frame.mark != 0)]
    m.next = "STORE"
    with m.If(known & ~replies & (apart == 0)):
        _take_next(m, r, command, event)
    with m.Elif(~replies):
        m.d.sync += r.dropped.eq(r.dropped + 1)
        with m.If(known & apart[-1]):       # it came before
            m.d.comb += event.reply.eq(1)
        with m.Elif(known):
            m.d.comb += [event.reply.eq(~c.asked), event.negative.eq(1),
                         event.syndrome.eq(Syndrome.SEQUENCE)]
            m.d.sync += c.asked.eq(1)


def _take_next(m, r, command, event):
    """The frame that is expected: taken, or refused for good, or for now."""
    c, frame, entry = r.context, r.frame.payload, r.entry
    kinds = {kind: frame.kind == kind for kind in FrameKind}
    sends, reads = kinds[FrameKind.SEND], kinds[FrameKind.READ_REQUEST]
    writes = kinds[FrameKind.WRITE] | kinds[FrameKind.WRITE_IMM]
    takes = sends | kinds[FrameKind.WRITE_IMM]
    answers = kinds[FrameKind.READ_RESPONSE]
    posted = c.head != c.tail
    address, left, syndrome = Signal(ADDRESS_BITS), Signal(32), Signal(Syndrome)
    good, taken = Signal(), Signal()
    m.d.comb += [
        address.eq(Mux(~frame.first, c.address, Mux(
            sends, entry.address, Mux(answers, r.read.address, frame.address)))),
        left.eq(Mux(frame.first, frame.total, c.left))]
    formed = ((sends | writes | reads | answers) & (frame.first != c.inside)
              & (frame.first | (frame.kind == c.kind)) & (frame.total < LONGEST)
              & (frame.last == (reads | (left <= MTU_BYTES)))
              & (frame.length == Mux(reads, 0, Mux(frame.last, left, MTU_BYTES))))
    allowed = allows(m, r.region, key=frame.key, domain=c.domain, address=frame.address,
                     length=frame.total) & Mux(reads, r.region.remote_read, r.region.remote_write)
    with m.If(~formed | answers & frame.first & (
            (c.read_head == c.read_tail) | (frame.total != r.read.length))):
        m.d.comb += syndrome.eq(Syndrome.FIELD)
    with m.Elif((writes | reads) & frame.first & ~allowed & (frame.total != 0)):
        m.d.comb += syndrome.eq(Syndrome.PROTECTION)
    with m.Elif(takes & frame.first & ~posted):
        m.d.comb += syndrome.eq(Syndrome.NOT_READY)
    with m.Elif(sends & frame.first & (frame.total > entry.length)):
        m.d.comb += syndrome.eq(Syndrome.LENGTH)
    with m.Else():
        m.d.comb += good.eq(1)
    late, long = syndrome == Syndrome.NOT_READY, syndrome == Syndrome.LENGTH
    m.d.comb += [
        taken.eq(good), command.drop.eq(~taken), command.address.eq(address),
        event.reply.eq(frame.ask | event.echo | ~good), event.negative.eq(~good),
        event.syndrome.eq(syndrome), event.psn.eq(c.psn + good),
        event.complete.eq(good & frame.last & takes | long),
        event.status.eq(Mux(long, Status.LENGTH, Status.OK)), event.cookie.eq(entry.cookie),
        event.opcode.eq(Mux(sends, Opcode.RECV, Opcode.RECV_IMM)),
        event.length.eq(frame.total), event.immediate.eq(Mux(sends, 0, frame.immediate)),
        event.read_done.eq(good & frame.last & answers),
        event.read_waits.eq(good & (c.read_head != c.read_tail)), event.fatal.eq(~good & ~late)]
    m.d.sync += c.asked.eq(late)
    with m.If(good):
        m.d.sync += [c.psn.eq(c.psn + 1), c.inside.eq(~frame.last), c.kind.eq(frame.kind),
                     c.address.eq(address + frame.length), c.left.eq(left - frame.length)]
        with m.If(answers & frame.last):
            m.d.sync += c.read_head.eq(c.read_head + 1)
    with m.Elif(~late):
        m.d.sync += c.closing.eq(1)
    with m.If(event.complete):
        m.d.sync += c.head.eq(c.head + 1)
    _respond(m, r, good & reads)


def _respond(m, r, valid):
    """A READ of the peer becomes a request of the sending side."""
    frame, respond = r.frame.payload, r.out["respond"].i
    work = respond.payload.work
    m.d.comb += [
        respond.valid.eq(valid), respond.payload.qp.eq(r.qp), respond.payload.own.eq(1),
        work.opcode.eq(Opcode.READ_RESPONSE), work.length.eq(frame.total),
        work.local.eq(frame.address)]
