"""Compiles an array of equal cells for vector instructions: one evaluates eight of them at once.

An array is a module that holds nothing but wires and placed cells; a cell is a module whose
outputs are functions of its registers alone and whose signals fit 64 bits where it computes.
The netlist that Yosys reads from the array becomes a C++ function of one clock edge, and in the
Verilog a module that calls it at that edge. What is simulated is the same netlist bit for bit.
"""
from dataclasses import dataclass, field
from pathlib import Path

from pyosys import libyosys

from cosim.build.lane_cells import WORD, LeafCode, masked, part_of, pieces, plain, words
from cosim.build.netlist import Chunk, Drivers, NetlistError, Output, read

LANES = 8
# Long straight code without a branch: ordered before registers are given out, it takes 0.86 times
# what it takes otherwise. The simulator's own code gains nothing by that.
SCHEDULED = ("#pragma GCC push_options",
             '#pragma GCC optimize("schedule-insns", "sched-pressure")')
STEPS = ("proc -noopt", "flatten", "opt_expr -keepdc", "opt_merge", "wreduce", "opt_expr -keepdc",
         "opt_clean")


def bare(wire):
    """Name of a port as Verilog and C++ have it."""
    return wire.name.removeprefix("\\")


def argument(wire):
    """Name of a port as an argument in C++, where it may be a word of the language."""
    return f"p_{bare(wire)}"


@dataclass
class Group:
    """At most eight cells of one kind that are evaluated together."""

    kind: str
    number: int
    cells: list = field(default_factory=list)       # places in the array's list of cells


class ArrayCode:
    """C++ and Verilog of an array of cells."""

    def __init__(self, modules, name):
        self.name, self.module = name, modules[name]
        self.module.cells = [c for c in self.module.cells if c.kind != "$scopeinfo"]
        strange = {c.kind for c in self.module.cells} - modules.keys()
        if strange:
            raise NetlistError(f"{name} holds {sorted(strange)} beside placed cells")
        self.leaves = {kind: LeafCode(modules[kind])
                       for kind in dict.fromkeys(c.kind for c in self.module.cells)}
        self.drivers = Drivers(self.module, lambda cell: [
            bare(w) for w in self.leaves[cell.kind].outputs])
        self.groups, self.place = [], {}
        for i, cell in enumerate(self.module.cells):
            open_ = [g for g in self.groups if g.kind == cell.kind and len(g.cells) < LANES]
            if not open_:
                open_ = [Group(cell.kind, len(self.groups))]
                self.groups += open_
            self.place[i] = open_[0], len(open_[0].cells)
            open_[0].cells.append(i)
            if self._origin(cell.ports["clk"], 0, 1) != [Chunk("\\clk", 0, 1)]:
                raise NetlistError(f"A cell of {name} is not clocked by clk")
        self.inputs = [w for w in self.module.ports("input") if w.name != "\\clk"]
        self.outputs = self.module.ports("output")

    def _origin(self, signal, low, bits):
        """Inputs of the array, outputs of cells and constants that drive bits of a signal."""
        found = []
        for chunk in part_of(signal, low) if bits > 1 or low else signal:
            if chunk.name is None or self.module.wires[chunk.name].direction == "input":
                found.append(chunk)
                continue
            for source in self.drivers.of(chunk):
                found += [source] if isinstance(source, Output) else self._origin([source], 0, 1)
        return found

    # --- values at the cells' inputs

    def _scalar(self, sources):
        """C++ expression of one lane's word."""
        terms, at = [], 0
        for source in sources:
            if isinstance(source, Chunk) and source.name is None:
                terms.append(f"({source.low:#x}ull << {at})")
                at += source.width
                continue
            for index, low, bits in pieces(source.low, source.width):
                text = self._scalar_word(source, index)
                text = f"({text} >> {low % WORD})" if low % WORD else text
                text = masked(text, bits)
                shift = at + low - source.low
                terms.append(f"({text} << {shift})" if shift else text)
            at += source.width
        return "(" + " | ".join(terms) + ")"

    def _scalar_word(self, source, index):
        if isinstance(source, Output):
            group, lane = self.place[source.cell]
            return f"{self._read(group, source.port, index)}[{lane}]"
        wire = self.module.wires[source.name]
        name = argument(wire)
        if wire.width > WORD:
            return f"word({name}, {(wire.width + 31) // 32}, {index})"
        return f"uint64_t({name})"

    def _read(self, group, port, index):
        return f"{self._leaf(group)}::{port}_{index}(a.group{group.number})"

    def _gather(self, group, name, index):
        """A word of an input of all cells of a group, and whether it is one for all of them."""
        leaf = self.leaves[group.kind]
        bits = min(WORD, leaf.module.wires[name].width - WORD * index)
        port = name.removeprefix("\\")
        lanes = [self._origin(self.module.cells[i].ports[port], WORD * index, WORD)
                 for i in group.cells]
        lanes = [cut(sources, bits) for sources in lanes]
        first = lanes[0]
        if all(sources == first for sources in lanes):
            return self._scalar(first), True
        if all(len(sources) == 1 and isinstance(sources[0], Output) for sources in lanes):
            outputs = [sources[0] for sources in lanes]
            at = {(self.place[o.cell][0].number, o.port, o.low, o.width) for o in outputs}
            straight = all(self.place[o.cell][1] == lane for lane, o in enumerate(outputs))
            if len(at) == 1 and straight and outputs[0].low % WORD == 0:
                return masked(self._read(self.place[outputs[0].cell][0], outputs[0].port,
                                         outputs[0].low // WORD), outputs[0].width), False
        return "V{" + ", ".join(map(self._scalar, lanes)) + "}", False

    def _order(self):
        """Groups such that each comes before those whose outputs it reads."""
        reads = {}
        for group in self.groups:
            sources = [source for i in group.cells for w in self.leaves[group.kind].inputs
                       for low in range(0, w.width, WORD)
                       for source in self._origin(
                           self.module.cells[i].ports[bare(w)], low, WORD)]
            reads[group.number] = {self.place[s.cell][0].number for s in sources
                                   if isinstance(s, Output)}
        waiting, ordered = list(self.groups), []
        while waiting:
            free = [g for g in waiting
                    if not any(g.number in reads[other.number] for other in waiting)]
            if not free:
                raise NetlistError(f"Cells of {self.name} read each other's outputs in a loop")
            ordered += free
            waiting = [g for g in waiting if g not in free]
        return ordered

    # --- text

    def _arguments(self, inputs=True):
        found = []
        for wire in self.inputs if inputs else []:
            name, bits = argument(wire), wire.width
            found.append(f"const uint32_t* {name}" if bits > WORD else f"{scalar(bits)} {name}")
        for wire in self.outputs:
            if wire.width > WORD:
                raise NetlistError(f"Output {wire.name} of {self.name} has more than 64 bits")
            found.append(f"{scalar(wire.width)}* {argument(wire)}")
        return ", ".join(found)

    def cpp(self):
        """The C++ source."""
        lines = ['#include "lanes.hpp"', *SCHEDULED, "namespace {", "using namespace lanes;"]
        texts, equals = {}, {}
        for number, (kind, leaf) in enumerate(self.leaves.items()):
            lines += [f"namespace leaf{number} {{  // {kind}"]
            lines += ["struct State {", *leaf.state(), "};"]
            for port in leaf.outputs:
                for index in range(words(port.width)):
                    lines += [f"inline V {bare(port)}_{index}(const State& s) {{",
                              *leaf.output(port, index), "}"]
            body = leaf.step()
            texts[kind] = {group.number: [self._gather(group, n, k) for n, k in sorted(leaf.used)]
                           for group in self.groups if group.kind == kind}
            equal = [all(same for _, same in column)
                     for column in zip(*texts[kind].values(), strict=True)]
            lines += self._step(leaf, equal, body)
            equals[kind] = equal
        states = [f"{self._leaf(group)}::State group{group.number};" for group in self.groups]
        lines += ["struct Array {", *states, "};"]
        lines += [f"void read(const Array& a, {self._arguments(False)}) {{", *self._reads(), "}"]
        lines += [f"void step(Array& a, {self._arguments()}) {{"]
        lines += self._calls(texts, equals)
        lines += ["}", "}  // namespace", *self._interface(), "#pragma GCC pop_options", ""]
        return "\n".join(lines)

    def _step(self, leaf, equal, body):
        """The function of one clock edge of eight cells: registers, what all read, what each does.

        What is equal for all eight is one word in memory and is spread where it is used: so it
        costs a load there, and nothing to pass on.
        """
        names = [f"in_{plain(n)}_{k}" for n, k in sorted(leaf.used)]
        vectors = [name for name, same in zip(names, equal, strict=True) if not same]
        shared = [name for name, same in zip(names, equal, strict=True) if same]
        arguments = "".join(f", V {name}" for name in vectors)
        return [f"INLINE void step(State& s, const uint64_t* shared{arguments}) {{",
                *(f"const V {name} = splat(shared[{at}]);" for at, name in enumerate(shared)),
                *body, "}", "}"]

    def _calls(self, texts, equals):
        """A call of ``step`` for each group; groups that share all that is shared, share it."""
        known = {}
        for group in self._order():
            values = list(zip(texts[group.kind][group.number], equals[group.kind], strict=True))
            shared = ", ".join(text for (text, _), same in values if same) or "0"
            if (name := known.get((group.kind, shared))) is None:
                name = known[group.kind, shared] = f"shared{group.number}"
                yield f"const uint64_t {name}[] = {{{shared}}};"
            vectors = "".join(",\n    " + (f"splat({text})" if one else text)
                              for (text, one), same in values if not same)
            yield f"{self._leaf(group)}::step(a.group{group.number}, {name}{vectors});"

    def _leaf(self, group):
        return f"leaf{list(self.leaves).index(group.kind)}"

    def _reads(self):
        """Statements that write the outputs of the array to where the arguments say."""
        for wire in self.outputs:
            sources = cut(self._origin([Chunk(wire.name, 0, wire.width)], 0, 1), wire.width)
            yield f"*{argument(wire)} = {self._scalar(sources)};"

    def _interface(self):
        """The functions that the Verilog calls."""
        array = "*static_cast<Array*>(handle)"
        outputs, everything = self._names(False), self._names()
        api = f'extern "C" void {self.name}'
        return [
            f'extern "C" void* {self.name}_create() {{ return new Array; }}',
            f"{api}_destroy(void* handle) {{ delete static_cast<Array*>(handle); }}",
            f"{api}_read(void* handle, {self._arguments(False)}) {{ read({array}, {outputs}); }}",
            f"{api}_step(void* handle, {self._arguments()}) {{",
            f"step({array}, {everything});", f"read({array}, {outputs});", "}"]

    def _names(self, inputs=True):
        return ", ".join(argument(w) for w in [*(self.inputs if inputs else []), *self.outputs])

    def verilog(self):
        """The module that calls the C++ function, with the ports of the array."""
        ports = [w for w in self.module.wires.values() if w.direction]
        ins = [f"input {sv_type(w.width)} {bare(w)}" for w in self.inputs]
        outs = [f"output {sv_type(w.width)} {bare(w)}" for w in self.outputs]
        found = ", ".join(f"n_{bare(w)}" for w in self.outputs)
        given = ", ".join(map(bare, self.inputs))
        imports = {"void* create": [], "destroy": ["input chandle handle"],
                   "read": ["input chandle handle", *outs],
                   "step": ["input chandle handle", *ins, *outs]}
        lines = [f"module {self.name}({', '.join(map(bare, ports))});", "  chandle handle;"]
        for w in ports:
            lines.append(f"  {w.direction} [{w.width - 1}:0] {bare(w)};")
        for w in self.outputs:
            lines += [f"  reg [{w.width - 1}:0] {bare(w)};", f"  {sv_type(w.width)} n_{bare(w)};"]
        for function, arguments in imports.items():
            result, _, name = function.rpartition(" ")
            lines.append(f'  import "DPI-C" function {"chandle" if result else "void"} '
                         f"{self.name}_{name}({', '.join(arguments)});")
        lines += ["  initial begin", f"    handle = {self.name}_create();",
                  f"    {self.name}_read(handle, {found});"]
        lines += [f"    {bare(w)} = n_{bare(w)};" for w in self.outputs]
        lines += ["  end", f"  final {self.name}_destroy(handle);", "  always @(posedge clk) begin",
                  f"    {self.name}_step(handle, {given}, {found});"]
        lines += [f"    {bare(w)} <= n_{bare(w)};" for w in self.outputs]
        return "\n".join([*lines, "  end", "endmodule", ""])


def cut(sources, bits):
    """The lowest ``bits`` bits of a list of sources."""
    found = []
    for source in sources:
        if bits:
            found.append(source.part(0, min(bits, source.width)))
            bits -= found[-1].width
    return found


def scalar(bits):
    """C++ type of an argument of at most 64 bits."""
    return "unsigned char" if bits == 1 else "uint32_t" if bits <= 32 else "unsigned long long"


def sv_type(bits):
    """Type of an argument in SystemVerilog."""
    if bits > WORD:
        return f"bit [{bits - 1}:0]"
    return "bit" if bits == 1 else "int unsigned" if bits <= 32 else "longint unsigned"


def write_source(path, texts, name):
    """Write the RTLIL of the module ``name`` and of all that it places, out of ``texts``."""
    needed = [name]
    for module in needed:
        cells = {line.split()[1].removeprefix("\\") for line in texts[module].splitlines()
                 if line.lstrip().startswith("cell ")}
        needed += sorted((cells & texts.keys()) - set(needed))
    path.write_text("\n".join(texts[module] for module in needed))


def black_box(text):
    """RTLIL of a module with the ports of the first module in ``text`` and nothing inside."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("module "))
    end = next(i for i, line in enumerate(lines) if i > start and line == "end")
    ports = [line for line in lines[start:end] if " input " in line or " output " in line]
    return "\n".join(["attribute \\blackbox 1", lines[start], *ports, "end", ""])


def compile_array(source, folder, name):
    """Compile the array ``name`` of the RTLIL file ``source``: ``name``.cpp and .v in ``folder``.

    :exc:`NetlistError` for a module that is no array of cells, see above.
    """
    folder = Path(folder)
    design = libyosys.Design()
    libyosys.run_pass(f"tee -q read_rtlil {source}", design)
    kinds = {line.split()[1].removeprefix("\\") for line in Path(source).read_text().splitlines()
             if line.startswith("module ")}
    leaves = [f"setattr -mod -set keep_hierarchy 1 {kind}" for kind in sorted(kinds)
              if "." not in kind]
    flat = folder / f"{name}.flat.il"
    for step in (STEPS[0], *leaves, *STEPS[1:], f"write_rtlil {flat}"):
        libyosys.run_pass(f"tee -q {step}", design)
    code = ArrayCode(read(flat.read_text()), name)
    (folder / f"{name}.cpp").write_text(code.cpp())
    (folder / f"{name}.v").write_text(code.verilog())
