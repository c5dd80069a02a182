"""Tests of cosim/devices/host.hpp: AXI4 memory and AXI4-Lite master."""
import random

import numpy as np
import pytest

from cosim import engine
from testbenches.cosim import exerciser
from testbenches.cosim.exerciser import IDENTITY, REGISTERS

FIXED, INCR, WRAP = range(3)


class Bench:
    def __init__(self, **options):
        parameters = options.pop("parameters", {})
        self.engine = engine.Engine([exerciser.die(**parameters)], watch=[("io", "base", "irq")],
                                    **options)
        self.memory = self.engine.memory("io.host")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.engine.close()

    def write(self, name, value):
        self.engine.access("io.registers", REGISTERS[name], value)

    def read(self, name):
        return self.engine.access("io.registers", REGISTERS[name])

    def copy(self, source, target, beats, *, size=6, kind=INCR, strobe=0xFFFFFFFF):
        for name, value in (("source", source), ("target", target), ("strobe", strobe),
                            ("shape", beats - 1 | size << 8 | kind << 12), ("start", 1)):
            self.write(name, value)
        assert self.engine.run(5000, until=1) == 1, "no interrupt"
        status = self.read("status")
        return status >> 4 & 3, status >> 8 & 3


def touched(start, beats, size, kind):
    """Byte addresses of each beat of a burst, from the specification's prose."""
    count = 1 << size
    for beat in range(beats):
        if beat == 0 or kind == FIXED:
            first = start
        elif kind == INCR:
            first = start // count * count + beat * count
        else:
            window = start // (count * beats) * count * beats
            first = window + (start - window + beat * count) % (count * beats)
        yield range(first, first // count * count + count)


@pytest.mark.parametrize("options", [{}, {"processes": 2}], ids=str)
def test_bursts_of_every_kind_copy_the_right_bytes(options):
    rng = random.Random(5)
    with Bench(**options) as bench:
        noise = np.random.default_rng(5).integers(0, 256, len(bench.memory), np.uint8)
        bench.memory[:] = noise
        expected = noise.copy()
        for _ in range(60):
            kind, size = rng.choice((FIXED, INCR, INCR, WRAP)), rng.choice((6, 6, 6, 5, 3, 0))
            beats = rng.choice((2, 4, 8, 16)) if kind == WRAP else \
                rng.randint(1, 16 if kind == FIXED else min(256, 4096 >> size))
            span = beats << size
            offset = rng.randrange(0, 4096 - min(span, 4095))
            offset = offset >> size << size if kind == WRAP or size == 6 else offset
            if kind == INCR and (offset >> size << size) + span > 4096:
                offset = 0
            source, target = 0x1000 * rng.randrange(4) + offset, 0x8000 + 0x1000 * rng.randrange(4)
            target += offset
            assert bench.copy(source, target, beats, size=size, kind=kind) == (0, 0)
            for a, b in zip(touched(source, beats, size, kind),
                            touched(target, beats, size, kind), strict=True):
                expected[b.start:b.stop] = noise[a.start:a.stop]
            np.testing.assert_array_equal(bench.memory[:0x10000], expected[:0x10000])
            bench.memory[0x8000:] = expected[0x8000:] = noise[0x8000:]


def test_strobes_select_bytes():
    with Bench() as bench:
        bench.memory[:] = np.arange(len(bench.memory)) % 251
        before = bench.memory.copy()
        assert bench.copy(0, 0x1000, 4, strobe=0x8000_00F1) == (0, 0)
        lanes = np.array([0x8000_00F1 >> (i % 32) & 1 for i in range(256)], bool)
        expected = np.where(lanes, before[:256], before[0x1000:0x1100])
        np.testing.assert_array_equal(bench.memory[0x1000:0x1100], expected)
        assert bench.engine.counters("io.host")[4] == lanes.sum()


def test_addresses_outside_are_answered_decerr_and_change_nothing():
    with Bench(parameters={"memory_bytes": 1 << 16, "base": 0x10000}) as bench:
        bench.memory[:] = 7
        assert bench.copy(0x10000, 0x1ffc0, 1) == (0, 0)
        assert bench.copy(0x0ffc0, 0x10000, 1) == (3, 0)
        assert bench.memory[0] == 0  # what is read from nowhere is zero
        assert bench.copy(0x10040, 0x20000, 1) == (0, 3)
        assert (bench.memory[64:] == 7).all()
        assert bench.engine.counters("io.host")[6] == 2


def test_latency_is_what_was_asked_for():
    cycles = {}
    for latency in (1, 200, 456):
        with Bench(quantum_cycles=1, parameters={"read_latency": latency,
                                                 "write_latency": 1}) as bench:
            start = bench.engine.cycle
            bench.copy(0, 0x1000, 1)
            cycles[latency] = bench.engine.cycle - start
    # the exerciser's random ready adds a few cycles of its own
    assert abs(cycles[200] - cycles[1] - 199) <= 8 and abs(cycles[456] - cycles[200] - 256) <= 8


def test_registers_are_read_and_written():
    with Bench() as bench:
        assert bench.read("identity") == IDENTITY
        bench.write("source", 0xDEADBEEF)
        assert bench.read("source") == 0xDEADBEEF
        with pytest.raises(engine.EngineError, match="read of register 0x40 by io.registers was "
                                                     "answered SLVERR"):
            bench.engine.access("io.registers", 0x40)
        with pytest.raises(engine.EngineError, match="write of register 0x0 .* SLVERR"):
            bench.write("identity", 1)
        assert bench.read("identity") == IDENTITY
        assert bench.engine.counters("io.registers")[:2] == [4, 2]


def test_an_access_without_an_answer_ends():
    die = exerciser.die()
    die.ties["base", "rst"] = 1
    with engine.Engine([die]) as system:
        with pytest.raises(engine.EngineError, match="not answered in 1 cycles"):
            system.access("io.registers", 0, timeout_cycles=1)


def test_a_burst_across_4_kib_stops_the_simulation():
    with Bench() as bench, pytest.raises(engine.EngineError,
                                         match=r"io\.host: a burst crosses a 4 KiB boundary"):
        bench.copy(0xfc0, 0x2000, 2)


def test_host_memory_must_be_whole_lines():
    with pytest.raises(ValueError, match="multiple of 64 bytes, not 100"):
        exerciser.die(memory_bytes=100)
