"""Tests of chiplets/byte_enables.py: which writes are folded. That they work, memories test."""
from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from chiplets import verilog
from chiplets.byte_enables import fold


class Masked(wiring.Component):
    address: In(3)
    data: In(64)
    mask: In(8)
    o: Out(64)

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=64, depth=8, init=[])
        port = store.write_port(granularity=8)
        read = store.read_port(domain="comb")
        m.d.comb += [read.addr.eq(self.address), self.o.eq(read.data)]
        m.d.comb += [port.addr.eq(self.address), port.data.eq(self.data), port.en.eq(self.mask)]
        return m


def writes(count, *, start=0, memory="store"):
    return "".join(f"    if (en[{i}])\n      {memory}[a][{8 * i + 7}:{8 * i}] <= "
                   f"d[{8 * i + 7}:{8 * i}];\n" for i in range(start, start + count))


def test_masked_memory_is_written_by_one_loop(tmp_path):
    text = verilog.write(Masked(), name="dut", path=tmp_path / "dut.v").read_text()
    assert text.count("for (i = 0; i < 8; i = i + 1)") == 1
    assert text.count(" <= ") == 2, "a whole word, or its bytes"


def test_word_wider_than_its_enables_is_never_written_whole():
    head = "  reg [71:0] store [7:0];\n  always @(posedge clk) begin\n"
    assert "(&en)" not in fold(head + writes(8))
    assert "(&en)" in fold(head.replace("71", "63") + writes(8))


def test_other_writes_stay_as_they_are():
    """Too few, not from the first byte on, or of another memory in between."""
    for text in (writes(7), writes(8, start=1), writes(4) + writes(4, start=4, memory="other"),
                 writes(8).replace("d[15:8]", "d[23:16]")):
        assert fold(text) == text


def test_two_memories_in_a_row_become_two_loops():
    text = fold(writes(8) + writes(9, memory="other"))
    assert text.count("for (") == 2 and "i < 8;" in text and "i < 9;" in text
