"""C++ of one kind of cell of an array, for eight of them at once; see ``cosim.build.lanes``."""
from dataclasses import dataclass, replace

from cosim.build.netlist import Chunk, Drivers, NetlistError, Output, width

WORD = 64
BITWISE = {"$and": "&", "$or": "|", "$xor": "^"}
ARITHMETIC = BITWISE | {"$add": "+", "$sub": "-", "$mul": "*"}
COMPARISON = {"$eq": "==", "$ne": "!=", "$lt": "<", "$le": "<=", "$gt": ">", "$ge": ">="}


def masked(text, bits):
    return f"({text} & {(1 << bits) - 1:#x}ull)" if bits < WORD else text


def constant(value):
    return f"splat({value:#x}ull)"


def words(bits):
    return (bits + WORD - 1) // WORD


def plain(name):
    """A wire's name as a part of a C++ name."""
    return "".join(c if c.isalnum() else "_" for c in name.removeprefix("\\"))


def pieces(low, bits):
    """``(word, first bit, bits)`` of the words that hold ``bits`` bits from bit ``low`` on."""
    for index in range(low // WORD, (low + bits - 1) // WORD + 1):
        first = max(low, WORD * index)
        yield index, first, min(low + bits, WORD * (index + 1)) - first


@dataclass(frozen=True)
class Term:
    """Bits ``low`` to ``low + bits`` of a word, moved to bit ``at``.

    ``text``: C++ name of the word, whose bits from ``total`` on are 0.
    """

    text: str
    total: int
    low: int
    bits: int
    at: int = 0

    def moved(self, by):
        return replace(self, at=self.at + by)

    @property
    def shift(self):
        """The word, and how far its bits go to the left: terms with the same share one shift."""
        return self.text, self.total, self.at - self.low


def joined(terms):
    """C++ expression of all terms together.

    Bits of one word that go equally far need one shift and one mask, however many there are.
    """
    masks = {}
    for term in terms:
        masks[term.shift] = masks.get(term.shift, 0) | ((1 << term.bits) - 1) << term.at
    texts = []
    for (text, total, by), mask in masks.items():
        word = (1 << total) - 1
        if by:
            text = f"({text} << {by})" if by > 0 else f"({text} >> {-by})"
            word = word << by & (1 << WORD) - 1 if by > 0 else word >> -by
        texts.append(f"({text} & {mask:#x}ull)" if word & ~mask else text)
    return texts[0] if len(texts) == 1 else "(" + " | ".join(texts or ["V{}"]) + ")"


class LeafCode:
    """C++ of one kind of cell: its state, its outputs, what a clock edge does to it."""

    def __init__(self, module):
        self.module = module
        self.cells = [c for c in module.cells if c.kind != "$scopeinfo"]
        self.module.cells = self.cells
        self.drivers = Drivers(module, lambda cell: ["Q" if cell.kind == "$dff" else "Y"])
        self.registers = [i for i, cell in enumerate(self.cells) if cell.kind == "$dff"]
        for i in self.registers:
            clock = self.cells[i].ports["CLK"]
            if self._origin(clock) != Chunk("\\clk", 0, 1):
                raise NetlistError(f"A register of {module.name} is not clocked by clk")
        self.inputs = [w for w in module.ports("input") if w.name not in ("\\clk",)]
        self.outputs = module.ports("output")
        self._begin()

    def _begin(self):
        """Forget the C++ of another function."""
        self.lines, self.known, self.used, self.conditions = [], {}, set(), {}

    def _origin(self, signal):
        (chunk,) = signal
        while chunk.name and (found := list(self.drivers.of(chunk)))[0] != Chunk(None, 0, 1):
            (chunk,) = found
        return chunk

    # --- values: names of C++ variables whose bits above the signal's width are 0

    def value(self, signal):
        """C++ expression of a signal of at most 64 bits."""
        if width(signal) > WORD:
            raise NetlistError(f"{self.module.name} computes with {width(signal)} bits at once")
        terms, at = [], 0
        for chunk in signal:
            terms += [term.moved(at) for term in self._chunk(chunk)]
            at += chunk.width
        return joined(terms)

    def _top(self, signal):
        """Bits of a signal from here on are 0."""
        found, at = 0, 0
        for chunk in signal:
            found = max([found, *(at + term.at + term.bits for term in self._chunk(chunk))])
            at += chunk.width
        return found

    def _condition(self, signal):
        """C++ condition for ``choose``: the comparison itself, if the signal is a result of one."""
        (chunk,) = signal
        terms = self._chunk(chunk)
        if len(terms) == 1 and terms[0].text in self.conditions:
            return self.conditions[terms[0].text]
        return f"({self.value(signal)} != 0)"

    def _chunk(self, chunk):
        """Terms of a chunk of at most 64 bits, none for zero."""
        if chunk.name is None:
            bits = chunk.low.bit_length()
            return [Term(constant(chunk.low), bits, 0, bits)] if chunk.low else []
        if self.module.wires[chunk.name].direction == "input":
            return self._input(chunk)
        if chunk not in self.known:
            terms, at = [], 0
            for source in self.drivers.of(chunk):
                found = self._output(source) if isinstance(source, Output) else self._chunk(source)
                terms += [term.moved(at) for term in found]
                at += source.width
            if len({term.shift for term in terms}) > 1:
                terms = [Term(self._variable(joined(terms)), chunk.width, 0, chunk.width)]
            self.known[chunk] = terms
        return self.known[chunk]

    def _input(self, chunk):
        """Terms of bits of an input."""
        terms, total = [], self.module.wires[chunk.name].width
        for index, low, bits in pieces(chunk.low, chunk.width):
            self.used.add((chunk.name, index))
            terms.append(Term(f"in_{plain(chunk.name)}_{index}", min(WORD, total - WORD * index),
                              low % WORD, bits, low - chunk.low))
        return terms

    def _flag(self, comparison):
        """C++ number, 0 or 1, of a comparison, which is kept for those that choose by it."""
        condition = f"c{len(self.lines)}"
        self.lines.append(f"const S {condition} = {comparison};")
        self.conditions[f"flag({condition})"] = condition
        return f"flag({condition})"

    def _variable(self, text):
        name = f"v{len(self.lines)}"
        self.lines.append(f"const V {name} = {text};")
        return name

    def _output(self, output):
        """Terms of bits of a cell's output."""
        terms, cell = [], self.cells[output.cell]
        total = cell.parameters.get("Y_WIDTH") or cell.parameters["WIDTH"]
        for index, low, bits in pieces(output.low, output.width):
            terms.append(Term(self._result(output.cell, index), min(WORD, total - WORD * index),
                              low % WORD, bits, low - output.low))
        return terms

    def _result(self, number, index):
        """C++ variable of a word of a cell's output."""
        cell, key = self.cells[number], (number, index)
        if cell.kind == "$dff":
            return f"s.q{number}_{index}"
        if key not in self.known:
            self.known[key] = None      # a loop would come back here
            text = self._cell(cell, index)
            self.known[key] = text if text in self.conditions else self._variable(text)
        if self.known[key] is None:
            raise NetlistError(f"{self.module.name} has a loop through a {cell.kind}")
        return self.known[key]

    # --- cells

    def _cell(self, cell, index):
        kind, p = cell.kind, cell.parameters
        if kind == "$mux":
            a, b = (self.value(part_of(cell.ports[port], WORD * index)) for port in "AB")
            return f"choose({self._condition(cell.ports['S'])}, {b}, {a})"
        if kind in BITWISE and p["A_WIDTH"] == p["B_WIDTH"] == p["Y_WIDTH"]:
            a, b = (self.value(part_of(cell.ports[port], WORD * index)) for port in "AB")
            return f"({a} {BITWISE[kind]} {b})"
        if p["Y_WIDTH"] > WORD:
            raise NetlistError(f"{self.module.name} computes with {p['Y_WIDTH']} bits at once")
        a, a_bits, y_bits = self.value(cell.ports["A"]), p["A_WIDTH"], p["Y_WIDTH"]
        if "B_WIDTH" not in p:
            return self._unary(kind, a, a_bits, y_bits, p["A_SIGNED"])
        b, b_bits = self.value(cell.ports["B"]), p["B_WIDTH"]
        signed = p["A_SIGNED"] and p["B_SIGNED"]
        if kind in ARITHMETIC:
            a, b = self._extended(a, a_bits, signed), self._extended(b, b_bits, signed)
            text = f"({a} {ARITHMETIC[kind]} {b})"
            tops = self._top(cell.ports["A"]), self._top(cell.ports["B"])
            most = {"$add": max(tops) + 1, "$mul": sum(tops)}.get(kind, WORD)
            return masked(text, y_bits) if signed or most > y_bits else text
        if kind in COMPARISON:
            extend = self._signed if signed else lambda text, _: text
            return self._flag(f"{extend(a, a_bits)} {COMPARISON[kind]} {extend(b, b_bits)}")
        if kind in ("$shl", "$sshl") and not p["B_SIGNED"]:
            a = self._extended(a, a_bits, p["A_SIGNED"])
            return masked(self._shift("<<", "left", a, b, b_bits), y_bits)
        if kind == "$shr" and not (p["A_SIGNED"] and y_bits > a_bits) and not p["B_SIGNED"]:
            return masked(self._shift(">>", "right", a, b, b_bits), y_bits)
        if kind == "$sshr" and p["A_SIGNED"] and not p["B_SIGNED"]:
            b = b if b_bits <= 6 else f"choose({b} < 63, {b}, splat(63))"
            return masked(f"reinterpret_cast<V>({self._signed(a, a_bits)} >> "
                          f"reinterpret_cast<S>({b}))", y_bits)
        raise NetlistError(f"{self.module.name} has a cell {kind} with {p}")

    def _unary(self, kind, a, a_bits, y_bits, signed):
        full = (1 << a_bits) - 1
        if kind in ("$not", "$neg", "$pos"):
            sign = {"$not": "~", "$neg": "-", "$pos": "+"}[kind]
            return masked(f"({sign}{self._extended(a, a_bits, signed)})", y_bits)
        if kind in ("$reduce_or", "$reduce_bool"):
            return self._flag(f"{a} != 0")
        if kind == "$logic_not":
            return self._flag(f"{a} == 0")
        if kind == "$reduce_and":
            return self._flag(f"{a} == {full:#x}ull")
        if kind == "$reduce_xor":
            return f"parity({a})"
        raise NetlistError(f"{self.module.name} has a cell {kind}")

    def _signed(self, text, bits):
        return f"extend({text}, {WORD - bits})"

    def _extended(self, text, bits, signed):
        return f"reinterpret_cast<V>({self._signed(text, bits)})" if signed else text

    def _shift(self, sign, function, a, b, b_bits):
        return f"({a} {sign} {b})" if b_bits <= 6 else f"{function}({a}, {b})"

    # --- the cell as a whole

    def state(self):
        """Declarations and initial values of the registers."""
        members = []
        for i in self.registers:
            value, at = 0, 0
            for chunk in self.cells[i].ports["Q"]:
                init = self.module.wires[chunk.name].init >> chunk.low
                value |= (init & (1 << chunk.width) - 1) << at
                at += chunk.width
            members += [f"V q{i}_{k} = splat({value >> WORD * k & (1 << WORD) - 1:#x}ull);"
                        for k in range(words(at))]
        return members

    def step(self):
        """Statements of one clock edge; the inputs that they read are then in ``used``."""
        self._begin()
        commits = []
        for i in self.registers:
            signal = self.cells[i].ports["D"]
            for k in range(words(width(signal))):
                low = WORD * k
                next_ = self._variable(self.value(part_of(signal, low)))
                commits.append(f"s.q{i}_{k} = {next_};")
        return self.lines + commits

    def output(self, port, index):
        """Statements that return a word of an output."""
        self._begin()
        bits = min(WORD, port.width - WORD * index)
        name = self.value([Chunk(port.name, WORD * index, bits)])
        if self.used:
            raise NetlistError(f"{self.module.name} has a path from an input to {port.name}")
        return [*self.lines, f"return {name};"]


def part_of(signal, low):
    """At most 64 bits of a signal from ``low`` on."""
    found, at = [], 0
    for chunk in signal:
        first, last = max(low, at), min(low + WORD, at + chunk.width)
        if first < last:
            found.append(chunk.part(first - at, last - first))
        at += chunk.width
    return found
