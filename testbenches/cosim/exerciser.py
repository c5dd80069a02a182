"""A small chiplet with an AXI4 master and an AXI4-Lite slave, to test the host device with."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from cosim import engine
from cosim.build import model
from rtl.host.axi import Axi, AxiLite
from testbenches.cosim.parts import next_random

IDENTITY = 0x5EED
REGISTERS = {"identity": 0, "source": 4, "target": 8, "shape": 12, "start": 16, "status": 20,
             "strobe": 24}


class Exerciser(wiring.Component):
    """Reads a burst into a buffer, then writes it as a burst of the same shape elsewhere.

    ``shape``: beats less one, size at bit 8, type at bit 12. ``strobe`` masks every byte lane of
    a half line. ``status``: done, read response at bit 4, write response at bit 8. Ready of
    both responses is high in a random half of the cycles.
    """

    m_axi: Out(Axi())
    s_axil: In(AxiLite(address_bits=8))
    irq: Out(1)

    def elaborate(self, platform):
        m = Module()
        bus = self.m_axi
        registers = {name: Signal(32, name=name) for name in REGISTERS}
        random = Signal(32, init=0xBEEF)
        m.d.sync += [random.eq(next_random(random)), bus.rready.eq(random[3]),
                     bus.bready.eq(random[7])]
        m.d.comb += [registers["identity"].eq(IDENTITY), self.irq.eq(registers["status"][0])]
        self._registers(m, registers)
        m.submodules.buffer = buffer = Memory(shape=512, depth=256, init=[])
        write, read = buffer.write_port(), buffer.read_port(domain="comb")
        beat, address, after, window = Signal(9), Signal(32), Signal(32), Signal(16)
        shape = registers["shape"]
        lanes, bytes_ = Signal(64), Signal(7)
        m.d.comb += [
            bytes_.eq(1 << shape[8:11]), write.addr.eq(beat), write.data.eq(bus.rdata),
            write.en.eq(bus.rvalid & bus.rready), read.addr.eq(beat), bus.wdata.eq(read.data),
            lanes.eq(((1 << bytes_) - 1) << (address[:6] & ~(bytes_ - 1)[:6])),
            bus.wstrb.eq(lanes & (Const(2**64 - 1, 64) << address[:6])
                         & registers["strobe"].replicate(2)),
            after.eq((address & ~(bytes_ - 1)) + bytes_),
            window.eq(((shape[:8] + 1) << shape[8:11]) - 1),
            bus.wlast.eq(beat == shape[:8]), bus.araddr.eq(registers["source"]),
            bus.awaddr.eq(registers["target"])]
        for p in ("ar", "aw"):
            m.d.comb += [getattr(bus, f"{p}len").eq(shape[:8]), getattr(bus, f"{p}id").eq(1),
                         getattr(bus, f"{p}size").eq(shape[8:11]),
                         getattr(bus, f"{p}burst").eq(shape[12:14])]
        status = registers["status"]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(registers["start"][0]):
                    m.d.sync += [bus.arvalid.eq(1), status.eq(0), beat.eq(0)]
                    m.next = "READ"
            with m.State("READ"):
                with m.If(bus.arready):
                    m.d.sync += bus.arvalid.eq(0)
                with m.If(write.en):
                    m.d.sync += [beat.eq(beat + 1), status[4:6].eq(bus.rresp)]
                    with m.If(bus.rlast):
                        m.d.sync += [bus.awvalid.eq(1), bus.wvalid.eq(1), beat.eq(0),
                                     address.eq(registers["target"])]
                        m.next = "WRITE"
            with m.State("WRITE"):
                with m.If(bus.awready):
                    m.d.sync += bus.awvalid.eq(0)
                with m.If(bus.wready & bus.wvalid):
                    m.d.sync += [beat.eq(beat + 1), bus.wvalid.eq(~bus.wlast)]
                    with m.If(shape[12:14] != 0):
                        m.d.sync += address.eq(Mux(
                            shape[13], (address & ~window) | (after & window), after))
                with m.If(bus.bvalid & bus.bready):
                    m.d.sync += [status[0].eq(1), status[8:10].eq(bus.bresp)]
                    m.next = "IDLE"
        return m

    def _registers(self, m, registers):
        lite = self.s_axil
        m.d.sync += registers["start"].eq(0)
        taken = Signal()
        m.d.comb += [taken.eq(lite.awvalid & lite.wvalid & ~lite.awready & ~lite.bvalid)]
        m.d.sync += [lite.awready.eq(taken), lite.wready.eq(taken)]
        with m.If(taken):
            m.d.sync += lite.bvalid.eq(1)
            with m.Switch(lite.awaddr):
                for name in ("source", "target", "shape", "start", "strobe"):
                    with m.Case(REGISTERS[name]):
                        m.d.sync += registers[name].eq(lite.wdata)
                with m.Default():
                    m.d.sync += lite.bresp.eq(2)
        with m.Elif(lite.bvalid & lite.bready):
            m.d.sync += [lite.bvalid.eq(0), lite.bresp.eq(0)]
        m.d.sync += lite.arready.eq(lite.arvalid & ~lite.arready & ~lite.rvalid)
        with m.If(lite.arvalid & lite.arready):
            m.d.sync += lite.rvalid.eq(1)
            with m.Switch(lite.araddr):
                for name, offset in REGISTERS.items():
                    with m.Case(offset):
                        m.d.sync += lite.rdata.eq(registers[name])
                with m.Default():
                    m.d.sync += lite.rresp.eq(2)
        with m.Elif(lite.rvalid & lite.rready):
            m.d.sync += [lite.rvalid.eq(0), lite.rresp.eq(0)]


def die(*, memory_bytes=1 << 20, **parameters):
    """The exerciser with host memory and a register master."""
    built = model.build(Exerciser())
    return engine.Die("io", {"base": built}, devices=[
        engine.host_memory(built, "base", "m_axi__", memory_bytes=memory_bytes, **parameters),
        engine.register_master(built, "base", "s_axil__")])
