"""Books of a DMA unit: tags under way, the jobs they belong to, and how those ended."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.frontend import fault_layout
from rtl.pe.interfaces import ADDRESS_BITS, GROUP_TAGS, AccessError, ErrorCode, error_code

INDEX_WORD = 12     # of a command: operand of the indices
LINE = ADDRESS_BITS - 6


class Transfers(wiring.Component):
    """Follows up to two jobs and up to ``tags`` transfers, and reports the ends of jobs in order.

    A job ends when its last transfer was issued and all of them have been retired. After a
    transfer failed no more may be issued, and the job ends with a fault when every transfer under
    way has come back; the fault names the line of the job's first answer with an error. ``clear``
    forgets the jobs; transfers that are then still under way come back unnoticed before the next
    one can be issued. A tag is free again in the cycle after its answer, so that one late answer
    holds up nothing else; the one that was free longest is next. ``shared`` transfers have tags of
    their own choice; they and the others are never under way together. Source: this project's
    choice.

    Parameters
    ----------
    tags : int
        Transfers under way at once.

    Members
    -------
    free : Out(1)
        A job may begin.
    begin : In(1)
        It does, with what :attr:`refused` says. Only while ``free``.
    refused : In(fault_layout())
        The job has a bad field; no transfer of it will be issued.
    slot : Out(1)
        Number of the job that begins next.
    open : Out(1)
        A job is under way.
    tag_free, tag : Out(1), Out(range(tags))
        A transfer may be issued, and its tag.
    shared, shared_tag : In(1), In(range(GROUP_TAGS))
        The next transfer has this tag; it waits until that is free.
    issue, issue_slot, issue_last, issue_bytes, issue_line : In(1), In(1), In(1), In(7), In(42)
        A transfer of a job, whether it is the job's last, its size [byte], its line.
    answer, answer_tag : In(1), In(range(tags))
        A tag came back.
    retire, retire_slot, retire_tag, retire_error : In(1), In(1), In(range(tags)), In(AccessError)
        The last effect of a transfer has happened; if it has an error, at most 1 cycle after its
        answer.
    stray, stray_slot : In(1)
        The next transfer of a job is not issued: its row has an index past the limit. Only while
        ``tag_free``; the job fails for its index operand.
    pending : In(1)
        A transfer that was answered is not yet retired.
    clear, launch : In(1)
        As in :class:`UnitPort`.
    failed : Out(1)
        A transfer has failed; ``tag_free`` is low.
    discard : Out(1)
        Answers belong to forgotten jobs.
    done, fault : Out(1), Out(fault_layout())
        The oldest job ended. A fault stays until ``clear``.
    outstanding : Out(1)
        A transfer is under way.
    moved_lines, moved_bytes : Out(32)
        Transfers issued and their bytes since ``launch``.
    """

    def __init__(self, *, tags):
        self.tags = tags
        super().__init__({
            "free": Out(1), "begin": In(1), "refused": In(fault_layout()), "slot": Out(1),
            "open": Out(1), "tag_free": Out(1), "tag": Out(range(tags)),
            "shared": In(1), "shared_tag": In(range(min(tags, GROUP_TAGS))),
            "issue": In(1), "issue_slot": In(1), "issue_last": In(1), "issue_bytes": In(7),
            "issue_line": In(LINE), "answer": In(1), "answer_tag": In(range(tags)),
            "retire": In(1), "retire_slot": In(1), "retire_tag": In(range(tags)),
            "retire_error": In(AccessError), "stray": In(1), "stray_slot": In(1),
            "pending": In(1), "clear": In(1), "launch": In(1), "failed": Out(1),
            "discard": Out(1), "done": Out(1), "fault": Out(fault_layout()),
            "outstanding": Out(1), "moved_lines": Out(32), "moved_bytes": Out(32)})

    def elaborate(self, platform):
        m = Module()
        oldest, stopped, count = Signal(), Signal(), Signal(range(self.tags + 1))
        self.mode = Signal()    # those under way are shared
        jobs = [Signal(data.StructLayout({
            "open": 1, "final": 1, "left": range(self.tags + 1), "code": ErrorCode, "field": 8,
            "line": LINE}),
            name=f"job{n}") for n in range(2)]
        first = Signal(jobs[0].shape())
        m.d.comb += first.eq(Mux(oldest, jobs[1].as_value(), jobs[0].as_value()))
        m.submodules.lines = lines = memory.Memory(shape=LINE, depth=self.tags, init=[])
        place, failing = lines.write_port(), lines.read_port(domain="comb")
        m.d.comb += [place.en.eq(self.issue), place.addr.eq(self.tag),
                     place.data.eq(self.issue_line), failing.addr.eq(self.retire_tag)]

        settled = (jobs[0].left == 0) & (jobs[1].left == 0)
        faulty = first.code != ErrorCode.OK
        next_open = Mux(self.slot, jobs[1].open, jobs[0].open)
        m.d.comb += [
            self.free.eq(~next_open & ~stopped),
            self.open.eq(jobs[0].open | jobs[1].open),
            self.tag_free.eq(self._room(m, count) & ~self.failed & ~self.discard),
            self.outstanding.eq((count != 0) | self.pending),
            self.done.eq(first.open & first.final & (first.left == 0) & ~faulty),
            self.fault.valid.eq(first.open & faulty & settled),
            self.fault.code.eq(first.code), self.fault.field.eq(first.field),
            self.fault.address.eq(first.line << 6),
        ]
        self._tags(m, count)
        with m.If(self.issue):
            m.d.sync += [self.moved_lines.eq(self.moved_lines + 1),
                         self.moved_bytes.eq(self.moved_bytes + self.issue_bytes)]

        for number, job in enumerate(jobs):
            issued = self.issue & (self.issue_slot == number)
            retired = self.retire & (self.retire_slot == number) & ~self.discard
            m.d.sync += job.left.eq(job.left + issued - retired)
            with m.If(issued & self.issue_last):
                m.d.sync += job.final.eq(1)
            with m.If(retired & (self.retire_error != AccessError.NONE)):
                m.d.sync += self.failed.eq(1)
                with m.If(job.code == ErrorCode.OK):
                    m.d.sync += [job.code.eq(error_code(self.retire_error)),
                                 job.line.eq(failing.data)]
            with m.If(self.stray & (self.stray_slot == number)):
                m.d.sync += [self.failed.eq(1), job.code.eq(ErrorCode.BAD_FIELD),
                             job.field.eq(INDEX_WORD), job.line.eq(0)]
            with m.If(self.done & (oldest == number)):
                m.d.sync += job.open.eq(0)
            with m.If(self.begin & (self.slot == number)):
                m.d.sync += [job.open.eq(1), job.final.eq(0), job.field.eq(self.refused.field),
                             job.line.eq(0),
                             job.code.eq(Mux(self.refused.valid, self.refused.code,
                                             ErrorCode.OK))]
        with m.If(self.begin):
            m.d.sync += [self.slot.eq(~self.slot), stopped.eq(self.refused.valid)]
        with m.If(self.done):
            m.d.sync += oldest.eq(~oldest)
        with m.If(~self.outstanding):
            m.d.sync += self.discard.eq(0)
        with m.If(self.clear):
            m.d.sync += [job.eq(0) for job in jobs]
            m.d.sync += [self.slot.eq(0), oldest.eq(0), stopped.eq(0), self.failed.eq(0),
                         self.discard.eq(self.outstanding | self.issue)]
        with m.If(self.launch):
            m.d.sync += [self.moved_lines.eq(0), self.moved_bytes.eq(0)]
        return m

    def _room(self, m, count):
        """Whether the next transfer may have its tag; keeps which shared ones are under way."""
        taken = Signal(1 << len(self.shared_tag))
        with m.If(self.issue):
            m.d.sync += self.mode.eq(self.shared)
        with m.If(self.answer & self.mode):
            m.d.sync += taken.bit_select(self.answer_tag[:len(self.shared_tag)], 1).eq(0)
        with m.If(self.issue & self.shared):
            m.d.sync += taken.bit_select(self.shared_tag, 1).eq(1)
        alike = (count == 0) | (self.mode == self.shared)
        return alike & Mux(self.shared, ~taken.bit_select(self.shared_tag, 1),
                           count != self.tags)

    def _tags(self, m, count):
        """A queue of the tags that came back; ``count``: tags under way.

        Tags that were not yet used since reset, in turn, go first: the queue then need not be full
        of them after reset.
        """
        m.submodules.tags = tags = memory.Memory(shape=range(self.tags), depth=self.tags, init=[])
        back, front = tags.write_port(), tags.read_port(domain="comb")
        used, fresh = Signal(range(self.tags + 1)), Signal()
        own = self.issue & ~self.shared
        m.d.comb += [back.data.eq(self.answer_tag), back.en.eq(self.answer & ~self.mode),
                     fresh.eq(used != self.tags),
                     self.tag.eq(Mux(self.shared, self.shared_tag,
                                     Mux(fresh, used, front.data)))]
        m.d.sync += [count.eq(count + self.issue - self.answer), used.eq(used + (own & fresh))]
        for at, moves in ((front.addr, own & ~fresh), (back.addr, back.en)):
            with m.If(moves):
                m.d.sync += at.eq(Mux(at == self.tags - 1, 0, at + 1))
