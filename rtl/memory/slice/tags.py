"""Tags of a cache, with SECDED."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.memory.secded import SecdedDecoder, check_bits, encode
from rtl.memory.slice.interfaces import CHECK_BITS, WORD_BITS


def entry_layout(*, tag_bits):
    """An entry: ``fresh``, the line was brought in by PREFETCH and not yet used."""
    return data.StructLayout({"tag": tag_bits, "valid": 1, "dirty": 1, "fresh": 1})


class TagStore(wiring.Component):
    """A memory of a set's entries, one for each way.

    Latency of a read is 1 cycle; if ``wrong`` is high then, ``fix`` brings the corrected entries
    1 cycle later. They stay until the next read. A read in the cycle of a write to its set gives
    what is written. Reset leaves the contents as they are. Source: this project's choice.

    Parameters
    ----------
    sets, ways : int
        Size.
    tag_bits : int
        Width of a tag [bit].

    Members
    -------
    read, read_set : In(1), In(range(sets))
        Read a set.
    entries : Out(data.ArrayLayout(entry_layout(...), ways))
        What was read.
    wrong : Out(1)
        It has errors not looked at yet.
    fix : In(1)
        Look at them; only while ``wrong``.
    corrected, lost : Out(ways)
        After ``fix``, until the next read: entries that were corrected, and those that could not
        be. Before, zero.
    write, write_set, entry : In(ways), In(range(sets)), In(entry_layout(...))
        Write the entry to the ways selected.
    flip : In(72)
        Bits inverted in what is written: the entry, from bit 64 on its check bits.
    """

    def __init__(self, *, sets, ways, tag_bits):
        self.sets, self.ways = sets, ways
        entry = entry_layout(tag_bits=tag_bits)
        super().__init__({
            "read": In(1), "read_set": In(range(sets)),
            "entries": Out(data.ArrayLayout(entry, ways)), "wrong": Out(1), "fix": In(1),
            "corrected": Out(ways), "lost": Out(ways),
            "write": In(ways), "write_set": In(range(sets)), "entry": In(entry),
            "flip": In(WORD_BITS + CHECK_BITS)})

    def elaborate(self, platform):
        m = Module()
        size = self.entry.shape().size
        code = size + check_bits(size)
        m.submodules.store = store = Memory(shape=code * self.ways, depth=self.sets, init=[])
        write = store.write_port(granularity=code)
        read = store.read_port(transparent_for=[write])
        entry, fixed = self.entry.as_value(), Signal()
        m.d.comb += [
            read.en.eq(self.read), read.addr.eq(self.read_set),
            write.en.eq(self.write), write.addr.eq(self.write_set),
            write.data.eq((Cat(entry, encode(entry))
                           ^ Cat(self.flip[:size], self.flip[WORD_BITS:])[:code]
                           ).replicate(self.ways))]
        with m.If(self.fix | self.read):
            m.d.sync += fixed.eq(self.fix)
        gated_domain(m, name="fix", enable=ResetSignal("sync") | self.fix)
        taken, wrong, entries = Signal(code * self.ways), [], []
        corrected, lost = [], []
        m.d.fix += taken.eq(read.data)
        for way in range(self.ways):
            raw, kept = (x[code * way:code * (way + 1)] for x in (read.data, taken))
            wrong.append((encode(raw[:size]) ^ raw[size:]).any())
            m.submodules[f"decoder{way}"] = decoder = SecdedDecoder(data_bits=size)
            m.d.comb += [decoder.word.eq(kept[:size]), decoder.check.eq(kept[size:])]
            entries.append(Mux(fixed, decoder.o, raw[:size]))
            corrected.append(decoder.corrected)
            lost.append(decoder.uncorrectable)
        m.d.comb += [self.entries.as_value().eq(Cat(entries)),
                     self.wrong.eq(Cat(wrong).any() & ~fixed)]
        with m.If(fixed):
            m.d.comb += [self.corrected.eq(Cat(corrected)), self.lost.eq(Cat(lost))]
        return m
