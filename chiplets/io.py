"""The I/O chiplet: host interface, dispatcher and links."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from chiplets.registers import load
from rtl.common.clockgate import gated_domain
from rtl.common.place import Place
from rtl.host.axi import Axi, AxiLite, AxiMaster
from rtl.host.completion_ring import CompletionRing
from rtl.host.dispatcher import Dispatcher
from rtl.host.register_file import RegisterFile
from rtl.host.submission_ring import SubmissionRing
from rtl.link.interfaces import PhitPort
from rtl.link.link import D2dLink
from rtl.link.on_die import OnDieLink, OnDiePort
from rtl.link.transmitter import LinkState

IDENTIFICATION = int.from_bytes(b"mxlt", "little")
VERSION = 1
MAX_DIES = 4    # links described in io.rdl
ADDRESS_BITS = 12


class IoChiplet(wiring.Component):
    """Takes work packets from rings in host memory, moves data, starts programs, reports.

    See docs/programming-model.md, "Work packets", and ``registers/io.rdl``. All outputs are
    functions of registers. The clock of all but the links, which rest by themselves, stops while
    nothing comes or is to be done, also while launches run.

    Parameters
    ----------
    dies : int
        Compute dies, one link each; 1 to 4.
    package_id : int
        What the register ``configuration`` says.
    link : tuple
        Parameters of :class:`D2dLink` as pairs of name and value; None: this is a part of the one
        compute chiplet, joined to it by :class:`OnDieLink`. :exc:`ValueError` if there are more.
    buffer_lines, tag_bits : int
        See :class:`CopyIn`.

    Members
    -------
    s_axil_* : AXI4-Lite slave, 32 bits, 12 bits of address
        Registers.
    m_axi_* : AXI4 master, 512 bits, 64 bits of address, 1 bit of id
        Rings and copies.
    now : In(64)
        Time [cycle], from a counter of the package that never rests.
    irq : Out(1)
        Level: an enabled cause stands in ``interrupt_status``.
    awake : Out(1)
        That clock ran in the cycle before.
    idle : Out(1)
        Register: nothing changes until a valid comes in.
    link0, link1, ... : Out(PhitPort()), without ``link`` Out(OnDiePort())
        Pins of the links, as many as dies.
    """

    def __init__(self, *, dies=2, package_id=0, link=(), buffer_lines=256, tag_bits=7):
        if not isinstance(dies, int) or not 1 <= dies <= MAX_DIES:
            raise ValueError(f"Dies must be 1 to {MAX_DIES}, not {dies!r}")
        if link is None and dies != 1:
            raise ValueError(f"Dies must be 1 on the compute chiplet, not {dies!r}")
        self.dies = dies
        self.package_id = package_id
        self.link = link
        self.buffer_lines = buffer_lines
        self.tag_bits = tag_bits
        slave, master = AxiLite(address_bits=ADDRESS_BITS).flip(), Axi()
        super().__init__(
            {f"s_axil_{name}": member for name, member in slave.members.items()}
            | {f"m_axi_{name}": member for name, member in master.members.items()}
            | {"now": In(64), "irq": Out(1), "awake": Out(1), "idle": Out(1)}
            | {f"link{die}": Out(OnDiePort() if link is None else PhitPort())
               for die in range(dies)})

    def elaborate(self, platform):
        m = Module()
        registers = RegisterFile(load("io"), address_bits=ADDRESS_BITS)
        master, submissions, completions = AxiMaster(), SubmissionRing(), CompletionRing()
        dispatcher = Dispatcher(
            dies=self.dies, buffer_lines=self.buffer_lines, tag_bits=self.tag_bits)
        for name, part in (("registers", registers), ("master", master),
                           ("submissions", submissions), ("completions", completions),
                           ("dispatcher", dispatcher)):
            m.submodules[name] = DomainRenamer("jobs")(part)
        links = [Place(OnDieLink() if self.link is None else D2dLink(**dict(self.link)))
                 for _ in range(self.dies)]
        self._pins(m, registers.bus, master.bus)

        connect(m, submissions.reads, master.reads[0])
        connect(m, dispatcher.reads, master.reads[1])
        connect(m, completions.writes, master.writes[0])
        connect(m, dispatcher.writes, master.writes[1])
        connect(m, completions.beats, master.beats[0])
        connect(m, dispatcher.beats, master.beats[1])
        connect(m, submissions.o, dispatcher.i)
        connect(m, dispatcher.o, completions.i)
        for n, client in enumerate((submissions, dispatcher)):
            m.d.comb += [client.beat.data.eq(master.beat.data),
                         client.beat.error.eq(master.beat.error),
                         client.beat_valid.eq(master.beat.valid[n]), client.now.eq(self.now)]
        for n, client in enumerate((completions, dispatcher)):
            m.d.comb += [client.written.eq(master.written.valid[n]),
                         client.written_error.eq(master.written.error)]
        for die, link in enumerate(links):
            m.submodules[f"link{die}"] = link
            connect(m, dispatcher.links[die], link.port)
            connect(m, flipped(getattr(self, f"link{die}")), link.phits)
            m.d.comb += dispatcher.lost[die].eq(link.state == LinkState.DOWN)
        self._registers(m, registers, submissions, completions, dispatcher, links)
        parts = (registers, master, submissions, completions, dispatcher)
        active = Cat(
            (part.active for part in parts), registers.events.as_value(),
            registers.bus.awvalid, registers.bus.wvalid, registers.bus.arvalid,
            master.bus.rvalid, master.bus.bvalid,
            ((link.port.i_request.valid, link.port.i_response.valid) for link in links)).any()
        gated_domain(m, name="jobs", enable=ResetSignal("sync") | active)
        m.d.sync += [self.awake.eq(active),
                     self.idle.eq(~(active | Cat(link.awake for link in links).any()))]
        return m

    def _pins(self, m, slave, master):
        for prefix, bus in (("s_axil_", slave), ("m_axi_", master)):
            for name in bus.signature.members:
                pin, inner = getattr(self, prefix + name), getattr(bus, name)
                is_output = self.signature.members[prefix + name].flow is Out
                m.d.comb += pin.eq(inner) if is_output else inner.eq(pin)

    def _registers(self, m, registers, submissions, completions, dispatcher, links):
        stored, status, events = registers.stored, registers.status, registers.events
        strobe, written, sticky = registers.strobe, registers.written, registers.sticky
        idle = Signal()
        restart = strobe.control & written.control.restart
        m.d.comb += idle.eq(submissions.idle & completions.idle & dispatcher.idle)
        m.d.comb += [
            status.identification.value.eq(IDENTIFICATION), status.configuration.dies.eq(self.dies),
            status.configuration.package_id.eq(self.package_id),
            status.configuration.version.eq(VERSION), status.status.idle.eq(idle),
            status.cycles_lo.value.eq(self.now[:32]),
            status.cycles_hi.value.eq(self.now[32:]),
            submissions.enable.eq(stored.control.enable),
            dispatcher.abort.eq(Mux(strobe.abort, written.abort.streams, 0)),
            status.completion_waits.value.eq(completions.waits)]
        for name, ring, doorbell in (("submission", submissions, "submission_tail"),
                                     ("completion", completions, "completion_head")):
            m.d.comb += [
                ring.base.eq(Cat(stored[f"{name}_base_lo"].value, stored[f"{name}_base_hi"].value)),
                ring.size_log2.eq(stored[f"{name}_size"].log2), ring.ring.eq(strobe[doorbell]),
                ring.restart.eq(restart & idle),
                ring.doorbell.eq(written[doorbell].index),
                status[f"{name}_head"].index.eq(ring.head),
                status[f"{name}_tail"].index.eq(ring.tail)]
            with m.If(ring.refused):
                m.d.sync += status.error_info.value.eq(ring.doorbell)
        m.d.comb += [
            events.error_status.submission_doorbell.eq(submissions.refused),
            events.error_status.completion_doorbell.eq(completions.refused),
            events.error_status.fetch.eq(submissions.failed),
            events.error_status.completion_write.eq(completions.failed),
            events.error_status.restart.eq(restart & ~idle),
            events.interrupt_status.completion.eq(completions.wrote),
            events.interrupt_status.error.eq(events.error_status.as_value().any())]
        for die, link in enumerate(links):
            m.d.comb += status.status[f"link{die}"].eq(link.state)
            down, before = link.state == LinkState.DOWN, Signal(name=f"link{die}_was_down")
            m.d.sync += before.eq(down)
            m.d.comb += events.error_status[f"link{die}_down"].eq(down & ~before)
            for name in link.counters.shape().members:
                m.d.comb += status[f"link{die}_{name}"].value.eq(link.counters[name])
        m.d.sync += self.irq.eq(
            (sticky.interrupt_status.as_value() & stored.interrupt_enable.as_value()).any())
