"""Data of the writes of an HBM pseudo-channel."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.clockgate import gated_domain
from rtl.memory.hbm.timing import ACCESS_BITS, access_layout
from rtl.memory.secded import encode

PARTIAL = 4             # partial writes under way at a time


def half_layout():
    """Half a line, and whether what it was made of was lost."""
    return data.StructLayout({"data": ACCESS_BITS, "poison": 1})


class HbmWrites(wiring.Component):
    """Keeps lines to be written and puts them on the pins, with their check bits.

    Parameters
    ----------
    depth : int
        Whole lines; ``PARTIAL`` merged ones have a place of their own.

    Members
    -------
    put, put_slot, put_data, put_poison : In(1), In(range(depth)), In(512), In(1)
        Keep a whole line; it is known to be wrong.
    merge, merge_slot, merged : In(1), In(range(PARTIAL)), In(two halves)
        Keep a line merged of what was read and what is written.
    send, slot, second : In(1), In(range(2 * depth)), In(1)
        Put a half on the pins, 2 cycles later; ``slot``: from ``depth`` on the merged ones.
    write_data : Out(access_layout())
        The pins; a register.
    active : Out(1)
        Something is on its way to the pins.
    """

    def __init__(self, *, depth):
        self.depth = depth
        super().__init__({
            "put": In(1), "put_slot": In(range(depth)), "put_data": In(2 * ACCESS_BITS),
            "put_poison": In(1),
            "merge": In(1), "merge_slot": In(range(PARTIAL)),
            "merged": In(data.ArrayLayout(half_layout(), 2)), "send": In(1),
            "slot": In(range(2 * depth)), "second": In(1), "write_data": Out(access_layout()),
            "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        bits, sent = exact_log2(self.depth), Signal()
        gated_domain(m, name="out", enable=ResetSignal("sync") | self.send | sent)
        m.d.sync += sent.eq(self.send)
        merged, second, read = Signal(), Signal(), []
        bad, lost = Signal(self.depth), Signal()    # whole lines that are known to be wrong
        with m.If(self.put):
            m.d.sync += bad.bit_select(self.put_slot, 1).eq(self.put_poison)
        for half in (0, 1):
            whole = memory.Memory(shape=ACCESS_BITS, depth=self.depth, init=[])
            joint = memory.Memory(shape=half_layout(), depth=PARTIAL, init=[])
            m.submodules[f"whole{half}"], m.submodules[f"joint{half}"] = whole, joint
            put, merge = whole.write_port(), joint.write_port()
            ports = whole.read_port(domain="out"), joint.read_port(domain="out")
            read.append(ports)
            chosen = self.send & (self.second == half)
            m.d.comb += [
                put.en.eq(self.put), put.addr.eq(self.put_slot),
                put.data.eq(self.put_data[half * ACCESS_BITS:(half + 1) * ACCESS_BITS]),
                merge.en.eq(self.merge), merge.addr.eq(self.merge_slot),
                merge.data.eq(self.merged[half]),
                ports[0].addr.eq(self.slot[:bits]), ports[0].en.eq(chosen & ~self.slot[bits]),
                ports[1].addr.eq(self.slot[:2]), ports[1].en.eq(chosen & self.slot[bits])]
        with m.If(self.send):
            m.d.out += [merged.eq(self.slot[bits]), second.eq(self.second),
                        lost.eq(bad.bit_select(self.slot[:bits], 1))]
        word, joint = Signal(ACCESS_BITS), Signal(half_layout())
        m.d.comb += [
            joint.eq(Mux(second, read[1][1].data, read[0][1].data)), self.active.eq(sent),
            word.eq(Mux(merged, joint.data, Mux(second, read[1][0].data, read[0][0].data)))]
        with m.If(sent):
            m.d.out += [self.write_data.data.eq(word), self.write_data.check.eq(encode(word)),
                        self.write_data.spare.eq(Mux(merged, joint.poison, lost).replicate(6))]
        return m
