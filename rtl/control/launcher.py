"""Reads program tables and gives the PEs of a work packet their programs."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.common.arbiter import RoundRobin
from rtl.control.context import refusal_layout
from rtl.link import interfaces as link
from rtl.pe.interfaces import (
    ADDRESS_BITS,
    DEFAULT_WATCHDOG,
    LINE_BITS,
    LINE_BYTES,
    AccessError,
    error_code,
    launch_layout,
    request_layout,
    response_layout,
)

TABLE_FIELD = 2     # word of a submission entry that holds the address of the program table
ENTRIES = LINE_BITS // 32   # of a line of the table


class Launcher(wiring.Component):
    """Takes one work packet at a time: reads its program table, offers its PEs their programs.

    A packet takes 3 cycles, the number of its last PE, and the time of the reads: a table has
    ``ceil(pes / 16)`` lines, read one after another. The program of PE ``p`` is at the table's
    address + 64 x entry ``p``. If a line of the table cannot be read, no PE is given one.

    Parameters
    ----------
    pes : int
        PEs of the die, and whatever else is started as they are.
    contexts : int
        Work packets to choose from.

    Members
    -------
    eligible : In(contexts)
        Packets for which each of their PEs has a place, and whose turn it is.
    packets : In(data.ArrayLayout(launch_layout(), contexts))
        The packets.
    start, started, fail : Out(contexts)
        One-hot, for one cycle: see :class:`rtl.control.context.PacketContext`.
    refusal : Out(refusal_layout())
        Why, with ``fail``.
    request, response : Out(stream.Signature(request_layout())), In(...)
        To memory.
    launches : Out(stream.Signature(launch_layout())).array(pes)
        To the PEs; registers.
    launching : Out(pes)
        PEs that have not yet taken their launch.
    lost : In(pes)
        PEs that were given up: what they are offered is withdrawn.
    active : Out(1)
        A function of registers. While it is low, nothing changes until a packet is eligible.
    """

    def __init__(self, *, pes, contexts):
        self.pes, self.contexts = pes, contexts
        super().__init__({
            "eligible": In(contexts), "start": Out(contexts), "started": Out(contexts),
            "packets": In(data.ArrayLayout(link.launch_layout(), contexts)),
            "fail": Out(contexts), "refusal": Out(refusal_layout()),
            "request": Out(stream.Signature(request_layout())),
            "response": In(stream.Signature(response_layout())),
            "launches": Out(stream.Signature(launch_layout())).array(pes), "launching": Out(pes),
            "lost": In(pes), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.choice = choice = RoundRobin(self.contexts)
        chosen = Signal(self.contexts)
        packet = Signal(link.launch_layout())
        lines = -(-self.pes // ENTRIES)
        table, line = Signal(data.ArrayLayout(LINE_BITS, lines)), Signal(range(lines + 1))
        entries = data.View(data.ArrayLayout(32, lines * ENTRIES), table.as_value())
        pe = Signal(range(self.pes))
        place = Signal(ADDRESS_BITS)
        response = self.response.payload

        m.d.comb += [choice.requests.eq(self.eligible),
                     place.eq(packet.table + line * LINE_BYTES),
                     self.request.payload.address.eq(place),
                     self.launching.eq(Cat(launch.valid for launch in self.launches))]
        for launch, lost in zip(self.launches, self.lost, strict=True):
            with m.If(launch.ready | lost):
                m.d.sync += launch.valid.eq(0)
        with m.FSM() as fsm:
            with m.State("CHOOSE"):
                m.d.comb += [choice.ready.eq(1), self.start.eq(choice.grant)]
                for i in range(self.contexts):
                    with m.If(choice.grant[i]):
                        m.d.sync += packet.eq(self.packets[i])
                m.d.sync += [chosen.eq(choice.grant), pe.eq(0), line.eq(0)]
                with m.If(choice.grant.any()):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.request.valid.eq(1)
                with m.If(self.request.ready):
                    m.next = "RECEIVE"
            with m.State("RECEIVE"):
                m.d.comb += self.response.ready.eq(1)
                with m.If(self.response.valid):
                    m.d.sync += [table[line].eq(response.data), line.eq(line + 1)]
                    m.next = "FETCH"
                    with m.If(line == lines - 1):
                        m.next = "LAUNCH"
                    with m.If(response.error != AccessError.NONE):
                        m.d.comb += [self.fail.eq(chosen), self.refusal.field.eq(TABLE_FIELD),
                                     self.refusal.address.eq(place),
                                     self.refusal.code.eq(error_code(response.error))]
                        m.next = "CHOOSE"
            with m.State("LAUNCH"):
                program, last = packet.table + entries[pe] * LINE_BYTES, Signal()
                with m.Switch(pe):
                    for i, launch in enumerate(self.launches):
                        with m.Case(i):
                            m.d.comb += last.eq(~packet.pe_mask[i + 1:self.pes].any())
                            with m.If(packet.pe_mask[i] & ~self.lost[i]):
                                m.d.sync += [
                                    launch.valid.eq(1), launch.payload.program.eq(program),
                                    launch.payload.watchdog.eq(
                                        Mux(packet.watchdog == 0, DEFAULT_WATCHDOG,
                                            packet.watchdog))]
                m.d.sync += pe.eq(pe + 1)
                with m.If(last):
                    m.d.comb += self.started.eq(chosen)
                    m.next = "CHOOSE"
        m.d.comb += self.active.eq(~fsm.ongoing("CHOOSE") | self.launching.any())
        return m
