"""Tests of rtl/control: the cocotb tests, then the pytest function that runs them."""
import random

import cocotb
from cocotb.triggers import RisingEdge

from rtl.control.block import CONFIGURATION_LINE, MAGIC, ControlBlock, configuration_layout
from rtl.link import interfaces as link
from rtl.pe import interfaces as pe
from rtl.pe.interfaces import AccessError, ErrorCode
from testbenches import sim
from testbenches.noc.traffic import Sink, Source
from testbenches.twins import Twins

PES, PATIENCE_LOG2 = 3, 2
TABLE = 0x4000
OPEN = configuration_layout().const({"open": 1}).as_value().value
OK, BAD_FIELD, BAD_ADDRESS, WATCHDOG, POISON, ABORTED, LINK_DOWN = (
    ErrorCode[name].value for name in (
        "OK", "BAD_FIELD", "BAD_ADDRESS", "WATCHDOG", "POISON", "ABORTED", "LINK_DOWN"))


def bits(layout, **fields):
    return layout.const(fields).as_value().value


class Worker:
    """A PE in plain Python: plays the script that stands for its program, and holds the next."""

    def __init__(self, bench, number):
        self.bench, self.number = bench, number
        self.launch = Sink(bench.dut, f"launches__{number}", rate=0.5)
        self.report = Source(bench.dut, f"reports__{number}", rate=0.5)
        self.script, self.running, self.wait, self.at_barrier = [], None, 0, False
        self.next, self.permitted, self.dropped, self.started = None, False, 0, []
        self.deaf, self.aborted, self.passed = False, False, 0

    def end(self, code, tag=0, unit=0, field=0, address=0):
        self.report.queue.append(bits(pe.report_layout(), code=ErrorCode(code), tag=tag,
                                      unit=pe.Unit(unit), field=field, address=address))
        self.script, self.running, self.at_barrier = [], None, False

    def edge(self, proceed, abort, go, drop):
        """One cycle; True if the PE arrives at a barrier in the next."""
        self.report.edge()
        assert not (go or drop) or self.next is not None, "nothing waits"
        if go:
            assert not self.permitted and not drop
            self.permitted = True
            assert self.deaf or self.running is None and not self.report.queue \
                and self.report.offered is None, "started while it runs"
        if drop:
            assert not self.permitted, "it was let go"
            self.next, self.dropped = None, self.dropped + 1
        if (payload := self.launch.edge()) is not None:
            assert self.next is None, "one waits already"
            self.next = pe.launch_layout().from_bits(payload)
        if self.permitted and self.running is None:
            self.running, self.next, self.permitted = self.next, None, False
            self.started.append((self.bench.now, self.running.program))
            self.script = list(self.bench.programs[self.running.program])
            self.wait, self.aborted = random.randrange(self.bench.slowness), False
        assert not (abort and self.aborted), f"PE {self.number} is aborted twice"
        self.aborted |= bool(abort)
        if abort and self.running is not None and not self.deaf:
            self.end(ABORTED)
        if proceed:
            assert self.at_barrier, f"PE {self.number} may proceed, but is at no barrier"
            self.at_barrier, self.passed = False, self.passed + 1
        if self.running is None or self.at_barrier:
            return False
        if self.wait:
            self.wait -= 1
            return False
        step = self.script.pop(0)
        if step == "barrier":
            self.at_barrier, self.wait = True, random.randrange(10)
            return True
        if step == "forever":
            self.script = ["forever"]
        elif isinstance(step, int):
            self.wait = step
        else:
            self.end(*step)
        return False


class Bench:
    """The control block with PEs, and a memory of program tables."""

    def __init__(self, dut, pes=PES):
        self.dut, self.programs, self.tables, self.errors = dut, {}, {}, {}
        self.now, self.slowness = 0, 10
        self.packets = Source(dut, "packets", rate=0.3)
        self.aborts = Source(dut, "aborts")
        self.completions = Sink(dut, "completions", rate=0.5)
        self.request, self.response = Sink(dut, "request", rate=0.5), Source(dut, "response")
        self.access, self.answers = Source(dut, "access"), Sink(dut, "access_response")
        self.workers = [Worker(self, number) for number in range(pes)]
        self.done, self.lines, self.asked = [], [], []
        for name in ("arrive", "idle", "identity", "counters", "link_counters", "noc_counters"):
            getattr(dut, name).value = 0

    def packet(self, number, scripts, *, watchdog=1000, mask=None, table=None):
        """Queue packet ``number`` with a script for each PE in it."""
        place = TABLE + 64 * number if table is None else table
        count = -(-len(self.workers) // 16) * 16
        entries = [random.randrange(1 << 20) for _ in range(count)]
        while len({place + 64 * entry for entry in entries} | set(self.programs)) \
                < count + len(self.programs):
            entries = [random.randrange(1 << 20) for _ in range(count)]
        for first in range(0, count, 16):
            self.tables[place + 4 * first] = sum(
                entry << 32 * i for i, entry in enumerate(entries[first:first + 16]))
        for number_of_pe, script in scripts.items():
            self.programs[place + 64 * entries[number_of_pe]] = script
        mask = sum(1 << p for p in scripts) if mask is None else mask
        self.packets.queue.append(bits(link.launch_layout(), pe_mask=mask, table=place,
                                       watchdog=watchdog, id=number))

    async def step(self):
        await RisingEdge(self.dut.clk)
        self.now += 1
        pins = [int(getattr(self.dut, name).value) for name in ("proceed", "abort", "go", "drop")]
        arrive = sum(worker.edge(*(pin >> p & 1 for pin in pins)) << p
                     for p, worker in enumerate(self.workers))
        self.dut.arrive.value = arrive
        self.dut.idle.value = sum((w.running is None) << p for p, w in enumerate(self.workers))
        if (payload := self.request.edge()) is not None:
            request = pe.request_layout().from_bits(payload)
            assert not request.write
            self.asked.append(request.address)
            error = self.errors.get(request.address, AccessError.NONE)
            self.response.queue.append(bits(
                pe.response_layout(), tag=request.tag, error=error,
                data=self.tables.get(request.address, 0)))
        if (payload := self.completions.edge()) is not None:
            self.done.append(link.completion_layout().from_bits(payload))
        if (payload := self.answers.edge()) is not None:
            self.lines.append(pe.response_layout().from_bits(payload))
        for source in (self.packets, self.aborts, self.response, self.access):
            source.edge()

    async def until(self, condition, limit=2000):
        for _ in range(limit):
            if condition():
                return
            await self.step()
        states = [(w.running is not None, w.at_barrier, w.wait, w.script) for w in self.workers]
        raise AssertionError(f"no progress: {int(self.dut.states.value):o} {states}")

    async def configure(self, value):
        """Write the first 16 bytes of the configuration; gives the error."""
        self.access.queue.append(bits(
            pe.request_layout(), address=64 * CONFIGURATION_LINE, write=1, data=value,
            mask=0xFFFF))
        await self.until(lambda: self.lines)
        return self.lines.pop().error

    async def completion(self):
        await self.until(lambda: self.done)
        done = self.done.pop(0)
        return {"id": done.id, "code": done.code.value, "pe": done.failed_pe,
                "mask": done.failed_mask, "field": done.field, "unit": done.unit,
                "tag": done.command_tag, "address": done.address}


async def start(dut, *, opened=True, pes=PES):
    bench = Bench(dut, pes)
    await sim.reset(dut)
    if opened:
        assert await bench.configure(OPEN) == AccessError.NONE
    return bench


@cocotb.test()
async def random_packets_end_as_their_programs_say(dut):
    bench = await start(dut)
    expected, barriers = {}, [0] * PES
    for number in range(80):
        members = random.sample(range(PES), random.randint(1, PES))
        count, scripts, failures = random.randrange(4), {}, {}
        for p in members:
            steps = [step for _ in range(count) for step in (random.randrange(30), "barrier")]
            if random.random() < 0.3:
                steps = steps[:random.randint(0, len(steps))]
                failures[p] = (random.choice([1, 2, 3, 5]), random.getrandbits(16),
                               random.randrange(8), random.getrandbits(8),
                               random.getrandbits(48))
                steps.append(failures[p])
            else:
                steps += [random.randrange(20), (OK,)]
            scripts[p] = steps
            barriers[p] += steps.count("barrier")
        bench.packet(number, scripts)
        lowest = min(failures, default=0)
        code, tag, unit, field, place = failures.get(lowest, (OK, 0, 0, 0, 0))
        expected[number] = {"id": number, "code": code, "pe": lowest, "unit": unit, "tag": tag,
                            "mask": sum(1 << p for p in failures), "field": field,
                            "address": place}
    for _ in range(80):
        done = await bench.completion()
        assert done == expected.pop(done["id"])
    assert [worker.passed for worker in bench.workers] == barriers
    bench.access.queue.append(bits(pe.request_layout(), address=64, tag=1))
    await bench.until(lambda: bench.lines)
    assert bench.lines[0].data >> 64 & 0xFFFFFFFF == 80


@cocotb.test()
async def a_barrier_opens_only_when_all_have_arrived(dut):
    bench = await start(dut)
    bench.packet(1, {0: ["barrier", (OK,)], 1: [100, "barrier", (OK,)], 2: [50, (OK,)]})
    slow = bench.workers[1]
    await bench.until(lambda: slow.running is not None and slow.wait > 50)
    while slow.wait and not slow.at_barrier:
        assert not bench.workers[0].passed
        await bench.step()
    assert (await bench.completion())["code"] == OK
    assert bench.workers[0].passed == slow.passed == 1


@cocotb.test()
async def packets_of_other_pes_overlap_and_of_the_same_keep_their_order(dut):
    bench = await start(dut)
    bench.packet(1, {0: [300, (OK,)]})
    bench.packet(2, {0: [1, (OK,)], 1: [1, (OK,)]})   # waits for packet 1
    bench.packet(3, {1: [1, (OK,)]})                  # waits for packet 2, which came before it
    bench.packet(4, {2: [1, (OK,)]})                  # waits for nobody
    order = [(await bench.completion())["id"] for _ in range(4)]
    assert order == [4, 1, 2, 3]


@cocotb.test()
@cocotb.parametrize(case=["empty", "outside", "misplaced", "address", "poison", "link_down"])
async def a_packet_that_cannot_start_is_refused(dut, case):
    bench = await start(dut)
    error = AccessError.__members__.get(case.upper(), AccessError.POISON)
    bench.errors = {TABLE + 64 * 9: error}
    mask = {"empty": 0, "outside": 1 | 1 << PES}.get(case, 7)
    table = TABLE + 64 * 9 + 4 * (case == "misplaced")
    bench.packet(9, {}, mask=mask, table=table)
    done = await bench.completion()
    code, field = {"empty": (BAD_FIELD, 8), "outside": (BAD_FIELD, 8), "misplaced": (BAD_FIELD, 2),
                   "address": (BAD_ADDRESS, 2), "poison": (POISON, 2),
                   "link_down": (LINK_DOWN, 2)}[case]
    assert (done["id"], done["code"], done["field"], done["mask"]) == (9, code, field, 0)
    assert done["address"] == (TABLE + 64 * 9 if code in (BAD_ADDRESS, POISON, LINK_DOWN) else 0)
    bench.packet(10, {0: [(OK,)]})
    assert (await bench.completion())["code"] == OK


@cocotb.test()
async def an_abort_ends_a_running_and_a_waiting_packet_and_no_other(dut):
    bench = await start(dut)
    bench.packet(1, {0: ["forever"], 1: ["barrier"]})
    bench.packet(2, {0: [(OK,)]})
    bench.packet(3, {2: [200, (OK,)]})
    await bench.until(lambda: bench.workers[1].at_barrier and bench.workers[2].running is not None)
    bench.aborts.queue += [77, 2]
    done = await bench.completion()
    assert (done["id"], done["code"], done["mask"]) == (2, ABORTED, 0)
    bench.aborts.queue.append(1)
    done = await bench.completion()
    assert (done["id"], done["code"], done["mask"], done["pe"]) == (1, ABORTED, 3, 0)
    assert (await bench.completion())["code"] == OK


@cocotb.test()
async def a_pe_that_never_arrives_ends_the_packet(dut):
    bench = await start(dut)
    bench.packet(1, {0: ["barrier", (OK,)], 1: ["forever"], 2: [5, (OK,)]}, watchdog=20)
    done = await bench.completion()
    assert (done["code"], done["pe"], done["mask"]) == (WATCHDOG, 1, 2)
    bench.packet(2, {p: ["barrier", (OK,)] for p in range(PES)})
    assert (await bench.completion())["code"] == OK


@cocotb.test()
async def a_pe_that_does_not_obey_an_abort_is_given_up(dut):
    bench = await start(dut)
    bench.workers[1].deaf = True
    bench.packet(1, {1: ["forever"], 2: ["barrier", (OK,)]}, watchdog=20)
    done = await bench.completion()
    assert (done["code"], done["mask"]) == (WATCHDOG, 2)
    bench.packet(2, {1: [(OK,)]})
    done = await bench.completion()
    assert (done["code"], done["field"], done["mask"]) == (WATCHDOG, 8, 0)
    bench.packet(3, {0: [(OK,)], 2: [(OK,)]})
    assert (await bench.completion())["code"] == OK


@cocotb.test()
async def pes_are_opened_once(dut):
    """Until then packets are refused; after that they cannot be closed."""
    bench = await start(dut, opened=False)
    for number, mask in enumerate((1, (1 << PES) - 1)):
        bench.packet(number, {}, mask=mask)
        done = await bench.completion()
        assert (done["id"], done["code"], done["field"]) == (number, BAD_FIELD, 8)
    assert await bench.configure(OPEN) == AccessError.NONE
    assert await bench.configure(0) == AccessError.ADDRESS
    most = configuration_layout().const({"open": 1, "rate": 256, "burst": 255})
    assert await bench.configure(most.as_value().value) == AccessError.NONE
    assert dut.configuration.value == most.as_value().value
    for name, value in (("rate", 257), ("burst", 256)):
        more = configuration_layout().const({"open": 1, name: value})
        assert await bench.configure(more.as_value().value) == AccessError.ADDRESS
    bench.packet(5, {0: [(OK,)]})
    assert (await bench.completion())["code"] == OK


@cocotb.test()
async def registers_are_read_and_a_write_is_refused(dut):
    bench = await start(dut)
    bench.dut.identity.value, bench.dut.counters.value = 5 | 2 << 32, 123 << 64
    for line in range(4):
        bench.access.queue.append(bits(pe.request_layout(), address=64 * line, tag=line))
    bench.access.queue.append(bits(pe.request_layout(), address=0, tag=9, write=1))
    await bench.until(lambda: len(bench.lines) == 5)
    words = [line.data.to_bytes(64, "little") for line in bench.lines]
    assert [line.tag for line in bench.lines] == [0, 1, 2, 3, 9]
    assert words[0][:4] == MAGIC.to_bytes(4, "little") == b"MXLT"
    assert words[0][8:16] == bytes([5, 0, 0, 0, 2, 0, 0, 0])
    assert words[1][0] == (1 << PES) - 1 and words[2][8] == 123
    assert bench.lines[4].error == AccessError.ADDRESS and bench.lines[4].write
    assert not any(line.error != AccessError.NONE for line in bench.lines[:4])


@cocotb.test()
async def clock_stops_while_packets_run_and_starts_in_time(dut):
    """Packets, barriers, aborts and reads after pauses; Twins compares with a free clock."""
    bench = await start(dut)
    aborted = set()
    pauses = random.sample([0, 1, 5, 200, 400] * 12, 60)
    for number, pause in enumerate(pauses):
        members = random.sample(range(PES), random.randint(1, PES))
        bench.packet(number, {p: [random.randrange(120), "barrier", random.randrange(120), (OK,)]
                              for p in members})
        for _ in range(pause):
            await bench.step()
        if random.random() < 0.2:
            aborted.add(number)
            bench.aborts.queue.append(number)
        if random.random() < 0.3:
            bench.access.queue.append(bits(pe.request_layout(), address=64, tag=1))
    for _ in range(60):
        done = await bench.completion()
        assert done["code"] == OK or done["code"] == ABORTED and done["id"] in aborted
    bench.packet(60, {0: [300, (OK,)]})     # alone: once it runs, nothing changes until its end
    rested = 0
    for _ in range(330):
        await bench.step()
        rested += not dut.awake.value and bench.workers[0].running is not None
    assert rested > 250
    assert (await bench.completion())["code"] == OK
    for _ in range(10):
        await bench.step()
    assert not dut.awake.value


@sim.on_simulators
def test_block(tmp_path, simulator):
    sim.run(Twins(lambda: ControlBlock(pes=PES, patience_log2=PATIENCE_LOG2)),
            test_module=__name__, build_dir=tmp_path, simulator=simulator)
