"""Completion ring: writing of entries, and the host's doorbell."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .axi import HOST_ADDRESS_BITS, beat_layout, burst_layout
from .jobs import result_layout
from .submission_ring import INDEX_BITS

ENTRY_BYTES = 32
LOW = (1 << ENTRY_BYTES) - 1    # strobe of the lower of two entries


class CompletionRing(wiring.Component):
    """Writes a 32-byte entry for each result; waits while the host has left no entry free.

    The ring is full with one entry less than its size. ``wrote`` is high when the host's memory
    has answered, so that whoever sees it finds the entry. A doorbell past the ring's end, or past
    the entries written, is refused. Throughput is one entry in 3 cycles.

    Members
    -------
    restart, base, size_log2, doorbell, ring, refused
        As in :class:`SubmissionRing`.
    head, tail : Out(16)
        First entry not consumed by the host, first entry not yet there.
    waits : Out(32)
        Cycles in which a result waited for a free entry.
    idle, wrote, failed : Out(1)
        Nothing under way; for one cycle, an entry is there, or could not be written.
    active : Out(1)
        While it is low, nothing changes until a doorbell, a restart or ``written`` comes.
    i : In(stream.Signature(result_layout()))
        Results.
    writes, beats, written, written_error
        See :class:`CopyOut`.
    """

    def __init__(self):
        super().__init__({
            "restart": In(1), "base": In(HOST_ADDRESS_BITS), "size_log2": In(4),
            "doorbell": In(32), "ring": In(1), "refused": Out(1), "head": Out(INDEX_BITS),
            "tail": Out(INDEX_BITS), "waits": Out(32), "idle": Out(1), "wrote": Out(1),
            "failed": Out(1), "active": Out(1), "i": In(stream.Signature(result_layout())),
            "writes": Out(stream.Signature(burst_layout())),
            "beats": Out(stream.Signature(beat_layout())), "written": In(1),
            "written_error": In(1)})

    def elaborate(self, platform):
        m = Module()
        mask, next_ = Signal(INDEX_BITS), Signal(INDEX_BITS)     # next_: entry to be written
        following, phase, beat_open = Signal(INDEX_BITS), Signal(init=1), Signal()
        ahead, there = Signal(INDEX_BITS), Signal(INDEX_BITS)
        # The host may see an entry before the chiplet sees the answer to its write: so `next_`.
        m.d.comb += [mask.eq((1 << self.size_log2) - 1), following.eq((next_ + 1) & mask),
                     ahead.eq((self.doorbell - self.head) & mask),
                     there.eq((next_ - self.head) & mask)]
        wrong = (self.doorbell > mask) | (ahead > there)
        m.d.comb += self.refused.eq(self.ring & wrong)
        with m.If(self.ring & ~wrong):
            m.d.sync += self.head.eq(self.doorbell)

        full = following == self.head
        result, words = self.i.payload, Signal(8 * ENTRY_BYTES)
        m.d.comb += words.eq(Cat(
            result.tag, result.code, phase, Const(0, 7),
            result.command_tag, result.unit, result.field, result.die,
            result.failed_pe, Const(0, 8), result.failed_mask, result.cycles, result.address,
            result.value))
        address = self.base + (next_ << exact_log2(ENTRY_BYTES))
        m.d.comb += [
            self.writes.valid.eq(self.i.valid & ~full & ~beat_open),
            self.writes.payload.address.eq(Cat(Const(0, 6), address[6:])),
            self.beats.valid.eq(beat_open), self.beats.payload.last.eq(1),
            self.beats.payload.data.eq(words.replicate(2)),
            self.beats.payload.strobe.eq(Mux(next_[0], LOW << ENTRY_BYTES, LOW)),
            self.i.ready.eq(beat_open & self.beats.ready),
            self.wrote.eq(self.written & ~self.written_error),
            self.failed.eq(self.written & self.written_error),
            self.active.eq(self.i.valid | beat_open),
            self.idle.eq(~self.i.valid & (next_ == self.tail))]
        with m.If(self.i.valid & full & ~beat_open):
            m.d.sync += self.waits.eq(self.waits + 1)
        with m.If(self.writes.valid & self.writes.ready):
            m.d.sync += beat_open.eq(1)
        with m.If(beat_open & self.beats.ready):
            m.d.sync += [beat_open.eq(0), next_.eq(following), phase.eq(phase ^ (following == 0))]
        with m.If(self.written):
            m.d.sync += self.tail.eq((self.tail + 1) & mask)
        with m.If(self.restart):
            m.d.sync += [next_.eq(0), self.tail.eq(0), self.head.eq(0), phase.eq(1)]
        return m
