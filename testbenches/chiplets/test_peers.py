"""Tests of compute chiplets joined by links: the cocotb tests, then the pytest functions.

Chiplets without PEs, two or four in a grid, with channels of the test between them, which may hurt
flits; the test plays the PEs.
"""
import os
import random

import cocotb
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import RisingEdge

from chiplets.compute import ComputeBase
from chiplets.packages import ComputeParameters, Package
from rtl.common.place import Place
from rtl.control.block import CONFIGURATION_LINE, configuration_layout
from rtl.link.interfaces import PHIT_BITS, LinkPort, PhitPort, SlotKind
from rtl.link.link import D2dLink
from rtl.link.transmitter import LinkState
from rtl.noc.address import DIE_BITS
from rtl.pe import interfaces as pe
from rtl.pe.interfaces import AccessError, PePort
from testbenches import sim
from testbenches.chiplets.compute_bench import Nic, PortOfPe, bits
from testbenches.link.channel import Channel, flipping, losing

PES = 2
LINES = 128     # of SRAM of a die
EACH = 25       # reads of each die, over a link that is cut


def parameters(grid, *, latency_cycles=4, far_requests=24):
    return ComputeParameters(rows=1, columns=PES, bank_lines=LINES // 2, grid=grid, host=True,
                             link_latency_cycles=latency_cycles, far_requests=far_requests,
                             networks=1)


CONFIGURATION = configuration_layout().const({"open": 1}).as_value().value


class Grid(wiring.Component):
    """Chiplets: ``pe<d>_<i>`` is a PE of die ``d``, ``d<d>_peer<n>_phits`` the pins of a link,
    ``network<d>`` the far end of its link to a network chiplet.

    A host on each die opens its PEs after reset, and is heard of no more. ``opened``: dies whose
    host has done so.
    """

    def __init__(self, parameters):
        self.parameters = parameters
        self.dies = range(parameters.grid[0] * parameters.grid[1])
        super().__init__(
            {f"pe{die}_{i}": In(PePort()) for die in self.dies for i in range(PES)}
            | {f"network{die}": In(LinkPort()) for die in self.dies}
            | {f"d{die}_{name}_phits": Out(PhitPort()) for die in self.dies
               for name in parameters.peers} | {"opened": Out(len(self.dies))})

    def elaborate(self, platform):
        m = Module()
        for die in self.dies:
            m.submodules[f"die{die}"] = base = Place(ComputeBase(self.parameters))
            for i in range(PES):
                connect(m, flipped(getattr(self, f"pe{die}_{i}")), getattr(base, f"pe{i}"))
            for name in self.parameters.peers:
                connect(m, getattr(base, name), flipped(getattr(self, f"d{die}_{name}_phits")))
            m.d.comb += base.die.eq(C(die, DIE_BITS))
            self._open(m, die, base.link)
            self._network(m, die, base.net0)
        return m

    def _network(self, m, die, pins):
        m.submodules[f"network{die}"] = far = Place(
            D2dLink(latency_cycles=self.parameters.link_latency_cycles))
        connect(m, flipped(getattr(self, f"network{die}")), far.port)
        for way, (one, other) in {"to": (pins, far.phits), "back": (far.phits, pins)}.items():
            valid = Signal(name=f"network_{way}{die}")
            line = Signal(PHIT_BITS, name=f"network_{way}{die}_data")
            m.d.sync += [valid.eq(one.tx_valid), line.eq(one.tx_data)]
            m.d.comb += [other.rx_valid.eq(valid), other.rx_data.eq(line)]

    def _open(self, m, die, port):
        """What a host does at boot: one write to the configuration."""
        asked, write = Signal(name=f"asked{die}"), port.rx_request.payload.body.write
        m.d.comb += [
            port.rx_request.valid.eq(~asked), port.rx_request.payload.kind.eq(SlotKind.WRITE),
            write.address.eq(address(die, 3, 64 * CONFIGURATION_LINE)),
            write.data.eq(CONFIGURATION), write.mask.eq(0xFFFF),
            port.tx_request.ready.eq(1), port.tx_response.ready.eq(1)]
        with m.If(port.rx_request.ready):
            m.d.sync += asked.eq(1)
        with m.If(port.tx_response.valid):
            m.d.sync += self.opened[die].eq(1)


def address(die, region, offset):
    return die << 44 | region << 40 | offset


class Bench:
    """All PEs, the channels, and what memory must hold."""

    def __init__(self, dut, fault=None):
        self.dut = dut
        rows, columns, latency = (int(n) for n in os.environ["GRID"].split())
        shape = Package(name="test", size="test", compute_chiplets=rows * columns, io_chiplets=0,
                        compute=parameters((rows, columns)), network_chiplets=rows * columns)
        self.dies, self.links = range(rows * columns), shape.peer_links
        self.pes = {(die, i): PortOfPe(dut, f"{die}_{i}") for die in self.dies for i in range(PES)}
        self.nics = {die: Nic(dut, f"network{die}") for die in self.dies}
        self.cut = set()        # links that lose everything
        self.channels = []
        for a, b, n in self.links:
            for one, other in ((a, b), (b, a)):
                self.channels.append(Channel(
                    dut, f"d{one}_peer{n}", f"d{other}_peer{n}", latency=latency,
                    fault=self._fault((a, b), fault() if fault else None)))
                getattr(dut, f"d{one}_peer{n}_phits__rx_valid").value = 0
        self.cycle = 0

    def _fault(self, ends, fault):
        lost = losing(1)

        def apply(flit, fields):
            if ends in self.cut:
                return lost(flit, fields)
            return fault(flit, fields) if fault else [flit]
        return apply

    async def step(self):
        await RisingEdge(self.dut.clk)
        self.cycle += 1
        for port in (*self.pes.values(), *self.nics.values()):
            port.edge()
        for channel in self.channels:
            channel.step()

    async def until(self, condition, limit=6000):
        for _ in range(limit):
            if condition():
                return
            await self.step()
        raise AssertionError("no progress")

    async def ask(self, asker, *args, **options):
        """One access, and its answer."""
        port = self.pes[asker]
        port.responses.clear()
        port.ask(*args, tag=0, **options)
        await self.until(lambda: port.responses)
        return port.responses.pop()

    async def words(self, asker, die, line):
        """A line of the control registers of a die, as words."""
        answer = await self.ask(asker, address(die, 3, 64 * line))
        assert answer.error == AccessError.NONE
        return [answer.data >> 32 * n & 0xFFFFFFFF for n in range(16)]


async def start(dut, **options):
    bench = Bench(dut, **options)
    await sim.reset(dut)
    await bench.until(lambda: int(dut.opened.value) == (1 << len(bench.dies)) - 1)
    return bench


def pattern(die, line):
    return int.from_bytes(random.Random(64 * die + line).randbytes(64), "little")


async def fill(bench):
    """Every die writes its own memory."""
    for (die, i), port in bench.pes.items():
        for line in range(i, LINES, PES):
            port.ask(address(die, 0, 64 * line), tag=line, data=pattern(die, line))
    await bench.until(lambda: all(len(port.responses) == LINES // PES
                                  for port in bench.pes.values()))
    for port in bench.pes.values():
        port.responses.clear()


FAULTS = {"none": None, "bit flips": lambda: flipping(0.05), "lost flits": lambda: losing(0.05)}


@cocotb.test()
@cocotb.parametrize(name=list(FAULTS))
async def every_pe_reads_and_writes_the_memory_of_every_die(dut, name):
    """Lines of its own in every die, in random order, masked writes and reads, all at once."""
    bench = await start(dut, fault=FAULTS[name])
    await fill(bench)
    memory = {(die, line): pattern(die, line) for die in bench.dies for line in range(LINES)}
    own, wanted = LINES // len(bench.pes), {}
    for n, (asker, port) in enumerate(bench.pes.items()):
        for tag in range(int(os.environ["ACCESSES"])):
            die, line = random.choice(bench.dies), n * own + random.randrange(own)
            place, write = address(die, 0, 64 * line), random.getrandbits(1)
            if write:
                data, mask = random.getrandbits(512), random.getrandbits(64)
                chosen = sum(0xFF << 8 * b for b in range(64) if mask >> b & 1)
                memory[die, line] = memory[die, line] & ~chosen | data & chosen
                port.ask(place, tag=tag, data=data, mask=mask)
            else:
                port.ask(place, tag=tag)
            wanted[asker, tag] = write, 0 if write else memory[die, line]
    count = len(wanted) // len(bench.pes)
    await bench.until(lambda: all(len(port.responses) == count for port in bench.pes.values()),
                      limit=20_000)
    for asker, port in bench.pes.items():
        assert len({answer.tag for answer in port.responses}) == count
        for answer in port.responses:
            assert answer.error == AccessError.NONE
            write, data = wanted[asker, answer.tag]
            assert answer.write == write and (write or answer.data == data)
        port.responses.clear()
    for (die, i), port in bench.pes.items():
        for line in range(i, LINES, PES):
            port.ask(address(die, 0, 64 * line), tag=line)
    await bench.until(lambda: all(len(port.responses) == LINES // PES
                                  for port in bench.pes.values()))
    for (die, _), port in bench.pes.items():
        for answer in port.responses:
            assert answer.data == memory[die, answer.tag]


@cocotb.test()
async def requests_that_cross_do_not_wait_for_each_other(dut):
    """All PEs write to other dies as fast as they can while some PEs take no answers for a time."""
    bench, count = await start(dut), int(os.environ["ACCESSES"])
    for port in bench.pes.values():
        port.request.rate = port.response.rate = 1
    for (die, _), port in bench.pes.items():
        others = [other for other in bench.dies if other != die]
        for tag in range(count):
            port.ask(address(random.choice(others), 0, 64 * random.randrange(LINES)), tag=tag,
                     data=random.getrandbits(512))
    for pause in range(8):
        for port in bench.pes.values():
            port.response.rate = random.choice([0, 1]) if pause < 7 else 1
        for _ in range(100):
            await bench.step()
    await bench.until(lambda: all(len(port.responses) == count for port in bench.pes.values()))
    for port in bench.pes.values():
        assert not any(answer.error != AccessError.NONE for answer in port.responses)


@cocotb.test()
async def every_pe_rings_the_nics_of_every_die(dut):
    """At once, while one NIC after another takes nothing for a time and all of them read memory.

    The bridge at a NIC has room for what comes from its own die and over each link.
    """
    bench, count = await start(dut), int(os.environ["ACCESSES"])
    await fill(bench)
    wanted = {die: {} for die in bench.dies}
    for n, (asker, port) in enumerate(bench.pes.items()):
        port.request.rate = port.response.rate = 1
        for tag in range(count):
            die = random.choice(bench.dies) if tag > count // 2 else 0
            place, data = address(die, 5, 0x40000 + 64 * (n * count + tag)), random.getrandbits(512)
            wanted[die][place] = asker, tag, data
            port.ask(place, tag=tag, data=data)
    for die, nic in bench.nics.items():
        for line in range(LINES):
            nic.ask(address(die, 0, 64 * line), tag=line)
    for stopped in (0, *bench.dies):
        bench.nics[stopped].come.rate = 0
        for _ in range(400):
            await bench.step()
        bench.nics[stopped].come.rate = 1
    await bench.until(lambda: all(len(port.responses) == count for port in bench.pes.values())
                      and all(len(nic.responses) == LINES for nic in bench.nics.values()))
    for die, nic in bench.nics.items():
        got = [(body.address, body.data) for _, body in nic.accesses]
        assert sorted(got) == sorted((place, data) for place, (_, _, data) in wanted[die].items())
        assert {answer.tag: answer.data for answer in nic.responses} == {
            line: pattern(die, line) for line in range(LINES)}
    for port in bench.pes.values():
        assert all(answer.write and answer.error == AccessError.NONE for answer in port.responses)


@cocotb.test()
async def a_network_chiplet_does_not_reach_another_die(dut):
    bench = await start(dut)
    for die, nic in bench.nics.items():
        for tag, other in enumerate(bench.dies):
            nic.ask(address(other, 0, 0), tag=tag)
        await bench.until(lambda nic=nic: len(nic.responses) == len(bench.dies))
        errors = {answer.tag: answer.error for answer in nic.responses}
        assert errors == {other: AccessError.NONE if other == die else AccessError.ADDRESS
                          for other in bench.dies}


@cocotb.test()
async def an_address_that_another_die_does_not_have_is_an_error(dut):
    bench = await start(dut)
    last = bench.dies[-1]
    for place, text in ((address(last, 0, 64 * LINES), "past the SRAM"),
                        (address(last, 1, 0), "no HBM"), (address(last, 7, 0), "no region"),
                        (address(last, 6, 0), "no engine"), (address(last, 5, 1 << 24), "no link"),
                        (address(len(bench.dies), 0, 0), "no die"), (address(15, 0, 0), "I/O")):
        for data in (None, 5):
            answer = await bench.ask((0, 1), place, data=data)
            assert answer.error == AccessError.ADDRESS and not answer.data, text
            assert answer.write == (data is not None)
    assert (await bench.words((0, 0), 0, 2))[0] == 4        # known where they were asked
    assert (await bench.words((0, 0), last, 2))[6] == 10    # known at the far end


@cocotb.test()
async def windows_and_registers_of_another_die_are_read(dut):
    bench = await start(dut)
    for die in bench.dies:
        words = await bench.words((0, 0), die, 0)
        assert words[2] == die
        asker, port = ((die + 1) % len(bench.dies), 0), bench.pes[die, 1]
        bench.pes[asker].ask(address(die, 2, 1 << 16 | 3 * 64), tag=77)
        await bench.until(lambda port=port: port.accesses)
        access = port.accesses.pop()
        assert access.address & 0xFFFF == 3 * 64 and not access.write
        port.access_response.queue.append(bits(pe.response_layout(), tag=access.tag, data=4711))
        answers = bench.pes[asker].responses
        await bench.until(lambda answers=answers: answers)
        assert (answers[0].tag, answers[0].data) == (77, 4711)
        answers.clear()


@cocotb.test()
@cocotb.parametrize(number=[0, -1])
async def a_link_that_is_cut_ends_in_errors_of_those_who_need_it(dut, number):
    """X, then Y: who must pass the link is told so, also for the diagonal; the others go on.

    Until the link gives up, the queue of its bridge takes all that may be on its way there.
    """
    bench = await start(dut)
    await fill(bench)
    columns = int(os.environ["GRID"].split()[1])
    for port in bench.pes.values():
        for tag in range(100, 120):
            port.ask(address(random.choice(bench.dies), 0, 64 * random.randrange(LINES)), tag=tag)
    for _ in range(40):
        await bench.step()
    a, b, peer = bench.links[number]
    bench.cut = {(a, b)}

    def path(die, target):
        steps = [die, die // columns * columns + target % columns, target]
        return {frozenset(pair) for pair in zip(steps, steps[1:], strict=False)}
    for port in bench.pes.values():
        for line in range(EACH):
            for die in bench.dies[::-1]:
                port.ask(address(die, 0, 64 * line), tag=die * EACH + line)
    await bench.until(lambda: all(len(port.responses) == 20 + EACH * len(bench.dies)
                                  for port in bench.pes.values()), limit=12_000)
    for (die, _), port in bench.pes.items():
        for answer in port.responses:
            target, line = divmod(answer.tag, EACH)
            if answer.tag < 100:
                lost = frozenset((a, b)) in path(die, target)
                assert answer.error == (AccessError.LINK_DOWN if lost else AccessError.NONE)
                assert answer.data == (0 if lost else pattern(target, line))
            else:
                assert answer.error in (AccessError.NONE, AccessError.LINK_DOWN)
    for die in (a, b):
        words = await bench.words((die, 0), die, 4 + peer)
        assert words[7] == LinkState.DOWN.value and words[12] > 0


@cocotb.test()
async def counters_of_the_links_are_registers(dut):
    bench = await start(dut)
    before = {die: await bench.words((die, 0), die, 4) for die in bench.dies}
    for port in bench.pes.values():
        port.responses.clear()
    a, b, _ = bench.links[0]
    for tag in range(10):
        bench.pes[a, 0].ask(address(b, 0, 64 * tag), tag=tag)
    await bench.until(lambda: len(bench.pes[a, 0].responses) == 10)
    for die, column in ((a, 8), (b, 9)):
        words = await bench.words((die, 0), die, 4)
        change = [after - was for after, was in zip(words[8:], before[die][8:], strict=True)]
        assert change[column - 8] == 10 and change[9 - column] == 0
        assert words[6] > before[die][6] and words[7] == LinkState.ACTIVE.value


@cocotb.test(skip=not os.environ.get("SPEED"))
async def one_read_takes_the_time_stated(dut):
    """From a PE's request to its answer, on the die and on the other one.

    The bridges are at column 0, even lines in the bank of column 0, odd ones in that of column 1.
    """
    bench = await start(dut)
    latency = int(os.environ["GRID"].split()[2])
    for column in range(PES):
        port = bench.pes[0, column]
        port.request.rate = port.response.rate = 1
        for line in range(2):
            cycles = {}
            for die in (0, 1):
                await bench.step()
                port.ask(address(die, 0, 64 * line), tag=0)
                await bench.step()                  # offers the request
                begin = bench.cycle
                await bench.until(lambda port=port: port.responses)
                cycles[die] = bench.cycle - begin - 1       # a cycle later the answer is taken
                port.responses.clear()
                for _ in range(200):
                    await bench.step()
            dut._log.info("PE of column %d, bank of column %d: a read takes %d cycles on the die, "
                          "%d on the other", column, line, cycles[0], cycles[1])
            assert cycles[0] == 3 + 2 * abs(column - line)
            assert cycles[1] == 27 + 2 * latency + 2 * (column + line)


@cocotb.test(skip=not os.environ.get("SPEED"))
@cocotb.parametrize(write=[False, True], both=[False, True])
async def streams_fill_the_link(dut, write, both):
    """Lines a cycle from or to the other die: 3 in 4 cycles are what a link takes one way."""
    bench = await start(dut)
    askers = [port for (die, _), port in bench.pes.items() if both or die == 0]
    for (die, i), port in bench.pes.items():
        port.request.rate = port.response.rate = 1
        if both or die == 0:
            for n in range(1600):
                port.ask(address(1 - die, 0, 64 * ((n + i) % LINES)), tag=n % 128,
                         data=n if write else None)
    for _ in range(300):
        await bench.step()
    before, cycles = sum(len(port.responses) for port in askers), 1000
    for _ in range(cycles):
        await bench.step()
    rate = (sum(len(port.responses) for port in askers) - before) / cycles
    dut._log.info("%s%s: %.3f lines a cycle, %.1f %% of the wires one way",
                  "writes" if write else "reads", " both ways" if both else "", rate,
                  100 * rate / (2 if both else 1))
    assert rate > 0.7


def run_grid(tmp_path, simulator, grid, *, accesses, **options):
    sizes = parameters(grid, **options)
    sim.run(Grid(sizes), test_module=__name__, build_dir=tmp_path, simulator=simulator,
            env={"GRID": f"{grid[0]} {grid[1]} {sizes.link_latency_cycles}",
                 "ACCESSES": str(accesses),
                 "SPEED": "1" if sizes.link_latency_cycles == 16 else ""})


def test_four_dies(tmp_path):
    run_grid(tmp_path, "verilator", (2, 2), accesses=200)


@sim.on_simulators
def test_two_dies(tmp_path, simulator):
    """On Verilator in a row, with a link of full length, whose speed is measured."""
    if simulator == "icarus":
        run_grid(tmp_path, simulator, (2, 1), accesses=60)
    else:
        run_grid(tmp_path, simulator, (1, 2), accesses=200, latency_cycles=16, far_requests=40)
