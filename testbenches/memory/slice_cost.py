"""``python -m testbenches.memory.slice_cost``: ns of simulation that a memory access takes."""
import subprocess
import tempfile
from pathlib import Path

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from chiplets import verilog
from cosim.build.tools import verilator_environment
from rtl.common.clockgate import gated_domain
from rtl.memory.slice.slice import SramSlice
from rtl.memory.sram import SramBank

SOURCE = Path(__file__).parent / "native" / "slice_cost.cpp"
LINES, ACCESSES = 4096, 1000000


class Behind(wiring.Component):
    """A memory whose inputs are registers, as in a chiplet, and HBM that answers at once.

    Verilator evaluates all that depends on a pin in every step, whether it changed or not.
    """

    def __init__(self, memory):
        self.memory = memory
        super().__init__({"request": In(stream.Signature(memory.request.payload.shape())),
                          "ways": In(4), "seen": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self.memory
        i, o = self.request, memory.request
        gated_domain(m, name="drive",
                     enable=ResetSignal("sync") | i.valid | o.valid | memory.response.valid)
        m.d.comb += [i.ready.eq(~o.valid | o.ready), memory.response.ready.eq(1)]
        with m.If(i.ready):
            m.d.drive += o.valid.eq(i.valid)
            with m.If(i.valid):
                m.d.drive += o.payload.eq(i.payload)
        with m.If(memory.response.valid):   # somebody looks at the answers
            m.d.drive += self.seen.eq(self.seen ^ memory.response.payload.data[:8])
        if isinstance(memory, SramSlice):
            asked, answer = memory.memory_request, memory.memory_response
            m.d.sync += memory.cache_ways.eq(self.ways)
            gated_domain(m, name="hbm", enable=ResetSignal("sync") | asked.valid | answer.valid)
            m.d.comb += asked.ready.eq(~answer.valid | answer.ready)
            with m.If(asked.ready):
                m.d.hbm += answer.valid.eq(asked.valid)
                with m.If(asked.valid):
                    m.d.hbm += [answer.payload.name.eq(asked.payload.name),
                                answer.payload.write.eq(asked.payload.write),
                                answer.payload.data.eq(asked.payload.line)]
        return m


def measure(memory, *, line, kinds):
    """Build and run; ``line`` is the name of the field that holds the line, and its first bit."""
    shape = memory.request.payload.shape()
    fields = {name: field.offset for name, field in shape}
    fields = {"line": fields[line[0]] + line[1], "cached": fields.get("cached", 0),
              "write": fields["write"], "data": fields["data"], "mask": fields["mask"]}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        verilog.write(Behind(memory), name="dut", path=folder / "dut.v")
        (folder / "layout.hpp").write_text(
            "#include <algorithm>\n" + f"constexpr int KINDS = {kinds};\n"
            + "".join(f"constexpr int {name.upper()} = {at};\n" for name, at in fields.items())
            + "".join(f"#define REQUEST_{part.upper()} request___05F{part}\n"
                      for part in ("valid", "ready", "payload")))
        subprocess.run(
            ["verilator", "--cc", "--exe", "--build", "-O3", "--x-assign", "fast", "--x-initial",
             "fast", "-Wno-fatal", "-Wno-WIDTH", "--top-module", "dut", "-MAKEFLAGS",
             "OPT_FAST=-O3", "-CFLAGS", f"-std=c++20 -I{folder}", "-o", "cost", "dut.v", SOURCE],
            cwd=folder, env=verilator_environment(), check=True, capture_output=True)
        return subprocess.run([folder / "obj_dir" / "cost", str(ACCESSES)], check=True, text=True,
                              capture_output=True).stdout


if __name__ == "__main__":
    print("SramBank [ns]", measure(SramBank(lines=LINES), line=("address", 6), kinds=3), sep="\n")
    print("SramSlice [ns]", measure(SramSlice(lines=LINES), line=("line", 0), kinds=5), sep="\n")
