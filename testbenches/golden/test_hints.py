"""Hints of DMA commands in cosim/golden/machine.py."""
import numpy as np
import pytest

from cosim.golden.cache import Hint
from cosim.golden.machine import Machine, Refused
from host import isa
from host.program import Program, use


class Memory:
    def __init__(self):
        self.bytes = np.arange(4096).astype(np.uint8)

    def read(self, address, count):
        return self.bytes[address:address + count]

    def write(self, address, values):
        self.bytes[address:address + len(values)] = values


def run(build):
    """Execute the commands that ``build`` adds to a program with one buffer of 8 lines."""
    machine, program = Machine(Memory(), lines=16), Program(local_lines=16)
    build(program, program.buffer(8))
    for words in program.commands:
        machine.execute(int(words[0]) & 0xFF, [int(w) for w in words])
    return machine


@pytest.mark.parametrize("hint", isa.Hint)
def test_a_prefetch_brings_nothing_and_every_other_read_its_bytes(hint):
    machine = run(lambda program, cb: program.dma_in(use(cb), 70, row_bytes=64, hint=hint))
    expected = np.zeros(64) if hint == isa.Hint.PREFETCH else np.arange(70, 134)
    assert np.array_equal(machine.local[0], expected)


def test_writes_take_no_allocate():
    machine = run(lambda program, cb: program.dma_out(use(cb), 64, row_bytes=64,
                                                      hint=isa.Hint.NO_ALLOCATE))
    assert not machine.memory.bytes[64:128].any()


@pytest.mark.parametrize(("write", "hint"), [(0, 16), (0, 1 << 31), (1, 2), (1, 3), (1, 4)])
def test_other_hints_are_refused(write, hint):
    def build(program, cb):
        move = program.dma_out if write else program.dma_in
        move(use(cb), 64, row_bytes=64, hint=hint)
    with pytest.raises(Refused) as caught:
        run(build)
    assert (caught.value.code, caught.value.field) == (2, 1)


def test_host_and_model_number_hints_alike():
    assert {h.name: h.value for h in Hint} == {h.name: h.value for h in isa.Hint}
