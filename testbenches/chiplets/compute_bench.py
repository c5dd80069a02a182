"""A compute chiplet without PEs, the far ends of its links; the test's PEs, engine, channels."""
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
                               hbm_rows=2, link_latency_cycles=2, engines=1, networks=1)
DIE, PES, BUILT, LINES, CHANNELS = 3, 2, 4, 64, 3
OPEN = configuration_layout().const({"open": 1}).as_value().value
NAME_BITS = name_layout(PARAMETERS.layout).size
REQUEST = channel_request_layout(name_bits=NAME_BITS)
ANSWER = channel_response_layout(name_bits=NAME_BITS)


class Pair(wiring.Component):
    """The base, and the far ends of its links: to the I/O chiplet, and to a network chiplet.

    Nothing gets through the latter while ``cut`` is high.
    """

    def __init__(self):
        self.base = ComputeBase(PARAMETERS)
        members = {name: member for name, member in self.base.signature.members.items()
                   if name not in ("link", "net0")}
        super().__init__(members | {"far": In(LinkPort()), "network": In(LinkPort()), "cut": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.base = base = self.base
        for name, near, port, cut in (("link", base.link, self.far, C(0)),
                                      ("net", base.net0, self.network, self.cut)):
            m.submodules[name] = far = D2dLink(latency_cycles=PARAMETERS.link_latency_cycles)
            for way, (kind, one) in {"a": (near, far.phits), "b": (far.phits, near)}.items():
                valid = Signal(name=f"{name}_valid_{way}")
                line = Signal(512, name=f"{name}_data_{way}")
                m.d.sync += [valid.eq(kind.tx_valid & ~cut), line.eq(kind.tx_data)]
                m.d.comb += [one.rx_valid.eq(valid), one.rx_data.eq(line)]
            connect(m, flipped(port), far.port)
        connect(m, flipped(self.engine), base.engine)
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


class PortOfEngine:
    """The test's side of the port of a PE or engine: queues of what to send, lists of what came."""

    def __init__(self, dut, name="engine"):
        self.request = Source(dut, f"{name}__request", rate=0.7)
        self.response = Sink(dut, f"{name}__response", rate=0.7)
        self.access = Sink(dut, f"{name}__access", rate=0.5)
        self.access_response = Source(dut, f"{name}__access_response", rate=0.5)
        self.launch, self.report = Sink(dut, f"{name}__launch"), Source(dut, f"{name}__report")
        self.responses, self.accesses, self.launches = [], [], []
        for pin in ("arrive", "idle"):
            getattr(dut, f"{name}__{pin}").value = 0

    def edge(self):
        for sink, layout, got in ((self.response, pe.response_layout(), self.responses),
                                  (self.access, pe.request_layout(), self.accesses),
                                  (self.launch, pe.launch_layout(), self.launches)):
            if (payload := sink.edge()) is not None:
                got.append(layout.from_bits(payload))
        for source in (self.request, self.access_response, self.report):
            source.edge()

    def ask(self, place, *, tag, data=None, mask=(1 << 64) - 1):
        self.request.queue.append(bits(
            pe.request_layout(), address=place, tag=tag, write=data is not None, data=data or 0,
            mask=mask))


class PortOfPe(PortOfEngine):
    """The same of a PE, which is in the reduction ring."""

    def __init__(self, dut, number):
        super().__init__(dut, f"pe{number}")
        self.ring_out = Source(dut, f"pe{number}__ring_out", rate=0.7)
        self.ring_in = Sink(dut, f"pe{number}__ring_in", rate=0.7)
        self.ring = []
        getattr(dut, f"pe{number}__states").value = 0

    def edge(self):
        super().edge()
        if (payload := self.ring_in.edge()) is not None:
            self.ring.append(payload)
        self.ring_out.edge()


class Nic:
    """A network chiplet as seen over its link: takes accesses at once, and asks for some itself."""

    def __init__(self, dut, name="network"):
        self.send = Source(dut, f"{name}__o_request", rate=0.7)
        self.back = Source(dut, f"{name}__o_response", rate=0.7)
        self.come = Sink(dut, f"{name}__i_request")
        self.told = Sink(dut, f"{name}__i_response")
        self.willing, self.waiting, self.accesses, self.responses = True, [], [], []

    def edge(self):
        for source in (self.send, self.back):
            source.edge()
        if (payload := self.come.edge()) is not None:
            slot = link.slot_layout().from_bits(payload)
            if slot.kind != SlotKind.PING:
                write = slot.kind == SlotKind.WRITE
                assert write or slot.kind == SlotKind.READ
                self.accesses.append((slot.kind, slot.body.write))
                self.waiting.append(bits(link.response_layout(), tag=slot.body.write.tag,
                                         write=write, data=0 if write else self.data(
                                             slot.body.write.address)))
        if (payload := self.told.edge()) is not None:
            self.responses.append(link.slot_layout().from_bits(payload).body.response)
        if self.willing and self.waiting:
            self.back.queue.append(SlotKind.RESPONSE.value | self.waiting.pop(
                random.randrange(len(self.waiting))) << SlotKind.as_shape().width)

    @staticmethod
    def data(place):
        return place * 0x10001

    def ask(self, place, *, tag, data=None, mask=(1 << 64) - 1):
        kind = SlotKind.READ if data is None else SlotKind.WRITE
        self.send.queue.append(kind.value | bits(
            link.write_layout(), address=place, tag=tag, data=data or 0,
            mask=0 if data is None else mask) << SlotKind.as_shape().width)


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
        self.engine, self.nic = PortOfEngine(dut), Nic(dut)
        self.channels = [Channel(dut, f"hbm{i}") for i in range(CHANNELS)]
        self.send = Source(dut, "far__o_request")
        self.other = Source(dut, "far__o_response")
        self.unused, self.back = Sink(dut, "far__i_request"), Sink(dut, "far__i_response")
        self.responses, self.completions = [], []
        dut.die.value, dut.cut.value = DIE, 0

    async def step(self):
        await RisingEdge(self.dut.clk)
        for port in (*self.units, self.engine, self.nic, *self.channels):
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
