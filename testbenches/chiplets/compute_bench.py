"""Both ends of the link of a compute chiplet without PEs, the test's PEs and pseudo-channels."""
import random

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped
from cocotb.triggers import RisingEdge

from chiplets.compute import ComputeBase
from chiplets.packages import ComputeParameters
from rtl.control.block import configuration_layout
from rtl.link import interfaces as link
from rtl.link.interfaces import LinkPort, SlotKind
from rtl.link.link import D2dLink
from rtl.memory.interfaces import channel_request_layout, channel_response_layout
from rtl.memory.tile import name_layout
from rtl.pe import interfaces as pe
from testbenches import sim
from testbenches.noc.traffic import Sink, Source

PARAMETERS = ComputeParameters(rows=1, columns=2, bank_lines=32, hbm_tiles=1, tile_channels=3,
                               hbm_rows=2, link_latency_cycles=2)
DIE, PES, BUILT, LINES, CHANNELS = 3, 2, 4, 64, 3
OPEN = configuration_layout().const({"open": 1}).as_value().value
NAME_BITS = name_layout(PARAMETERS.layout).size
REQUEST = channel_request_layout(name_bits=NAME_BITS)
ANSWER = channel_response_layout(name_bits=NAME_BITS)


class Pair(wiring.Component):
    """The base, and the far end of its link."""

    def __init__(self):
        self.base = ComputeBase(PARAMETERS)
        members = {name: member for name, member in self.base.signature.members.items()
                   if name != "link"}
        super().__init__(members | {"far": In(LinkPort())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.base = base = self.base
        m.submodules.link = far = D2dLink(latency_cycles=PARAMETERS.link_latency_cycles)
        for name, (kind, one) in {"a": (base.link, far.phits), "b": (far.phits, base.link)}.items():
            valid, line = Signal(name=f"valid_{name}"), Signal(512, name=f"data_{name}")
            m.d.sync += [valid.eq(kind.tx_valid), line.eq(kind.tx_data)]
            m.d.comb += [one.rx_valid.eq(valid), one.rx_data.eq(line)]
        connect(m, flipped(self.far), far.port)
        for i in range(BUILT):
            connect(m, flipped(getattr(self, f"pe{i}")), getattr(base, f"pe{i}"))
        for i in range(CHANNELS):
            connect(m, getattr(base, f"hbm{i}"), flipped(getattr(self, f"hbm{i}")))
        m.d.comb += [base.die.eq(self.die), self.states.eq(base.states)]
        return m


def address(region, offset, die=DIE):
    return die << 44 | region << 40 | offset


def bits(layout, **fields):
    return layout.const(fields).as_value().value


class PortOfPe:
    """The test's side of a PE's port: queues of what to send, lists of what came."""

    def __init__(self, dut, number):
        name = f"pe{number}"
        self.request = Source(dut, f"{name}__request", rate=0.7)
        self.response = Sink(dut, f"{name}__response", rate=0.7)
        self.access = Sink(dut, f"{name}__access", rate=0.5)
        self.access_response = Source(dut, f"{name}__access_response", rate=0.5)
        self.launch, self.report = Sink(dut, f"{name}__launch"), Source(dut, f"{name}__report")
        self.ring_out = Source(dut, f"{name}__ring_out", rate=0.7)
        self.ring_in = Sink(dut, f"{name}__ring_in", rate=0.7)
        self.responses, self.accesses, self.launches, self.ring = [], [], [], []
        for pin in ("arrive", "idle", "states"):
            getattr(dut, f"{name}__{pin}").value = 0

    def edge(self):
        for sink, layout, got in ((self.response, pe.response_layout(), self.responses),
                                  (self.access, pe.request_layout(), self.accesses),
                                  (self.launch, pe.launch_layout(), self.launches)):
            if (payload := sink.edge()) is not None:
                got.append(layout.from_bits(payload))
        if (payload := self.ring_in.edge()) is not None:
            self.ring.append(payload)
        for source in (self.request, self.access_response, self.report, self.ring_out):
            source.edge()

    def ask(self, place, *, tag, data=None, mask=(1 << 64) - 1):
        self.request.queue.append(bits(
            pe.request_layout(), address=place, tag=tag, write=data is not None, data=data or 0,
            mask=mask))


class Channel:
    """A pseudo-channel: answers in random order, after some time."""

    def __init__(self, dut, name):
        self.request = Sink(dut, f"{name}__request", rate=0.7)
        self.response = Source(dut, f"{name}__response", rate=0.7)
        self.lines, self.waiting, self.seen = {}, [], []
        self.registers = random.getrandbits(512)

    def edge(self):
        if (payload := self.request.edge()) is not None:
            request = REQUEST.from_bits(payload)
            assert not request.poison
            if request.registers:
                assert not request.write and not request.line
                self.waiting.append(bits(ANSWER, name=request.name, data=self.registers))
                return self._answer()
            self.seen.append(request.line)
            if request.write:
                assert request.mask == (1 << 64) - 1
                self.lines[request.line] = request.data
            self.waiting.append(bits(ANSWER, name=request.name, write=request.write,
                                     data=self.lines.get(request.line, 0)))
        return self._answer()

    def _answer(self):
        self.response.edge()
        if self.waiting and random.random() < 0.3:
            self.response.queue.append(self.waiting.pop(random.randrange(len(self.waiting))))


class Bench:
    def __init__(self, dut):
        self.dut = dut
        self.units = [PortOfPe(dut, i) for i in range(BUILT)]
        self.pes = self.units[:PES]
        self.channels = [Channel(dut, f"hbm{i}") for i in range(CHANNELS)]
        self.send = Source(dut, "far__o_request")
        self.other = Source(dut, "far__o_response")
        self.unused, self.back = Sink(dut, "far__i_request"), Sink(dut, "far__i_response")
        self.responses, self.completions = [], []
        dut.die.value = DIE

    async def step(self):
        await RisingEdge(self.dut.clk)
        for port in (*self.units, *self.channels):
            port.edge()
        for agent in (self.send, self.other):
            agent.edge()
        assert self.unused.edge() is None
        if (payload := self.back.edge()) is not None:
            slot = link.slot_layout().from_bits(payload)
            if slot.kind == SlotKind.RESPONSE:
                self.responses.append(slot.body.response)
            else:
                assert slot.kind == SlotKind.COMPLETION
                self.completions.append(slot.body.completion)

    async def until(self, condition, limit=1500):
        for _ in range(limit):
            if condition():
                return
            await self.step()
        raise AssertionError("no progress")

    def slot(self, kind, body, layout, **fields):
        whole = link.slot_layout().const({"kind": kind}).as_value().value
        self.send.queue.append(whole | bits(layout, **fields) << SlotKind.as_shape().width)

    def write(self, place, data, *, tag=0, mask=(1 << 64) - 1):
        self.slot(SlotKind.WRITE, "write", link.write_layout(), address=place, data=data, tag=tag,
                  mask=mask)

    def read(self, place, *, tag=0):
        self.slot(SlotKind.READ, "read", link.read_layout(), address=place, tag=tag)

    async def host_reads(self, place):
        assert not self.responses
        self.read(place)
        await self.until(lambda: self.responses)
        return self.responses.pop()


async def start(dut, *, opened=True):
    bench = Bench(dut)
    await sim.reset(dut)
    if opened:
        bench.write(address(3, 7 * 64), OPEN, mask=0xFFFF)
        await bench.until(lambda: bench.responses)
        assert bench.responses.pop().error == pe.AccessError.NONE
    return bench
