"""Local memory of a PE: banks of lines behind a small crossbar."""
from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.common.arbiter import RoundRobin
from rtl.common.select import one_of
from rtl.pe.interfaces import LINE_BITS, LocalRead, LocalWrite


class BankArbiter(wiring.Component):
    """Grants each bank to one of its requesters.

    Latency is 0 cycles. Requester 0 comes first if ``urgent``; the others take turns: while one of
    them is refused, the order rotates by one a cycle, so each is served after at most
    ``requesters`` cycles in which requester 0 leaves the bank alone.

    Parameters
    ----------
    banks, requesters : int
        :exc:`ValueError` unless banks is a power of two.
    urgent : bool
        Requester 0 comes before all others.

    Members
    -------
    valid : In(requesters)
        Who asks.
    bank : In(range(banks)).array(requesters)
        For which bank.
    grant : Out(requesters).array(banks)
        One-hot, zero if nobody asks for the bank.
    accepted : Out(requesters)
        Who was granted the bank it asked for.
    """

    def __init__(self, *, banks, requesters, urgent):
        self.banks, self.requesters, self.urgent = banks, requesters, urgent
        exact_log2(banks)
        super().__init__({"valid": In(requesters),
                          "bank": In(range(banks)).array(requesters),
                          "grant": Out(requesters).array(banks), "accepted": Out(requesters)})

    def elaborate(self, platform):
        m = Module()
        fixed = int(self.urgent)
        others = self.requesters - fixed
        wanted = [Signal(self.banks, name=f"wanted_{r}") for r in range(self.requesters)]
        for r, bits in enumerate(wanted):
            m.d.comb += bits.eq(self.valid[r] << self.bank[r])
        first = Signal(max(others, 1), init=1)      # one-hot: who comes first
        for bank, grant in enumerate(self.grant):
            requests = Signal(self.requesters, name=f"requests_{bank}")
            twice, found = (Signal(2 * others, name=f"{n}_{bank}") for n in ("twice", "found"))
            m.d.comb += requests.eq(Cat(bits[bank] for bits in wanted))
            m.d.comb += twice.eq(requests[fixed:].replicate(2))
            m.d.comb += found.eq(twice & ~(twice - first))  # lowest request from `first` upwards
            turn = found[:others] | found[others:]
            if fixed:
                m.d.comb += grant.eq(Mux(requests[0], 1, turn << 1))
            else:
                m.d.comb += grant.eq(turn)
        for r in range(self.requesters):
            m.d.comb += self.accepted[r].eq(Cat(grant[r] for grant in self.grant).any())
        with m.If(self.valid & ~self.accepted):
            m.d.sync += first.eq(first.rotate_left(1))
        return m


class LocalMemory(wiring.Component):
    """Lines in banks; each bank reads one line and writes one line a cycle.

    The bank of a line is its lowest bits. Read data stand one cycle after the address was
    accepted. A read in the cycle of a write to the same line gives the old line. Reader 0 comes
    before all other readers of a bank; these, and the writers of a bank, take turns. There is no
    path from ``valid`` of a port to its own data. Contents are undefined at power-up.
    Source: this project's choice (simple dual-port banks).

    Parameters
    ----------
    lines : int
        Size [line]. :exc:`ValueError` unless a multiple of ``banks``.
    banks : int
        :exc:`ValueError` unless a power of two.
    readers, writers : int
        Ports. :exc:`ValueError` unless positive.

    Members
    -------
    reads : In(LocalRead(lines=lines)).array(readers)
        Reader ports.
    writes : In(LocalWrite(lines=lines)).array(writers)
        Writer ports.
    """

    def __init__(self, *, lines=8192, banks=8, readers, writers):
        self.lines, self.banks, self.readers, self.writers = lines, banks, readers, writers
        exact_log2(banks)
        if lines % banks or lines < 2 * banks:
            raise ValueError(f"Lines must be a multiple of {banks} banks, not {lines!r}")
        if readers < 1 or writers < 1:
            raise ValueError(f"Ports must be positive, not {readers!r} and {writers!r}")
        super().__init__({"reads": In(LocalRead(lines=lines)).array(readers),
                          "writes": In(LocalWrite(lines=lines)).array(writers)})

    def elaborate(self, platform):
        m = Module()
        low = exact_log2(self.banks)
        m.submodules.read_arbiter = read = BankArbiter(
            banks=self.banks, requesters=self.readers, urgent=self.readers > 1)
        m.submodules.write_arbiter = write = BankArbiter(
            banks=self.banks, requesters=self.writers, urgent=False)
        data = []
        for bank in range(self.banks):
            m.submodules[f"bank_{bank}"] = store = memory.Memory(
                shape=LINE_BITS, depth=self.lines // self.banks, init=[])
            reads, writes = store.read_port(), store.write_port(granularity=8)
            payloads = [port.o.payload for port in self.writes]
            m.d.comb += [
                reads.en.eq(read.grant[bank].any()),
                reads.addr.eq(one_of(read.grant[bank],
                                     [port.address.payload[low:] for port in self.reads])),
                writes.addr.eq(one_of(write.grant[bank], [p.address[low:] for p in payloads])),
                writes.data.eq(one_of(write.grant[bank], [p.data for p in payloads])),
                writes.en.eq(Mux(write.grant[bank].any(),
                                 one_of(write.grant[bank], [p.mask for p in payloads]), 0)),
            ]
            data.append(reads.data)
        data = Array(data)
        for r, port in enumerate(self.reads):
            chosen = Signal(range(self.banks), name=f"chosen_{r}")
            m.d.comb += [read.valid[r].eq(port.address.valid),
                         read.bank[r].eq(port.address.payload[:low]),
                         port.address.ready.eq(read.accepted[r]), port.data.eq(data[chosen])]
            m.d.sync += port.valid.eq(read.accepted[r])
            with m.If(read.accepted[r]):
                m.d.sync += chosen.eq(port.address.payload[:low])
        for w, port in enumerate(self.writes):
            m.d.comb += [write.valid[w].eq(port.o.valid),
                         write.bank[w].eq(port.o.payload.address[:low]),
                         port.o.ready.eq(write.accepted[w])]
        return m


class SharedRead(wiring.Component):
    """Several units take turns on one reader port of local memory.

    Latency is 0 cycles; one line a cycle, to one of them. A request not yet accepted may be
    withdrawn.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    ports : int
        Units that share.

    Members
    -------
    ports : In(LocalRead(lines=lines)).array(ports)
        The units.
    o : Out(LocalRead(lines=lines))
        The reader port.
    """

    def __init__(self, *, lines, ports):
        self.lines = lines
        self.count = ports
        super().__init__({"ports": In(LocalRead(lines=lines)).array(ports),
                          "o": Out(LocalRead(lines=lines))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter = arbiter = RoundRobin(self.count)
        owner = Signal(self.count)
        m.d.comb += [
            arbiter.requests.eq(Cat(port.address.valid for port in self.ports)),
            arbiter.ready.eq(1),    # a refused one lets the next try: the bank may differ
            self.o.address.valid.eq(arbiter.requests.any()),
            self.o.address.payload.eq(one_of(arbiter.grant,
                                             [port.address.payload for port in self.ports])),
        ]
        m.d.sync += owner.eq(arbiter.grant)
        for index, port in enumerate(self.ports):
            m.d.comb += [port.address.ready.eq(arbiter.grant[index] & self.o.address.ready),
                         port.data.eq(self.o.data), port.valid.eq(self.o.valid & owner[index])]
        return m


class SharedWrite(wiring.Component):
    """Several units take turns on one writer port of local memory.

    Latency is 0 cycles; one line a cycle, of one of them. A write not yet accepted may be
    withdrawn.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    ports : int
        Units that share.

    Members
    -------
    ports : In(LocalWrite(lines=lines)).array(ports)
        The units.
    o : Out(LocalWrite(lines=lines))
        The writer port.
    """

    def __init__(self, *, lines, ports):
        self.lines = lines
        self.count = ports
        super().__init__({"ports": In(LocalWrite(lines=lines)).array(ports),
                          "o": Out(LocalWrite(lines=lines))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter = arbiter = RoundRobin(self.count)
        o = self.o.o
        m.d.comb += [
            arbiter.requests.eq(Cat(port.o.valid for port in self.ports)),
            arbiter.ready.eq(1),
            o.valid.eq(arbiter.requests.any()),
            o.payload.eq(one_of(arbiter.grant, [port.o.payload for port in self.ports])),
        ]
        for index, port in enumerate(self.ports):
            m.d.comb += port.o.ready.eq(arbiter.grant[index] & o.ready)
        return m


