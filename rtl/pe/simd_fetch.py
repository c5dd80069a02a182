"""Reads the rows of a SIMD source from local memory, line by line."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.pe.interfaces import LINE_BITS, LocalRead, grant_layout

DEPTH = 4       # lines asked for and not taken: covers a latency of three cycles


def fetch_layout(*, lines):
    """``rows`` rows of ``count`` lines, ``stride`` lines apart, from the start of ``grant``.

    The lines of a row are ``step`` lines apart. Rows come in groups of ``group`` (the last may have
    fewer), and a group is read ``sweeps`` times before the next. ``twice``: rows 2i and 2i + 1 of a
    group are the same lines.
    """
    return data.StructLayout({"grant": grant_layout(lines=lines), "rows": 16, "count": 13,
                              "stride": 16, "step": 16, "group": 16, "sweeps": 16, "twice": 1})


def moved(grant, line, amount):
    """``amount`` lines past ``line`` in the CB of a grant; at most the size of the CB."""
    beyond = line + amount
    return Mux(beyond >= grant.limit, beyond - (grant.limit - grant.base), beyond)


class LineFetch(wiring.Component):
    """Reads lines ahead of their use. Addresses wrap at the end of the CB.

    The first address comes one cycle after the job; a line comes out two cycles after its address
    was accepted. Throughput is 1 line a cycle. Idle after reset. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].

    Members
    -------
    i : In(stream.Signature(fetch_layout(lines=lines)))
        Jobs; not ready while one has lines to ask for. No number of lines, rows or sweeps is
        zero.
    read : Out(LocalRead(lines=lines))
        Port of local memory.
    o : Out(stream.Signature(512))
        The lines.
    """

    def __init__(self, *, lines):
        self.lines = lines
        super().__init__({"i": In(stream.Signature(fetch_layout(lines=lines))),
                          "read": Out(LocalRead(lines=lines)),
                          "o": Out(stream.Signature(LINE_BITS))})

    def elaborate(self, platform):
        m = Module()
        job = Signal(fetch_layout(lines=self.lines))
        active, pending = Signal(), Signal()
        line, start, first = (Signal(range(self.lines), name=name)     # of the row, of the group
                              for name in ("line", "start", "first"))
        left, rows, sweeps = Signal(13), Signal(16), Signal(16)         # to come
        last, beyond = Signal(16), Signal(16)       # row of the group; rows after the group
        odd = Signal()                              # second row of a pair
        level, stored = Signal(range(DEPTH + 1)), Signal(range(DEPTH + 1))
        address = self.read.address
        asked, taken = address.valid & address.ready, self.o.valid & self.o.ready
        arrived = pending & self.read.valid

        m.submodules.store = store = memory.Memory(shape=LINE_BITS, depth=DEPTH, init=[])
        write, head = store.write_port(), store.read_port(domain="comb")
        m.d.comb += [write.data.eq(self.read.data), write.en.eq(arrived),
                     self.o.payload.eq(head.data), self.o.valid.eq(stored != 0),
                     address.valid.eq(active & (level != DEPTH)), address.payload.eq(line),
                     self.i.ready.eq(~active)]
        m.d.sync += [pending.eq(asked), level.eq(level + asked - taken),
                     stored.eq(stored + arrived - taken)]
        with m.If(arrived):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(taken):
            m.d.sync += head.addr.eq(head.addr + 1)

        def group(job, at, available):
            """The next group starts at line ``at``, with that many rows from there on."""
            size = Mux(available < job.group, available, job.group)
            return [line.eq(at), start.eq(at), first.eq(at), left.eq(job.count - 1), odd.eq(0),
                    rows.eq(size - 1), last.eq(size - 1), beyond.eq(available - size),
                    sweeps.eq(job.sweeps - 1)]

        given = self.i.payload
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [job.eq(given), active.eq(1), *group(given, given.grant.start, given.rows)]
        next_row = Signal(range(self.lines))
        m.d.comb += next_row.eq(Mux(job.twice & ~odd, start, moved(job.grant, start, job.stride)))
        with m.If(asked):
            with m.If(left != 0):
                m.d.sync += [left.eq(left - 1), line.eq(moved(job.grant, line, job.step))]
            with m.Elif(rows != 0):
                m.d.sync += [left.eq(job.count - 1), line.eq(next_row), start.eq(next_row),
                             rows.eq(rows - 1), odd.eq(~odd)]
            with m.Elif(sweeps != 0):
                m.d.sync += [left.eq(job.count - 1), line.eq(first), start.eq(first), odd.eq(0),
                             rows.eq(last), sweeps.eq(sweeps - 1)]
            with m.Else():
                m.d.sync += [*group(job, next_row, beyond), active.eq(beyond != 0)]
        return m
