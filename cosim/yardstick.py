"""How fast this machine simulates a fixed piece of Verilog: the unit of simulation speed.

512 registers of 32 bits, s[i] reset to 1 + i x 0x9E3779B9 (mod 2^32). Every cycle s[i] becomes
(s[i] >> 1) xor (0x80200003 if bit 0 of s[i] xor bit 7 of s[(i+1) mod 512] else 0); the output is
the xor of all. It is Verilator's flags and the C++ flags below that make it comparable, so they
are not shared with the models of the co-simulation.
"""
import subprocess

from cosim.build import compiler
from cosim.build.cache import cached, digest
from cosim.build.model import verilator_version
from cosim.build.tools import verilator_root

REGISTERS, STEP, TAPS = 512, 0x9E3779B9, 0x80200003
FLAGS = ["-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--threads", "1"]
MAIN = """
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include "Vyardstick.h"
int main(int, char** arguments) {
    const long cycles = std::atol(arguments[1]);
    Vyardstick model;
    auto cycle = [&] { model.clk = 1; model.eval(); model.clk = 0; model.eval(); };
    model.clk = 0;
    model.rst = 1;
    model.eval();
    cycle();
    model.rst = 0;
    const auto start = std::chrono::steady_clock::now();
    unsigned sum = 0;
    for (long i = 0; i < cycles; i++) { cycle(); sum += model.o; }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%.9f %u %u\\n", seconds.count(), model.o, sum);
}
"""


def verilog_text():
    """The yardstick itself."""
    lines = ["module yardstick(input clk, input rst, output [31:0] o);"]
    for i in range(REGISTERS):
        reset, after = (1 + i * STEP) & 0xFFFFFFFF, (i + 1) % REGISTERS
        lines += [f"  reg [31:0] s{i};",
                  f"  wire t{i} = s{i}[0] ^ s{after}[7];",
                  f"  always @(posedge clk) if (rst) s{i} <= 32'd{reset};",
                  f"  else s{i} <= (s{i} >> 1) ^ (t{i} ? 32'd{TAPS} : 32'd0);"]
    lines += ["  assign o = " + " ^ ".join(f"s{i}" for i in range(REGISTERS)) + ";", "endmodule"]
    return "\n".join(lines) + "\n"


def golden(cycles):
    """Output after ``cycles`` cycles."""
    state = [(1 + i * STEP) & 0xFFFFFFFF for i in range(REGISTERS)]
    for _ in range(cycles):
        state = [(s >> 1) ^ (TAPS if (s ^ state[(i + 1) % REGISTERS] >> 7) & 1 else 0)
                 for i, s in enumerate(state)]
    result = 0
    for s in state:
        result ^= s
    return result


def build():
    """The program, built once."""
    include = verilator_root() / "include"
    flags = ["-std=c++20", "-O3", "-march=native", "-pthread", *compiler.defines(False),
             f"-I{include}", f"-I{include / 'vltstd'}"]

    def make(folder):
        (folder / "yardstick.v").write_text(verilog_text())
        (folder / "main.cpp").write_text(MAIN)
        root = verilator_root()
        compiler.run(["env", f"VERILATOR_ROOT={root}", root / "bin" / "verilator_bin", "--cc",
                      *FLAGS, "--prefix", "Vyardstick", "--Mdir", ".", "yardstick.v"], folder)
        sources = [*sorted(folder.glob("*.cpp")), include / "verilated.cpp",
                   include / "verilated_threads.cpp"]
        compiler.run(["g++", *flags, f"-I{folder}", *sources, "-o", "yardstick"], folder)

    key = digest(verilog_text(), MAIN, FLAGS, flags, verilator_version(), compiler.identity())
    return cached(f"yardstick_{key}", make)[0] / "yardstick"


def run(cycles):
    """Simulate; returns the seconds it took and the output after ``cycles``."""
    result = subprocess.run([build(), str(cycles)], text=True, check=True, stdout=subprocess.PIPE)
    seconds, output, _ = result.stdout.split()
    return float(seconds), int(output)


def cycles_per_second(cycles=1_000_000, repeats=3):
    """Speed of this machine, the best of ``repeats`` runs [cycle/s]."""
    return max(cycles / run(cycles)[0] for _ in range(repeats))
