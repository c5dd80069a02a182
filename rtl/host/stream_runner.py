"""One stream: its entries, one after another."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.link.interfaces import SlotKind, completion_layout
from rtl.pe.interfaces import ErrorCode

from .jobs import (
    HOST_FIELD,
    STREAM_BITS,
    STREAMS,
    Opcode,
    copy_layout,
    done_layout,
    entry_layout,
    request_layout,
    result_layout,
)


class StreamRunner(wiring.Component):
    """Runs the entries of one stream strictly in order, and gives a result for each.

    Refused without effect: an unknown opcode (BAD_COMMAND); a stream above 3 (BAD_FIELD 0), a
    launch of an unknown die or of no PE (BAD_FIELD 8); a copy to or from an unknown die or across
    the end of a die, or a table address above 48 bits (BAD_ADDRESS). A copy of no bytes is
    done at once. An abort ends the launch that runs; other entries take no notice of it. A result
    takes 3 cycles plus what the work takes.

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
        A launch has ended; those with another id than the last one's are ignored.
    o : Out(stream.Signature(result_layout()))
        Results.
    abort : In(1)
        For one cycle: end the launch.
    lost : In(16)
        Dies whose link is down.
    now : In(32)
        Time.
    idle : Out(1)
        Nothing waits or runs.
    active : Out(1)
        While it is low, nothing changes until an entry, an abort or an end of what runs comes, or
        a die is lost.
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
            "o": Out(stream.Signature(result_layout())), "abort": In(1), "lost": In(16),
            "now": In(32), "idle": Out(1), "active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.entries = entries = SyncFIFOBuffered(width=entry_layout().size,
                                                          depth=self.depth)
        entry = Signal(entry_layout())
        m.d.comb += [entries.w_data.eq(self.i.payload), entries.w_en.eq(self.i.valid),
                     self.i.ready.eq(entries.w_rdy), entry.as_value().eq(entries.r_data)]
        result, attempt, aborting = Signal(result_layout()), Signal(6), Signal()
        launch_id = Cat(Const(self.number, STREAM_BITS), attempt)
        self._offer(m, entry, launch_id, aborting)

        copying = (entry.opcode == Opcode.COPY_IN) | (entry.opcode == Opcode.COPY_OUT)
        launching = entry.opcode == Opcode.LAUNCH
        code, field, address = self._check(m, entry, copying=copying, launching=launching)
        ended = self.completion_valid & launching & (self.completion.id == launch_id)
        dead = launching & self.lost.bit_select(entry.die[:4], 1)

        m.d.comb += [self.o.payload.eq(result), self.idle.eq(~entries.r_rdy)]
        with m.FSM() as fsm:
            with m.State("READ"):
                m.d.sync += [result.eq(0), result.tag.eq(entry.tag), aborting.eq(0)]
                with m.If(entries.r_rdy):
                    m.d.sync += [
                        result.code.eq(code), result.field.eq(field), result.address.eq(address),
                        result.die.eq(Mux(copying, entry.device[44:48], entry.die[:4]))]
                    m.next = "TELL"
                    with m.If((code == ErrorCode.OK) & (launching | copying & (entry.bytes != 0))):
                        m.next = "START"
            with m.State("START"):
                m.d.comb += [self.copy_in.valid.eq(entry.opcode == Opcode.COPY_IN),
                             self.copy_out.valid.eq(entry.opcode == Opcode.COPY_OUT),
                             self.request.valid.eq(launching)]
                with m.If(self.copy_in.ready & self.copy_in.valid
                          | self.copy_out.ready & self.copy_out.valid
                          | self.request.ready & self.request.valid):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.request.valid.eq(aborting)
                with m.If(self.request.ready):
                    m.d.sync += aborting.eq(0)
                with m.If(self.abort & launching):
                    m.d.sync += aborting.eq(1)
                with m.If(self.copied_valid | ended | dead):
                    m.d.sync += self._result(result, copying, dead)
                    m.next = "TELL"
            with m.State("TELL"):
                m.d.comb += [self.o.valid.eq(1), entries.r_en.eq(self.o.ready),
                             self.o.payload.cycles.eq(self.now - entry.fetched)]
                with m.If(self.o.ready):
                    m.d.sync += attempt.eq(attempt + 1)
                    m.next = "READ"
        m.d.comb += self.active.eq(Mux(
            fsm.ongoing("READ"), entries.level != 0, ~fsm.ongoing("RUN") | aborting))
        return m

    def _result(self, result, copying, dead):
        names = ("command_tag", "unit", "field", "failed_pe", "failed_mask")
        code = Mux(copying, self.copied.code, self.completion.code)
        address = Mux(copying, self.copied.address, self.completion.address)
        return [*(result[name].eq(Mux(copying | dead, 0, self.completion[name]))
                  for name in names if name != "field"),
                result.field.eq(Mux(dead, 0, Mux(copying, HOST_FIELD * self.copied.host,
                                                 self.completion.field))),
                result.code.eq(Mux(dead, ErrorCode.LINK_DOWN, code)),
                result.address.eq(Mux(dead, 0, address))]

    def _check(self, m, entry, *, copying, launching):
        """What is wrong with an entry, before it has any effect."""
        code, field, address = Signal(ErrorCode), Signal(8), Signal(64)
        last = Signal(49)
        m.d.comb += last.eq(entry.device[:48] + entry.bytes - 1)
        astray = (entry.device[44:] >= self.dies) | (last[44:] != entry.device[44:48])
        with m.If(entry.stream >= STREAMS):
            m.d.comb += code.eq(ErrorCode.BAD_FIELD)
        with m.Elif(copying):
            with m.If(astray & (entry.bytes != 0)):
                m.d.comb += [code.eq(ErrorCode.BAD_ADDRESS), address.eq(entry.device)]
        with m.Elif(launching):
            with m.If((entry.die >= self.dies) | (entry.pe_mask == 0)):
                m.d.comb += [code.eq(ErrorCode.BAD_FIELD), field.eq(8)]
            with m.Elif(entry.host[48:] != 0):
                m.d.comb += [code.eq(ErrorCode.BAD_ADDRESS), address.eq(entry.host)]
        with m.Elif(entry.opcode != Opcode.NOP):
            m.d.comb += code.eq(ErrorCode.BAD_COMMAND)
        return code, field, address

    def _offer(self, m, entry, launch_id, aborting):
        """Payloads of what is asked of others."""
        for copy in (self.copy_in, self.copy_out):
            m.d.comb += [copy.payload.stream.eq(self.number), copy.payload.host.eq(entry.host),
                         copy.payload.device.eq(entry.device), copy.payload.bytes.eq(entry.bytes)]
        slot = self.request.payload.slot
        m.d.comb += self.request.payload.die.eq(entry.die)
        with m.If(aborting):
            m.d.comb += [slot.kind.eq(SlotKind.ABORT), slot.body.abort.id.eq(launch_id)]
        with m.Else():
            m.d.comb += [
                slot.kind.eq(SlotKind.LAUNCH), slot.body.launch.pe_mask.eq(entry.pe_mask),
                slot.body.launch.table.eq(entry.host), slot.body.launch.id.eq(launch_id),
                slot.body.launch.watchdog.eq(Mux(entry.watchdog == 0, 65536, entry.watchdog))]
