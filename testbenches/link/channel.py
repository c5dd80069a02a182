"""Two ends of a link, and a channel between them that can hurt flits."""
import random
from collections import deque

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import RisingEdge

from cosim.golden.link import flit_fields
from rtl.link.interfaces import LinkPort, PhitPort
from rtl.link.link import D2dLink, link_counters_layout
from rtl.link.transmitter import LinkState


class LinkPair(wiring.Component):
    """Two ends ``a`` and ``b``; the channels between their pins are the testbench's."""

    def __init__(self, **parameters):
        self.parameters = tuple(parameters.items())
        end = {"port": In(LinkPort()), "phits": Out(PhitPort()),
               "counters": Out(link_counters_layout()), "state": Out(LinkState),
               "awake": Out(1)}
        super().__init__({f"{name}_{member}": flow for name in "ab"
                          for member, flow in end.items()})

    def elaborate(self, platform):
        m = Module()
        for name in "ab":
            m.submodules[name] = link = D2dLink(**dict(self.parameters))
            for member in ("port", "phits"):
                connect(m, flipped(getattr(self, f"{name}_{member}")), getattr(link, member))
            m.d.comb += [getattr(self, f"{name}_counters").eq(link.counters),
                         getattr(self, f"{name}_state").eq(link.state),
                         getattr(self, f"{name}_awake").eq(link.awake)]
        return m


class Channel:
    """One direction: phits arrive ``latency`` cycles later, unless ``fault`` changes them.

    ``fault(flit, fields)`` sees each whole flit as a list of four integers when its last phit is
    sent, and returns the list of what arrives in its place: flits of any number of phits, with
    None for a phit that is lost. A channel that has grown by that shrinks in pauses, of which it
    always leaves one cycle.
    """

    def __init__(self, dut, source, sink, *, latency=16, fault=None):
        self.dut, self.latency, self.fault = dut, latency, fault
        self.valid = getattr(dut, f"{source}_phits__tx_valid")
        self.data = getattr(dut, f"{source}_phits__tx_data")
        self.sink_valid = getattr(dut, f"{sink}_phits__rx_valid")
        self.sink_data = getattr(dut, f"{sink}_phits__rx_data")
        self.pipe = deque([None] * (latency - 1))
        self.part = []
        self.phits = self.flits = 0

    async def run(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.step()

    def step(self):
        if self.valid.value:
            self.phits += 1
            self.part.append(int(self.data.value))
            if len(self.part) == 4:
                self.flits += 1
                flit, self.part = self.part, []
                for _ in range(3):
                    self.pipe.pop()
                arriving = [flit]
                if self.fault:
                    raw = b"".join(phit.to_bytes(64, "little") for phit in flit)
                    arriving = self.fault(flit, flit_fields(raw))
                lost = [None] * 4
                self.pipe.extend(phit for part in arriving or [lost] for phit in part)
            else:
                self.pipe.append(self.part[-1])
        else:
            assert not self.part, "a flit was interrupted"
            self.pipe.append(None)
        arrived = self.pipe.popleft()
        while len(self.pipe) > self.latency - 1 and arrived is None and self.pipe[0] is None:
            self.pipe.popleft()
        self.sink_valid.value = arrived is not None
        if arrived is not None:
            self.sink_data.value = arrived


def flipping(rate, *, bits=1, where=lambda fields: True):
    """Flips ``bits`` random bits of a share ``rate`` of the flits that ``where`` selects."""
    def fault(flit, fields):
        if where(fields) and random.random() < rate:
            flit = list(flit)
            for _ in range(bits):
                flit[random.randrange(4)] ^= 1 << random.randrange(512)
        return [flit]
    return fault


def losing(rate, *, phits=4, where=lambda fields: True):
    """Loses ``phits`` random phits of a share ``rate`` of the flits."""
    def fault(flit, fields):
        if where(fields) and random.random() < rate:
            gone = random.sample(range(4), phits)
            return [[None if n in gone else phit for n, phit in enumerate(flit)]]
        return [flit]
    return fault


def repeating(rate, *, held=1):
    """Delivers a share ``rate`` of the flits again, ``held`` flits later: stale ones."""
    waiting = deque()

    def fault(flit, fields):
        arriving = [flit]
        if waiting and waiting[0][0] <= 0:
            arriving.append(waiting.popleft()[1])
        for entry in waiting:
            entry[0] -= 1
        if random.random() < rate:
            waiting.append([held, list(flit)])
        return arriving
    return fault


def swapping(rate):
    """Exchanges a share ``rate`` of the flits with the next one."""
    waiting = []

    def fault(flit, fields):
        if waiting:
            return [flit, waiting.pop()]
        if random.random() < rate:
            waiting.append(flit)
            return []
        return [flit]
    return fault


def chain(*faults):
    """Every fault in turn, on flits of four phits that the one before left whole."""
    def fault(flit, fields):
        flits = [flit]
        for one in faults:
            flits = [new for old in flits
                     for new in (one(old, fields) if None not in old else [old])]
        return flits
    return fault
