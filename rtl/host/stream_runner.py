"""One stream: its entries, one after another."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.link.interfaces import LAUNCH_ID_BITS, SlotKind, completion_layout
from rtl.pe.interfaces import DEFAULT_WATCHDOG, ErrorCode

from .jobs import (
    DIE_BITS,
    EVENT_BITS,
    EVENTS,
    HOST_FIELD,
    STREAMS,
    Opcode,
    copy_layout,
    done_layout,
    entry_layout,
    request_layout,
    result_layout,
)
from .launch_window import LaunchWindow

EVENT_PATIENCE = 1 << 24    # cycles, for a wait that gives 0 (this project's choice)


class StreamRunner(wiring.Component):
    """Runs the entries of one stream strictly in order, and gives a result for each.

    A launch is sent to its die while the one before it runs there: the die keeps their order. All
    other entries begin when those before them have ended.

    Refused without effect: an unknown opcode (BAD_COMMAND); a stream above 3 (BAD_FIELD 0), a
    launch of an unknown die or of no PE, an event above 15 (BAD_FIELD 8), a patience for an event
    of 2^31 cycles or more (BAD_FIELD 9); a copy to or from an unknown die or across the end of a
    die, or a table address above 48 bits (BAD_ADDRESS). A copy of no bytes is done at once. An
    abort ends the launch that runs, or the wait for an event; other entries take no notice of it. A
    result takes 3 cycles plus what the work takes.

    Parameters
    ----------
    number : int
        Number of the stream.
    dies : int
        Compute dies.
    depth : int
        Entries that wait [entry].

    Members
    -------
    i : In(stream.Signature(entry_layout()))
        Entries of this stream.
    copy_in, copy_out : Out(stream.Signature(copy_layout()))
        Copies for the two engines.
    copied : In(done_layout()), with ``copied_valid`` : In(1)
        The copy of this stream has ended.
    request : Out(stream.Signature(request_layout()))
        LAUNCH and ABORT.
    completion, completion_valid : In(completion_layout()), In(1)
        A launch has ended; those with ids of none under way are ignored.
    record, event, count : Out(1), Out(4), In(32)
        See :class:`EventCounters`.
    o : Out(stream.Signature(result_layout()))
        Results.
    abort : In(1)
        For one cycle: end the launch, or the wait.
    lost : In(16)
        Dies whose link is down.
    now : In(32)
        Time.
    idle : Out(1)
        Nothing waits or runs.
    active : Out(1)
        While it is low, nothing changes until an entry, an abort or an end of what runs comes, or
        a die is lost. It also depends on ``now`` and ``count``.
    """

    def __init__(self, *, number, dies, depth=8):
        self.number = number
        self.dies = dies
        self.depth = depth
        copies = Out(stream.Signature(copy_layout()))
        super().__init__({
            "i": In(stream.Signature(entry_layout())), "copy_in": copies, "copy_out": copies,
            "copied": In(done_layout()), "copied_valid": In(1),
            "request": Out(stream.Signature(request_layout())),
            "completion": In(completion_layout()), "completion_valid": In(1),
            "record": Out(1), "event": Out(EVENT_BITS), "count": In(32),
            "o": Out(stream.Signature(result_layout())), "abort": In(1), "lost": In(16),
            "now": In(32), "idle": Out(1), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.entries = entries = SyncFIFOBuffered(width=entry_layout().size,
                                                          depth=self.depth)
        m.submodules.launches = window = LaunchWindow(number=self.number)
        entry, result, deadline = Signal(entry_layout()), Signal(result_layout()), Signal(32)
        kinds = {kind: entry.opcode == kind for kind in Opcode}
        copying, launching = kinds[Opcode.COPY_IN] | kinds[Opcode.COPY_OUT], kinds[Opcode.LAUNCH]
        code, field, address = self._check(m, entry, kinds, copying=copying)
        ok, aborting, sending = code == ErrorCode.OK, Signal(), Signal()
        self._window(m, window, entry)
        self._offer(m, entry, window, aborting, sending)

        # A launch begins behind others on its die, all else when these have ended.
        begins = Mux(launching & ok, ~aborting & window.free & (
            window.empty | (window.die == entry.die)), window.empty)
        here = entries.r_rdy & begins
        reached, expired = ~(self.count - entry.value)[31], ~(self.now - deadline)[31]
        m.d.comb += [
            entries.w_data.eq(self.i.payload), entries.w_en.eq(self.i.valid),
            self.i.ready.eq(entries.w_rdy), entry.as_value().eq(entries.r_data),
            self.event.eq(entry.die), self.idle.eq(~entries.r_rdy & window.empty)]

        def tell(code=None, **fields):
            if code is not None:
                m.d.sync += result.code.eq(code)
            m.d.sync += [result[name].eq(value) for name, value in fields.items()]
            m.d.sync += result.cycles.eq(self.now - entry.fetched)
            m.next = "TELL"

        with m.FSM() as fsm:
            with m.State("READ"):
                m.d.sync += [
                    result.eq(0), result.tag.eq(entry.tag),
                    result.die.eq(Mux(copying, entry.device[44:48], Mux(
                        launching, entry.die[:DIE_BITS], 0))),
                    deadline.eq(self.now + Mux(
                        entry.watchdog == 0, EVENT_PATIENCE, entry.watchdog))]
                with m.If(here):
                    tell(code, field=field, address=address)
                    with m.If(ok & (launching | copying & (entry.bytes != 0))):
                        m.next = "START"
                    with m.Elif(ok & kinds[Opcode.EVENT_WAIT]):
                        m.next = "WAIT"
                    with m.Elif(ok & kinds[Opcode.EVENT_RECORD]):
                        m.d.comb += self.record.eq(1)
                        m.d.sync += result.value.eq(self.count + 1)
            with m.State("START"):
                m.d.comb += [self.copy_in.valid.eq(kinds[Opcode.COPY_IN]),
                             self.copy_out.valid.eq(kinds[Opcode.COPY_OUT]),
                             sending.eq(launching)]
                with m.If(sending & self.request.ready):
                    m.d.comb += [window.begin.eq(1), entries.r_en.eq(1)]
                    m.next = "READ"
                with m.Elif(self.copy_in.ready & self.copy_in.valid
                            | self.copy_out.ready & self.copy_out.valid):
                    m.next = "COPY"
            with m.State("COPY"):
                with m.If(self.copied_valid):
                    tell(self.copied.code, address=self.copied.address,
                         field=HOST_FIELD * self.copied.host)
            with m.State("WAIT"):
                with m.If(reached):
                    tell(value=self.count)
                with m.Elif(self.abort | expired):
                    tell(Mux(self.abort, ErrorCode.ABORTED, ErrorCode.WATCHDOG),
                         field=self.event, value=self.count)
            with m.State("TELL"):
                m.d.comb += entries.r_en.eq(self.o.ready)
                with m.If(self.o.ready):
                    m.next = "READ"
        telling = fsm.ongoing("TELL")
        m.d.comb += [
            self.o.valid.eq(telling | window.o.valid), window.o.ready.eq(self.o.ready),
            self.o.payload.eq(Mux(telling, result, window.o.payload)),
            self.active.eq(
                aborting | window.active | telling | fsm.ongoing("START")
                | fsm.ongoing("READ") & (entries.level != 0) & (~entries.r_rdy | begins)
                | fsm.ongoing("WAIT") & (reached | expired))]
        return m

    def _window(self, m, window, entry):
        """The launches that are under way."""
        m.d.comb += [
            window.tag.eq(entry.tag), window.fetched.eq(entry.fetched), window.to.eq(entry.die),
            window.completion.eq(self.completion), window.lost.eq(self.lost),
            window.completion_valid.eq(self.completion_valid), window.now.eq(self.now)]

    def _check(self, m, entry, kinds, *, copying):
        """What is wrong with an entry, before it has any effect."""
        code, field, address = Signal(ErrorCode), Signal(8), Signal(64)
        last = Signal(49)
        m.d.comb += last.eq(entry.device[:48] + entry.bytes - 1)
        astray = (entry.device[44:] >= self.dies) | (last[44:] != entry.device[44:48])

        def refuse(number):
            m.d.comb += [code.eq(ErrorCode.BAD_FIELD), field.eq(number)]

        with m.If(entry.stream >= STREAMS):
            refuse(0)
        with m.Elif(copying):
            with m.If(astray & (entry.bytes != 0)):
                m.d.comb += [code.eq(ErrorCode.BAD_ADDRESS), address.eq(entry.device)]
        with m.Elif(kinds[Opcode.LAUNCH]):
            with m.If((entry.die >= self.dies) | (entry.pe_mask == 0)):
                refuse(8)
            with m.Elif(entry.host[48:] != 0):
                m.d.comb += [code.eq(ErrorCode.BAD_ADDRESS), address.eq(entry.host)]
        with m.Elif(kinds[Opcode.EVENT_RECORD] | kinds[Opcode.EVENT_WAIT]):
            with m.If(entry.die >= EVENTS):
                refuse(8)
            with m.Elif(kinds[Opcode.EVENT_WAIT] & entry.watchdog[31]):
                refuse(9)
        with m.Elif(~kinds[Opcode.NOP]):
            m.d.comb += code.eq(ErrorCode.BAD_COMMAND)
        return code, field, address

    def _offer(self, m, entry, window, aborting, sending):
        """Payloads of what is asked of others; an abort waits for a launch that is being sent."""
        for copy in (self.copy_in, self.copy_out):
            m.d.comb += [copy.payload.stream.eq(self.number), copy.payload.host.eq(entry.host),
                         copy.payload.device.eq(entry.device), copy.payload.bytes.eq(entry.bytes)]
        aborted, slot = Signal(LAUNCH_ID_BITS), self.request.payload.slot
        m.d.comb += self.request.valid.eq(sending | aborting)
        with m.If(sending):
            m.d.comb += [
                self.request.payload.die.eq(entry.die),
                slot.kind.eq(SlotKind.LAUNCH), slot.body.launch.pe_mask.eq(entry.pe_mask),
                slot.body.launch.table.eq(entry.host), slot.body.launch.id.eq(window.id),
                slot.body.launch.watchdog.eq(
                    Mux(entry.watchdog == 0, DEFAULT_WATCHDOG, entry.watchdog))]
        with m.Else():
            m.d.comb += [self.request.payload.die.eq(window.die),
                         slot.kind.eq(SlotKind.ABORT), slot.body.abort.id.eq(aborted)]
            with m.If(self.request.ready):
                m.d.sync += aborting.eq(0)
        with m.If(self.abort & window.running & ~aborting):
            m.d.sync += [aborting.eq(1), aborted.eq(window.oldest)]
