"""A package without time: the host's protocol executed by golden machines, to test kernels."""
from collections import Counter
from dataclasses import dataclass

import numpy as np

from chiplets.packages import ring_order
from cosim.golden.machine import Machine, Refused
from cosim.golden.machine_ring import joined, run_together
from host.boot import CONFIGURATION_LINE, OPEN, Settings
from host.isa import LINE, Code, Region, Submission
from host.program import table_lines

CONTROL_LINES = 16


@dataclass
class Configuration:
    dies: int = 2
    pes: int = 6
    sram_bytes: int = 1 << 24
    hbm_bytes: int = 1 << 27
    rows: int = 2
    columns: int = 3
    attention: bool = True
    grid: tuple = (1, 1)
    mx4_lanes: int = 3
    banks: int = 4
    hbm_channels: int = 12
    core_megahertz: int = 1847
    hbm_megahertz: int = 1600
    engines: int = 0
    networks: int = 0


class Memory:
    """Flat memories by die and region; ``moved``: bytes that crossed from die to die."""

    def __init__(self, configuration):
        self.moved = Counter()
        c = configuration
        self.parts = {(die, region): np.zeros(size, np.uint8) for die in range(c.dies)
                      for region, size in enumerate(
                          (c.sram_bytes, c.hbm_bytes, c.pes << 16, CONTROL_LINES * LINE))}

    def _window(self, at, count):
        part, offset = self.parts.get((at >> 44, at >> 40 & 15)), at & (1 << 40) - 1
        if part is None or offset + count > len(part):
            error = Refused(Code.BAD_ADDRESS, 0, f"{at:#x} is outside memory")
            error.address = at // LINE * LINE
            raise error
        return part[offset:offset + count]

    def read(self, at, count):
        return self._window(at, count)

    def write(self, at, data):
        self._window(at, len(data))[:] = data

    def seen_from(self, die, configuration):
        return MemoryOfDie(self, die, configuration.grid != (1, 1))


@dataclass
class MemoryOfDie:
    """Memory as a die sees it: that of other dies only where links join them."""

    whole: Memory
    die: int
    joined: bool

    def _cross(self, source, target, count):
        if source != target:
            if not self.joined:
                raise Refused(Code.BAD_ADDRESS, 0, f"No link joins die {self.die} to others")
            self.whole.moved[source, target] += count

    def read(self, at, count):
        self._cross(at >> 44, self.die, count)
        return self.whole.read(at, count)

    def write(self, at, data):
        self._cross(self.die, at >> 44, len(data))
        self.whole.write(at, data)


class FakePackage:
    """Transport of ``host.driver.Device`` that executes submissions at once."""

    def __init__(self, configuration=None, *, lines=8192):
        self.configuration, self.settings = configuration or Configuration(), Settings()
        self.host_memory = np.zeros(1 << 27, np.uint8)
        self.device_memory = Memory(self.configuration)
        self.registers = {}
        self.cycle, self.head, self.done, self.lines = 0, 0, 0, lines
        self.paused = False
        self.events = [0] * 16

    def preload(self, die, offset, data):
        flat = np.ascontiguousarray(data).reshape(-1)
        self.device_memory.parts[die, 1][offset:offset + flat.size] = flat

    def read_register(self, name):
        return self.registers[name]

    def write_register(self, name, value):
        self.registers[name] = value

    def run_until_interrupt(self, cycles):
        self.cycle += 1
        base, entries = self.registers["submission_base_lo"], 1 << self.registers["submission_size"]
        while not self.paused and self.head != self.registers["submission_tail"]:
            at = base + self.head * LINE
            self._execute([int(w) for w in self.host_memory[at:at + LINE].view("<u4")])
            self.head = (self.head + 1) % entries

    def _execute(self, w):
        code, number, at, value = Code.OK, 0, 0, 0
        try:
            if w[0] & 255 == Submission.COPY_IN:
                self.device_memory.write(w[4] | w[5] << 32, self.host_memory[w[2]:w[2] + w[6]])
            elif w[0] & 255 == Submission.COPY_OUT:
                self.host_memory[w[2]:w[2] + w[6]] = self.device_memory.read(w[4] | w[5] << 32,
                                                                            w[6])
            elif w[0] & 255 == Submission.EVENT_RECORD:
                self.events[w[8]] += 1
                value = self.events[w[8]]
            elif w[0] & 255 == Submission.EVENT_WAIT:       # in order: it has come or never comes
                value = self.events[w[8]]
                if value < w[7]:
                    raise Refused(Code.WATCHDOG, w[8], "An event that nobody records")
            else:
                self._launch(w)
        except Refused as error:
            code, number, at = error.code, error.field, getattr(error, "address", 0)
        base = self.registers["completion_base_lo"]
        entries = 1 << self.registers["completion_size"]
        entry = np.array([w[0] >> 16 | code << 16 | ((self.done // entries + 1) & 1) << 24,
                          number << 20, 0, 1, at & 0xffffffff, at >> 32, value, 0],
                         "<u4")
        place = base + 32 * (self.done % entries)
        self.host_memory[place:place + 32] = entry.view(np.uint8)
        self.done += 1

    def _launch(self, w):
        base, die = w[2] | w[3] << 32, w[8] & 255
        settings = self.device_memory.parts[die, Region.CONTROL][CONFIGURATION_LINE * LINE:]
        if not int.from_bytes(settings[:16].tobytes(), "little") & OPEN:
            raise Refused(Code.BAD_FIELD, 8, f"PEs of die {die} are not open")
        pes, mask = self.configuration.pes, w[8] >> 16 | w[10] << 16 | w[11] << 48
        entries = self.device_memory.read(base, LINE * table_lines(pes)).view("<u4")
        programs = {pe: base + LINE * int(entries[pe]) for pe in range(pes) if mask >> pe & 1}
        memory = self.device_memory.seen_from(die, self.configuration)
        machines = {pe: Machine(memory, lines=self.lines) for pe in programs}
        joined(machines, ring_order(self.configuration.rows, self.configuration.columns))
        run_together(machines, programs)
