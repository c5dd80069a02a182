"""Simulated speed of an array of multiply-accumulate cells: ``python -m benchmarks.dot_speed``."""
import argparse
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from chiplets import verilog
from cosim.build.tools import verilator_environment
from rtl.common.clockgate import gated_domain
from rtl.common.place import Place, flat_ports
from rtl.mx.cell import Mx4Cell
from rtl.mx.decode import Mx4Decoder
from rtl.mx.dot import Mx4Dot

# one function per cell, not one for the array: registers instead of memory for what is in between
CONFIG = """`verilator_config
no_inline -module "*Cell_????????"
"""
FLAGS = ["-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--threads", "1",
         "-Wno-fatal", "-Wno-WIDTH"]
DRIVER = """
#include "Vdut.h"
#include <ctime>
#include <cstdio>
#include <cstdlib>
#include <cstdint>
static uint64_t state = 88172645463325252ull;
static uint64_t random64() {
    state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state;
}
int main(int argc, char** argv) {
    Vdut dut;
    uint64_t cycles = atoll(argv[1]);
    dut.rst = 0; dut.valid = atoi(argv[2]);
    uint64_t check = 0;
    std::clock_t begin = std::clock();  // processor time: others may be using the machine
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        dut.first = (cycle & 15) == 0;
        dut.last = (cycle & 15) == 15;
        uint32_t* words[] = {WORDS};
        for (uint32_t* word : words)
            for (int i = 0; i < 4; i += 2) {
                uint64_t x = random64();
                word[i] = x; word[i + 1] = x >> 32;
            }
        uint8_t* scales[] = {SCALES};
        for (uint8_t* scale : scales) *scale = 120 + (random64() & 15);
        dut.clk = 0; dut.eval();
        dut.clk = 1; dut.eval();
        check = check * 31 + dut.acc___05F0 + dut.acc___05FLAST;
    }
    double took = double(std::clock() - begin) / CLOCKS_PER_SEC;
    printf("%.6f %016llx\\n", took, (unsigned long long)check);
}
"""


class Dot4Cell(wiring.Component):
    """The array's cell without its accumulator: a registered dot product."""

    def __init__(self):
        cell = Mx4Cell()
        cell._MustUse__silence = True  # asked for its ports only
        super().__init__(cell.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dot = dot = Mx4Dot()
        connect(m, flipped(self.a), dot.a)
        connect(m, flipped(self.b), dot.b)
        m.d.sync += self.acc.eq(dot.o)
        return m


class Array(wiring.Component):
    """Rows x columns of cells; operands are decoded and registered at the edge.

    All of it is behind a clock gate that rests when no beat is under way.
    """

    def __init__(self, rows, columns, cell):
        self.rows = rows
        self.columns = columns
        self.cell = cell
        super().__init__({
            "a": In(128).array(rows), "scale_a": In(8).array(rows),
            "b": In(128).array(columns), "scale_b": In(8).array(columns),
            "valid": In(1), "first": In(1), "last": In(1),
            "acc": Out(32).array(rows * columns), "done": Out(1)})

    def edge(self, m, side, codes, scale):
        """Decoded operand and scale, registered."""
        decoder = Place(Mx4Decoder(side=side), domain="busy")
        m.submodules += decoder
        m.d.busy += decoder.codes.eq(codes)
        held = decoder.o.signature.create()
        pairs = zip(flat_ports(held), flat_ports(decoder.o), strict=True)
        m.d.busy += [ours.eq(theirs) for (_, _, ours), (_, _, theirs) in pairs]
        early_scale, held_scale = Signal(8), Signal(8)
        m.d.busy += [early_scale.eq(scale), held_scale.eq(early_scale)]
        return held, held_scale

    def elaborate(self, platform):
        m = Module()
        beats = Signal(4)  # 1 + 1 + 2 stages of edge and cell
        m.d.sync += beats.eq(Cat(self.valid, beats))
        gated_domain(m, name="busy", enable=self.valid | beats.any())
        a = [self.edge(m, "a", self.a[i], self.scale_a[i]) for i in range(self.rows)]
        b = [self.edge(m, "b", self.b[i], self.scale_b[i]) for i in range(self.columns)]
        valid, first, last = Signal(), Signal(), Signal()
        early = Signal(3)
        m.d.busy += [early.eq(Cat(self.valid, self.first, self.last)),
                     Cat(valid, first, last).eq(early)]
        for i in range(self.rows * self.columns):
            m.submodules[f"cell{i}"] = cell = Place(self.cell(), domain="busy")
            row, column = a[i // self.columns], b[i % self.columns]
            connect(m, row[0], cell.a)
            connect(m, column[0], cell.b)
            m.d.comb += [cell.scale_a.eq(row[1]), cell.scale_b.eq(column[1]),
                         cell.valid.eq(valid), cell.first.eq(first), cell.last.eq(last),
                         self.acc[i].eq(cell.acc)]
        m.d.comb += self.done.eq(cell.done)
        return m


def build(top, folder, flags=()):
    """Verilate ``top`` with the driver; returns the program.

    Verilator writes the double underscore of a port name as ``___05F``.
    """
    source = verilog.write(top, name="dut", path=folder / "dut.v")
    ports = [f"{side}___05F{i}" for side, n in (("a", top.rows), ("b", top.columns))
             for i in range(n)]
    driver = DRIVER.replace("LAST", str(top.rows * top.columns - 1))
    driver = driver.replace("WORDS", ", ".join(f"&dut.{p}[0]" for p in ports))
    driver = driver.replace("SCALES", ", ".join(f"&dut.scale_{p}" for p in ports))
    (folder / "driver.cpp").write_text(driver)
    (folder / "config.vlt").write_text(CONFIG)
    command = ["verilator", "--cc", "--exe", "--build", *FLAGS, *flags, "--top-module", "dut",
               "-CFLAGS", "-std=c++20 -O3 -march=native", "--Mdir", str(folder / "obj"),
               str(folder / "config.vlt"), str(source), str(folder / "driver.cpp")]
    subprocess.run(command, check=True, env=verilator_environment(), stdout=subprocess.DEVNULL)
    return folder / "obj" / "Vdut"


def measure(program, cycles, valid=1):
    """Seconds for ``cycles`` cycles; best of five."""
    runs = [subprocess.run([program, str(cycles), str(valid)], check=True, text=True,
                           capture_output=True).stdout.split() for _ in range(5)]
    return min(float(r[0]) for r in runs), runs[0][1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--cycles", type=int, default=200_000)
    parser.add_argument("--flags", default="", help="more Verilator flags, one string")
    parser.add_argument("--keep", type=Path, help="build folder to keep")
    options = parser.parse_args()
    for name, cell in (("dot products only", Dot4Cell), ("with FP32 accumulators", Mx4Cell)):
        folder = Path(tempfile.mkdtemp())
        begin = time.perf_counter()
        program = build(Array(options.rows, options.columns, cell), folder,
                        options.flags.split())
        built = time.perf_counter() - begin
        seconds, check = measure(program, options.cycles)
        idle, _ = measure(program, options.cycles, valid=0)
        macs = options.rows * options.columns * 32 * options.cycles / seconds
        print(f"MX4 {options.rows}x{options.columns} {name}: {options.cycles / seconds / 1e3:.0f} "
              f"kHz, {macs / 1e6:.0f} M MACs/s, idle {idle / seconds:.1%} of that time, "
              f"built in {built:.0f} s, check {check}")
        if options.keep:
            shutil.copytree(folder, options.keep / re.sub(r"\W+", "_", name), dirs_exist_ok=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
