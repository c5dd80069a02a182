"""A slice of the on-chip SRAM at the edge of the mesh: scratch memory and last-level cache."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from rtl.common.clockgate import gated_domain
from rtl.common.queue import Queue
from rtl.memory.slice.access import Access
from rtl.memory.slice.array import DataArray
from rtl.memory.slice.interfaces import (
    COUNTERS,
    Counter,
    Work,
    inject_layout,
    memory_request_layout,
    memory_response_layout,
    slice_request_layout,
    slice_response_layout,
)
from rtl.memory.slice.keeper import Keeper
from rtl.memory.slice.lookup import Lookup, partial, touched
from rtl.memory.slice.misses import Misses
from rtl.pe.interfaces import AccessError


class SramSlice(wiring.Component):
    """Banks of lines of 64 bytes with SECDED; any of its ways are cache of HBM, the rest scratch.

    Every request gets one answer, in any order; requests for the same line take effect in the
    order in which they were accepted. A scratch access takes 1 cycle, a cached one that hits 2, a
    read that misses 3 more than memory; one request a cycle. One cycle more is taken: by a line or
    a set with wrong bits; by its bank, for a write of a part of a word (read, merged, written); by
    a request that finds its bank or the path for writes taken (lines from memory go first); by
    scratch access after a cached one, if both want the array in one cycle; by a miss that replaces
    a changed line and reads memory, for the second request to memory. A stream of reads that miss
    runs at min(1, mshrs / (memory's latency + 3)) lines a cycle. See docs/decisions/0011.

    Scratch: way w holds lines w x lines / ways and up; lines of no scratch way are answered with
    ``ADDRESS``. Cache: write-back, write-allocate, the highest ways; replacement as
    cosim/golden/cache.py says. A write of a whole line that misses fetches nothing. Writes are
    answered before memory has them. ``NO_ALLOCATE``: a read or a write of a whole line that misses
    passes the cache by. ``NO_WRITE_BACK``: a read after which the line is not needed: it is dropped
    from the cache, and what is read before the next write to a byte of it may be any earlier
    value. ``PREFETCH``: of a read; its answer has no data and does not wait for memory. A hint on
    anything else counts as ``NONE``, and so does one on a line that is under way.

    Errors. One wrong bit of a word, or of an entry of the tags, is corrected in what is read, and
    in place by the scrubber; two are answered with ``POISON``; a write to a part of a word that has
    two leaves it poisoned. A line that memory answers with an error is kept poisoned: its requests
    get memory's error, later ones ``POISON``. A line with such words is written back with
    ``poison``. An entry with two wrong bits may hide a changed line: ``lost`` is set, and misses in
    its set are answered with ``POISON`` until ``cache_ways`` gives up the way.

    Reset leaves the contents as they are, makes all ways scratch, and zeroes the counters. The
    clocks stop while nothing moves, also while only memory is waited for. Source: this project's
    choice.

    Parameters
    ----------
    lines : int
        Size [line of 64 bytes]. :exc:`ValueError` unless a power of two.
    ways : int
        Ways. :exc:`ValueError` unless a power of two, 2 to 16, of at least ``banks`` lines, 2 at
        least.
    banks : int
        Single-port banks; line n is in bank n modulo ``banks``. :exc:`ValueError` unless a power of
        two.
    name_bits : int
        Width of the name of a request [bit]. :exc:`ValueError` unless positive.
    mshrs : int
        Lines under way from memory. :exc:`ValueError` unless 2 to 256.
    targets : int
        Requests that can wait for them; twice as many as lines if not given. :exc:`ValueError`
        unless at least ``mshrs``.

    Members
    -------
    request : In(stream.Signature(slice_request_layout(...)))
        Its ready depends on its payload and on ``response.ready``.
    response : Out(stream.Signature(slice_response_layout(...)))
        ``data`` means nothing after a write and after PREFETCH.
    memory_request : Out(stream.Signature(memory_request_layout(...)))
        Registers. Reads have different names while they are under way, writes have any.
    memory_response : In(stream.Signature(memory_response_layout(...)))
        In any order. Its ready depends on ``response.ready``.
    cache_ways : In(range(ways + 1))
        Ways that are cache. After a change requests wait until the ways given up are written back.
    flush : In(1)
        For one cycle: write all changed lines back, and keep them; requests wait.
    busy : Out(1)
        A change or a flush is under way.
    tick : In(1)
        For one cycle: scrub the next line, and its entry in the tags. A step delays a request by
        at most 2 cycles.
    inject : In(inject_layout())
        In a cycle with ``valid``: invert bits of the next word, or of the next entry, written.
    lost : Out(1)
        Sticky until reset: an entry of the tags had an uncorrectable error.
    counters : Out(data.ArrayLayout(32, 16))
        See :class:`rtl.memory.slice.interfaces.Counter`; modulo 2^32.
    awake : Out(1)
        The registers and the memory take the coming edge of the clock.
    """

    def __init__(self, *, lines, ways=8, banks=4, name_bits=20, mshrs=16, targets=None):
        def power(value, least, most):
            return isinstance(value, int) and least <= value <= most and not value & (value - 1)
        if not power(ways, 2, 16):
            raise ValueError(f"Ways must be a power of two from 2 to 16, not {ways!r}")
        if not power(banks, 1, 64):
            raise ValueError(f"Banks must be a power of two from 1 to 64, not {banks!r}")
        if not power(lines, ways * max(banks, 2), 1 << 30):
            raise ValueError(f"Lines must be a power of two of at least {ways * max(banks, 2)}, "
                             f"not {lines!r}")
        if not isinstance(name_bits, int) or name_bits < 1:
            raise ValueError(f"Name bits must be a positive integer, not {name_bits!r}")
        if not isinstance(mshrs, int) or not 2 <= mshrs <= 256:
            raise ValueError(f"Mshrs must be an integer from 2 to 256, not {mshrs!r}")
        if targets is None:
            targets = 2 * mshrs
        if not isinstance(targets, int) or targets < mshrs:
            raise ValueError(f"Targets must be an integer of at least {mshrs}, not {targets!r}")
        self.lines, self.ways, self.banks, self.sets = lines, ways, banks, lines // ways
        self.name_bits, self.mshrs, self.targets = name_bits, mshrs, targets
        self.memory_name_bits = ceil_log2(mshrs)
        names = {"name_bits": self.memory_name_bits}
        super().__init__({
            "request": In(stream.Signature(slice_request_layout(name_bits=name_bits))),
            "response": Out(stream.Signature(slice_response_layout(name_bits=name_bits))),
            "memory_request": Out(stream.Signature(memory_request_layout(**names))),
            "memory_response": In(stream.Signature(memory_response_layout(**names))),
            "cache_ways": In(range(ways + 1)), "flush": In(1), "busy": Out(1), "tick": In(1),
            "inject": In(inject_layout()), "lost": Out(1),
            "counters": Out(data.ArrayLayout(32, COUNTERS)), "awake": Out(1)})

    def elaborate(self, platform):
        m = Module()
        size = {"places": self.lines, "ways": self.ways}
        array = DataArray(lines=self.lines, banks=self.banks)
        access = Access(places=self.lines, name_bits=self.name_bits,
                        memory_name_bits=self.memory_name_bits)
        keeper = Keeper(**size)
        lookup = Lookup(**size, name_bits=self.name_bits,
                        memory_name_bits=self.memory_name_bits)
        misses = Misses(**size, mshrs=self.mshrs, targets=self.targets,
                        name_bits=self.name_bits)
        queue = Queue(memory_request_layout(name_bits=self.memory_name_bits))
        m.submodules.array = DomainRenamer("work")(array)
        m.submodules.access = DomainRenamer("work")(access)
        m.submodules.keeper = DomainRenamer("cache")(keeper)
        m.submodules.lookup = DomainRenamer("cache")(lookup)
        m.submodules.misses = DomainRenamer("cache")(misses)
        m.submodules.queue = DomainRenamer("cache")(queue)
        cache_awake = self._clocks(m, access, keeper, lookup, misses, queue)

        m.d.comb += [
            keeper.cache_ways.eq(self.cache_ways), keeper.flush.eq(self.flush),
            keeper.tick.eq(self.tick), self.busy.eq(keeper.hold | self.flush),
            keeper.quiet.eq(~lookup.busy & ~access.busy & ~misses.active),
            keeper.writing.eq(misses.writing | queue.o.valid),
            keeper.offered.eq(self.request.valid), lookup.cached.eq(keeper.cached)]
        scratch = self._requests(m, keeper, lookup, access)
        self._array(m, array, access, lookup, misses, scratch)
        self._misses(m, lookup, misses, access, queue)
        self._responses(m, access, misses)
        self._inject(m, array, lookup)
        self._count(m, keeper, lookup, access, misses, scratch, queue)
        m.d.comb += self.awake.eq(
            cache_awake | access.busy | self.request.valid | self.inject.valid)
        return m

    def _clocks(self, m, access, keeper, lookup, misses, queue):
        """Clocks of all, of the cache, and of what lines are merged with."""
        awake = Signal()
        reset = ResetSignal("sync")
        m.d.comb += awake.eq(
            (self.request.valid & self.request.payload.cached) | keeper.awake | lookup.busy
            | access.evict.valid | misses.moving | self.memory_response.valid | queue.o.valid)
        gated_domain(m, name="work", enable=reset | self.awake)
        gated_domain(m, name="cache", enable=reset | awake)
        gated_domain(m, name="merge", enable=reset | access.merging)
        return awake

    def _requests(self, m, keeper, lookup, access):
        """Requests go to the tags or to the array; gives what the array part says."""
        request, payload = self.request, self.request.payload
        job = lookup.i.payload
        set_bits = exact_log2(self.sets)
        own = keeper.work.valid
        scratch = {name: Signal(name=f"scratch_{name}") for name in (
            "wanted", "outside", "parts", "reads", "writes", "fits", "go")}
        task = access.task.payload
        m.d.comb += [job[name].eq(payload[name])
                     for name in ("line", "hint", "name", "write", "data", "mask")]
        m.d.comb += [
            job.place.eq(keeper.work.payload.place), job.clean.eq(keeper.work.payload.clean),
            job.leave.eq(keeper.work.payload.leave),
            job.work.eq(Mux(own, keeper.work.payload.work, Work.ACCESS)),
            lookup.i.valid.eq(own | (request.valid & payload.cached & ~keeper.hold)),
            keeper.work.ready.eq(lookup.i.ready),
            scratch["wanted"].eq(request.valid & ~payload.cached & ~keeper.hold),
            scratch["outside"].eq(payload.line[set_bits:] >= self.ways - keeper.cached_ways),
            scratch["parts"].eq(payload.write & partial(payload.mask)),
            scratch["reads"].eq(~scratch["outside"] & (scratch["parts"] | ~payload.write)),
            scratch["writes"].eq(~scratch["outside"] & payload.write & ~scratch["parts"]),
            scratch["go"].eq(scratch["wanted"] & scratch["fits"] & ~lookup.task.valid
                             & access.task.ready),
            request.ready.eq(Mux(payload.cached, lookup.i.ready & ~own & ~keeper.hold,
                                 scratch["go"])),
            access.task.valid.eq(lookup.task.valid | scratch["go"]),
            lookup.task.ready.eq(access.task.ready),
        ]
        with m.If(lookup.task.valid):
            m.d.comb += task.eq(lookup.task.payload)
        with m.Else():
            m.d.comb += [
                task.respond.eq(1), task.name.eq(payload.name), task.write.eq(payload.write),
                task.error.eq(Mux(scratch["outside"], AccessError.ADDRESS, AccessError.NONE)),
                task.read.eq(scratch["reads"]),
                task.store.eq(scratch["parts"] & ~scratch["outside"]),
                task.place.eq(payload.line), task.data.eq(payload.data),
                task.mask.eq(payload.mask)]
        return scratch

    def _array(self, m, array, access, lookup, misses, scratch):
        """One write and one read of different banks: stores first, lookups, then scratch."""
        bank_bits = exact_log2(self.banks)
        line = Signal(range(self.lines))
        fills = misses.store & misses.can_store
        stores = access.store | fills
        stored = Mux(access.store, access.store_line, misses.store_line)

        def apart(place):
            return ~stores | (place[:bank_bits] != stored[:bank_bits])

        m.d.comb += [
            misses.can_store.eq(~access.store & ~access.mending),
            lookup.can_write.eq(~stores), lookup.can_read.eq(apart(lookup.place)),
            line.eq(self.request.payload.line),
            scratch["fits"].eq((~scratch["reads"] | apart(line))
                               & (~scratch["writes"] | ~stores)),
            array.read.eq(Mux(lookup.task.valid, lookup.reads & access.task.ready,
                              scratch["go"] & scratch["reads"])),
            array.read_line.eq(Mux(lookup.task.valid, lookup.place, line)),
            array.fix.eq(access.fix), access.data.eq(array.data), access.wrong.eq(array.wrong),
            access.corrected.eq(array.corrected), access.bad.eq(array.bad),
            access.poisoned.eq(array.poisoned)]
        with m.If(access.store):
            m.d.comb += [array.write.eq(1), array.write_line.eq(access.store_line),
                         array.write_words.eq(access.store_words),
                         array.write_data.eq(access.store_data),
                         array.write_poison.eq(access.store_poison)]
        with m.Elif(fills):
            m.d.comb += [array.write.eq(1), array.write_line.eq(misses.store_line),
                         array.write_words.eq(~0), array.write_data.eq(misses.store_data),
                         array.write_poison.eq(misses.store_poison)]
        with m.Elif(lookup.task.valid):
            m.d.comb += [array.write.eq(lookup.writes & access.task.ready),
                         array.write_line.eq(lookup.place),
                         array.write_words.eq(lookup.writes_words),
                         array.write_data.eq(lookup.request.data)]
        with m.Else():
            m.d.comb += [array.write.eq(scratch["go"] & scratch["writes"]),
                         array.write_line.eq(line),
                         array.write_words.eq(touched(self.request.payload.mask)),
                         array.write_data.eq(self.request.payload.data)]

    def _misses(self, m, lookup, misses, access, queue):
        """The tags, the lines under way, and the way to memory."""
        request = lookup.request
        for name in ("match", "match_fill", "locked", "free", "free_name", "slot_free"):
            m.d.comb += getattr(lookup, name).eq(getattr(misses, name))
        for name in ("allocate", "join", "with_target", "fill", "place"):
            m.d.comb += getattr(misses, name).eq(getattr(lookup, name))
        for name in ("line", "name", "write", "data", "mask"):
            m.d.comb += getattr(misses, name).eq(request[name])
        room = queue.i.ready & misses.can_write
        m.d.comb += [
            misses.set.eq(request.line[:exact_log2(self.sets)]),
            queue.i.valid.eq((access.evict.valid | (lookup.push.valid & ~access.evicting))
                             & misses.can_write),
            queue.i.payload.eq(Mux(access.evict.valid, access.evict.payload,
                                   lookup.push.payload)),
            access.evict.ready.eq(room), lookup.push.ready.eq(room & ~access.evicting),
            misses.wrote.eq(queue.i.valid & queue.i.ready & queue.i.payload.write)]
        connect(m, queue.o, flipped(self.memory_request))
        connect(m, flipped(self.memory_response), misses.memory_response)

    def _responses(self, m, access, misses):
        """Lines from memory go first, but what was offered once stays."""
        last, stalled, chosen = Signal(), Signal(), Signal()
        m.d.comb += [
            chosen.eq(Mux(stalled, last, misses.response.valid)),
            self.response.valid.eq(access.response.valid | misses.response.valid),
            self.response.payload.eq(Mux(chosen, misses.response.payload,
                                         access.response.payload)),
            misses.response.ready.eq(self.response.ready & chosen),
            access.response.ready.eq(self.response.ready & ~chosen)]
        m.d.work += [last.eq(chosen), stalled.eq(self.response.valid & ~self.response.ready)]

    def _inject(self, m, array, lookup):
        """Bits inverted in what is written next."""
        mask = Signal.like(self.inject.mask)
        for_data, for_tag = Signal(), Signal()
        with m.If(for_data):
            m.d.comb += array.flip.eq(mask)
        with m.If(for_tag):
            m.d.comb += lookup.flip.eq(mask)
        with m.If(array.write & array.write_words.any()):
            m.d.work += for_data.eq(0)
        with m.If(lookup.writes_tag):
            m.d.work += for_tag.eq(0)
        with m.If(self.inject.valid):
            m.d.work += [mask.eq(self.inject.mask), for_data.eq(~self.inject.tag),
                         for_tag.eq(self.inject.tag)]

    def _count(self, m, keeper, lookup, access, misses, scratch, queue):
        """Counters, and the sticky error."""
        request = self.request.payload
        conflict = (lookup.task.valid & (self.request.valid & ~request.cached)
                    | (scratch["wanted"] & ~scratch["fits"])
                    | (lookup.busy & ((lookup.reads & ~lookup.can_read)
                                      | (lookup.writes & ~lookup.can_write))))
        taken = self.request.valid & self.request.ready
        events = {
            Counter.ACCESSES: taken,
            Counter.SCRATCH_READS: scratch["go"] & ~request.write,
            Counter.SCRATCH_WRITES: scratch["go"] & request.write,
            Counter.HITS: lookup.hit, Counter.MISSES: lookup.miss,
            Counter.WRITE_BACKS: access.evict.valid & access.evict.ready,
            Counter.CONFLICTS: conflict, Counter.PREFETCHES: lookup.prefetched,
            Counter.USELESS: lookup.useless,
            Counter.SCRUBBED: keeper.scrubbed,
            Counter.MERGES: lookup.merged | (scratch["go"] & access.task.payload.store),
            Counter.FULL: lookup.crowded, Counter.FAILED: misses.failed,
            Counter.DROPPED: lookup.dropped}
        counts = [Signal(32, name=f"count{n}") for n in range(COUNTERS)]
        m.d.comb += self.counters.eq(Cat(counts))
        for number, event in events.items():
            with m.If(event):
                m.d.work += counts[number].eq(counts[number] + 1)
        for number, one, other in ((Counter.CORRECTED, lookup.corrected, access.found_corrected),
                                   (Counter.UNCORRECTABLE, lookup.lost, access.found_bad)):
            with m.If(one | other):
                m.d.work += counts[number].eq(counts[number] + one + other)
        with m.If(lookup.lost):
            m.d.work += self.lost.eq(1)
