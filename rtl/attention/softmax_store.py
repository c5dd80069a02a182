"""The two stores of scores between the passes of the softmax unit."""
from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention.interfaces import KEYS, LINE_BITS
from rtl.attention.softmax_command import LINE_INDEX
from rtl.common.clockgate import gated_domain

BANKS = 2


class ScoreStore(wiring.Component):
    """Two memories of a block and its sinks each, one written while the other is read.

    ``o`` follows a read after 1 cycle and stays until the next one or until ``read_bank`` changes.
    Throughput is 1 line a cycle, both ways. Each memory is clocked only in the cycles in which it
    is used.

    Members
    -------
    write, write_bank, write_line, x : In
        Write ``x`` in this cycle, to a line of a bank.
    read, read_bank, read_line : In
        Read in this cycle.
    o : Out(512)
        The line read last.
    """

    write: In(1)
    write_bank: In(1)
    write_line: In(LINE_INDEX)
    x: In(LINE_BITS)
    read: In(1)
    read_bank: In(1)
    read_line: In(LINE_INDEX)
    o: Out(LINE_BITS)

    def elaborate(self, platform):
        m = Module()
        lines = []
        for b in range(BANKS):
            writing = self.write & (self.write_bank == b)
            reading = self.read & (self.read_bank == b)
            gated_domain(m, name=f"bank{b}", enable=writing | reading)
            m.submodules[f"scores{b}"] = scores = memory.Memory(shape=LINE_BITS, depth=KEYS + 1,
                                                                init=[])
            write = scores.write_port(domain=f"bank{b}")
            read = scores.read_port(domain=f"bank{b}")
            m.d.comb += [write.en.eq(writing), write.addr.eq(self.write_line),
                         write.data.eq(self.x), read.en.eq(reading),
                         read.addr.eq(self.read_line)]
            lines.append(read.data)
        m.d.comb += self.o.eq(Mux(self.read_bank, lines[1], lines[0]))
        return m
