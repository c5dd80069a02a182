"""Partial writes to an HBM pseudo-channel: a line is read, merged and written."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.common.select import lowest, number_of
from rtl.memory.hbm.timing import ACCESS_BITS
from rtl.memory.hbm.writes import PARTIAL, half_layout


class HbmPartial(wiring.Component):
    """Keeps the bytes of partial writes until the rest of their line has been read.

    A line comes back with :attr:`returned` and is merged in two cycles. A half that was lost stays
    lost, unless all of its bytes are written.

    Parameters
    ----------
    place : ShapeLike
        Where a line is.

    Members
    -------
    room, index : Out(1), Out(range(PARTIAL))
        There is a free entry, and its number.
    keep, bytes, mask : In(1), In(512), In(64)
        What is written to the free entry.
    start, start_index, place : In(1), In(range(PARTIAL)), In(place)
        An entry is taken by the write to this place.
    match : Out(1)
        ``place`` is that of some write under way.
    returned, return_index, line, poison : In(1), In(range(PARTIAL)), In(512), In(2)
        The line that was read for a write.
    merge, merge_index, merged : Out(1), Out(range(PARTIAL)), Out(two halves)
        The line to be written.
    again, again_index, again_place, take : Out(1), Out(range(PARTIAL)), Out(place), In(1)
        A merged write wants to be queued; it is taken.
    end, end_index : In(1), In(range(PARTIAL))
        It has been written.
    active : Out(1)
        Some entry is taken.
    """

    def __init__(self, *, place):
        self.place_shape, number = place, range(PARTIAL)
        super().__init__({
            "room": Out(1), "index": Out(number), "keep": In(1), "bytes": In(2 * ACCESS_BITS),
            "mask": In(ACCESS_BITS // 4), "start": In(1), "start_index": In(number),
            "place": In(place), "match": Out(1),
            "returned": In(1), "return_index": In(number), "line": In(2 * ACCESS_BITS),
            "poison": In(2), "merge": Out(1), "merge_index": Out(number),
            "merged": Out(data.ArrayLayout(half_layout(), 2)), "again": Out(1),
            "again_index": Out(number), "again_place": Out(place), "take": In(1), "end": In(1),
            "end_index": In(number), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        taken, merged = Signal(PARTIAL), Signal(PARTIAL)
        kept = data.StructLayout({"bytes": 2 * ACCESS_BITS, "mask": ACCESS_BITS // 4})
        places = [Signal(self.place_shape, name=f"place{n}") for n in range(PARTIAL)]
        gated_domain(m, name="merge", enable=ResetSignal("sync") | self.returned)
        m.submodules.entries = entries = memory.Memory(shape=kept, depth=PARTIAL, init=[])
        write, read = entries.write_port(), entries.read_port(domain="merge")
        line, poison, index = Signal(2 * ACCESS_BITS), Signal(2), Signal(range(PARTIAL))
        starts, ends = Signal(PARTIAL), Signal(PARTIAL)
        free = ~(taken | starts)
        m.d.merge += [line.eq(self.line), poison.eq(self.poison), index.eq(self.return_index)]
        m.d.sync += [
            self.merge.eq(self.returned), taken.eq((taken | starts) & ~ends),
            merged.eq((merged | Mux(self.merge, 1 << index, 0))
                      & ~Mux(self.take, 1 << self.again_index, 0))]
        for n, place in enumerate(places):
            with m.If(starts[n]):
                m.d.sync += place.eq(self.place)
        m.d.comb += [
            starts.eq(Mux(self.start, 1 << self.start_index, 0)),
            ends.eq(Mux(self.end, 1 << self.end_index, 0)),
            self.room.eq(free.any()), self.index.eq(number_of(lowest(free))),
            write.en.eq(self.keep), write.addr.eq(self.index), write.data.bytes.eq(self.bytes),
            write.data.mask.eq(self.mask), read.addr.eq(self.return_index), read.en.eq(1),
            self.match.eq(Cat(bit & (place == self.place)
                              for bit, place in zip(taken, places, strict=True)).any()),
            self.merge_index.eq(index), self.again.eq(merged.any()),
            self.again_index.eq(number_of(lowest(merged))),
            self.again_place.eq(Array(places)[self.again_index]), self.active.eq(taken.any())]
        new, mask, half_bytes = read.data.bytes, read.data.mask, ACCESS_BITS // 8
        for half in (0, 1):
            covered = mask[half * half_bytes:(half + 1) * half_bytes]
            at = half * ACCESS_BITS
            m.d.comb += [
                self.merged[half].data.eq(Cat(
                    Mux(bit, new[at + 8 * n:at + 8 * n + 8], line[at + 8 * n:at + 8 * n + 8])
                    for n, bit in enumerate(covered))),
                self.merged[half].poison.eq(poison[half] & ~covered.all())]
        return m
