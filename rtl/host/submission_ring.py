"""Submission ring: doorbell, and fetching of entries."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import LINE_BITS

from .axi import HOST_ADDRESS_BITS, burst_layout
from .jobs import decode_entry, entry_layout

INDEX_BITS = 16


class SubmissionRing(wiring.Component):
    """Fetches the entries up to the doorbell, in order, several of them ahead.

    A doorbell past the ring's end, or one that takes back entries, is refused. An entry that the
    host's memory does not give stops the ring until ``restart``. Latency from doorbell to read is
    2 cycles, throughput one entry a cycle with ``depth`` covering the host's latency.

    Parameters
    ----------
    depth : int
        Entries that may be fetched ahead [entry].

    Members
    -------
    enable, restart : In(1)
        Fetch; go back to the state after reset.
    base, size_log2 : In(64), In(4)
        The ring in host memory.
    doorbell, ring : In(32), In(1)
        New tail, for one cycle.
    head, tail : Out(16)
        First entry not yet fetched, first not to be fetched.
    refused, failed : Out(1)
        For one cycle: the doorbell was refused; an entry could not be read.
    idle : Out(1)
        Nothing to fetch, under way or waiting in ``o``.
    active : Out(1)
        While it is low, nothing changes until a doorbell, a restart or a beat comes.
    now : In(32)
        Time, put into entries as they come.
    reads, beat, beat_valid
        See :class:`AxiMaster`.
    o : Out(stream.Signature(entry_layout()))
        Entries.
    """

    def __init__(self, *, depth=8):
        self.depth = depth
        super().__init__({
            "enable": In(1), "restart": In(1), "base": In(HOST_ADDRESS_BITS),
            "size_log2": In(4), "doorbell": In(32), "ring": In(1), "head": Out(INDEX_BITS),
            "tail": Out(INDEX_BITS), "refused": Out(1), "failed": Out(1), "idle": Out(1),
            "active": Out(1),
            "now": In(32), "reads": Out(stream.Signature(burst_layout())),
            "beat": In(data.StructLayout({"data": LINE_BITS, "error": 1})), "beat_valid": In(1),
            "o": Out(stream.Signature(entry_layout()))})

    def elaborate(self, platform):
        m = Module()
        width = entry_layout().size
        m.submodules.entries = entries = SyncFIFOBuffered(width=width, depth=self.depth)
        asked = Signal(INDEX_BITS)                      # first entry not yet asked for
        reserved, stopped = Signal(range(self.depth + 1)), Signal()
        mask = Signal(INDEX_BITS)
        m.d.comb += mask.eq((1 << self.size_log2) - 1)

        ahead, before = Signal(INDEX_BITS), Signal(INDEX_BITS)
        m.d.comb += [ahead.eq((self.doorbell - self.head) & mask),
                     before.eq((self.tail - self.head) & mask)]
        wrong = (self.doorbell > mask) | (ahead < before)
        m.d.comb += self.refused.eq(self.ring & wrong)
        with m.If(self.ring & ~wrong):
            m.d.sync += self.tail.eq(self.doorbell)

        issued = self.reads.valid & self.reads.ready
        come = self.beat_valid & ~self.beat.error & ~stopped
        taken = entries.r_rdy & entries.r_en
        m.d.comb += [
            self.reads.valid.eq(self.enable & ~stopped & (asked != self.tail)
                                & (reserved != self.depth)),
            self.reads.payload.address.eq(self.base + (asked << 6)),
            self.failed.eq(self.beat_valid & self.beat.error & ~stopped)]
        with m.If(issued):
            m.d.sync += asked.eq((asked + 1) & mask)
        with m.If(come):
            m.d.sync += self.head.eq((self.head + 1) & mask)
        with m.If(self.failed):
            m.d.sync += stopped.eq(1)
        m.d.sync += reserved.eq(reserved + issued - taken - (self.beat_valid & ~come))

        entry = Signal(entry_layout())
        m.d.comb += [
            *decode_entry(entry, self.beat.data, self.now),
            entries.w_data.eq(entry), entries.w_en.eq(come),
            self.o.payload.eq(entries.r_data), self.o.valid.eq(entries.r_rdy),
            entries.r_en.eq(self.o.ready),
            self.active.eq(self.reads.valid | (reserved != 0)),
            self.idle.eq(((asked == self.tail) | stopped) & (reserved == 0))]
        with m.If(self.restart):
            m.d.sync += [asked.eq(0), self.head.eq(0), self.tail.eq(0), stopped.eq(0)]
        return m
