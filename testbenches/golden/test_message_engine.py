"""Tests of cosim/golden/message_engine.py by itself."""
import numpy as np
import pytest

from cosim.golden.message_engine import Code, Kind, Memory, Program, Report, encode, run
from testbenches.net.engine_bench import DOORBELLS, Image
from testbenches.net.test_engine import FLAGS, PROGRAMS, Writer


@pytest.mark.parametrize("seed", range(8))
def test_a_program_without_races_has_one_result(seed):
    """In whatever order its entries are executed."""
    results = set()
    for order in (None, *range(5)):
        rng = np.random.default_rng(seed)
        image, writer = Image(rng), Writer(rng, 1 + seed % 7)
        image.memory.bytes[FLAGS:FLAGS + 0x1000] = 0
        for n in range(len(writer.lists)):
            writer.add(n, [], [], kind=Kind.SET, local=0x1E000, immediate=1)
        for _ in range(60):
            writer.step()
        program = image.program(*writer.lists)
        report = image.run(program, rng=None if order is None else np.random.default_rng(order))
        assert report == Report()
        results.add(image.memory.bytes.tobytes())
    assert len(results) == 1


def test_the_sum_of_two_lines():
    memory = Memory(1 << 12)
    a = np.arange(16, dtype=np.float32)
    memory.write(0x104, a.tobytes())
    memory.write(0x201, (2 * a).tobytes())
    memory.write(0x400, encode(kind=Kind.REDUCE, length=60, local=0x300, remote=0x104,
                               third=0x201))
    memory.write(0x500, (1).to_bytes(8, "little") + (0x400 | 1 << 48).to_bytes(8, "little"))
    assert run(memory, 0x500) == Report()
    assert list(memory.read(0x300, 64).view(np.float32)) == [*(3 * a[:15]), 0]


@pytest.mark.parametrize("name", ["sync", "back", "rx_sync", "fence"])
def test_programs_of_the_flags_end_otherwise_without_them(name):
    """Else the tests that run them would show nothing."""
    flag = 7 << 8 | 0xFF << 16      # bits of the flags and of `back`

    def result(entries):
        image = Image(np.random.default_rng(1))
        program = Program(image.memory, image.program(entries))
        nic, waiting = image.golden_nic(), []
        while not program.finished:     # the NIC comes last of all
            if program.may_start(0):
                program.start(0)
                continue
            waiting += program.posted
            program.posted = []
            for completion in nic([waiting.pop(0)]):
                program.complete(*completion)
        return image.memory.bytes[:0x8000].tobytes()

    plain = [(int.from_bytes(entry, "little") & ~flag).to_bytes(64, "little")
             for entry in PROGRAMS[name]]
    assert result(PROGRAMS[name]) != result(plain)


def test_a_program_that_waits_for_ever_ends_by_the_watchdog():
    image = Image(np.random.default_rng(2))
    receive = encode(kind=Kind.RECV, length=4, third=DOORBELLS)
    program = image.program([encode(kind=Kind.SET, local=0)], [receive, receive])
    assert image.run(program) == Report(Code.WATCHDOG, 1 << 12)
