"""Driver of a package: device memory, copies, streams, events, launches, time-outs."""
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from host.boot import Settings, configure
from host.isa import (
    LINE,
    MESSAGE_ENGINE,
    Code,
    Region,
    Submission,
    Unit,
    address,
    ceil,
    offset_of,
)
from host.kernels.schedule import Die
from host.program import table, table_lines
from host.tensor import Tensor

STREAMS = 4
EVENTS = 16
RING_LOG2 = 6
CHANNEL_BYTES = 16      # of an HBM pseudo-channel, a clock of its commands
COMPLETION = 32     # bytes of a completion entry
DEFAULT_TIMEOUT = 20_000_000    # cycles; this project's choice


class DeviceError(RuntimeError):
    """A submission ended with an error; the message is one sentence.

    ``note`` is a template of what more to say, with the fields of the completion.
    """

    def __init__(self, completion, what, note=""):
        self.completion = completion
        c = completion
        where = f"die {c.die}"
        if c.failed:
            where += (", message engine" if c.unit == MESSAGE_ENGINE
                      else f", PE {c.pe}, unit {Unit(c.unit).name}")
        where += f", command {c.command}, field {c.field}"
        if c.code in (Code.BAD_ADDRESS, Code.POISON) or c.code == Code.LINK_DOWN and c.address:
            where += f", address {c.address:#x}"
        if note:
            where += ", " + note.format(c)
        super().__init__(f"{what} ended with {Code(c.code).name} ({where})")


class DeviceTimeout(RuntimeError):
    """Submissions did not complete in time; the message names them."""


@dataclass(frozen=True)
class Completion:
    """A completion entry, decoded (see docs/programming-model.md).

    ``address``: of the access that failed, with ``BAD_ADDRESS`` and ``POISON``, and with
    ``LINK_DOWN`` if a program asked; else 0. ``value``: what an event has counted. ``failed``: bit
    n stands for PE n.
    """

    tag: int
    code: int
    command: int
    unit: int
    field: int
    die: int
    pe: int
    failed: int
    cycles: int
    address: int = 0
    value: int = 0

    @classmethod
    def decode(cls, words, *, launch):
        a, b, c, d, low, high, value, upper = (int(w) for w in words)
        failed = c >> 16
        if launch:
            failed, value = failed | value << 16 | upper << 48, 0
        return cls(a & 0xffff, a >> 16 & 0xff, b & 0xffff, b >> 16 & 15, b >> 20 & 0xff, b >> 28,
                   c & 0xff, failed, d, low | high << 32, value)


@dataclass
class Event:
    """Something submitted; done when its completion has been seen."""

    device: "Device"
    what: str
    stream: int
    note: str = ""
    launch: bool = False
    completion: Completion | None = None
    finish: list = field(default_factory=list)

    @property
    def done(self):
        return self.completion is not None

    def wait(self, timeout=DEFAULT_TIMEOUT):
        """Run the package until this is done; :exc:`DeviceError` if it failed."""
        self.device.run_until(lambda: self.done, timeout)
        if self.completion.code != Code.OK:
            raise DeviceError(self.completion, self.what, self.note)
        return self.completion


@dataclass
class StreamEvent:
    """Points of a stream that other streams wait for, without the host: see :meth:`Device.record`.

    ``stream`` records it; ``records`` counts the records submitted, as the package will.
    """

    number: int
    records: int
    stream: int | None = None
    last: Event | None = None


class Heap:
    """First-fit allocator of a window of memory, in lines."""

    def __init__(self, base, size):
        self.free = [(base, size)]
        self.used = {}

    def alloc(self, size):
        """Address of ``size`` bytes on a line; :exc:`MemoryError` if there is no such gap."""
        size = max(ceil(size, LINE), LINE)
        for i, (base, gap) in enumerate(self.free):
            if gap >= size:
                self.free[i:i + 1] = [(base + size, gap - size)] if gap > size else []
                self.used[base] = size
                return base
        raise MemoryError(f"No {size} bytes are free in one piece; "
                          f"the largest gap has {max((g for _, g in self.free), default=0)}")

    def release(self, base):
        size = self.used.pop(base)
        self.free = sorted([*self.free, (base, size)])
        merged = []
        for start, gap in self.free:
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + gap)
            else:
                merged.append((start, gap))
        self.free = merged


class Device:
    """A package behind a transport that gives registers, host memory and time.

    Parameters
    ----------
    transport
        ``read_register(name)``, ``write_register(name, value)``, ``host_memory`` (bytes as a numpy
        array), ``run_until_interrupt(max_cycles)``, ``cycle``, and ``configuration`` with ``dies``,
        ``pes`` (a die), ``sram_bytes`` and ``hbm_bytes`` (a die), and what :attr:`shape` needs.
    settings : host.boot.Settings
        What the dies are set to; if None, ``transport.settings``, if there are any.
    """

    def __init__(self, transport, settings=None):
        self.transport = transport
        self.configuration = transport.configuration
        entries = 1 << RING_LOG2
        self.ring, self.host = 0, transport.host_memory
        self.completions = entries * LINE
        base = ceil(self.completions + entries * COMPLETION, LINE)
        self.host_heap = Heap(base, len(self.host) - base)
        self.heaps = {(die, region): Heap(0, size) for die in range(self.configuration.dies)
                      for region, size in ((Region.SRAM, self.configuration.sram_bytes),
                                           (Region.HBM, self.configuration.hbm_bytes))}
        self.pending, self.tail, self.seen, self.tag = {}, 0, 0, 0
        self.order = deque()
        self.batching = False
        self.records, self.free_events = [0] * EVENTS, list(range(EVENTS))
        for name, value in (("submission_base_lo", self.ring), ("submission_base_hi", 0),
                            ("submission_size", RING_LOG2),
                            ("completion_base_lo", self.completions), ("completion_base_hi", 0),
                            ("completion_size", RING_LOG2), ("interrupt_enable", 1)):
            transport.write_register(name, value)
        self.settings = settings or getattr(transport, "settings", Settings())
        configure(self, self.settings)

    @property
    def dies(self):
        return range(self.configuration.dies)

    @property
    def pes(self):
        return list(range(self.configuration.pes))

    @property
    def targets(self):
        """Entries of a program table, bits of a launch's mask: PEs, then message engines."""
        return self.configuration.pes + self.configuration.engines

    @property
    def hbm_pins(self):
        """Bytes that the pins of a die's HBM carry in a cycle of the die's clock."""
        c = self.configuration
        return c.hbm_channels * CHANNEL_BYTES * c.hbm_megahertz / c.core_megahertz

    @property
    def shape(self):
        """What kernels have to know of a die."""
        return Die(self.configuration.mx4_lanes, self.configuration.banks, self.hbm_pins / LINE)

    @property
    def reduction_ring(self):
        """PEs of a die in the order of the reduction ring; the last is followed by the first."""
        c = self.configuration
        rows = [self.pes[c.columns * row:][:c.columns] for row in range(c.rows)]
        return [pe for row, pes in enumerate(rows) for pe in (pes[::-1] if row % 2 else pes)]

    @property
    def pes_far_first(self):
        """PEs, those first whose loads from SRAM, at both ends of each row, take longest.

        A kernel that cannot share out its work evenly gives the first ones less.
        """
        columns = self.configuration.columns
        return sorted(self.pes, key=lambda pe: -min(pe % columns, columns - 1 - pe % columns))

    def alloc(self, die, count, region=Region.SRAM):
        """Device address of ``count`` free bytes on a line."""
        return address(die, region, self.heaps[die, region].alloc(count))

    def free(self, at):
        self.heaps[at >> 44, Region(at >> 40 & 15)].release(offset_of(at))

    def empty(self, die, rows, columns, form, region=Region.SRAM):
        """Allocate a tensor."""
        if rows < 1 or columns < 1:
            raise ValueError(f"Shape must be positive, not {rows}x{columns}")
        plain = Tensor(0, rows, columns, form, 0 if form.is_mx else None)
        elements = self.alloc(die, plain.element_bytes, region)
        scales = self.alloc(die, plain.scale_bytes, region) if form.is_mx else None
        return Tensor(elements, rows, columns, form, scales)

    def release(self, tensor):
        self.free(tensor.address)
        if tensor.scales is not None:
            self.free(tensor.scales)

    def write(self, at, data, *, stream=0):
        """Copy bytes to the device; returns an :class:`Event`."""
        data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        staging = self.host_heap.alloc(len(data))
        self.host[staging:staging + len(data)] = data
        event = self._submit(Submission.COPY_IN, f"Copy of {len(data)} bytes to {at:#x}", stream,
                             w2=staging, w4=at, w6=len(data))
        event.finish.append(lambda: self.host_heap.release(staging))
        return event

    def read(self, at, count, *, stream=0, timeout=DEFAULT_TIMEOUT):
        """Bytes of device memory; waits for what the stream was given before."""
        return self.read_each([at], count, stream=stream, timeout=timeout)[0]

    def read_each(self, places, count, *, stream=0, timeout=DEFAULT_TIMEOUT):
        """``count`` bytes from each of some addresses, asked for together: [address, byte]."""
        staging = self.host_heap.alloc(count * len(places))
        events = []
        try:
            with self.batch():
                for number, at in enumerate(places):
                    events.append(self._submit(
                        Submission.COPY_OUT, f"Copy of {count} bytes from {at:#x}", stream,
                        w2=staging + number * count, w4=at, w6=count))
            for event in events:
                event.wait(timeout)
            data = self.host[staging:staging + count * len(places)]
            return data.reshape(len(places), count).copy()
        finally:
            if events and not events[-1].done:      # the package may still write there
                events[-1].finish.append(lambda: self.host_heap.release(staging))
            else:
                self.host_heap.release(staging)

    def put(self, packed, die, region=Region.SRAM, *, stream=0):
        """Allocate a tensor and copy packed rows into it (see ``host.tensor.pack``)."""
        tensor = self.empty(die, packed.rows, packed.columns, packed.format, region)
        self.write(tensor.address, packed.elements, stream=stream)
        if packed.scales is not None:
            self.write(tensor.scales, packed.scales, stream=stream)
        return tensor

    def get(self, tensor, *, stream=0, timeout=DEFAULT_TIMEOUT):
        """FP32 tensor as an array [rows, columns]."""
        raw = self.read(tensor.address, tensor.element_bytes, stream=stream, timeout=timeout)
        return raw.view("<f4").reshape(tensor.rows, -1)[:, :tensor.columns].copy()

    def launch(self, die, programs, *, stream=0, watchdog=0):
        """Copy programs (by PE) to the die's SRAM and start them; returns an :class:`Event`."""
        return self.start(self.prepare(die, programs, stream=stream), stream=stream,
                          watchdog=watchdog)

    def prepare(self, die, programs, *, stream=0):
        """Copy programs (by PE) to the die's SRAM; returns what :meth:`start` takes, once."""
        if not programs:
            raise ValueError("A launch needs the program of at least one PE")
        size = LINE * (table_lines(self.targets) + sum(len(p.words()) for p in programs.values()))
        base = self.alloc(die, size)
        self.write(base, np.frombuffer(table(programs, base=base, pes=self.targets), np.uint8),
                   stream=stream)
        return die, base, sum(1 << pe for pe in programs)

    def start(self, prepared, *, stream=0, watchdog=0):
        """Launch prepared programs; returns an :class:`Event`."""
        die, base, mask = prepared
        event = self._submit(Submission.LAUNCH, f"Launch on die {die}", stream, w2=base,
                             w3=base >> 32, w8=die | (mask & 0xffff) << 16, w9=watchdog,
                             w10=mask >> 16, w11=mask >> 48)
        event.finish.append(lambda: self.free(base))
        return event

    def run_together(self, prepared):
        """Start prepared launches, each in a stream of its die, by one doorbell, and wait for all.

        Returns the cycles of the longest.
        """
        with self.batch():
            events = [self.start(p, stream=p[0] % STREAMS) for p in prepared]
        return max(event.wait().cycles for event in events)

    @contextmanager
    def shaped(self, rate, burst):
        """Within, PEs ask memory for at most ``rate`` lines in 256 cycles, ``burst`` at once.

        For launches that all wait for memory: none gets ahead of the others for long. Enter and
        leave while no launch is under way.
        """
        configure(self, replace(self.settings, request_rate=rate, request_burst=burst))
        try:
            yield
        finally:
            configure(self, self.settings)

    def event(self):
        """A :class:`StreamEvent`, to be recorded by one stream; one of 16."""
        if not self.free_events:
            raise RuntimeError(f"All {EVENTS} events are in use: release one")
        number = self.free_events.pop(0)
        return StreamEvent(number, self.records[number])

    def release_event(self, event):
        """Give an event back; :exc:`ValueError` if its last record is not done."""
        if event.last is not None and not event.last.done:
            raise ValueError(f"Event {event.number} must be reached before it is released")
        self.free_events.append(event.number)

    def record(self, event, stream=0):
        """Mark the present end of a stream: reached when all before it there has ended.

        :exc:`ValueError` if another stream recorded the event before. Returns an :class:`Event`.
        """
        if event.stream not in (None, stream):
            raise ValueError(f"Event {event.number} is recorded by stream {event.stream}: "
                             f"stream {stream} must have another")
        done = self._submit(Submission.EVENT_RECORD, f"Record of event {event.number}", stream,
                            w8=event.number)
        event.stream, event.last = stream, done
        event.records = self.records[event.number] = event.records + 1 & 0xffffffff
        return done

    def wait(self, event, stream=0, *, watchdog=0):
        """What the stream is given from now on waits for the last record of the event.

        It ends with ``WATCHDOG`` after ``watchdog`` cycles (0: 2^24); what follows runs then, as
        after any error. :exc:`ValueError` if the event was never recorded: nothing would end the
        wait. Returns an :class:`Event`.
        """
        if event.stream is None:
            raise ValueError(f"Event {event.number} must be recorded before a stream waits for it")
        what = (f"Wait of stream {stream} for record {event.records} of event {event.number} by "
                f"stream {event.stream}")
        done = self._submit(Submission.EVENT_WAIT, what, stream, w7=event.records, w8=event.number,
                            w9=watchdog)
        done.note = "{0.value} records were there"
        return done

    def _submit(self, opcode, what, stream, **words):
        if not 0 <= stream < STREAMS:
            raise ValueError(f"Stream must be 0 to {STREAMS - 1}, not {stream}")
        entries = 1 << RING_LOG2
        if self.batching and len(self.order) >= entries - 1:    # the device must see them first
            self.transport.write_register("submission_tail", self.tail)
        self.run_until(lambda: len(self.order) < entries - 1, DEFAULT_TIMEOUT)
        self.tag = (self.tag + 1) & 0xffff
        entry = np.zeros(16, "<u4")
        entry[0] = opcode | stream << 8 | self.tag << 16
        for name, value in words.items():
            entry[int(name[1:])] = value & 0xffffffff
            if name == "w4":
                entry[5] = value >> 32
        at = self.ring + self.tail * LINE
        self.host[at:at + LINE] = entry.view(np.uint8)
        self.tail = (self.tail + 1) % entries
        event = self.pending[self.tag] = Event(
            self, what, stream, launch=opcode == Submission.LAUNCH)
        self.order.append(self.tag)
        if not self.batching:
            self.transport.write_register("submission_tail", self.tail)
        return event

    @contextmanager
    def batch(self):
        """Submissions inside become visible to the device together, by one doorbell."""
        self.batching = True
        try:
            yield
        finally:
            self.batching = False
            self.transport.write_register("submission_tail", self.tail)

    def run_until(self, condition, timeout):
        """Run the package until ``condition``; :exc:`DeviceTimeout` after ``timeout`` cycles."""
        start = self.transport.cycle
        self._collect()
        while not condition():
            left = timeout - (self.transport.cycle - start)
            if left <= 0 or not self.order:
                names = "; ".join(self.pending[t].what for t in list(self.order)[:4])
                raise DeviceTimeout(f"After {self.transport.cycle - start} cycles these had not "
                                    f"completed: {names or 'nothing was submitted'}")
            self.transport.run_until_interrupt(left)
            self.transport.write_register("interrupt_status", 1)
            self._collect()

    def _collect(self):
        """Take the completions that have arrived, and give their ring entries back."""
        entries, taken = 1 << RING_LOG2, False
        while self.order:
            index, phase = self.seen % entries, (self.seen // entries + 1) & 1
            at = self.completions + COMPLETION * index
            words = self.host[at:at + COMPLETION].view("<u4")
            if int(words[0]) >> 24 & 1 != phase:
                break
            tag = int(words[0]) & 0xffff
            self.seen, taken = self.seen + 1, True
            event = self.pending.pop(tag, None)
            if event is None:   # a completion that nobody waits for must not stop the others
                continue
            self.order.remove(tag)
            event.completion = Completion.decode(words, launch=event.launch)
            for action in event.finish:
                action()
        if taken:
            self.transport.write_register("completion_head", self.seen % entries)

    def synchronize(self, timeout=DEFAULT_TIMEOUT):
        """Run until everything submitted is done; :exc:`DeviceError` for the first failure."""
        events = [self.pending[t] for t in self.order]
        self.run_until(lambda: not self.order, timeout)
        for event in events:
            event.wait()
