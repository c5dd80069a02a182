"""Register file behind AXI4-Lite, made from a description."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .axi import AxiLite, Response


def _layout(registers, *kinds):
    """Fields of those kinds by register and name."""
    found = {name: {f.name: f.width for f in register.fields if f.access in kinds}
             for name, register in registers.items()}
    return data.StructLayout({name: data.StructLayout(fields)
                              for name, fields in found.items() if fields})


class RegisterFile(wiring.Component):
    """Registers of 32 bits: stored, status, doorbell, command and sticky fields.

    One write and one read at a time; a write takes 2 cycles, a read 2. A write that does not
    select all four bytes, or any access to an offset without a register, is answered SLVERR and
    changes nothing.

    Parameters
    ----------
    registers : dict
        Descriptions by name: ``offset`` and ``fields`` with ``name``, ``low``, ``width``,
        ``reset`` and ``access`` (see ``chiplets.registers``).
    address_bits : int
        Width of addresses [bit].

    Members
    -------
    bus : In(AxiLite(...))
        Pins.
    stored : Out(struct of structs)
        Values of stored fields.
    status : In(struct of structs)
        What reads of status and doorbell fields give.
    written, strobe : Out(struct of structs), Out(struct)
        Value last written to a doorbell or command field, and a cycle for each write to it.
    events, sticky : In(struct of structs), Out(struct of structs)
        What sets a sticky field (wins over a write that clears), and the field.
    active : Out(1)
        A function of registers. While it is low, nothing changes until an access or an event comes.
    """

    def __init__(self, registers, *, address_bits=12):
        self.registers = registers
        self.address_bits = address_bits
        pulses = _layout(registers, "doorbell", "command")
        super().__init__({
            "bus": In(AxiLite(address_bits=address_bits)),
            "stored": Out(_layout(registers, "stored")),
            "status": In(_layout(registers, "status", "doorbell")), "written": Out(pulses),
            "strobe": Out(data.StructLayout(dict.fromkeys(pulses.members, 1))),
            "events": In(_layout(registers, "sticky")),
            "sticky": Out(_layout(registers, "sticky")), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        resets = {name: {f.name: f.reset for f in register.fields if f.access == "stored"}
                  for name, register in self.registers.items()}
        stored = Signal(self.stored.shape(), init={n: r for n, r in resets.items() if r})
        sticky = Signal(self.sticky.shape())
        m.d.comb += [self.stored.eq(stored), self.sticky.eq(sticky)]

        address, value = Signal(self.address_bits), Signal(32)
        got_address, got_data, whole = Signal(), Signal(), Signal()
        write = got_address & got_data & ~bus.bvalid
        m.d.comb += [bus.awready.eq(~got_address), bus.wready.eq(~got_data)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [got_address.eq(1), address.eq(bus.awaddr)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [got_data.eq(1), value.eq(bus.wdata), whole.eq(bus.wstrb == 0xF)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        m.d.sync += [self.strobe.eq(0), sticky.eq(sticky.as_value() | self.events.as_value())]
        with m.If(write):
            m.d.sync += [got_address.eq(0), got_data.eq(0), bus.bvalid.eq(1),
                         bus.bresp.eq(Response.SLVERR)]
            with m.If(whole), m.Switch(address[2:]):
                for name, register in self.registers.items():
                    with m.Case(register.offset >> 2):
                        m.d.sync += bus.bresp.eq(Response.OKAY)
                        self._write(m, name, register, value, stored, sticky)
        asked = self._read(m, stored, sticky)
        m.d.comb += self.active.eq(Cat(
            got_address, got_data, bus.bvalid, asked, bus.rvalid, self.strobe.as_value()).any())
        return m

    def _write(self, m, name, register, value, stored, sticky):
        for field in register.fields:
            part = value[field.low:field.low + field.width]
            if field.access == "stored":
                m.d.sync += stored[name][field.name].eq(part)
            elif field.access in ("doorbell", "command"):
                m.d.sync += [self.written[name][field.name].eq(part), self.strobe[name].eq(1)]
            elif field.access == "sticky":
                kept = sticky[name][field.name] & ~part
                m.d.sync += sticky[name][field.name].eq(kept | self.events[name][field.name])

    def _read(self, m, stored, sticky):
        bus, address, asked = self.bus, Signal(self.address_bits), Signal()
        m.d.comb += bus.arready.eq(~asked)
        with m.If(bus.arvalid & ~asked):
            m.d.sync += [asked.eq(1), address.eq(bus.araddr)]
        with m.If(bus.rready & bus.rvalid):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(asked & ~bus.rvalid):
            m.d.sync += [asked.eq(0), bus.rvalid.eq(1), bus.rresp.eq(Response.SLVERR),
                         bus.rdata.eq(0)]
            with m.Switch(address[2:]):
                for name, register in self.registers.items():
                    with m.Case(register.offset >> 2):
                        m.d.sync += bus.rresp.eq(Response.OKAY)
                        for field in register.fields:
                            source = {"stored": stored, "sticky": sticky}.get(
                                field.access, self.status)
                            if field.access != "command":
                                m.d.sync += bus.rdata[field.low:field.low + field.width].eq(
                                    source[name][field.name])
        return asked
