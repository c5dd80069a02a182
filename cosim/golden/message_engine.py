"""Message engine: what a program's entries do to memory, in which order, and how it ends.

A program is executed entry by entry, each as a whole, in any order that the conditions allow: a
program without races gives the same memory in each. Layouts and rules: docs/network.md.
"""
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from cosim.golden import near_memory
from cosim.golden.formats import BLOCK, MX_FORMATS, SPECS, Format
from cosim.golden.quantise import Rule

LINE = 64
SUBGRAPHS = 7
UNDER_WAY = 16
MARKS = 256             # an entry waits for that so many before it
ADDRESS_LIMIT = 1 << 48


class Kind(IntEnum):
    SEND = 1
    WRITE = 2
    WRITE_IMM = 3
    READ = 4
    RECV = 0x10
    WAIT = 0x20
    SET = 0x21
    REDUCE = 0x22
    COPY = 0x23
    ARRIVE = 0x24


NIC = (Kind.SEND, Kind.WRITE, Kind.WRITE_IMM, Kind.READ, Kind.RECV)


class Code(IntEnum):
    OK = 0
    BAD_COMMAND = 1
    BAD_FIELD = 2
    BAD_ADDRESS = 4
    WATCHDOG = 5
    POISON = 6
    ABORTED = 7
    LINK_DOWN = 8
    NETWORK = 9


@dataclass(frozen=True)
class Report:
    """How a program ended; fields as of a PE's report."""

    code: Code = Code.OK
    tag: int = 0
    field: int = 0
    address: int = 0


class ProgramError(Exception):
    """The program ends with ``report``."""

    def __init__(self, code, tag, *, field=0, address=0):
        self.report = Report(Code(code), tag, field, address)
        super().__init__(str(self.report))


class Memory:
    """Bytes from address 0 on. ``errors`` maps the numbers of lines to the codes of an access."""

    def __init__(self, size):
        self.bytes, self.errors = np.zeros(size, np.uint8), {}

    def _check(self, address, count, tag):
        for line in range(address // LINE, -(-(address + count) // LINE)):
            code = self.errors.get(line)
            if code is None and (line + 1) * LINE > len(self.bytes):
                code = Code.BAD_ADDRESS
            if code is not None:
                raise ProgramError(code, tag, address=line * LINE)

    def read(self, address, count, tag=0):
        self._check(address, count, tag)
        return self.bytes[address:address + count].copy()

    def write(self, address, values, tag=0):
        self._check(address, len(values), tag)
        self.bytes[address:address + len(values)] = np.frombuffer(bytes(values), np.uint8)


ENTRY_FIELDS = {        # first bit and width
    "kind": (0, 8), "fence": (8, 1), "rx_sync": (9, 1), "sync": (10, 1), "back": (16, 8),
    "compare": (24, 4), "format": (28, 4), "length": (32, 32), "local": (64, 64),
    "remote": (128, 64), "third": (192, 64), "local_key": (256, 32), "remote_key": (288, 32),
    "immediate": (320, 32), "rule": (352, 4), "scales_s": (384, 32), "scales_a": (416, 32),
    "scales_b": (448, 32)}


def encode(**values) -> bytes:
    """An entry, 64 bytes; fields that are not given are 0."""
    word = 0
    for name, value in values.items():
        first, width = ENTRY_FIELDS[name]
        if not 0 <= value < 1 << width:
            raise ValueError(f"{name} must fit in {width} bits, not {value!r}")
        word |= int(value) << first
    return word.to_bytes(LINE, "little")


@dataclass(frozen=True)
class Entry:
    """An entry, decoded."""

    line: bytes

    def __getattr__(self, name):
        if name not in ENTRY_FIELDS:
            raise AttributeError(name)
        first, width = ENTRY_FIELDS[name]
        return int.from_bytes(self.line, "little") >> first & (1 << width) - 1


def encode_program(subgraphs: Iterable[tuple[int, int]]) -> bytes:
    """First line of a program, of the address and the number of entries of each subgraph."""
    subgraphs = list(subgraphs)
    words = np.zeros(LINE // 8, np.uint64)
    words[0] = len(subgraphs)
    for n, (address, entries) in enumerate(subgraphs):
        words[n + 1] = address | entries << 48
    return words.tobytes()


def wrong_field(e: Entry) -> int | None:
    """The lowest word of an entry of a known kind that has a value it must not have."""
    wrong = set()

    def require(good, word):
        if not good:
            wrong.add(word)

    def place(value, word, unit=1):
        require(value % unit == 0, word)
        require(value < ADDRESS_LIMIT, word + 1)

    if e.kind in NIC:
        place(e.third, 6, LINE)
    if e.kind in (Kind.WAIT, Kind.SET):
        place(e.local, 2, 4)
        require(e.kind == Kind.SET or e.compare < 4, 0)
    if e.kind in (Kind.REDUCE, Kind.COPY):
        mx, adds = e.format in MX_FORMATS, e.kind == Kind.REDUCE
        require(e.format <= Format.E5M2, 0)
        place(e.local, 2, LINE)
        place(e.remote, 4, LINE if mx else 1)
        if adds:
            place(e.third, 6, LINE if mx else 1)
        if mx:
            require(e.length % BLOCK == 0, 1)
            require(e.rule < 4, 11)
            for word, value in enumerate((e.scales_s, e.scales_a, e.scales_b)[:2 + adds], 12):
                require(value % LINE == 0, word)
        elif adds and e.format <= Format.E5M2:
            require(e.length % (SPECS[Format(e.format)].bits // 8) == 0, 1)
    return min(wrong, default=None)


@dataclass
class Subgraph:
    address: int
    entries: int
    next: int = 0
    open: dict = field(default_factory=dict)    # entries under way by number


class Program:
    """A program under way. Errors are raised as :exc:`ProgramError`.

    ``posted``: work requests, as pairs of the doorbell's address and the line. ``arrived``: label
    of the ARRIVE that waits.
    """

    def __init__(self, memory: Memory, address: int, *, epoch: int = 1):
        self.memory, self.epoch, self.posted, self.arrived = memory, epoch, [], None
        if address % LINE:
            raise ProgramError(Code.BAD_FIELD, 0)
        words = memory.read(address, LINE).view("<u8")
        count = int(words[0]) & 0xFFFFFFFF
        if not 1 <= count <= SUBGRAPHS:
            raise ProgramError(Code.BAD_FIELD, 0)
        self.subgraphs = []
        for n, word in enumerate(int(w) for w in words[1:count + 1]):
            start, entries = word % ADDRESS_LIMIT, word >> 48
            if start % LINE or not entries:
                raise ProgramError(Code.BAD_FIELD, self.label(n, 0),
                                   field=2 + 2 * n + (not start % LINE))
            self.subgraphs.append(Subgraph(start, entries))

    @staticmethod
    def label(subgraph, number):
        return subgraph << 12 | number & 0xFFF

    @property
    def finished(self):
        return all(s.next == s.entries and not s.open for s in self.subgraphs)

    @property
    def awaited(self) -> int:
        """Label of the entry that the lowest unfinished subgraph waits for."""
        n, s = next((n, s) for n, s in enumerate(self.subgraphs)
                    if s.open or s.next < s.entries)
        return self.label(n, min(s.open, default=s.next))

    def fetch(self, n) -> Entry:
        s = self.subgraphs[n]
        return Entry(self.memory.read(s.address + LINE * s.next, LINE,
                                      self.label(n, s.next)).tobytes())

    def may_start(self, n) -> bool:
        """Whether the next entry of subgraph ``n`` may start, by its conditions and resources."""
        s = self.subgraphs[n]
        if s.next == s.entries:
            return False
        e, under_way = self.fetch(n), s.open.values()
        return not (
            len(s.open) == UNDER_WAY or s.next - MARKS in s.open
            or any(other.fence for other in under_way)
            or e.back and s.next - e.back in s.open
            or e.rx_sync and any(other.kind == Kind.RECV for other in under_way)
            or e.sync and s.open
            or e.kind == Kind.WAIT and any(other.kind == Kind.WAIT for other in under_way)
            or e.kind == Kind.ARRIVE and self.arrived is not None)

    def start(self, n):
        """Starts the next entry of subgraph ``n``, which must be one that may."""
        s, e = self.subgraphs[n], self.fetch(n)
        number, tag = s.next, self.label(n, s.next)
        if e.kind not in list(Kind):
            raise ProgramError(Code.BAD_COMMAND, tag)
        if (wrong := wrong_field(e)) is not None:
            raise ProgramError(Code.BAD_FIELD, tag, field=wrong)
        s.next += 1
        match Kind(e.kind):
            case Kind.SET:
                self.memory.write(e.local, e.immediate.to_bytes(4, "little"), tag)
            case Kind.REDUCE | Kind.COPY:
                if e.length:
                    self._move(e, tag)
            case Kind.WAIT:
                s.open[number] = e
                self.look(n)
            case Kind.ARRIVE:
                s.open[number], self.arrived = e, tag
            case _:
                s.open[number] = e
                self.memory._check(e.third, LINE, tag)
                self.posted.append((e.third, self.work_request(e, n, number)))

    def work_request(self, e, n, number) -> bytes:
        cookie = self.epoch << 12 | n << 8 | number & 0xFF
        word = e.kind | cookie << 16 | e.length << 32 | e.local << 64 | e.remote << 128 | (
            e.local_key << 192 | e.remote_key << 224 | e.immediate << 256)
        return word.to_bytes(LINE, "little")

    def _move(self, e, tag):
        form, adds = Format(e.format), e.kind == Kind.REDUCE
        sources = (e.remote, e.third)[:1 + adds]
        codes = [self.memory.read(at, e.length, tag).view(SPECS[form].code_dtype if adds
                                                          else np.uint8) for at in sources]
        if form not in MX_FORMATS:
            out = near_memory.add(*codes, form) if adds else codes[0]
            self.memory.write(e.local, out.astype(codes[0].dtype).tobytes(), tag)
            return
        scales = [self.memory.read((at + offset) % ADDRESS_LIMIT, e.length // BLOCK, tag)
                  for at, offset in zip(sources, (e.scales_a, e.scales_b), strict=False)]
        out, out_scales = codes[0], scales[0]
        if adds:
            out, out_scales = near_memory.add_mx(codes[0], scales[0], codes[1], scales[1], form,
                                                 Rule(e.rule))
        self.memory.write(e.local, out.astype(np.uint8).tobytes(), tag)
        self.memory.write((e.local + e.scales_s) % ADDRESS_LIMIT,
                          out_scales.astype(np.uint8).tobytes(), tag)

    def look(self, n) -> bool:
        """Reads the word that subgraph ``n`` waits for; True if the WAIT has ended."""
        s = self.subgraphs[n]
        for number, e in list(s.open.items()):
            if e.kind != Kind.WAIT:
                continue
            word = int(self.memory.read(e.local, 4, self.label(n, number)).view("<u4")[0])
            word &= e.local_key
            value = e.immediate
            if (word == value, word != value, word < value, word >= value)[e.compare]:
                del s.open[number]
                return True
        return False

    def proceed(self):
        """The barrier has opened."""
        n, number = self.arrived >> 12, self.arrived & 0xFFF
        del self.subgraphs[n].open[next(k for k in self.subgraphs[n].open if k & 0xFFF == number)]
        self.arrived = None

    def complete(self, cookie, status=0, address=0) -> bool:
        """A completion came; False if it is of no entry that is under way."""
        n, index = cookie >> 8 & 15, cookie & 0xFF
        if cookie >> 12 != self.epoch or n >= len(self.subgraphs):
            return False
        s = self.subgraphs[n]
        number = next((k for k, e in s.open.items() if k & 0xFF == index and e.kind in NIC), None)
        if number is None:
            return False
        if status:
            raise ProgramError(Code.NETWORK, self.label(n, number), field=status, address=address)
        del s.open[number]
        return True


def run(memory: Memory, address: int, nic=None, *, epoch: int = 1, rng=None) -> Report:
    """Executes a program to its end. What can happen next is chosen by ``rng``, else the first.

    ``nic(posted)`` takes the pairs that were posted since it was called last and gives completions
    as tuples of cookie, status and address; it is called when nothing else can happen. A program
    that then still waits ends by the watchdog. Barriers open at once.
    """
    try:
        program = Program(memory, address, epoch=epoch)
        while not program.finished:
            able = [n for n in range(len(program.subgraphs)) if program.may_start(n)]
            if able:
                program.start(able[rng.integers(len(able))] if rng else able[0])
                continue
            if any([program.look(n) for n in range(len(program.subgraphs))]):
                continue
            if program.arrived is not None:
                program.proceed()
                continue
            posted, program.posted = program.posted, []
            completions = list(nic(posted)) if nic else []
            if not completions:
                raise ProgramError(Code.WATCHDOG, program.awaited)
            for completion in completions:
                program.complete(*completion)
    except ProgramError as error:
        return error.report
    return Report()
