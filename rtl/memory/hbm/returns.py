"""Data of the reads of an HBM pseudo-channel."""
from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.memory.hbm.timing import ACCESS_BITS, access_layout
from rtl.memory.hbm.writes import half_layout
from rtl.memory.secded import SecdedDecoder

LOST = 3    # spare bits of an access from which on it is one that was marked as lost


class HbmReturns(wiring.Component):
    """Corrects the accesses that were read and joins two of them to a line.

    Parameters
    ----------
    info : ShapeLike
        What comes with a read.

    Members
    -------
    due, second, info : In(1), In(1), In(info)
        Data are on the pins; whether they are a line's second half; what comes with them. Halves
        of two lines may alternate; second halves come in the order of the first ones.
    read_data : In(access_layout())
        The pins.
    done, line_info, line, poison : Out(1), Out(info), Out(512), Out(2)
        In the cycle after the second half: the line, and which of its halves were lost.
    came : Out(1)
        In the cycle after each half.
    corrected, uncorrectable : Out(1)
        What that half was.
    """

    def __init__(self, *, info):
        super().__init__({
            "due": In(1), "second": In(1), "info": In(info), "read_data": In(access_layout()),
            "done": Out(1), "line_info": Out(info), "line": Out(2 * ACCESS_BITS),
            "poison": Out(2), "came": Out(1), "corrected": Out(1), "uncorrectable": Out(1)})

    def elaborate(self, platform):
        m = Module()
        gated_domain(m, name="pins", enable=ResetSignal("sync") | self.due)
        raw, second = Signal(access_layout()), Signal()
        m.d.pins += [raw.eq(self.read_data), second.eq(self.second), self.line_info.eq(self.info)]
        m.d.sync += self.came.eq(self.due)
        m.submodules.decoder = decoder = SecdedDecoder(data_bits=ACCESS_BITS)
        m.submodules.firsts = firsts = memory.Memory(shape=half_layout(), depth=2, init=[])
        write, read = firsts.write_port(), firsts.read_port(domain="comb")
        put, taken, ones = Signal(), Signal(), Signal(3)
        mixed = (ones != 0) & (ones != 6)
        first = self.came & ~second
        m.d.comb += [
            decoder.word.eq(raw.data), decoder.check.eq(raw.check), ones.eq(sum(raw.spare)),
            self.uncorrectable.eq(decoder.uncorrectable | (ones >= LOST)),
            self.corrected.eq(~self.uncorrectable & (decoder.corrected | mixed)),
            write.en.eq(first), write.addr.eq(put), write.data.data.eq(decoder.o),
            write.data.poison.eq(self.uncorrectable), read.addr.eq(taken),
            self.done.eq(self.came & second), self.line.eq(Cat(read.data.data, decoder.o)),
            self.poison.eq(Cat(read.data.poison, self.uncorrectable))]
        m.d.sync += [put.eq(put ^ first), taken.eq(taken ^ self.done)]
        return m
