"""The I/O chiplet with far ends of its links, a host and dies in Python around it."""
import random

import cocotb
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave

from chiplets.io import IoChiplet
from chiplets.registers import load
from rtl.common.place import Place
from rtl.link.interfaces import LinkPort, SlotKind, slot_layout
from rtl.link.link import D2dLink
from testbenches import sim

LINK = (("latency_cycles", 4), ("credits", 8), ("retry_flits", 4), ("sequence_bits", 4),
        ("timeout_cycles", 80), ("tries", 3))
DIES = 2
BODY = slot_layout()["body"].shape.members
COPY_IN, COPY_OUT, LAUNCH, NOP = 1, 2, 3, 4
SUBMISSIONS, COMPLETIONS, MEMORY = 0x0, 0x800, 1 << 16     # places in host memory, and its size


class IoSystem(wiring.Component):
    """The chiplet, and for each die the far end of its link behind a channel of ``delay`` cycles.

    ``cut`` takes the phits of die n off the wires, both ways.
    """

    def __init__(self, *, delay=4, link=LINK, **parameters):
        self.chiplet = IoChiplet(dies=DIES, link=link, **parameters)
        self.delay, self.link = delay, link
        pins = {name: member for name, member in self.chiplet.signature.members.items()
                if not name.startswith("link") and name != "now"}
        super().__init__(pins | {"cut": In(DIES)}
                         | {f"die{n}": In(LinkPort()) for n in range(DIES)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.io = io = self.chiplet
        m.d.sync += io.now.eq(io.now + 1)
        for name, member in self.signature.members.items():
            if hasattr(io, name):
                inner, pin = getattr(io, name), getattr(self, name)
                m.d.comb += pin.eq(inner) if member.flow is Out else inner.eq(pin)
        for n in range(DIES):
            m.submodules[f"die{n}"] = far = Place(D2dLink(**dict(self.link)))
            connect(m, flipped(getattr(self, f"die{n}")), far.port)
            for source, sink in ((getattr(io, f"link{n}"), far.phits),
                                 (far.phits, getattr(io, f"link{n}"))):
                valid, phit = source.tx_valid & ~self.cut[n], source.tx_data
                for stage in range(self.delay):
                    later = Signal(1 + len(phit), name=f"wire{n}_{stage}")
                    m.d.sync += later.eq(Cat(valid, phit))
                    valid, phit = later[0], later[1:]
                m.d.comb += [sink.rx_valid.eq(valid), sink.rx_data.eq(phit)]
        return m


def pack(kind, name, **fields):
    """A slot as an integer."""
    value = slot_layout().const({"kind": kind, "body": {name: fields}})
    return value.as_value().value


def unpack(slot):
    """Kind and fields of a slot."""
    kind = SlotKind(slot & 15)
    layout = BODY[kind.name.lower()]
    return kind, {name: slot >> 4 + field.offset & (1 << Shape.cast(field.shape).width) - 1
                  for name, field in layout}


class Die:
    """A compute die as seen over its link: memory, and launches that end when told or in time."""

    def __init__(self, dut, number, *, size=1 << 14, delay=60, pause=40):
        self.dut, self.number, self.delay, self.pause = dut, number, delay, pause
        self.memory = bytearray(random.randbytes(size))
        self.base = number << 44
        self.due = []           # [cycle, slot]
        self.errors = {}        # line address -> error
        self.launches = []      # fields of each launch
        self.aborts = []
        self.hold = False       # launches wait for a release
        self.outcome = {}       # what a completion says beside OK
        self.cycle = 0
        self.log = []           # order of events, by kind and cycle

    def pin(self, name):
        return getattr(self.dut, f"die{self.number}_port__{name}", None) or getattr(
            self.dut, f"die{self.number}__{name}")

    def take(self, slot):
        kind, fields = unpack(slot)
        self.log.append((kind.name, self.cycle))
        later = self.cycle + random.randrange(1, self.delay)
        if kind in (SlotKind.WRITE, SlotKind.READ):
            at, error = fields["address"] - self.base, self.errors.get(fields["address"], 0)
            if at % 64 or not 0 <= at < len(self.memory):
                error = 1
            line = 0
            if not error and kind == SlotKind.WRITE:
                data = fields["data"].to_bytes(64, "little")
                for n in range(64):
                    if fields["mask"] >> n & 1:
                        self.memory[at + n] = data[n]
            elif not error:
                line = int.from_bytes(self.memory[at:at + 64], "little")
            self.due.append([later, pack(
                SlotKind.RESPONSE, "response", tag=fields["tag"], error=error, data=line,
                write=int(kind == SlotKind.WRITE))])
        elif kind == SlotKind.LAUNCH:
            self.launches.append(fields)
            if not self.hold:
                self.complete(fields["id"])
        elif kind == SlotKind.ABORT:
            self.aborts.append(fields["id"])
            self.complete(fields["id"], code=7)
        else:
            raise AssertionError(f"a die got a {kind.name}")

    def complete(self, number, **fields):
        slot = pack(SlotKind.COMPLETION, "completion", id=number, **{**self.outcome, **fields})
        self.due.append([self.cycle + random.randrange(1, self.delay), slot])

    async def run(self):
        answer = self.pin("o_response__valid")
        while True:
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            if self.pin("i_request__valid").value and self.pin("i_request__ready").value:
                self.take(int(self.pin("i_request__payload").value))
            if not answer.value or self.pin("o_response__ready").value:
                ready = [entry for entry in self.due if entry[0] <= self.cycle]
                answer.value = bool(ready)
                if ready:
                    chosen = random.choice(ready)
                    self.due.remove(chosen)
                    self.pin("o_response__payload").value = chosen[1]
            self.pin("i_request__ready").value = random.randrange(100) >= self.pause


class HostMemory:
    """Target of the AXI slave model: bytes, and an error outside them."""

    def __init__(self):
        self.bytes = bytearray(random.randbytes(MEMORY))
        self.bytes[:COMPLETIONS + 0x800] = bytes(COMPLETIONS + 0x800)

    async def read(self, address, length):
        if address + length > len(self.bytes):
            raise IndexError(address)
        return bytes(self.bytes[address:address + length])

    async def write(self, address, data):
        if address + len(data) > len(self.bytes):
            raise IndexError(address)
        self.bytes[address:address + len(data)] = data


class Host:
    """Driver of the rings, over AXI4-Lite, and the memory behind the AXI4 master."""

    def __init__(self, dut, *, pause=0):
        self.dut, self.memory = dut, HostMemory()
        self.registers = load("io")
        self.slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst,
                              target=self.memory)
        self.axil = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        channels = (self.slave.write_if.aw_channel, self.slave.write_if.w_channel,
                    self.slave.write_if.b_channel, self.slave.read_if.ar_channel,
                    self.slave.read_if.r_channel, self.axil.write_if.aw_channel,
                    self.axil.write_if.w_channel, self.axil.write_if.b_channel,
                    self.axil.read_if.ar_channel, self.axil.read_if.r_channel)
        for channel in channels:
            channel.log.setLevel("WARNING")
            if pause:
                channel.set_pause_generator(
                    iter(lambda: int(random.randrange(100) < pause), None))
        for part in (self.slave.write_if, self.slave.read_if, self.axil.write_if,
                     self.axil.read_if):
            part.log.setLevel("ERROR")
        self.tail = self.seen = 0

    async def read(self, name):
        answer = await self.axil.read(self.registers[name].offset, 4)
        return int.from_bytes(answer.data, "little")

    async def write(self, name, value):
        await self.axil.write(self.registers[name].offset, value.to_bytes(4, "little"))

    async def start(self, *, size_log2=4, completions_log2=None):
        self.log2 = size_log2
        self.completions_log2 = completions_log2 or size_log2
        await self.write("submission_base_lo", SUBMISSIONS)
        await self.write("submission_size", size_log2)
        await self.write("completion_base_lo", COMPLETIONS)
        await self.write("completion_size", self.completions_log2)
        await self.write("interrupt_enable", 3)

    async def submit(self, *entries):
        """Write entries into the ring, and ring its doorbell once."""
        for entry in entries:
            at = SUBMISSIONS + 64 * (self.tail & (1 << self.log2) - 1)
            self.memory.bytes[at:at + 64] = entry
            self.tail += 1
        await self.write("submission_tail", self.tail & (1 << self.log2) - 1)

    def poll(self):
        """The next completion, if it is there, as a dict."""
        size = 1 << self.completions_log2
        index, phase = self.seen % size, (self.seen // size + 1) & 1
        at = COMPLETIONS + 32 * index
        words = [int.from_bytes(self.memory.bytes[at + n:at + n + 4], "little")
                 for n in range(0, 32, 4)]
        if words[0] >> 24 & 1 != phase:
            return None
        self.seen += 1
        return {"tag": words[0] & 0xFFFF, "code": words[0] >> 16 & 0xFF,
                "command": words[1] & 0xFFFF, "unit": words[1] >> 16 & 15,
                "field": words[1] >> 20 & 0xFF, "die": words[1] >> 28, "pe": words[2] & 0xFF,
                "mask": words[2] >> 16, "cycles": words[3],
                "address": words[4] | words[5] << 32, "value": words[6],
                "upper": words[7]}

    async def collect(self, count, *, cycles=6000, release=True):
        """The next ``count`` completions, in order."""
        found = []
        for _ in range(cycles):
            await RisingEdge(self.dut.clk)
            while len(found) < count and (completion := self.poll()):
                found.append(completion)
            if len(found) == count:
                break
        if len(found) != count:
            names = ("status", "error_status", "submission_head", "submission_tail",
                     "completion_head", "completion_tail")
            state = {name: hex(await self.read(name)) for name in names}
            raise AssertionError(f"only {found} of {count} in {cycles} cycles: {state}")
        if release:
            await self.write("completion_head", self.seen & (1 << self.completions_log2) - 1)
        return found


def entry(opcode, tag, *, stream=0, host=0, device=0, count=0, die=0, mask=0, watchdog=0):
    words = [0] * 16
    words[0] = opcode | stream << 8 | tag << 16
    words[2:6] = [host & 0xFFFFFFFF, host >> 32, device & 0xFFFFFFFF, device >> 32]
    words[6], words[8], words[9] = count, die | (mask & 0xFFFF) << 16, watchdog
    words[10], words[11] = mask >> 16 & 0xFFFFFFFF, mask >> 48
    return b"".join(word.to_bytes(4, "little") for word in words)


async def start(dut, *, pause=0, size_log2=4, completions_log2=None, **options):
    """Reset, a host and the dies."""
    inputs = [getattr(dut, f"die{n}__{name}") for n in range(DIES) for name in (
        "o_request__valid", "o_response__valid", "i_request__ready", "i_response__ready")]
    host = Host(dut, pause=pause)
    dies = [Die(dut, n, **options) for n in range(DIES)]
    await sim.reset(dut, dut.cut, *inputs)
    for die in dies:
        cocotb.start_soon(die.run())
    await host.start(size_log2=size_log2, completions_log2=completions_log2)
    return host, dies
