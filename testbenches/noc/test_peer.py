"""Tests of rtl/noc/peer.py: the cocotb tests, then the pytest function that runs them.

The test plays the mesh on one side and, on the other, the link and the far die behind it.
"""
import os
import random

import cocotb
from cocotb.triggers import RisingEdge

from rtl.link import interfaces as link
from rtl.link.interfaces import SlotKind
from rtl.noc.packets import (
    MeshLayout,
    Node,
    node_layout,
    request_packet_layout,
    response_packet_layout,
)
from rtl.noc.peer import PeerBridge, peer_counters_layout
from rtl.pe import interfaces as pe
from rtl.pe.interfaces import AccessError
from testbenches import sim
from testbenches.noc.traffic import Sink, Source
from testbenches.twins import Twins

LAYOUT = MeshLayout.standard(2, 2)
CAPACITY, TAGS, PATIENCE = 6, 8, 60
SOURCES = [Node(0, 0), Node(1, 2), Node(3, 1, "SOUTH")]
KIND_BITS = SlotKind.as_shape().width


def bits(layout, **fields):
    return layout.const(fields).as_value().value


def slot(kind, layout=None, **fields):
    return kind.value | (bits(layout, **fields) << KIND_BITS if layout else 0)


def expected_answer(request):
    """What the far die says to a request: its error if its address says so, else data."""
    error = AccessError(request["address"] >> 44 & 3)
    if error == AccessError.LINK_DOWN:
        error = AccessError.NONE
    data = 0 if request["write"] or error != AccessError.NONE else request["address"] * 0x10001
    return {"write": request["write"], "error": error, "data": data}


class Bench:
    """Both sides of a bridge; ``capacity`` bounds what is on its way, as the chiplet does."""

    def __init__(self, dut, *, rate=1.0):
        self.dut = dut
        self.ask = Source(dut, "i_packets", rate=rate)
        self.told = Sink(dut, "o_packets", rate=rate)
        self.mesh = Sink(dut, "request", rate=rate)
        self.memory = Source(dut, "response", rate=rate)
        self.out = Sink(dut, "link__o_request", rate=rate)
        self.back = Source(dut, "link__i_response", rate=rate)
        self.come = Source(dut, "link__i_request", rate=rate)
        self.answered = Sink(dut, "link__o_response", rate=rate)
        self.requests = []                  # to be asked: (source, fields)
        self.waiting = {}                   # (source, tag): fields
        self.inside = 0                     # requests taken and not sent
        self.sent, self.answers, self.pings, self.inward, self.replies = [], [], 0, [], []
        self.faults = 0
        self.willing, self.down = True, False       # the far die answers; the link is down
        dut.down.value = 0

    async def step(self):
        await RisingEdge(self.dut.clk)
        self.faults += int(self.dut.fault.value)
        if self.ask.offered is not None:
            assert self.ask.ready.value, "a request for another die was not taken at once"
        self.inside += self.ask.edge()
        for source in (self.memory, self.back, self.come):
            if source is self.back and source.offered is not None:
                assert source.ready.value, "an answer of the link was not taken at once"
            source.edge()
        if (payload := self.out.edge()) is not None:
            self._sent(link.slot_layout().from_bits(payload))
        if (payload := self.told.edge()) is not None:
            self._told(response_packet_layout(LAYOUT).from_bits(payload))
        if (payload := self.mesh.edge()) is not None:
            self.inward.append(pe.request_layout().from_bits(payload))
        if (payload := self.answered.edge()) is not None:
            self.replies.append(link.slot_layout().from_bits(payload))
        on_their_way = self.inside + len(self.ask.queue) + (self.ask.offered is not None)
        if self.down:       # requests leave the queue unseen
            on_their_way = len(self.waiting)
        if self.requests and on_their_way < CAPACITY:
            self._ask(*self.requests.pop(0))
        if self.willing and self.sent and random.random() < self.back.rate:
            self.answer(self.sent.pop(random.randrange(len(self.sent))))

    def _ask(self, source, request):
        key = SOURCES.index(source), request["tag"]
        assert key not in self.waiting
        self.waiting[key] = request
        self.ask.queue.append(bits(request_packet_layout(LAYOUT), source=source.const(),
                                   body=request))

    def _sent(self, message):
        if message.kind == SlotKind.PING:
            self.pings += 1
            return
        self.inside -= 1
        body = message.body.write
        write = message.kind == SlotKind.WRITE
        assert write or message.kind == SlotKind.READ
        assert body.tag not in [tag for tag, _ in self.sent] and body.tag < TAGS
        request = {"address": body.address, "write": int(write), "data": body.data,
                   "mask": body.mask}
        assert any(all(asked[name] == value for name, value in request.items()
                       if write or name in ("address", "write"))
                   for asked in self.waiting.values()), "nobody asked for that"
        self.sent.append((body.tag, request))

    def answer(self, sent):
        tag, request = sent
        self.back.queue.append(slot(SlotKind.RESPONSE, link.response_layout(), tag=tag,
                                    **expected_answer(request)))

    def _told(self, packet):
        node = bits(node_layout(), place={"row": packet.target.place.row,
                                          "column": packet.target.place.column},
                    port=packet.target.port)
        source = next(i for i, s in enumerate(SOURCES) if s.const().as_value().value == node)
        request = self.waiting.pop((source, packet.body.tag))
        assert packet.far == 1
        self.answers.append((request, packet.body))

    def count(self, name):
        return peer_counters_layout().from_bits(int(self.dut.counters.value))[name]

    async def until(self, condition, limit=3000):
        for _ in range(limit):
            if condition():
                return
            await self.step()
        raise AssertionError("no progress")


def random_requests(count):
    """Requests of all sources; tags of a source are used again after a while only."""
    return [(SOURCES[n % 3], {
        "address": random.getrandbits(48), "tag": n // 3 % 256, "write": random.getrandbits(1),
        "data": random.getrandbits(512), "mask": random.getrandbits(64)}) for n in range(count)]


async def start(dut, **options):
    bench = Bench(dut, **options)
    await sim.reset(dut)
    return bench


def check(answers):
    for request, body in answers:
        wanted = expected_answer(request)
        assert (body.write, body.error, body.data) == (
            wanted["write"], wanted["error"], wanted["data"])


@cocotb.test()
@cocotb.parametrize(rate=[0.3, 0.8, 1.0])
async def every_request_is_answered_once_to_who_asked(dut, rate):
    """Both directions at once; the far die answers in any order, some with errors."""
    bench = await start(dut, rate=rate)
    count = int(os.environ["REQUESTS"])
    bench.requests = random_requests(count)
    inward = [(n % 256, random.getrandbits(48), random.getrandbits(1), random.getrandbits(512),
               random.getrandbits(64)) for n in range(count)]
    for tag, address, write, data, mask in inward:
        bench.come.queue.append(slot(
            SlotKind.WRITE if write else SlotKind.READ, link.write_layout(), address=address,
            tag=tag, data=data if write else 0, mask=mask if write else 0))
    replies = []

    def serve():
        for n in range(len(replies), len(bench.inward)):
            access = bench.inward[n]
            tag, address, write, data, mask = inward[n]
            assert (access.tag, access.address, access.write) == (tag, address, write)
            if write:
                assert (access.data, access.mask) == (data, mask)
            error = AccessError(random.randrange(3))
            replies.append((tag, write, error, random.getrandbits(512)))
            bench.memory.queue.append(bits(pe.response_layout(), tag=tag, write=write, error=error,
                                           data=replies[-1][3]))
        return len(bench.answers) == len(bench.replies) == count
    await bench.until(serve, limit=40 * count)
    check(bench.answers)
    for message, (tag, write, error, data) in zip(bench.replies, replies, strict=True):
        body = message.body.response
        assert message.kind == SlotKind.RESPONSE
        assert (body.tag, body.write, body.error) == (tag, write, error)
        assert body.data == (0 if write or error != AccessError.NONE else data)
    assert bench.count("requests_out") == bench.count("requests_in") == count
    assert not bench.faults and not bench.count("refused")


@cocotb.test()
async def tags_run_out_and_come_back(dut):
    """The far die is silent: as many requests go as there are tags, and each answer lets one go."""
    bench = await start(dut)
    bench.willing, bench.requests = False, random_requests(TAGS + CAPACITY + 5)
    await bench.until(lambda: len(bench.sent) == TAGS)
    for _ in range(30):
        await bench.step()
    assert len(bench.sent) == TAGS and bench.inside == CAPACITY     # which took them all
    stalls = bench.count("tag_stalls")
    assert stalls >= 25
    oldest, *others = bench.sent
    bench.sent = []
    for n, one in enumerate(others):        # tags go out in turn: the oldest is awaited
        bench.answer(one)
        await bench.until(lambda n=n: len(bench.answers) == n + 1)
    assert not bench.sent
    bench.answer(oldest)
    await bench.until(lambda: len(bench.sent) == TAGS)
    bench.willing = True
    await bench.until(lambda: len(bench.answers) == TAGS + CAPACITY + 5)
    check(bench.answers)


@cocotb.test()
@cocotb.parametrize(blocked=["told", "mesh", "answered", "out"])
async def nobody_who_waits_holds_up_what_must_be_taken(dut, blocked):
    """Answers of the link and requests of this die are taken, whoever does not move."""
    bench = await start(dut)
    bench.requests = random_requests(3)
    await bench.until(lambda: len(bench.answers) == 3)
    sink = getattr(bench, blocked)
    sink.rate = 0
    await bench.step()
    bench.requests = random_requests(TAGS + CAPACITY)
    for n in range(20):
        bench.come.queue.append(slot(SlotKind.READ, link.read_layout(), address=n, tag=n))
        bench.memory.queue.append(bits(pe.response_layout(), tag=n))
    for _ in range(100):    # step() checks that both are taken at once
        await bench.step()
    if blocked == "told":
        assert len(bench.answers) <= 4 and not bench.back.queue and bench.back.offered is None
        assert bench.inside == CAPACITY
    else:
        assert len(bench.answers) == 3 + (0 if blocked == "out" else TAGS + CAPACITY)
    assert (len(bench.inward) == 20) == (blocked != "mesh")
    assert (len(bench.replies) == 20) == (blocked != "answered")
    if blocked == "out":
        assert bench.count("link_stalls") >= 90
    sink.rate = 1
    await bench.until(lambda: len(bench.answers) == 3 + TAGS + CAPACITY
                      and len(bench.inward) == len(bench.replies) == 20)
    check(bench.answers)


@cocotb.test()
@cocotb.parametrize(rate=[0.4, 1.0])
async def a_link_that_goes_down_leaves_no_request_unanswered(dut, rate):
    """Answers that came before count, all others are LINK_DOWN; so are later requests."""
    bench = await start(dut, rate=rate)
    bench.willing, bench.requests = False, random_requests(30)
    bench.told.rate = 0         # answers that came wait in the bridge
    await bench.until(lambda: len(bench.sent) == TAGS)
    early = {bench.sent[n][0]: bench.sent[n][1] for n in (1, 3)}
    for item in early.items():
        bench.answer(item)
    await bench.until(lambda: not bench.back.queue and bench.back.offered is None)
    late = next(item for item in bench.sent if item[0] not in early)
    # What the link holds is dropped: requests that stand there, and later answers.
    bench.out.willing, bench.out.rate, bench.out.stalled = False, 0, None
    dut.link__o_request__ready.value, dut.down.value = 0, 1
    bench.down, bench.answered.rate = True, 0
    await bench.step()
    bench.answer(late)
    for n in range(5):
        bench.memory.queue.append(bits(pe.response_layout(), tag=n))
    bench.told.rate = rate
    asked = len(bench.waiting) + len(bench.requests)
    await bench.until(lambda: len(bench.answers) == asked)
    for _ in range(100):
        await bench.step()
    assert len(bench.answers) == asked and not bench.waiting
    good = [(request, body) for request, body in bench.answers if body.error !=
            AccessError.LINK_DOWN]
    check(good)
    assert {request["address"] for request, _ in good} == {
        request["address"] for request in early.values()}
    for request, body in bench.answers:
        assert body.write == request["write"]
        if body.error == AccessError.LINK_DOWN:
            assert body.data == 0
    assert bench.count("refused") == asked - 2 and not bench.faults
    assert not bench.memory.queue and bench.memory.offered is None and not bench.replies
    assert not dut.awake.value and not dut.link__o_request__valid.value


@cocotb.test()
async def a_ping_is_sent_when_nothing_comes_for_long(dut):
    bench = await start(dut)
    for _ in range(3 * PATIENCE):
        await bench.step()
    assert bench.pings == 0         # nothing is awaited
    bench.willing, bench.requests = False, random_requests(2)
    await bench.until(lambda: len(bench.sent) == 2)
    for _ in range(PATIENCE - 5):
        await bench.step()
    assert bench.pings == 0
    for _ in range(10):
        await bench.step()
    assert bench.pings == 1
    for _ in range(3 * PATIENCE):
        await bench.step()
    assert bench.pings == 4
    bench.out.rate = 0
    for _ in range(2 * PATIENCE):
        await bench.step()
    bench.requests = random_requests(9)[6:]     # they wait behind the ping
    for _ in range(5):
        await bench.step()
    bench.out.rate, bench.willing = 1, True
    await bench.until(lambda: len(bench.answers) == 5)
    check(bench.answers)
    assert bench.pings == 5 and bench.count("requests_out") == 5
    for _ in range(2 * PATIENCE):
        await bench.step()
    assert bench.pings == 5 and not dut.awake.value


@cocotb.test()
async def useless_messages_are_dropped_and_told(dut):
    bench = await start(dut)
    bench.come.queue += [slot(SlotKind.PING), slot(SlotKind.LAUNCH), slot(SlotKind.ABORT),
                         slot(SlotKind.READ, link.read_layout(), address=77, tag=3)]
    await bench.until(lambda: bench.inward)
    assert bench.faults == 2 and len(bench.inward) == 1 and bench.inward[0].address == 77
    bench.willing, bench.requests = False, random_requests(1)
    await bench.until(lambda: bench.sent)
    (tag, request), = bench.sent
    bench.back.queue.append(slot(SlotKind.COMPLETION))
    bench.answer(((tag + 1) % TAGS, request))       # nobody awaits it
    bench.answer((tag + TAGS, request))             # no such tag
    for _ in range(10):
        await bench.step()
    assert bench.faults == 5 and not bench.answers
    bench.answer((tag, request))
    bench.answer((tag, request))                    # again
    for _ in range(10):
        await bench.step()
    assert bench.faults == 6 and len(bench.answers) == 1
    check(bench.answers)


@cocotb.test()
async def one_message_a_cycle_goes_each_way(dut):
    bench = await start(dut)
    bench.requests = random_requests(300)
    for n in range(300):
        bench.come.queue.append(slot(SlotKind.READ, link.read_layout(), address=n, tag=n & 255))
        bench.memory.queue.append(bits(pe.response_layout(), tag=n & 255))
    for _ in range(220):
        await bench.step()
    # The answers' way through this test takes 8 tags longer than they last.
    assert len(bench.inward) > 210 and len(bench.replies) > 210 and len(bench.answers) > 100


@cocotb.test()
async def clock_stops_between_messages_and_starts_in_time(dut):
    """Few messages after pauses of every length; :class:`Twins` compares with a free clock."""
    bench, stopped, asked = await start(dut), 0, 0
    for _ in range(60):
        few = random.randrange(4)
        asked += few
        bench.requests += random_requests(few)
        if random.getrandbits(1):
            bench.come.queue.append(slot(SlotKind.READ, link.read_layout(), tag=9))
        bench.back.rate = random.choice([0.1, 1])
        await bench.until(lambda asked=asked: len(bench.answers) == asked)
        for _ in range(random.randrange(30)):
            await bench.step()
        stopped += not dut.awake.value
    assert stopped > 20
    check(bench.answers)


@sim.on_simulators
def test_peer(tmp_path, simulator):
    sim.run(Twins(lambda: PeerBridge(LAYOUT, capacity=CAPACITY, tags=TAGS,
                                     patience_cycles=PATIENCE)),
            test_module=__name__, build_dir=tmp_path, simulator=simulator,
            env={"REQUESTS": "150" if simulator == "icarus" else "400"})
