"""The circular buffers of a PE: where they are, what is filled, what is free."""
from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import bits_for

from rtl.common.arbiter import RoundRobin
from rtl.common.select import one_of
from rtl.pe.interfaces import BUFFERS, BufferPort


def configure_layout(*, lines):
    """A circular buffer gets its place and becomes empty."""
    return data.StructLayout({"valid": 1, "buffer": range(BUFFERS), "base": range(lines),
                              "size": range(lines + 1)})


class CircularBuffers(wiring.Component):
    """Table of 32 circular buffers; serves the operands and the releases of all units.

    One acquire and one release are looked at in a cycle, each time of another port that asks, so
    an operand that holds is granted after at most ``ports`` cycles whoever else waits, and a
    release is taken after at most ``ports``. Lines released are seen by acquires one cycle later.
    After reset and ``clear`` no buffer is configured. Source: this project's choice.

    Parameters
    ----------
    lines : int
        Size of local memory [line].
    ports : int
        Units.

    Members
    -------
    units : In(BufferPort(lines=lines)).array(ports)
        The units. An operand is ``too_small`` if its buffer is not configured or has fewer lines
        than its wait or its release, or not more than its offset.
    configure : In(configure_layout(lines=lines))
        One cycle per buffer; base + size is at most ``lines``, the size not 0, and no unit holds
        an operand.
    clear : In(1)
        Forgets all buffers.
    """

    def __init__(self, *, lines, ports):
        self.lines, self.ports = lines, ports
        super().__init__({"units": In(BufferPort(lines=lines)).array(ports),
                          "configure": In(configure_layout(lines=lines)), "clear": In(1)})

    def elaborate(self, platform):
        m = Module()
        width = bits_for(self.lines)
        side = data.StructLayout({"pointer": range(self.lines), "taken": width})
        places = data.StructLayout({"base": range(self.lines), "size": width})
        m.submodules.places = place = memory.Memory(shape=places, depth=BUFFERS, init=[])
        m.submodules.acquired = acquired = memory.Memory(
            shape=data.ArrayLayout(side, 2), depth=BUFFERS, init=[])     # consumer, producer
        m.submodules.released = released = memory.Memory(
            shape=data.ArrayLayout(width, 2), depth=BUFFERS, init=[])
        configured = Signal(BUFFERS)
        place_write, acquired_write = place.write_port(), acquired.write_port()
        configure = self.configure
        m.d.comb += [place_write.en.eq(configure.valid), place_write.addr.eq(configure.buffer),
                     place_write.data.base.eq(configure.base),
                     place_write.data.size.eq(configure.size)]
        self._release(m, released)
        self._acquire(m, place.read_port(domain="comb"), acquired.read_port(domain="comb"),
                      released.read_port(domain="comb"), acquired_write, configured)
        with m.If(self.clear):
            m.d.sync += configured.eq(0)
        with m.Elif(configure.valid):
            m.d.sync += configured.bit_select(configure.buffer, 1).eq(1)
        return m

    def _release(self, m, released):
        """Counts of released lines, by the side that released them."""
        m.submodules.releases = turns = RoundRobin(self.ports)
        asked = Signal.like(self.units[0].release.payload)
        read, write = released.read_port(domain="comb"), released.write_port()
        m.d.comb += [
            turns.requests.eq(Cat(port.release.valid for port in self.units)),
            turns.ready.eq(1),
            asked.eq(one_of(turns.grant, [port.release.payload for port in self.units])),
            read.addr.eq(asked.buffer), write.addr.eq(asked.buffer),
            write.en.eq(turns.requests.any()), write.data.eq(read.data),
            write.data[asked.producer].eq(read.data[asked.producer] + asked.count),
        ]
        for index, port in enumerate(self.units):
            m.d.comb += port.release.ready.eq(turns.grant[index])
        with m.If(self.configure.valid):
            m.d.comb += [write.en.eq(1), write.addr.eq(self.configure.buffer), write.data.eq(0)]

    def _acquire(self, m, place, acquired, released, write, configured):
        """One operand a cycle against the state of its buffer."""
        m.submodules.acquires = turns = RoundRobin(self.ports)
        width = bits_for(self.lines)
        asked = Signal.like(self.units[0].acquire.payload)
        m.d.comb += [
            turns.requests.eq(Cat(port.acquire.valid for port in self.units)),
            turns.ready.eq(1),      # one that has to wait lets the next try
            asked.eq(one_of(turns.grant, [port.acquire.payload for port in self.units])),
            place.addr.eq(asked.buffer), acquired.addr.eq(asked.buffer),
            released.addr.eq(asked.buffer), write.addr.eq(asked.buffer),
        ]
        size, base = place.data.size, place.data.base
        mine = Signal.like(acquired.data[0])
        available, start, after = Signal(width), Signal(width + 1), Signal(width + 1)
        fits, holds, served = Signal(), Signal(), Signal()
        m.d.comb += [
            mine.eq(acquired.data[asked.producer]),
            available.eq(released.data[~asked.producer] - mine.taken
                         + Mux(asked.producer, size, 0)),
            fits.eq(configured.bit_select(asked.buffer, 1) & (asked.wait <= size)
                    & (asked.release <= size) & (asked.offset < size)),
            holds.eq((asked.wait <= available) & (asked.release <= available)),
            served.eq(turns.requests.any() & fits & holds),
            start.eq(mine.pointer + asked.offset[:width]),
            after.eq(mine.pointer + asked.release[:width]),
            write.en.eq(served), write.data.eq(acquired.data),
            write.data[asked.producer].pointer.eq(after - Mux(after >= size, size, 0)),
            write.data[asked.producer].taken.eq(mine.taken + asked.release),
        ]
        with m.If(self.configure.valid):
            m.d.comb += [write.en.eq(1), write.addr.eq(self.configure.buffer), write.data.eq(0)]
        grant = Signal.like(self.units[0].grant)
        m.d.comb += [grant.start.eq(base + start - Mux(start >= size, size, 0)),
                     grant.base.eq(base), grant.limit.eq(base + size)]
        for index, port in enumerate(self.units):
            m.d.comb += [port.acquire.ready.eq(turns.grant[index] & (holds | ~fits)),
                         port.too_small.eq(~fits), port.grant.eq(grant)]
