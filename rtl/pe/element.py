"""A processing element: all its units, its local memory, its ways in and out."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from rtl.attention.softmax import SoftmaxUnit
from rtl.pe.a_loader import ALoader
from rtl.pe.circular_buffers import CircularBuffers
from rtl.pe.command_processor import UNITS, CommandProcessor
from rtl.pe.dma_in import DmaIn
from rtl.pe.dma_out import DmaOut
from rtl.pe.dot_engine import DotEngine
from rtl.pe.interfaces import PePort, Unit
from rtl.pe.layout import LayoutUnit
from rtl.pe.local_memory import LocalMemory, SharedRead, SharedWrite
from rtl.pe.memory_port import MemoryPort, RegisterWindow
from rtl.pe.reduction import ReductionEngine
from rtl.pe.simd import SimdEngine

CALM_CYCLES = 8     # without any work before a PE calls itself idle: all registers are at rest


class ProcessingElement(wiring.Component):
    """Runs programs of commands: see docs/programming-model.md.

    Every output is a function of registers. The members are those of :class:`PePort`. The tags of
    its requests carry the client in bits 7:6: 0 command processor, 1 DMA in, 2 DMA out. Accesses
    to it read its counters, line ``u`` those of unit ``u``. ``states`` has 2 bits per unit, unit 0
    lowest: what the unit did in the cycle before (``UnitState``). ``idle`` rises 9 cycles after
    the last work; while it is high and no input is valid, the clock may stop: nothing would change.
    Source: this project's choice.

    Local memory has four reader ports and two writer ports: 0 operand B of the dot-product engine;
    1 its scales, the A loader; 2 SIMD source 0, the reduction engine, the layout unit; 3 SIMD
    source 1, DMA out, indices of DMA in, sinks of the softmax unit. Writers: 0 DMA in, the layout
    unit; 1 the reduction engine, the SIMD engine. Those of one port take turns.

    Parameters
    ----------
    lines, banks : int
        Local memory [line], see :class:`LocalMemory`.
    rows : int
        Rows of operand A, see :class:`DotEngine`.
    lanes : int
        Rows of operand B that MX4 takes at once; 0: without MX4.
    units : sequence of Unit
        Units that are there, of the units 1 to 8; commands for others are ``BAD_COMMAND``. The
        softmax unit needs the dot-product and the reduction engine, with 16 ``rows``.
    """

    def __init__(self, *, lines=8192, banks=8, rows=16, lanes=3, units=UNITS):
        self.lines, self.banks, self.rows, self.lanes = lines, banks, rows, lanes
        self.units = tuple(units)
        super().__init__(PePort())

    def elaborate(self, platform):
        m = Module()
        lines, attention = self.lines, Unit.SOFTMAX in self.units
        make = {
            Unit.DMA_IN: lambda: DmaIn(lines=lines),
            Unit.DMA_OUT: lambda: DmaOut(lines=lines),
            Unit.A_LOADER: lambda: ALoader(lines=lines, rows=self.rows, mx4=self.lanes > 0),
            Unit.DOT: lambda: DotEngine(lines=lines, rows=self.rows, lanes=self.lanes,
                                        attention=attention),
            Unit.REDUCTION: lambda: ReductionEngine(lines=lines, attention=attention),
            Unit.SIMD: lambda: SimdEngine(lines=lines),
            Unit.LAYOUT: lambda: LayoutUnit(lines=lines),
            Unit.SOFTMAX: lambda: SoftmaxUnit(lines=lines, rows=self.rows),
        }
        m.submodules.processor = processor = CommandProcessor(lines=lines, units=self.units)
        units = {}
        for unit in self.units:
            m.submodules[unit.name.lower()] = units[unit] = make[unit]()
        m.submodules.buffers = buffers = CircularBuffers(lines=lines, ports=len(units))
        m.submodules.registers = registers = RegisterWindow()
        m.d.comb += [buffers.configure.eq(processor.configure), buffers.clear.eq(processor.forget),
                     registers.counters[0].eq(processor.counters)]
        states = [processor.state] + [0] * len(UNITS)
        for slot, (unit, component) in enumerate(units.items()):
            port = processor.units[UNITS.index(unit)]
            connect(m, port, component.unit)
            connect(m, component.buffers, buffers.units[slot])
            m.d.comb += registers.counters[unit.value].eq(port.counters)
            states[unit.value] = port.state
        for index, unit in enumerate(UNITS):
            if unit not in units:
                m.d.comb += processor.units[index].idle.eq(1)
        if Unit.DOT in units:
            connect(m, units[Unit.A_LOADER].fill, units[Unit.DOT].fill)
            connect(m, units[Unit.DOT].o, units[Unit.REDUCTION].i)
        if Unit.REDUCTION in units:
            connect(m, flipped(self.ring_in), units[Unit.REDUCTION].ring_in)
            connect(m, units[Unit.REDUCTION].ring_out, flipped(self.ring_out))
        if attention:
            connect(m, units[Unit.DOT].o_scores, units[Unit.SOFTMAX].i)
            connect(m, units[Unit.SOFTMAX].p, units[Unit.DOT].p)
            connect(m, units[Unit.SOFTMAX].factors, units[Unit.REDUCTION].factors)
        self._connect_local(m, units)
        port = self._connect_memory(m, processor, units)
        connect(m, flipped(self.launch), processor.launch)
        connect(m, processor.report, flipped(self.report))
        connect(m, flipped(self.access), registers.access)
        connect(m, registers.response, flipped(self.access_response))
        m.d.comb += [self.arrive.eq(processor.arrive), processor.proceed.eq(self.proceed),
                     processor.abort.eq(self.abort), processor.go.eq(self.go),
                     processor.drop.eq(self.drop), self.states.eq(Cat(*states))]
        calm = Signal(range(CALM_CYCLES + 1))
        quiet = (processor.idle & ~port.busy & ~registers.busy & ~processor.outstanding
                 & Cat(unit.idle for unit in processor.units).all()
                 & ~(self.launch.valid | self.response.valid | self.access.valid))
        m.d.sync += calm.eq(Mux(quiet, calm + (calm != CALM_CYCLES), 0))
        m.d.sync += self.idle.eq(quiet & (calm == CALM_CYCLES))
        return m

    def _connect_local(self, m, units):
        """Ports of local memory, each shared by units that seldom want it at the same time."""
        def ports(*wanted):
            return [getattr(units[unit], name) for unit, name in wanted if unit in units]

        reads = [ports((Unit.DOT, "elements")),
                 ports((Unit.DOT, "scales"), (Unit.A_LOADER, "source")),
                 ports((Unit.SIMD, "source0"), (Unit.REDUCTION, "source"),
                       (Unit.LAYOUT, "source")),
                 ports((Unit.SIMD, "source1"), (Unit.DMA_OUT, "local"), (Unit.DMA_IN, "index"),
                       (Unit.SOFTMAX, "source"))]
        writes = [ports((Unit.DMA_IN, "local"), (Unit.LAYOUT, "destination")),
                  ports((Unit.REDUCTION, "destination"), (Unit.SIMD, "destination"))]
        reads, writes = [r for r in reads if r], [w for w in writes if w]
        m.submodules.local = local = LocalMemory(lines=self.lines, banks=self.banks,
                                                 readers=len(reads), writers=len(writes))
        for kind, shared, groups, targets in (("read", SharedRead, reads, local.reads),
                                              ("write", SharedWrite, writes, local.writes)):
            for index, group in enumerate(groups):
                m.submodules[f"{kind}_{index}"] = turns = shared(lines=self.lines,
                                                                ports=len(group))
                for port, turn in zip(group, turns.ports, strict=True):
                    connect(m, port, turn)
                connect(m, turns.o, targets[index])

    def _connect_memory(self, m, processor, units):
        """Requests and responses of the command processor and of the two DMA units."""
        clients = [processor, units[Unit.DMA_IN], units[Unit.DMA_OUT]]
        m.submodules.memory = port = MemoryPort(clients=len(clients))
        for index, client in enumerate(clients):
            connect(m, client.request, port.requests[index])
            connect(m, port.responses[index], client.response)
        m.d.comb += processor.outstanding.eq(Cat(c.outstanding for c in clients[1:]).any())
        connect(m, port.request, flipped(self.request))
        connect(m, flipped(self.response), port.response)
        return port
