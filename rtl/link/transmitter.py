"""Sending side of a die-to-die link."""
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .flit import PHITS, ROUND_BITS, SLOTS, acknowledgement_layout
from .framer import FlitFramer
from .interfaces import PHIT_BITS, SLOT_BITS, slot_layout


class LinkState(enum.Enum, shape=2):
    """What a link is doing."""

    ACTIVE = 0  # sends new flits as they come
    REPLAY = 1  # sends again what was not acknowledged
    DOWN = 2    # gave up: nothing was acknowledged through all the tries; until reset


class LinkTransmitter(wiring.Component):
    """Packs slots into flits as they come, and repeats flits until they are acknowledged.

    A flit starts when a slot may go (credit of its class in hand, retry buffer not full), or
    when the receiver has something to tell; slots that come while it is being sent still join it.
    Classes take turns. With nothing to send ``tx_valid`` is low.

    Latency is 2 cycles from slot to first phit, throughput 3 slots in 4 cycles. A go-back costs a
    pause of 2 cycles. ``timeout_cycles`` without progress start a go-back, or a poll if only
    credits are missing; after ``tries`` of them in a row the state is DOWN.

    Parameters
    ----------
    sequence_bits : int
        Width of sequence numbers [bit].
    credits : int
        Depth of each of the far slot buffers [slot].
    retry_flits : int
        Depth of the retry buffer [flit], a power of two.
    timeout_cycles : int
        Patience before a go-back without being asked [cycle].
    tries : int
        Time-outs in a row that bring the link down.

    Members
    -------
    request, response : In(stream.Signature(slot_layout()))
        Slots by class.
    tx_valid, tx_data : Out(1), Out(512)
        Phits.
    heard, tell, pending, told
        See :class:`LinkReceiver`, with the other direction.
    state : Out(LinkState)
        What the link is doing.
    active : Out(1)
        A function of registers. While it is low, and ``pending`` and ``heard.valid`` too, nothing
        changes until a slot comes.
    replays, timeouts, sent : Out(32)
        Counts of go-backs, of time-outs, and of sequenced flits without their repetitions.
    """

    def __init__(self, *, sequence_bits, credits, retry_flits, timeout_cycles, tries):
        self.sequence_bits = sequence_bits
        self.credits = credits
        self.retry_flits = retry_flits
        self.timeout_cycles = timeout_cycles
        self.tries = tries
        slots = stream.Signature(slot_layout())
        heard = {"valid": 1, "acknowledgement": acknowledgement_layout()}
        super().__init__({
            "tx_valid": Out(1), "tx_data": Out(PHIT_BITS), "request": In(slots),
            "response": In(slots), "heard": In(data.StructLayout(heard)),
            "tell": In(acknowledgement_layout()), "pending": In(1), "told": Out(1),
            "state": Out(LinkState), "active": Out(1), "replays": Out(32), "timeouts": Out(32),
            "sent": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.framer = framer = FlitFramer()
        phase = Signal(range(PHITS))
        repeat, control = Signal(), Signal()        # kind of the flit under way
        base, following = Signal(self.sequence_bits), Signal(self.sequence_bits)
        resend, number = Signal(self.sequence_bits), Signal(self.sequence_bits)
        round_ = Signal(ROUND_BITS)
        replaying, fetched = Signal(), Signal()
        idle = phase == 0

        outstanding, remaining = Signal(self.sequence_bits), Signal(self.sequence_bits)
        m.d.comb += [outstanding.eq(following - base), remaining.eq(following - resend)]
        may_request, may_respond = self._credits(m)
        may_send = may_request | may_respond
        starved = (self.request.valid | self.response.valid) & ~may_send
        rewind, poll, down, timing = self._watch(
            m, base=base, outstanding=outstanding, starved=starved, replaying=replaying, idle=idle)

        start_repeat = replaying & fetched
        start_new = ~replaying & may_send & (outstanding < self.retry_flits)
        start_control = ~replaying & (self.pending | poll)
        start, active, packing = Signal(), Signal(), Signal()
        m.d.comb += [
            start.eq(idle & ~rewind & ~down & (start_repeat | start_new | start_control)),
            active.eq(start | ~idle),
            packing.eq(Mux(idle, start & start_new, ~repeat & ~control & (phase != SLOTS)))]
        with m.If(start):
            m.d.sync += [repeat.eq(start_repeat), control.eq(~start_repeat & ~start_new)]
        with m.If(active):
            m.d.sync += phase.eq(phase + 1)

        # Numbers move on with the last slot; the trailer that follows has this flit's.
        with m.If(phase == SLOTS - 1):
            m.d.sync += number.eq(Mux(repeat, resend, following))
            with m.If(repeat):
                m.d.sync += [resend.eq(resend + 1), replaying.eq(remaining != 1)]
            with m.Elif(~control):
                m.d.sync += [following.eq(following + 1), self.sent.eq(self.sent + 1)]
        with m.If(idle):
            m.d.sync += fetched.eq(replaying)
        with m.If(idle & rewind):  # nothing is sent in this cycle: the pause that frames anew
            m.d.sync += [resend.eq(base), replaying.eq(outstanding != 0), fetched.eq(0),
                         round_.eq(round_ + 1), self.replays.eq(self.replays + 1)]
        with m.If(down):
            m.d.comb += self.state.eq(LinkState.DOWN)
        with m.Elif(replaying):
            m.d.comb += self.state.eq(LinkState.REPLAY)

        m.d.comb += self.active.eq(Cat(
            framer.busy, ~idle, outstanding != 0, replaying, fetched, rewind, poll, timing).any())
        repeated = Mux(idle, start_repeat, repeat)
        self._pack(m, framer, packing=packing, may_request=may_request, may_respond=may_respond,
                   repeated=repeated, phase=phase, active=active, resend=resend,
                   following=following)
        m.d.comb += [
            framer.active.eq(active), framer.phase.eq(phase),
            framer.trailer.sequence.eq(number), framer.trailer.ack.eq(self.tell.ack),
            framer.trailer.requests.eq(self.tell.requests),
            framer.trailer.responses.eq(self.tell.responses),
            framer.trailer.sequenced.eq(~control), framer.trailer.nak.eq(self.tell.nak),
            framer.trailer.poll.eq(poll), framer.trailer.round.eq(round_),
            self.told.eq(phase == PHITS - 1),
            self.tx_valid.eq(framer.tx_valid), self.tx_data.eq(framer.tx_data)]
        return m

    def _credits(self, m):
        """Whether a request and a response stand there and have a free slot at the far end."""
        may = []
        for port, total in ((self.request, self.heard.acknowledgement.requests),
                            (self.response, self.heard.acknowledgement.responses)):
            spent, seen = Signal(range(self.credits + 1)), Signal(self.sequence_bits)
            freed = Signal(self.sequence_bits)
            m.d.comb += freed.eq(total - seen)
            news = self.heard.valid & (freed <= spent)  # else it is older than what was seen
            with m.If(news):
                m.d.sync += seen.eq(seen + freed)
            m.d.sync += spent.eq(spent + (port.valid & port.ready) - Mux(news, freed, 0))
            may.append(port.valid & (spent != self.credits))
        return may

    def _watch(self, m, *, base, outstanding, starved, replaying, idle):
        """Take acknowledgements and keep the time: what is wanted of the next flit.

        Gives ``rewind``, ``poll``, ``down``, and whether the timer runs.
        """
        rewind, poll = Signal(), Signal()
        timer, tried = Signal(range(self.timeout_cycles + 1)), Signal(range(self.tries + 1))
        down = Signal()
        acked = Signal(self.sequence_bits)
        m.d.comb += acked.eq(self.heard.acknowledgement.ack - base)
        current = self.heard.valid & (acked <= outstanding)  # else it is a late one
        waiting = (outstanding != 0) & ~replaying | starved & idle
        expired = timer == self.timeout_cycles

        with m.If(self.told):
            m.d.sync += poll.eq(0)
        with m.If(idle):
            m.d.sync += rewind.eq(0)
        m.d.sync += timer.eq(Mux(waiting & ~rewind & ~expired, timer + 1, 0))
        with m.If(expired):
            m.d.sync += [self.timeouts.eq(self.timeouts + 1), rewind.eq(outstanding != 0),
                         poll.eq(outstanding == 0), tried.eq(tried + 1)]
            with m.If(tried == self.tries - 1):
                m.d.sync += down.eq(1)
        with m.If(current):
            m.d.sync += base.eq(base + acked)
            with m.If(acked != 0):
                m.d.sync += timer.eq(0)
            with m.If(self.heard.acknowledgement.nak):
                m.d.sync += rewind.eq(1)
        with m.If(self.heard.valid & ~expired):
            m.d.sync += tried.eq(0)
        return rewind, poll, down, timer != 0

    def _pack(self, m, framer, *, packing, may_request, may_respond, repeated, phase, active,
              resend, following):
        """Choose the slot of this phase: one that comes, or one kept in the retry buffer."""
        m.submodules.retry = retry = Memory(shape=SLOT_BITS, depth=PHITS * self.retry_flits,
                                            init=[])
        write, read = retry.write_port(), retry.read_port()
        index_bits = (self.retry_flits - 1).bit_length()
        turn = Signal()     # the class whose turn it is: 1 the responses
        take_response = may_respond & (turn | ~may_request)
        take_request = may_request & ~take_response
        m.d.comb += [self.request.ready.eq(packing & take_request),
                     self.response.ready.eq(packing & take_response)]
        with m.If(packing & (take_request | take_response)):
            m.d.sync += turn.eq(take_request)

        with m.If(repeated):
            m.d.comb += framer.slot.as_value().eq(read.data)
        with m.Elif(packing & take_response):
            m.d.comb += framer.slot.eq(self.response.payload)
        with m.Elif(packing & take_request):
            m.d.comb += framer.slot.eq(self.request.payload)
        upcoming = Mux(active & (phase < SLOTS - 1), phase + 1, 0)
        m.d.comb += [
            write.en.eq(packing), write.data.eq(framer.slot),
            write.addr.eq(Cat(phase, following[:index_bits])),
            read.en.eq(1), read.addr.eq(Cat(upcoming[:2], resend[:index_bits]))]
