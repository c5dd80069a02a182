"""RTLIL as Yosys writes it, read into wires, cells and connections."""
import re
from dataclasses import dataclass, field

CHUNK = re.compile(r"""\s*(?:
    (?P<open>\{) | (?P<close>\}) |
    (?P<width>\d+)'(?P<bits>[01xzm-]+) | (?P<number>-?\d+)(?!\S) |
    (?P<name>[\\$]\S+)(?:\ \[(?P<high>\d+)(?::(?P<low>\d+))?\])?)""", re.VERBOSE)


class NetlistError(Exception):
    """The netlist holds something that this project does not read."""


@dataclass(frozen=True)
class Chunk:
    """Bits of a wire, or a constant (``name`` is None, ``low`` its value)."""

    name: str | None
    low: int
    width: int

    def part(self, low, width):
        """The ``width`` bits from bit ``low`` on."""
        if self.name is None:
            return Chunk(None, self.low >> low & (1 << width) - 1, width)
        return Chunk(self.name, self.low + low, width)


@dataclass
class Wire:
    name: str
    width: int
    direction: str = ""     # "input", "output" or none
    position: int = 0       # among the ports
    init: int = 0


@dataclass
class Cell:
    kind: str
    name: str
    parameters: dict = field(default_factory=dict)
    ports: dict = field(default_factory=dict)       # name -> chunks, lowest bits first


@dataclass
class Module:
    """One module; a signal is a list of chunks, lowest bits first."""

    name: str
    wires: dict = field(default_factory=dict)
    cells: list = field(default_factory=list)
    connections: list = field(default_factory=list)

    def ports(self, direction):
        found = [w for w in self.wires.values() if w.direction == direction]
        return sorted(found, key=lambda w: w.position)


def width(signal):
    return sum(chunk.width for chunk in signal)


def part(signal, low, bits):
    """``bits`` bits of a signal from bit ``low`` on."""
    found, at = [], 0
    for chunk in signal:
        first, last = max(low, at), min(low + bits, at + chunk.width)
        if first < last:
            found.append(chunk.part(first - at, last - first))
        at += chunk.width
    return found


class Reader:
    """Reads one RTLIL file, line by line."""

    def __init__(self, text):
        self.modules, self.module, self.cell = {}, None, None
        self.init = None
        for line in text.splitlines():
            word, _, rest = line.strip().partition(" ")
            if word and not word.startswith("#"):
                getattr(self, f"_{word}", self._other)(rest)

    def _other(self, rest):
        raise NetlistError(f"A module holds something else than wires and cells: {rest!r}")

    def _autoidx(self, rest):
        pass

    def _parameter(self, rest):
        name, _, value = rest.removeprefix("signed ").partition(" ")
        if not value.startswith('"'):
            self.cell.parameters[name.removeprefix("\\")] = self._constant(value)

    def _attribute(self, rest):
        name, _, value = rest.partition(" ")
        if name == "\\init":
            self.init = self._constant(value)

    def _constant(self, text):
        (chunk,), _ = self._signal(text, 0)
        return chunk.low

    def _module(self, rest):
        self.module = self.modules[rest.removeprefix("\\")] = Module(rest.removeprefix("\\"))

    def _wire(self, rest):
        *options, name = rest.split()
        wire = Wire(name, 1, init=self.init or 0)
        self.init = None
        while options:
            option = options.pop(0)
            if option == "width":
                wire.width = int(options.pop(0))
            elif option in ("input", "output"):
                wire.direction, wire.position = option, int(options.pop(0))
            elif option != "signed":
                raise NetlistError(f"Wire {name} of {self.module.name} is {option}")
        self.module.wires[name] = wire

    def _cell(self, rest):
        kind, name = rest.split()
        self.cell = Cell(kind.removeprefix("\\"), name)
        self.module.cells.append(self.cell)

    def _connect(self, rest):
        if self.cell:
            name, _, text = rest.partition(" ")
            self.cell.ports[name.removeprefix("\\")] = self._signal(text, 0)[0]
        else:
            left, at = self._signal(rest, 0)
            self.module.connections.append((left, self._signal(rest, at)[0]))

    def _end(self, _):
        if self.cell:
            self.cell = None
        else:
            self.module = None

    def _signal(self, text, at):
        """The signal that ``text`` holds from ``at`` on, and where it ends."""
        found = CHUNK.match(text, at)
        if not found:
            raise NetlistError(f"This is no signal: {text[at:]!r}")
        at = found.end()
        if found["open"]:
            chunks = []
            while not (close := CHUNK.match(text, at))["close"]:
                more, at = self._signal(text, at)
                chunks = more + chunks
            return chunks, close.end()
        if found["bits"]:
            bits = re.sub("[^01]", "0", found["bits"])
            return [Chunk(None, int(bits, 2), int(found["width"]))], at
        if found["number"]:
            return [Chunk(None, int(found["number"]) & 0xFFFFFFFF, 32)], at
        name = found["name"]
        if found["high"] is None:
            return [Chunk(name, 0, self.module.wires[name].width)], at
        high, low = int(found["high"]), int(found["low"] or found["high"])
        return [Chunk(name, low, high - low + 1)], at


def read(text):
    """Modules of an RTLIL file by name; :exc:`NetlistError` for processes and memories."""
    return Reader(text).modules


@dataclass(frozen=True)
class Output:
    """Bits of an output of a cell."""

    cell: int       # its place in the module's list
    port: str
    low: int
    width: int

    def part(self, low, width):
        """The ``width`` bits from bit ``low`` on."""
        return Output(self.cell, self.port, self.low + low, width)


class Drivers:
    """Who drives which bits of the wires of a module.

    Parameters
    ----------
    module : Module
        The module.
    outputs : callable
        Names of the ports of a cell that drive something.
    """

    def __init__(self, module, outputs):
        self.pieces = {name: [] for name in module.wires}
        for left, right in module.connections:
            self._drive(left, right)
        for i, cell in enumerate(module.cells):
            for port in outputs(cell):
                signal = cell.ports.get(port, [])
                self._drive(signal, [Output(i, port, 0, width(signal))])
        for pieces in self.pieces.values():
            pieces.sort(key=lambda piece: piece[0])

    def _drive(self, left, right):
        at = 0
        for chunk in left:
            low = chunk.low
            for source in part(right, at, chunk.width):
                self.pieces[chunk.name].append((low, source))
                low += source.width
            at += chunk.width

    def of(self, chunk):
        """Chunks and outputs that together drive ``chunk``, lowest first; 0 where nothing does."""
        at, end = chunk.low, chunk.low + chunk.width
        for low, source in self.pieces[chunk.name]:
            first, last = max(low, at), min(low + source.width, end)
            if first >= last:
                continue
            if first > at:
                yield Chunk(None, 0, first - at)
            yield source.part(first - low, last - first)
            at = last
        if at < end:
            yield Chunk(None, 0, end - at)
