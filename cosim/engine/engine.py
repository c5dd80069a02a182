"""Python side of the engine: builds the native system from its description and runs it."""
import ctypes
import mmap
import time

import numpy as np

from cosim.build.native import build_engine

DEVICES = 1 << 31   # a part of a die that is no model counts from here
LIMIT, WATCH, MAIL, QUIET, FAILED, LOST = 0, 1, 2, 4, 8, 16
RUN_SLICE = 4096    # cycles a native call at most, so that an interrupt from the keyboard is seen
RESET_CYCLES = 8    # this project's choice
FREE_QUANTUM = 16   # cycles between two barriers of dies without channels
COUNTERS, MAILBOX = 64, 16
ACCESS_TIMEOUT = 100_000  # cycles; this project's choice
NORESERVE = 0x4000  # Linux MAP_NORESERVE, which mmap does not name in every Python


class EngineError(Exception):
    """The system cannot be built or stopped for a reason of its own; one sentence."""


class Event(ctypes.Structure):
    _fields_ = [("cycle", ctypes.c_uint64), ("lane", ctypes.c_uint32), ("value", ctypes.c_uint32)]


def load_library():
    """The native engine with the types of its functions."""
    library = ctypes.CDLL(str(build_engine()))
    p, s, u, q = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint64
    fallible = {"die": [p, s], "model": [p, u, s, s], "copy": [p, u, u, s, u, s, s],
                "tie": [p, u, u, s, q], "gate": [p, u, u, s, ctypes.c_int, q],
                "wake": [p, u, u, u, s], "late": [p, u, u],
                "channel": [p, s, u, u, s, s, u, u, s, s, q], "device": [p, u, s, s, p, q, u],
                "second_clock": [p, u, q, q], "break": [p, u, u],
                "device_pin": [p, u, s, u, u, s], "device_port": [p, u, s, u, u],
                "device_parameter": [p, u, s, q],
                "watch": [p, u, u, s], "lane": [p, u, u, s, u], "waves": [p, u, u, s],
                "start": [p, u, u], "stop": [p], "run": [p, q, u], "pid": [p, u]}
    other = {"new": ([q, q], p), "delete": ([p], None), "message": ([p], s), "cycle": ([p], q),
             "hash": ([p, u], q), "failure": ([p, u], s), "carried": ([p, u], q),
             "skipped": ([p, u, u], q), "counters": ([p, u], p), "mailbox": ([p, u], p),
             "watched": ([p, u], q), "arm": ([p, u, u], None),
             "events": ([p, u, ctypes.POINTER(p)], q)}
    for name, (arguments, result) in (other | {n: (a, ctypes.c_int64)
                                               for n, a in fallible.items()}).items():
        function = getattr(library, f"engine_{name}")
        function.argtypes, function.restype = arguments, result
    return library


class Engine:
    """A running system of dies.

    The result (cycles, hashes, memories) does not depend on ``threads``, ``processes`` or
    ``quantum_cycles``. Stop conditions are looked at between quanta only.

    Parameters
    ----------
    dies : list of Die
    channels : list of Channel
    threads, processes : int
        Workers; one of the two must be 1. Dies are assigned to them once.
    quantum_cycles : int
        Cycles between two barriers [cycle]; by default the shortest latency of a channel.
        :exc:`ValueError` if it is longer than that.
    watch : list of (die, model, port)
        Outputs that stop :meth:`run` when asked to.
    waves : pathlib.Path
        Stem of the FST files, one a model: ``<stem>.<die>.<model>.fst``; needs models built so.
    trace : bool
        Record the lanes of every die.
    gating : bool
        Let models with a gate sleep.
    """

    def __init__(self, dies, channels=(), *, threads=1, processes=1, quantum_cycles=None,
                 watch=(), waves=None, trace=False, gating=True):
        if threads < 1 or processes < 1 or (threads > 1 and processes > 1):
            raise ValueError(f"Threads and processes must be positive and one of them 1, "
                             f"not {threads!r} and {processes!r}")
        shortest = min((c.latency_cycles for c in channels), default=FREE_QUANTUM)
        self.quantum_cycles = quantum_cycles or shortest
        if not 1 <= self.quantum_cycles <= shortest:
            raise ValueError(f"Quantum must be 1 to {shortest} cycles, the shortest channel, "
                             f"not {quantum_cycles!r}")
        self.dies, self.channels = list(dies), list(channels)
        self.seconds, self._memories, self._devices = 0.0, {}, {}
        self._library = load_library()
        self._engine = self._library.engine_new(self.quantum_cycles, RESET_CYCLES)
        if not self._engine:
            raise EngineError("No shared memory is left for the engine")
        try:
            self._models = {}
            for number, die in enumerate(self.dies):
                self._add_die(number, die, gating)
            for channel in self.channels:
                self._add_channel(channel)
            for die, model, port in watch:
                self._call("watch", *self._models[die, model], port)
            self._armed = self._watches = frozenset(range(len(watch)))
            self.lanes = self._add_lanes() if trace else []
            if waves is not None:
                self._add_waves(waves)
            self._call("start", threads, processes)
        except BaseException:
            self.close()
            raise

    @property
    def _handle(self):
        if not self._engine:
            raise EngineError("The engine was closed")
        return self._engine

    def _call(self, name, *arguments):
        arguments = [a.encode() if isinstance(a, str) else a for a in arguments]
        result = getattr(self._library, f"engine_{name}")(self._handle, *arguments)
        if result < 0:
            raise EngineError(self._library.engine_message(self._handle).decode())
        return result

    def _add_die(self, number, die, gating):
        self._call("die", die.name)
        self._call("second_clock", number, *die.second_clock)
        index = {}
        for name, model in die.models.items():
            index[name] = self._call("model", number, name, str(model.library))
            self._models[die.name, name] = (number, index[name])
            if model.held:
                self._call("late", number, index[name])
        for to, to_port, source, port in die.copies():
            self._call("copy", number, index[to], to_port, index[source], port,
                       die.guard(source, port))
        for (model, port), value in die.ties.items():
            self._call("tie", number, index[model], port, value)
        for model, gate in die.gates.items():
            self._call("gate", number, index[model], gate.idle, int(gating), gate.linger_cycles)
            feeds = {(to, to_port): (source, port) for to, to_port, source, port in die.copies()}
            for port in die.pulses(model):
                source, name = feeds.get((model, port), (model, port))
                self._call("wake", number, index[model], index[source], name)
        for model in die.broken:
            self._call("break", number, index[model])
        for device in die.devices:
            self._add_device(number, die, device, index)

    def _add_device(self, number, die, device, index):
        name = f"{die.name}.{device.name}"
        address = None
        if device.memory_bytes:
            memory = mmap.mmap(-1, device.memory_bytes,
                               mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | NORESERVE)
            self._memories[name] = array = np.frombuffer(memory, np.uint8)
            address = array.ctypes.data
        handle = self._call("device", number, device.kind, device.name, address,
                            device.memory_bytes, int(device.second_clock))
        for role, (model, port) in device.pins.items():
            self._call("device_pin", handle, role, number, index[model], port)
        for role, (bits, driven) in device.ports.items():
            self._call("device_port", handle, role, bits, int(driven))
        for key, value in device.parameters.items():
            self._call("device_parameter", handle, key, value)
        self._devices[name] = handle

    def _add_channel(self, channel):
        (a, part_a, *out), (b, part_b, *into) = channel.source, channel.target
        self._call("channel", channel.name, *self._part(a, part_a), *out,
                   *self._part(b, part_b), *into, channel.latency_cycles)

    def _part(self, die, part):
        """Numbers of a die and of a model of it or, after those, of a device."""
        if (die, part) in self._models:
            return self._models[die, part]
        number = [d.name for d in self.dies].index(die)
        return number, DEVICES + self._devices[f"{die}.{part}"]

    def _add_lanes(self):
        lanes = []
        for die in self.dies:
            for lane, (model, port) in die.lanes.items():
                self._call("lane", *self._models[die.name, model], port, len(lanes))
                lanes.append((die.name, lane))
        return lanes

    def _add_waves(self, stem):
        for (die, model), (number, index) in self._models.items():
            self._call("waves", number, index, f"{stem}.{die}.{model}.fst")

    def run(self, max_cycles, *, until=LIMIT, watch=None):
        """Simulate up to ``max_cycles``, or until one of the conditions ``until`` holds.

        Conditions (``WATCH``, ``MAIL``, ``QUIET``, or-ed) are looked at between quanta. ``watch``:
        numbers of the watched outputs that count, by default all. Returns those that hold, 0 at
        the limit. :exc:`EngineError` if a device refused what it saw or a worker process was lost.
        """
        self._arm(self._watches if watch is None else frozenset(watch))
        limit = self.cycle + max_cycles
        start = time.perf_counter()
        try:
            while self.cycle < limit:
                target = min(limit, self.cycle + RUN_SLICE)
                reason = self._library.engine_run(self._handle, target, until)
                if reason == LOST:
                    raise EngineError(self._library.engine_message(self._handle).decode())
                if reason & FAILED:
                    raise EngineError(next(filter(None, (
                        self._library.engine_failure(self._handle, n).decode()
                        for n in range(len(self.dies))))))
                if reason:
                    return reason
        finally:
            self.seconds += time.perf_counter() - start
        return LIMIT

    def _arm(self, watches):
        for number in watches ^ self._armed:
            self._library.engine_arm(self._handle, number, number in watches)
        self._armed = watches

    def access(self, master, address, value=None, *, timeout_cycles=ACCESS_TIMEOUT):
        """Read a register, or write ``value`` to it, through the device ``master``.

        The system runs until the quantum boundary after the answer. :exc:`EngineError` if the
        answer is an error or does not come.
        """
        return self.access_each([(master, address, value)], timeout_cycles=timeout_cycles)[0]

    def access_each(self, accesses, *, timeout_cycles=ACCESS_TIMEOUT):
        """Do accesses ``(master, address, value or None)`` of different masters at a time.

        As :meth:`access`; returns what each gave.
        """
        limit, wrong = self.cycle + timeout_cycles, None
        mails = [self.mailbox(master) for master, _, _ in accesses]
        for mail, (_, address, value) in zip(mails, accesses, strict=True):
            mail[1:4] = [value is not None, address, value or 0]
            mail[0] = 1
        for mail, (master, address, value) in zip(mails, accesses, strict=True):
            what = f"The {'read' if value is None else 'write'} of register {address:#x}"
            while mail[0] != 2:
                if not self.run(limit - self.cycle, until=MAIL) & MAIL:
                    raise EngineError(f"{what} by {master} was not answered in "
                                      f"{timeout_cycles} cycles")
            wrong = wrong or mail[4] and (
                f"{what} by {master} was answered {('EXOKAY', 'SLVERR', 'DECERR')[mail[4] - 1]}")
        for mail in mails:
            mail[0] = 0
        if wrong:
            raise EngineError(wrong)
        return [mail[3] for mail in mails]

    @property
    def cycle(self):
        """Cycles simulated so far, those of the reset included."""
        return self._library.engine_cycle(self._handle)

    def memory(self, name):
        """Memory of the device ``<die>.<device>`` as an array of bytes, shared with it."""
        if name not in self._memories:
            raise KeyError(f"No device has the memory {name!r}; "
                           f"these have one: {', '.join(self._memories)}")
        return self._memories[name]

    def _words(self, function, name, count):
        address = getattr(self._library, f"engine_{function}")(self._handle, self._devices[name])
        return (ctypes.c_uint64 * count).from_address(address)

    def counters(self, name):
        """Counters of a device, see its source."""
        return list(self._words("counters", name, COUNTERS))

    def mailbox(self, name):
        """Words that Python and a device both write; only between runs."""
        return self._words("mailbox", name, MAILBOX)

    def hash(self, die):
        """Hash of everything that left a die so far, and of the cycles in which it did."""
        number = [d.name for d in self.dies].index(die)
        return self._library.engine_hash(self._handle, number)

    def watched(self, index):
        """Value of the watched output ``index`` at the last quantum boundary."""
        return self._library.engine_watched(self._handle, index)

    def worker_pids(self):
        """Process numbers of the workers, empty without processes."""
        pids = (self._library.engine_pid(self._handle, n) for n in range(len(self.dies)))
        return [pid for pid in pids if pid > 0]

    def events(self):
        """Recorded changes as ``(die, lane, cycle array, value array)``."""
        for number, die in enumerate(self.dies):
            address = ctypes.c_void_p()
            count = self._library.engine_events(self._handle, number, ctypes.byref(address))
            if count > 1 << 26:
                raise EngineError(f"{die.name} had more trace events than the 2**26 that are kept")
            if not count:
                continue
            raw = np.ctypeslib.as_array((Event * count).from_address(address.value))
            for index, (owner, lane) in enumerate(self.lanes):
                if owner == die.name:
                    mine = raw[raw["lane"] == index]
                    yield die.name, lane, mine["cycle"].copy(), mine["value"].copy()

    def statistics(self):
        """Counts of the run so far, by name."""
        carried = {c.name: self._library.engine_carried(self._handle, i)
                   for i, c in enumerate(self.channels)}
        dies = {die.name: die for die in self.dies}
        width = {c.name: dies[c.source[0]].port_bits(c.source[1], c.source[3]) // 8
                 for c in self.channels}
        return {
            "cycles": self.cycle, "seconds": self.seconds,
            "cycles_per_second": self.cycle / self.seconds if self.seconds else 0.0,
            "channel_bytes": {name: count * width[name] for name, count in carried.items()},
            "channel_phits": carried,
            "skipped_cycles": {f"{die}.{model}": self._library.engine_skipped(self._handle, *where)
                               for (die, model), where in self._models.items()},
            "hashes": {die.name: self._library.engine_hash(self._handle, number)
                       for number, die in enumerate(self.dies)},
        }

    def close(self):
        """Stop the workers and close waveforms; memories stay readable. May be called again."""
        if self._engine:
            try:
                self._call("stop")
            finally:
                self._library.engine_delete(self._engine)
                self._engine = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
