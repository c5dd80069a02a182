"""Tests of rtl/common/place.py: the cocotb tests, then the pytest function that runs them."""
import cocotb
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import RisingEdge

from rtl.common.place import Place
from testbenches import sim


class Delay(wiring.Component):
    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


class Two(wiring.Component):
    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.submodules.first = first = Place(Delay())
        m.submodules.second = second = Place(Delay())
        connect(m, flipped(self.i), first.i)
        connect(m, first.o, second.i)
        connect(m, second.o, flipped(self.o))
        return m


@cocotb.test()
async def placed_components_pass_their_streams(dut):
    await sim.reset(dut, dut.i__valid, dut.o__ready)
    dut.o__ready.value = 1
    got = []
    for value in range(20):
        dut.i__valid.value, dut.i__payload.value = 1, value
        await RisingEdge(dut.clk)
        if dut.o__valid.value:
            got.append(int(dut.o__payload.value))
    assert got == list(range(len(got))) and len(got) >= 17


@sim.on_simulators
def test_place(tmp_path, simulator):
    sim.run(Two(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
