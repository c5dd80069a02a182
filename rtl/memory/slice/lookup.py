"""Where requests for cached lines meet the tags."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.select import lowest, one_of
from rtl.memory.slice.interfaces import (
    LINE_NUMBER_BITS,
    WORD_BYTES,
    WORDS,
    Work,
    lookup_layout,
    memory_request_layout,
    task_layout,
)
from rtl.memory.slice.replacement import Replacement
from rtl.memory.slice.tags import TagStore
from rtl.pe.interfaces import LINE_BYTES, AccessError, Hint

EVENTS = ("hit", "miss", "prefetched", "useless", "dropped", "merged", "crowded", "corrected",
          "lost")


def partial(mask):
    """Whether a word is written in part."""
    return Cat(mask[n:n + WORD_BYTES].any() & ~mask[n:n + WORD_BYTES].all()
               for n in range(0, LINE_BYTES, WORD_BYTES)).any()


def touched(mask):
    """The words that are written."""
    return Cat(mask[n:n + WORD_BYTES].any() for n in range(0, LINE_BYTES, WORD_BYTES))


class Lookup(wiring.Component):
    """Looks requests up one cycle after they were taken, and says what becomes of them.

    One request a cycle, in order: a hit goes to the data array; a request for a line that is under
    way is put to those that wait for it; a miss takes a place, asks memory, and sends the line
    that was there away. A line replaced that is to be written back and a request for memory in the
    same cycle take turns. It waits for whatever it needs. A set with errors takes one cycle more.
    While an entry of a set is lost (uncorrectable), hits in the set are served and every miss in
    it is answered with ``POISON``, as it might be the lost line, until the ways are given up.
    Empty after reset. Source: this project's choice.

    Parameters
    ----------
    places, ways : int
        Size of the data array [line], and its ways.
    name_bits, memory_name_bits : int
        Width of the name of a request, and of one to memory [bit].

    Members
    -------
    i : In(stream.Signature(lookup_layout(...)))
        Jobs.
    cached : In(ways)
        Ways that are cache.
    request : Out(lookup_layout(...))
        The job at hand.
    busy : Out(1)
        There is one.
    task : Out(stream.Signature(task_layout(...)))
        What follows on the access to the data array.
    place, reads, writes, writes_words : Out
        That access, made when the task moves, and allowed by ``can_read`` and ``can_write``.
    push : Out(stream.Signature(memory_request_layout(...)))
        Reads of memory, and writes that pass the cache by.
    match, match_fill, locked, free, free_name, slot_free, join, allocate, with_target, fill
        As in :class:`rtl.memory.slice.misses.Misses`.
    flip : In(72)
        As in :class:`TagStore`.
    writes_tag : Out(1)
        An entry is written.
    events : Out(1) each
        What happened, for the counters.
    """

    def __init__(self, *, places, ways, name_bits, memory_name_bits):
        self.places, self.ways, self.sets = places, ways, places // ways
        job = lookup_layout(places=places, ways=ways, name_bits=name_bits)
        super().__init__({
            "i": In(stream.Signature(job)), "cached": In(ways), "request": Out(job),
            "busy": Out(1),
            "task": Out(stream.Signature(task_layout(places=places, name_bits=name_bits))),
            "place": Out(range(places)), "reads": Out(1), "writes": Out(1),
            "writes_words": Out(WORDS), "can_read": In(1), "can_write": In(1),
            "push": Out(stream.Signature(memory_request_layout(name_bits=memory_name_bits))),
            "match": In(1), "match_fill": In(1), "locked": In(ways), "free": In(1),
            "free_name": In(memory_name_bits), "slot_free": In(1), "join": Out(1),
            "allocate": Out(1), "with_target": Out(1), "fill": Out(1), "flip": In(72),
            "writes_tag": Out(1)} | {name: Out(1) for name in EVENTS})

    def elaborate(self, platform):
        m = Module()
        set_bits = exact_log2(self.sets)
        job = self.i.payload
        m.submodules.tags = tags = TagStore(sets=self.sets, ways=self.ways,
                                            tag_bits=LINE_NUMBER_BITS - set_bits)
        m.submodules.replacement = replacement = Replacement(sets=self.sets, ways=self.ways)
        done, go = Signal(self.ways), Signal()
        taken, next_set = self.i.valid & self.i.ready, Signal(range(self.sets))
        request, here = self.request, Signal(range(self.sets))
        settled = self.busy & ~tags.wrong
        m.d.comb += [
            self.i.ready.eq(~self.busy | go),
            next_set.eq(Mux(job.work == Work.ACCESS, job.line, job.place)[:set_bits]),
            here.eq(Mux(request.work == Work.ACCESS, request.line, request.place)[:set_bits]),
            tags.read.eq(taken), tags.read_set.eq(next_set), tags.fix.eq(self.busy & tags.wrong),
            tags.write_set.eq(here), tags.flip.eq(self.flip),
            self.writes_tag.eq(tags.write.any()),
            replacement.read.eq(taken), replacement.read_set.eq(next_set),
            replacement.set.eq(here),
            self.corrected.eq(go & (tags.corrected & self.cached).any()),
            self.lost.eq(go & (tags.lost & self.cached).any()),
        ]
        with m.If(self.i.ready):
            m.d.sync += [self.busy.eq(self.i.valid), done.eq(0)]
        with m.If(taken):
            m.d.sync += request.eq(job)

        # What is wanted, and whether it can be had.
        task, push = self.task, self.push
        wants = {name: Signal(name=f"wants_{name}") for name in ("task", "push", "entry", "slot")}
        ways = Signal(self.ways)        # ways whose lines are concerned
        step, waits = Signal(), Signal()    # more to come of a walk; wait
        array = ((~self.reads | self.can_read) & (~self.writes | self.can_write))
        books = ((~wants["entry"] | self.free) & (~wants["slot"] | self.slot_free))
        ready = settled & ~waits & array & books
        pushes, tasks = ~wants["push"] | push.ready, ~wants["task"] | task.ready
        moves = Signal()
        m.d.comb += [
            moves.eq(ready & pushes & tasks), go.eq(moves & ~step),
            task.valid.eq(ready & pushes & wants["task"]),
            push.valid.eq(ready & tasks & wants["push"]),
            self.allocate.eq(moves & wants["entry"]), self.with_target.eq(wants["slot"]),
            self.crowded.eq(settled & ~books),
            self.place.eq(Cat(here, self._number(ways))),
            task.payload.name.eq(request.name), task.payload.write.eq(request.write),
            task.payload.data.eq(request.data),
            task.payload.place.eq(self.place), task.payload.read.eq(self.reads),
            self.writes_words.eq(touched(request.mask)),
            push.payload.line.eq(request.line), push.payload.name.eq(self.free_name),
            push.payload.data.eq(request.data), push.payload.mask.eq(request.mask),
        ]
        entries = list(tags.entries)
        victim = Cat(one_of(list(ways), [entry.tag for entry in entries]))
        m.d.comb += [task.payload.victim.eq(Cat(here, victim)),
                     tags.entry.eq(one_of(list(ways), entries))]
        with m.If(settled):
            with m.Switch(request.work):
                with m.Case(Work.ACCESS):
                    self._access(m, tags, replacement, wants, ways, waits, settled, moves)
                with m.Case(Work.SCRUB):
                    self._scrub(m, tags, wants, ways, moves)
                with m.Case(Work.WALK):
                    self._walk(m, tags, wants, ways, step, done, moves)
        return m

    def _number(self, ways):
        """Number of the way that a one-hot selects."""
        bits = exact_log2(self.ways)
        return Cat(Cat(ways[w] for w in range(self.ways) if w >> n & 1).any()
                   for n in range(bits))

    def _access(self, m, tags, replacement, wants, ways, waits, settled, moves):
        """A request: under way, a hit, lost, past the cache, or a miss."""
        request, task, entry = self.request, self.task.payload, tags.entry
        set_bits = exact_log2(self.sets)
        tag = request.line[set_bits:]
        kept = self.cached & ~tags.lost
        hits, dirty = Signal(self.ways), Signal()
        whole, prefetch, dead, passes, parts = (Signal(name=n) for n in (
            "whole", "prefetch", "dead", "passes", "parts"))
        valid = Cat(e.valid for e in tags.entries)
        eligible = self.cached & ~self.locked
        m.d.comb += [
            hits.eq(kept & Cat(e.valid & (e.tag == tag) for e in tags.entries)),
            parts.eq(partial(request.mask)),
            whole.eq(request.write & request.mask.all()),
            prefetch.eq(~request.write & (request.hint == Hint.PREFETCH)),
            dead.eq(~request.write & (request.hint == Hint.NO_WRITE_BACK)),
            passes.eq(~self.cached.any() | dead
                      | ((request.hint == Hint.NO_ALLOCATE) & (whole | ~request.write))),
            replacement.eligible.eq(eligible), replacement.free.eq(eligible & ~valid),
            replacement.used.eq(hits), replacement.prefetch.eq(prefetch),
            task.respond.eq(1), task.mask.eq(request.mask),
            self.hit.eq(moves & hits.any() & ~self.match),
            self.miss.eq(moves & ~self.hit),
        ]
        found = Signal(entry.shape())
        m.d.comb += [found.eq(one_of(list(hits), list(tags.entries))),
                     dirty.eq((Cat(e.valid & e.dirty for e in tags.entries) & ways).any())]

        def used(*, changed):
            """A line is used: its number, and its entry if that changes."""
            m.d.comb += [ways.eq(hits), replacement.use.eq(1), replacement.done.eq(moves),
                         entry.tag.eq(found.tag),
                         entry.valid.eq(1), entry.dirty.eq(found.dirty | request.write),
                         entry.fresh.eq(found.fresh & prefetch)]
            with m.If(moves & changed):
                m.d.comb += tags.write.eq(hits)

        changed = (request.write & ~found.dirty) | (found.fresh & ~prefetch)
        with m.If(self.match):
            used(changed=changed)
            with m.If(prefetch):
                m.d.comb += wants["task"].eq(1)
            with m.Else():
                m.d.comb += [waits.eq(request.write & ~self.match_fill), wants["slot"].eq(1),
                             self.join.eq(settled & ~waits & self.slot_free)]
        with m.Elif(hits.any()):
            used(changed=changed | dead)
            m.d.comb += [
                wants["task"].eq(1), self.reads.eq(Mux(request.write, parts, ~prefetch)),
                self.writes.eq(request.write & ~parts), task.store.eq(request.write & parts),
                self.merged.eq(moves & task.store)]
            with m.If(dead):
                m.d.comb += [entry.eq(0), self.dropped.eq(moves & found.dirty)]
        with m.Elif((tags.lost & self.cached).any()):
            m.d.comb += [wants["task"].eq(1), task.error.eq(AccessError.POISON)]
        with m.Elif(passes):
            m.d.comb += [wants["task"].eq(request.write | prefetch), wants["push"].eq(~prefetch),
                         wants["entry"].eq(~request.write & ~prefetch),
                         wants["slot"].eq(~request.write & ~prefetch),
                         self.push.payload.write.eq(request.write)]
        with m.Else():
            m.d.comb += [
                ways.eq(replacement.victim), waits.eq(~replacement.victim.any()),
                replacement.done.eq(moves), self.prefetched.eq(moves & prefetch),
                self.useless.eq(moves & (Cat(e.valid & e.fresh for e in tags.entries)
                                         & ways).any()),
                task.evict.eq(dirty), self.reads.eq(dirty), task.respond.eq(whole | prefetch),
                task.store.eq(whole & dirty), self.writes.eq(whole & ~dirty),
                wants["task"].eq(dirty | whole | prefetch),
                wants["push"].eq(~whole), wants["entry"].eq(~whole),
                wants["slot"].eq(~whole & ~prefetch), self.fill.eq(1),
                entry.tag.eq(tag), entry.valid.eq(1), entry.dirty.eq(request.write),
                entry.fresh.eq(prefetch)]
            with m.If(moves):
                m.d.comb += tags.write.eq(ways)

    def _scrub(self, m, tags, wants, ways, moves):
        """The entry is corrected here, the line at the array."""
        set_bits = exact_log2(self.sets)
        m.d.comb += [
            wants["task"].eq(1), self.task.payload.scrub.eq(1), self.reads.eq(1),
            ways.eq(1 << self.request.place[set_bits:])]
        with m.If(moves):
            m.d.comb += tags.write.eq(ways & self.cached & tags.corrected)

    def _walk(self, m, tags, wants, ways, step, done, moves):
        """One line after the other is sent to memory; then the ways are given up."""
        left = Signal(self.ways)
        m.d.comb += left.eq(self.request.clean & ~done & ~tags.lost
                            & Cat(e.valid & e.dirty for e in tags.entries))
        with m.If(left.any()):
            m.d.comb += [
                ways.eq(lowest(left)), step.eq(1), wants["task"].eq(1), self.reads.eq(1),
                self.task.payload.evict.eq(1), tags.entry.dirty.eq(0)]
            with m.If(moves):
                m.d.comb += tags.write.eq(ways)
                m.d.sync += done.eq(done | ways)
        with m.Else():
            m.d.comb += [tags.entry.eq(0), tags.write.eq(Mux(moves, self.request.leave, 0))]
