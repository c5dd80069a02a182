"""What every unit of a PE has in front of its datapath: queue, operands, releases, counters."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.clockgate import gated_domain
from rtl.pe.interfaces import (
    ADDRESS_BITS,
    LINE_BITS,
    BufferPort,
    ErrorCode,
    UnitPort,
    UnitState,
    grant_layout,
    release_layout,
)

QUEUE_DEPTH = 4         # commands waiting in front of a unit (this project's choice)
RUNNING = 2             # jobs accepted by the datapath and not done
RETIRING = 4            # jobs accepted and not released


@dataclass(frozen=True)
class OperandField:
    """A CB operand of a command: where it stands, and on which side of its CB the unit is.

    An ``optional`` operand whose two words are zero is absent: it is not acquired and its grant
    is zero.
    """

    word: int
    producer: bool = False
    optional: bool = False


def job_layout(*, lines, operands):
    """A command with the grants of its operands, in the order of the frontend's ``operands``."""
    return data.StructLayout({"command": LINE_BITS, "grants": data.ArrayLayout(
        grant_layout(lines=lines), len(operands))})


def fault_layout():
    """A job refused by the datapath: why, and the word of the command that it refuses.

    ``address``: of the line whose access failed; 0 for other causes.
    """
    return data.StructLayout({"valid": 1, "code": ErrorCode, "field": 8,
                              "address": ADDRESS_BITS})


def events_since(m, launch, event):
    """A register that counts the cycles with ``event`` since the last ``launch`` [32 bits]."""
    count = Signal(32)
    with m.If(launch):
        m.d.sync += count.eq(0)
    with m.Elif(event):
        m.d.sync += count.eq(count + 1)
    return count


class UnitFrontend(wiring.Component):
    """Takes commands, acquires their operands in order, hands out jobs, releases what they held.

    Up to 4 commands wait in the queue. The operands of the next command are acquired while
    earlier jobs run. A command with ``n`` operands that all hold becomes a job ``n + 3`` cycles
    after it was taken; a prefetched job can be accepted the cycle after the one before it. The
    releases of a job are sent one a cycle, in order, from the cycle after ``done``. At most two
    jobs are accepted and not done, at most four accepted and not released.

    After an error there are no more jobs (``job.valid`` falls) and no more operands are acquired,
    until ``unit.clear``. The counters restart with ``unit.launch`` only, so that they can be read
    after an error. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    operands : sequence of OperandField
        CB operands of a command, in the order in which they are acquired. :exc:`ValueError`
        if there is none.

    Members
    -------
    unit : Out(UnitPort())
        A unit passes its own port on by ``connect(m, flipped(self.unit), frontend.unit)``.
    buffers : Out(BufferPort(lines=lines))
        Passed on in the same way.
    job : Out(stream.Signature(job_layout(lines=lines, operands=operands)))
        The next command, all its operands acquired.
    done : In(1)
        The oldest accepted job has made its last access; at the earliest the cycle after it was
        accepted.
    fault : In(fault_layout())
        The oldest accepted job is refused; stops the unit. Not together with its ``done``.
    active, starved, blocked : In(1)
        What the datapath does in this cycle. A cycle counts once, the first of the three that is
        high; with no job under way, waiting for an operand counts as starved (consumer) or blocked
        (producer) without help of the datapath.
    working : Out(1)
        A job is offered or under way. A function of registers.
    extra : In(data.ArrayLayout(32, 12))
        Words 4 to 15 of the unit's counters, which the datapath restarts with ``unit.launch``.
    """

    def __init__(self, *, lines, operands):
        self.lines = lines
        self.operands = tuple(operands)
        if not self.operands:
            raise ValueError("Operands must be at least one OperandField, not none")
        super().__init__({
            "unit": Out(UnitPort()), "buffers": Out(BufferPort(lines=lines)),
            "job": Out(stream.Signature(job_layout(lines=lines, operands=self.operands))),
            "done": In(1), "fault": In(fault_layout()), "active": In(1), "starved": In(1),
            "blocked": In(1), "working": Out(1), "extra": In(data.ArrayLayout(32, 12))})

    def elaborate(self, platform):
        m = Module()
        core = Module()     # all that ``clear`` resets
        moves = Signal()    # something of it changes at the end of this cycle
        m.submodules.core = DomainRenamer("moves")(ResetInserter(self.unit.clear)(core))
        gated_domain(m, name="moves", enable=ResetSignal("sync") | self.unit.clear | moves)
        core.submodules.queue = queue = fifo.SyncFIFOBuffered(width=LINE_BITS, depth=QUEUE_DEPTH)
        accepted = Signal()     # a job was handed to the datapath
        running = Signal(range(RUNNING + 1))
        finished = Signal(range(RETIRING + 1))
        core.d.comb += accepted.eq(self.job.valid & self.job.ready)

        wiring.connect(core, wiring.flipped(self.unit.command), queue.w_stream)
        loaded, stepping = self._acquire(core, queue, running, finished)
        ended, tag = self._retire(core, accepted, running, finished)
        refused = self.buffers.acquire.valid & self.buffers.acquire.ready & self.buffers.too_small
        error = self.unit.error
        with core.If(~error.valid):
            with core.If(self.fault.valid):
                core.d.sync += [error.valid.eq(1), error.code.eq(self.fault.code),
                                error.field.eq(self.fault.field), error.tag.eq(tag),
                                error.address.eq(self.fault.address)]
            with core.Elif(refused):
                core.d.sync += [error.valid.eq(1), error.code.eq(ErrorCode.CB_TOO_SMALL),
                                error.field.eq(self.buffers.acquire.payload.buffer),
                                error.tag.eq(queue.r_data[16:32])]
        acquire = self.buffers.acquire
        waiting = acquire.valid & ~acquire.ready
        core.d.comb += [
            moves.eq(self.unit.command.valid | ((queue.level != 0) & ~queue.r_rdy) | stepping
                     | accepted | self.done | self.fault.valid | (finished != 0)),
            self.working.eq(loaded | (running != 0)),
            self.unit.idle.eq((queue.level == 0) & ~loaded & (running == 0) & (finished == 0)),
            self.unit.waiting.eq(waiting),
            self.unit.waiting_buffer.eq(acquire.payload.buffer),
            self.unit.waiting_tag.eq(queue.r_data[16:32]),
        ]
        self._count(m, ended, waiting & ~self.working)
        return m

    def _acquire(self, m, queue, running, finished):
        """From the head of the queue, operand by operand, to the job.

        Gives "the job's slot is full" and "an operand or a job goes on in this cycle".
        """
        acquire, job = self.buffers.acquire, self.job.payload
        index = Signal(range(len(self.operands) + 1))
        grants = Signal.like(job.grants)
        loaded, absent = Signal(), Signal()
        words = Signal(64)
        complete = index == len(self.operands)
        with m.Switch(index):
            for i, operand in enumerate(self.operands):
                with m.Case(i):
                    m.d.comb += words.eq(queue.r_data[32 * operand.word:][:64])
                    m.d.comb += acquire.payload.producer.eq(operand.producer)
                    m.d.comb += absent.eq(operand.optional & (words == 0))
        wanted = queue.r_rdy & ~complete & ~self.unit.error.valid
        m.d.comb += [
            acquire.valid.eq(wanted & ~absent),
            acquire.payload.buffer.eq(words[0:5]),
            acquire.payload.offset.eq(words[8:32]),
            acquire.payload.wait.eq(words[32:48]),
            acquire.payload.release.eq(words[48:64]),
            self.job.valid.eq(loaded & (running != RUNNING) & (running + finished < RETIRING)
                              & ~self.unit.error.valid),
        ]
        granted, moved_on = Signal(), Signal()
        m.d.comb += [granted.eq(wanted & (absent | (acquire.ready & ~self.buffers.too_small))),
                     moved_on.eq(complete & (~loaded | (self.job.valid & self.job.ready)))]
        with m.If(granted):
            m.d.sync += index.eq(index + 1)
            m.d.sync += grants[index].eq(Mux(absent, 0, self.buffers.grant))
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += loaded.eq(0)
        with m.If(moved_on):
            m.d.comb += queue.r_en.eq(1)
            m.d.sync += [loaded.eq(1), index.eq(0), job.command.eq(queue.r_data),
                         job.grants.eq(grants)]
        return loaded, granted | moved_on | (acquire.valid & acquire.ready)

    def _retire(self, m, accepted, running, finished):
        """Releases of jobs that are done; gives "a job has ended" and the oldest job's tag."""
        release, command = self.buffers.release, self.job.payload.command
        held = data.StructLayout({"tag": 16, "releases": data.ArrayLayout(
            release_layout(), len(self.operands))})
        m.submodules.held = store = memory.Memory(shape=held, depth=RETIRING, init=[])
        write = store.write_port()
        oldest = store.read_port(domain="comb")     # accepted, not released
        current = store.read_port(domain="comb")    # accepted, not done
        index = Signal(range(len(self.operands)))
        ended, step = Signal(), Signal()
        m.d.comb += [write.en.eq(accepted), write.data.tag.eq(command[16:32]),
                     current.addr.eq(oldest.addr + finished)]
        for i, operand in enumerate(self.operands):
            words = command[32 * operand.word:][:64]
            m.d.comb += [write.data.releases[i].buffer.eq(words[0:5]),
                         write.data.releases[i].producer.eq(operand.producer),
                         write.data.releases[i].count.eq(words[48:64])]
        m.d.comb += [
            release.payload.eq(oldest.data.releases[index]),
            release.valid.eq((finished != 0) & (release.payload.count != 0)),
            step.eq((finished != 0) & ((release.payload.count == 0) | release.ready)),
            ended.eq(step & (index == len(self.operands) - 1)),
        ]
        head, tail = Signal(range(RETIRING)), Signal(range(RETIRING))
        m.d.comb += [write.addr.eq(head), oldest.addr.eq(tail)]
        m.d.sync += [head.eq(head + accepted), tail.eq(tail + ended),
                     running.eq(running + accepted - self.done),
                     finished.eq(finished + self.done - ended),
                     Assert(~self.done | (running != 0), "done without a job")]
        with m.If(step):
            m.d.sync += index.eq(Mux(ended, 0, index + 1))
        return ended, current.data.tag

    def _count(self, m, ended, waits):
        """Counters and state; ``waits``: for an operand, with nothing else to do."""
        busy, starved, blocked, commands = (Signal(32) for _ in range(4))
        producer = self.buffers.acquire.payload.producer
        state = Signal(UnitState)
        with m.If(self.active):
            m.d.comb += state.eq(UnitState.BUSY)
        with m.Elif(self.starved | (waits & ~producer)):
            m.d.comb += state.eq(UnitState.STARVED)
        with m.Elif(self.blocked | waits):
            m.d.comb += state.eq(UnitState.BLOCKED)
        m.d.sync += self.unit.state.eq(state)
        for value, counter in ((UnitState.BUSY, busy), (UnitState.STARVED, starved),
                               (UnitState.BLOCKED, blocked)):
            with m.If(state == value):
                m.d.sync += counter.eq(counter + 1)
        with m.If(ended):
            m.d.sync += commands.eq(commands + 1)
        with m.If(self.unit.launch):
            m.d.sync += [counter.eq(0) for counter in (busy, starved, blocked, commands)]
        m.d.comb += self.unit.counters.eq(Cat(busy, starved, blocked, commands, self.extra))
