"""A die-to-die link: messages on one side, phits on the other."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect

from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue

from .interfaces import LinkPort, PhitPort, slot_layout
from .receiver import LinkReceiver
from .transmitter import LinkState, LinkTransmitter


def link_counters_layout():
    """Counts of a link since reset: see :class:`LinkReceiver` and :class:`LinkTransmitter`."""
    return data.StructLayout({name: 32 for name in (
        "crc_errors", "duplicates", "gaps", "received", "replays", "timeouts", "sent")})


def round_trip_cycles(latency_cycles):
    """Cycles from a slot's start to the use of its credit or of its flit's acknowledgement.

    Twice the channel, and at most 28 cycles in the two ends: 2 + 4 to send the flit, 3 to check and
    unpack it, up to 4 until a flit that tells of it starts, 2 + 4 + 2 until that is heard, and
    up to 4 more until a flit starts; the rest are queues.
    """
    return 2 * latency_cycles + 28


class D2dLink(wiring.Component):
    """One end of a die-to-die link: sends and receives slots without loss, in order per class.

    Both ends must have the same parameters and leave reset before either sends. Throughput is 3
    slots in 4 cycles each way: 75 % of the wires' bytes are lines of payload, times the goodput
    ``(1 - p) / (1 - p + p W)`` of go-back-N where a share ``p`` of the flits is bad and ``W`` flits
    fit into a round trip; with the default depths a channel of ``latency_cycles`` costs nothing.
    Latency is 3 cycles from a slot to its first phit and 3 from the last phit to the first slot.
    All outputs are functions of registers. The clock of all registers stops while no slot and no
    phit comes in and nothing is under way: all is acknowledged, told and taken.

    Parameters
    ----------
    latency_cycles : int
        Latency of the channel one way, for which buffers are sized [cycle].
    credits : int
        Slots of the receive buffer of each class [slot]; default: enough for full throughput.
    retry_flits : int
        Flits that may wait for acknowledgement [flit], a power of two; default likewise.
    sequence_bits : int
        Width of sequence numbers and of credit totals [bit]. A flit that comes out of turn is
        harmless as long as fewer than ``2**sequence_bits - credits`` slots were freed meanwhile.
    timeout_cycles : int
        Patience before a repetition that nobody asked for [cycle]; default: two round trips and
        the time of a full retry buffer.
    tries : int
        Time-outs without any answer after which the link is DOWN.

    Members
    -------
    port : In(LinkPort())
        Towards the die.
    phits : Out(PhitPort())
        Pins.
    counters : Out(link_counters_layout())
        Error and traffic counts, wrapping.
    state : Out(LinkState)
        ACTIVE, REPLAY or, sticky, DOWN.
    awake : Out(1)
        The registers take the coming edge of the clock.
    """

    def __init__(self, *, latency_cycles=16, credits=None, retry_flits=None, sequence_bits=8,
                 timeout_cycles=None, tries=16):
        if not isinstance(latency_cycles, int) or latency_cycles < 1:
            raise ValueError(f"Latency must be a positive integer, not {latency_cycles!r}")
        trip = round_trip_cycles(latency_cycles)
        if credits is None:
            credits = 1 << (trip * 3 // 4).bit_length()
        if retry_flits is None:
            retry_flits = 1 << (trip // 4).bit_length()
        if timeout_cycles is None:
            timeout_cycles = 2 * trip + 4 * retry_flits
        if not isinstance(credits, int) or credits < 1:
            raise ValueError(f"Credits must be a positive integer, not {credits!r}")
        if not isinstance(retry_flits, int) or retry_flits < 1 or retry_flits & retry_flits - 1:
            raise ValueError(f"Retry depth must be a power of two, not {retry_flits!r}")
        if not isinstance(sequence_bits, int) or not (
                2 * max(credits, retry_flits) <= 1 << sequence_bits <= 1 << 16):
            raise ValueError("Sequence width must be at most 16 and number twice the credits and "
                             f"the retry depth, not {sequence_bits!r}")
        if not isinstance(timeout_cycles, int) or timeout_cycles < trip:
            raise ValueError(f"Time-out must be at least the round trip, not {timeout_cycles!r}")
        if not isinstance(tries, int) or tries < 1:
            raise ValueError(f"Tries must be a positive integer, not {tries!r}")
        self.latency_cycles = latency_cycles
        self.credits = credits
        self.retry_flits = retry_flits
        self.sequence_bits = sequence_bits
        self.timeout_cycles = timeout_cycles
        self.tries = tries
        super().__init__({"port": In(LinkPort()), "phits": Out(PhitPort()),
                          "counters": Out(link_counters_layout()), "state": Out(LinkState),
                          "awake": Out(1)})

    def elaborate(self, platform):
        m = Module()
        receiver = LinkReceiver(sequence_bits=self.sequence_bits, credits=self.credits)
        transmitter = LinkTransmitter(
            sequence_bits=self.sequence_bits, credits=self.credits, tries=self.tries,
            retry_flits=self.retry_flits, timeout_cycles=self.timeout_cycles)
        requests, responses = Queue(slot_layout()), Queue(slot_layout())
        for name, part in (("receiver", receiver), ("transmitter", transmitter),
                           ("requests", requests), ("responses", responses)):
            m.submodules[name] = DomainRenamer("work")(part)
        gated_domain(m, name="work", enable=ResetSignal("sync") | self.awake)
        m.d.comb += self.awake.eq(Cat(
            self.phits.rx_valid, requests.i.valid, responses.i.valid, requests.o.valid,
            responses.o.valid, receiver.active, transmitter.active).any())
        connect(m, wiring.flipped(self.port.o_request), requests.i)
        connect(m, wiring.flipped(self.port.o_response), responses.i)
        connect(m, requests.o, transmitter.request)
        connect(m, responses.o, transmitter.response)
        connect(m, receiver.request, wiring.flipped(self.port.i_request))
        connect(m, receiver.response, wiring.flipped(self.port.i_response))
        m.d.comb += [
            transmitter.heard.eq(receiver.heard), transmitter.tell.eq(receiver.tell),
            transmitter.pending.eq(receiver.pending), receiver.told.eq(transmitter.told),
            receiver.rx_valid.eq(self.phits.rx_valid), receiver.rx_data.eq(self.phits.rx_data),
            self.phits.tx_valid.eq(transmitter.tx_valid),
            self.phits.tx_data.eq(transmitter.tx_data), self.state.eq(transmitter.state)]
        for source in (receiver, transmitter):
            for name in self.counters.shape().members:
                if name in source.signature.members:
                    m.d.comb += self.counters[name].eq(getattr(source, name))
        return m
