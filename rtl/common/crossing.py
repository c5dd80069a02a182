"""A queue between two clock domains."""
from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2


def gray(value):
    """The Gray code of an unsigned value."""
    return value ^ value[1:]


def binary(code):
    """The value of a Gray code."""
    bits = [code[-1]]
    for bit in list(code)[-2::-1]:
        bits.append(bit ^ bits[-1])
    return Cat(reversed(bits))


class Crossing(wiring.Component):
    """Asynchronous FIFO whose two sides may rest: pointers cross as Gray codes, two stages each.

    ``i`` belongs to the domain ``w``, ``o`` to ``r``; an item is on ``o`` after one clock of ``w``
    and three of ``r``. Throughput one item a clock of the slower side, if ``depth`` covers the way
    there and back. Only the synchronisers use the free clocks; the rest takes the clocks of ``w``
    and ``r``, which may stop: that of ``w`` while ``i.valid`` is low, that of ``r`` while
    ``pending`` and ``o.valid`` are low. Empty after reset; both sides must be reset together.

    Parameters
    ----------
    shape : ShapeLike
        Shape of an item.
    depth : int
        Items. :exc:`ValueError` unless a power of two, at least 2.
    w, w_free, r, r_free : str
        Clock domains: those of the two sides, and the same ones with clocks that never stop.

    Members
    -------
    i, o : In(stream.Signature(shape)), Out(stream.Signature(shape))
        Items in, and the same in the same order. No path leads from one to the other.
    level : Out(range(depth + 1))
        Items not yet taken, as ``w`` knows it: never too few.
    pending : Out(1)
        ``r`` knows of an item that is not yet on ``o``.
    w_moves, r_moves : Out(1)
        Some register of the free clock of this side is about to change; asynchronous.
    """

    def __init__(self, shape, *, depth, w, w_free, r, r_free):
        if not isinstance(depth, int) or depth < 2 or depth & (depth - 1):
            raise ValueError(f"Depth must be a power of two of at least 2, not {depth!r}")
        self.shape, self.depth = shape, depth
        self.w, self.w_free, self.r, self.r_free = w, w_free, r, r_free
        super().__init__({
            "i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
            "level": Out(range(depth + 1)), "pending": Out(1), "w_moves": Out(1),
            "r_moves": Out(1)})

    def elaborate(self, platform):
        m = Module()
        bits = exact_log2(self.depth)
        m.submodules.items = items = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        write, read = items.write_port(domain=self.w), items.read_port(domain=self.r)
        put, taken = Signal(bits + 1), Signal(bits + 1)         # counts, and their codes
        put_code, taken_code = Signal(bits + 1), Signal(bits + 1)
        put_seen, taken_seen = Signal(bits + 1), Signal(bits + 1)
        m.submodules.to_r = FFSynchronizer(put_code, put_seen, o_domain=self.r_free,
                                           reset_less=False)
        m.submodules.to_w = FFSynchronizer(taken_code, taken_seen, o_domain=self.w_free,
                                           reset_less=False)
        pushed, loaded = self.i.valid & self.i.ready, Signal()
        put_next, taken_next = (put + 1)[:bits + 1], (taken + 1)[:bits + 1]
        m.d.comb += [
            self.level.eq((put - binary(taken_seen))[:bits + 1]),
            self.i.ready.eq(self.level != self.depth),
            write.en.eq(pushed), write.addr.eq(put[:bits]), write.data.eq(self.i.payload),
            self.pending.eq(put_seen != taken_code),
            loaded.eq(self.pending & (self.o.ready | ~self.o.valid)),
            read.en.eq(loaded), read.addr.eq(taken[:bits]), self.o.payload.eq(read.data),
            self.w_moves.eq(taken_seen != taken_code), self.r_moves.eq(put_seen != put_code)]
        with m.If(pushed):
            m.d[self.w] += [put.eq(put_next), put_code.eq(gray(put_next))]
        with m.If(loaded):
            m.d[self.r] += [taken.eq(taken_next), taken_code.eq(gray(taken_next)),
                            self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d[self.r] += self.o.valid.eq(0)
        return m
