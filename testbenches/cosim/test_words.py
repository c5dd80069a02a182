"""Tests of cosim/build/words.py: masked writes of memories, word by word."""
import random
import re
from functools import partial

import pytest
from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from chiplets import verilog
from cosim.build.model import build
from cosim.build.words import whole_words
from testbenches.common.test_byte_enables import Masked
from testbenches.cosim.driven import Driven


class Chosen(wiring.Component):
    """What is written is chosen of two; ``shown``: and leaves the module as well."""

    address: In(3)
    data: In(64)
    other: In(64)
    pick: In(1)
    mask: In(8)
    o: Out(64)
    seen: Out(64)

    def __init__(self, shown):
        self.shown = shown
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=64, depth=8, init=[])
        port, read = store.write_port(granularity=8), store.read_port(domain="comb")
        m.d.comb += [port.data.eq(Mux(self.pick, self.other, self.data)),
                     read.addr.eq(self.address), self.o.eq(read.data),
                     port.addr.eq(self.address), port.en.eq(self.mask)]
        if self.shown:
            m.d.comb += self.seen.eq(port.data)
        return m


@pytest.mark.parametrize("component", [Masked, partial(Chosen, False), partial(Chosen, True)],
                         ids=["given", "chosen", "shown"])
def test_masked_writes_change_the_bytes_selected(component):
    driven = Driven(build(component()))
    words = [0] * 8
    for _ in range(2000):
        address, data, other = random.randrange(8), random.getrandbits(64), random.getrandbits(64)
        mask, pick = random.choice([0, 255, random.getrandbits(8)]), random.getrandbits(1)
        for name, value in (("rst", 0), ("address", address), ("data", data), ("mask", mask),
                            ("other", other), ("pick", pick)):
            if name in driven.ports:
                driven[name] = value
        driven.cycle()
        bits = sum(255 << 8 * i for i in range(8) if mask >> i & 1)
        given = other if pick and "other" in driven.ports else data
        words[address] = words[address] & ~bits | given & bits
        assert driven["o"] == words[address]
    driven.close()


@pytest.mark.parametrize("shown", [False, True])
def test_what_is_written_is_chosen_where_nothing_else_reads_it(tmp_path, shown):
    text = verilog.write(Chosen(shown), name="dut", path=tmp_path / "dut.v").read_text()
    assert re.search(r"assign (\S+) += pick \? other : data;", text)
    changed = whole_words(text)
    assert ("given = pick ? other : data;" in changed) != shown
    assert changed.count("pick ?") == 1 and changed.count("kept;") == 2


def test_only_memories_with_one_writer_are_rewritten(tmp_path):
    text = verilog.write(Masked(), name="dut", path=tmp_path / "dut.v").read_text()
    assert "kept" not in text and whole_words(text).count("store[address] <= kept;") == 1
    at = text.index("  always @(posedge clk) begin\n    if (|")
    other = "  always @(posedge clk) store[3] <= data;\n"
    assert whole_words(text[:at] + other + text[at:]) == text[:at] + other + text[at:]
