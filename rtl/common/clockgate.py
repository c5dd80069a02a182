"""A gated clock for an idle datapath."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class ClockGate(wiring.Component):
    """Passes the clock only in the cycles for which it is enabled: an integrated clock-gating cell.

    The enable is sampled at the falling edge and ANDed with the clock, so the gated clock has
    neither glitch nor short pulse. ``enable`` must come from ``sync`` logic, settled by the middle
    of the cycle; high in a cycle, it lets the rising edge that ends this cycle through. So a
    register behind the gate acts as one of ``sync`` with ``enable`` as its clock enable, and may
    be read by, and read, registers of ``sync``. A gate within a gated domain samples no enable
    while that domain's clock rests: there the enable must come from registers of that domain.
    Its reset also needs the clock: enable during reset. A pipeline behind the gate needs the clock
    until its last result is out. Latency 0 cycles. The first rising edge after power-up passes.

    The behaviour is that of a latch-based cell (transparent while the clock is low) of a standard
    cell library, by which an implementation replaces this module; an idle datapath then costs no
    clock power, and no simulation time either.

    Members
    -------
    enable : In(1)
        Let the coming rising edge through.
    clk : Out(1)
        Gated clock.
    """

    enable: In(1)
    clk: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.domains.fall = fall = ClockDomain(clk_edge="neg", local=True, reset_less=True)
        enabled = Signal(init=1)
        m.d.comb += fall.clk.eq(ClockSignal("sync"))
        m.d.fall += enabled.eq(self.enable)
        m.d.comb += self.clk.eq(ClockSignal("sync") & enabled)
        return m


def gated_domain(m, *, name, enable):
    """Add to ``m`` the local domain ``name``: ``sync`` gated by ``enable``, with its reset.

    Returns the domain. Place components in it with ``Place(..., domain=name)``.
    """
    domain = ClockDomain(name, local=True)
    m.domains += domain
    m.submodules[f"{name}_gate"] = gate = ClockGate()
    m.d.comb += [gate.enable.eq(enable), domain.clk.eq(gate.clk),
                 domain.rst.eq(ResetSignal("sync"))]
    return domain
