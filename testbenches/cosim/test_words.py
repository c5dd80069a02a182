"""Tests of cosim/build/words.py: masked writes of memories, word by word."""
import ctypes
import random

from chiplets import verilog
from cosim.build.model import build
from cosim.build.words import whole_words
from testbenches.common.test_byte_enables import Masked


def test_masked_writes_change_the_bytes_selected():
    model = build(Masked())
    library = ctypes.CDLL(str(model.library))
    library.model_create.restype = library.model_port.restype = ctypes.c_void_p
    handle, ports = ctypes.c_void_p(library.model_create()), {}
    for i, port in enumerate(model.ports.values()):
        kind = ctypes.c_uint64 if port.bits > 32 else ctypes.c_uint8
        ports[port.name] = kind.from_address(library.model_port(handle, ctypes.c_uint32(i)))
    words = [0] * 8
    for cycle in range(2000):
        address, data = random.randrange(8), random.getrandbits(64)
        mask = random.choice([0, 255, random.getrandbits(8)])
        for name, value in (("rst", 0), ("address", address), ("data", data), ("mask", mask)):
            ports[name].value = value
        library.model_cycle(handle, ctypes.c_uint64(cycle), 0)
        bits = sum(255 << 8 * i for i in range(8) if mask >> i & 1)
        words[address] = words[address] & ~bits | data & bits
        assert ports["o"].value == words[address]
    library.model_destroy(handle)


def test_only_memories_with_one_writer_are_rewritten(tmp_path):
    text = verilog.write(Masked(), name="dut", path=tmp_path / "dut.v").read_text()
    assert "kept" not in text and whole_words(text).count("store[address] <= kept;") == 1
    at = text.index("  always @(posedge clk) begin\n    if (|")
    other = "  always @(posedge clk) store[3] <= data;\n"
    assert whole_words(text[:at] + other + text[at:]) == text[:at] + other + text[at:]
