"""A component beside the same one whose gated clocks never stop: they must not differ."""
from unittest import mock

from amaranth import *
from amaranth.hdl import Assert
from amaranth.lib import wiring

from rtl.common.clockgate import ClockGate
from rtl.common.place import flat_ports


def always(gate, platform):
    """In place of :meth:`ClockGate.elaborate`: every edge passes."""
    m = Module()
    m.d.comb += gate.clk.eq(ClockSignal("sync"))
    return m


class Twins(wiring.Component):
    """Has the ports of the component that ``make()`` gives, and stands for it in its tests.

    All of its outputs (payloads of streams where they are valid) are compared in every cycle with
    those of a second one that has no clock gates: a difference fails an ``Assert``. So whatever a
    test does with a component shows whether its clocks stopped only when they could.
    """

    def __init__(self, make):
        self.gated, self.free = make(), make()
        super().__init__(self.gated.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.gated = self.gated
        with mock.patch.object(ClockGate, "elaborate", always):
            m.submodules.free = Fragment.get(self.free, None)   # nothing of it is placed
        same, values = [], {name: Value.cast(value) for name, _, value in flat_ports(self.gated)}
        ports = zip(*(flat_ports(x) for x in (self, self.gated, self.free)), strict=True)
        for (name, is_input, own), (_, _, gated), (_, _, free) in ports:
            own, gated, free = map(Value.cast, (own, gated, free))
            if is_input:
                m.d.comb += [gated.eq(own), free.eq(own)]
            else:
                m.d.comb += own.eq(gated)
                stream, _, last = name.rpartition("__")
                unused = ~values[f"{stream}__valid"] if last == "payload" else 0
                same.append((gated == free) | unused)
        wrong = Signal()    # a register: settled when it is looked at
        m.d.sync += wrong.eq(~Cat(same).all())
        with m.If(wrong):   # not if it is unknown: fields without a meaning may be
            m.d.comb += Assert(0, "A clock stopped too early")
        return m
