"""An HBM channel with its controller, behind queues into a clock domain of its own."""
from amaranth import *
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out

from rtl.memory.hbm_controller import HbmController
from rtl.memory.interfaces import channel_request_layout, memory_response_layout

PINS = ("row_command", "column_command", "write_data", "write_mask", "read_data")


class HbmChannel(wiring.Component):
    """Requests cross to the clock of the HBM, answers cross back, in order."""

    def __init__(self, *, rows, name_bits, depth=32):
        self.rows, self.name_bits, self.depth = rows, name_bits, depth
        self.controller = HbmController(rows=rows, depth=depth)
        self.controller._MustUse__silence = True
        super().__init__({
            "request": In(stream.Signature(channel_request_layout(name_bits))),
            "response": Out(stream.Signature(memory_response_layout(name_bits))),
            "hbm_clk": In(1), "idle": Out(1),
            **{name: self.controller.signature.members[name] for name in PINS}})

    def elaborate(self, platform):
        m = Module()
        m.domains.hbm = domain = ClockDomain(local=True)
        m.d.comb += domain.clk.eq(self.hbm_clk)
        m.submodules.reset = ResetSynchronizer(ResetSignal("sync"), domain="hbm")
        m.submodules.controller = controller = DomainRenamer("hbm")(self.controller)
        into = fifo.AsyncFIFOBuffered(width=self.request.payload.shape().size, depth=9,
                                      w_domain="sync", r_domain="hbm")
        back = fifo.AsyncFIFOBuffered(width=self.response.payload.shape().size, depth=9,
                                      w_domain="hbm", r_domain="sync")
        names = DomainRenamer("hbm")(fifo.SyncFIFO(width=self.name_bits, depth=2 * self.depth))
        m.submodules.into, m.submodules.back, m.submodules.names = into, back, names
        request = data.View(self.request.payload.shape(), into.r_data)
        response = data.View(self.response.payload.shape(), back.w_data)
        asked, answered = controller.request, controller.response
        wiring.connect(m, wiring.flipped(self.request), into.w_stream)
        wiring.connect(m, back.r_stream, wiring.flipped(self.response))
        m.d.comb += [
            asked.valid.eq(into.r_rdy & names.w_rdy), into.r_en.eq(asked.ready & names.w_rdy),
            names.w_en.eq(into.r_rdy & asked.ready), names.w_data.eq(request.name),
            asked.payload.address.eq(request.line << 6), asked.payload.write.eq(request.write),
            asked.payload.data.eq(request.data), asked.payload.mask.eq(request.mask),
            back.w_en.eq(answered.valid), answered.ready.eq(back.w_rdy),
            names.r_en.eq(answered.valid & back.w_rdy), response.name.eq(names.r_data),
            response.write.eq(answered.payload.write), response.error.eq(answered.payload.error),
            response.data.eq(answered.payload.data)]
        for name in PINS:
            mine, its = getattr(self, name), getattr(controller, name)
            m.d.comb += its.eq(mine) if name == "read_data" else mine.eq(its)
        return m
