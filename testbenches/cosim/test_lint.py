"""Tests of cosim/build/lint.py, and of Verilog that only a large chiplet has."""
import re

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from chiplets import verilog
from chiplets.compute import ComputeBase
from chiplets.packages import ComputeParameters
from cosim.build.generate import generate
from cosim.build.lint import lint, lint_placed, stub
from rtl.common.place import flat_ports

INNER = """module inner(a, \\b$1 , y);
  input [3:0] a;
  input \\b$1 ;
  output [3:0] y;
  reg [3:0] held;
  always @(posedge \\b$1 ) held <= a;
  assign y = held;
endmodule
"""
OUTER = """module \\outer.part (a, b, y);
  input [3:0] a;
  input b;
  output [3:0] y;
  inner placed (
    .a(a),
    .\\b$1 (b),
    .y(y)
  );
endmodule
module outer(a, b, y);
  input [3:0] a;
  input b;
  output [3:0] y;
  \\outer.part  part (
    .a(a),
    .b(b),
    .y(y)
  );
endmodule
"""


def test_a_stub_has_the_ports_and_nothing_else():
    text = stub(INNER)
    assert "always" not in text and "assign y = 0;" in text
    assert re.findall(r"(?:in|out)put.*;", text) == re.findall(r"(?:in|out)put.*;", INNER)


@pytest.mark.parametrize("old, new, found", [
    ("", "", None),
    ("    .a(a),\n    .\\b$1", "    .c(a),\n    .\\b$1", "c"),      # no such port of what is placed
    ("assign y = held", "assign y = hold", "hold"),
    ("  input [3:0] a;\n  input \\b$1", "  input [5:3] a;\n  output \\b$1", "b"),
    ("\\outer.part  part", "\\outer.pert  part", "pert")])
def test_parts_are_checked_one_by_one(tmp_path, old, new, found):
    path = tmp_path / "outer.v"
    path.write_text((INNER + OUTER).replace(old, new, 1) if old else INNER + OUTER)
    findings = list(lint_placed(path))
    assert bool(findings) == bool(found), findings
    assert not found or any(found in line for line in findings)


@pytest.mark.parametrize("top", ["io", "link"])
def test_checkers_find_nothing_in_generated_verilog(tmp_path, top):
    path, findings = generate(top, tmp_path)
    assert not findings
    assert f"module {top}(" in path.read_text()


def test_checkers_find_nothing_in_the_base_of_a_compute_chiplet(tmp_path):
    """All of it at once, so that a loop through what is placed is found as well."""
    base = ComputeBase(ComputeParameters(rows=2, columns=3, hbm_tiles=1, tile_channels=1,
                                         bank_lines=64, grid=(1, 2)))
    path = verilog.write(base, name="base", path=tmp_path / "base.v", attributes=True)
    assert not list(lint("base", path))


class HalfDriven(wiring.Component):
    """An output that nothing drives, and a part of one."""

    a: In(4)
    y: Out(4)
    z: Out(4, init=5)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y[:2].eq(self.a)
        return m


def test_an_output_that_nothing_drives_is_one_of_constants(tmp_path):
    path = verilog.write(HalfDriven(), name="half", path=tmp_path / "half.v")
    ports = re.findall(r"^ *(input|output) .*?(\w+) *;", path.read_text(), re.M)
    assert {name: way for way, name in ports} == {
        "a": "input", "clk": "input", "rst": "input", "y": "output", "z": "output"}
    assert "assign z = 4'h5;" in path.read_text()
    assert not list(lint("half", path))


def test_a_chiplet_may_have_more_ports_than_a_net_has_numbers():
    """More than 2**16 bits of inputs, as the compute chiplets of full size have."""
    base = ComputeBase(ComputeParameters(rows=1, columns=2, hbm_tiles=2, tile_channels=64,
                                         bank_lines=64))
    inputs = [(name, len(Value.cast(value))) for name, is_input, value in flat_ports(base)
              if is_input]
    assert sum(bits for _, bits in inputs) > 1 << 16
    whole = verilog.modules(base, name="base")["base"]
    module = re.search(r"^module \\base$.*?^end$", whole, re.M | re.S)[0]
    found = re.findall(r"^  wire width (\d+) input \d+ +\\(\S+)$", module, re.M)
    assert {name: int(bits) for bits, name in found}.items() >= dict(inputs).items()


class Wide(wiring.Component):
    """Inputs past 2**16 bits, and a cell whose bits have the same lower 16 bits as theirs."""

    a: In(40000)
    b: In(40000)
    y: Out(3)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(Cat(self.a[39998] & self.b[39999], self.a[0] & self.b[25536],
                                  (self.a ^ self.b)[14462]))
        return m


def test_bits_past_the_last_number_are_themselves(tmp_path):
    source = tmp_path / "wide.il"
    source.write_text("\n".join(verilog.modules(Wide(), name="wide").values()))
    text = verilog.convert(source, tmp_path / "wide.v").read_text()
    for wanted in ("a[39998] & b[39999]", "a[0] & b[25536]", "a[14462:0] ^ b[14462:0]"):
        assert wanted in text
