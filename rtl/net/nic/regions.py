"""Memory that queue pairs may touch."""
from amaranth import *
from amaranth.lib import data
from amaranth.lib.memory import Memory

from rtl.net.interfaces import region_layout
from rtl.pe.interfaces import ADDRESS_BITS


def stored_layout():
    """A region as the table keeps it."""
    return data.StructLayout({"key": 32, "domain": 8, "remote_read": 1, "remote_write": 1,
                              "base": ADDRESS_BITS, "length": ADDRESS_BITS})


class RegionTable:
    """The table of regions, with a read port for each of those who look.

    Parameters
    ----------
    m : Module
        Where it is put, as submodule ``regions``.
    depth : int
        Regions, a power of two: the lower bits of a key are the number of its line.
    readers : int
        Read ports; what stands at the address of one is on its data in the next cycle.
    """

    def __init__(self, m, *, depth, readers):
        m.submodules.regions = memory = Memory(shape=stored_layout(), depth=depth, init=[])
        self.depth, self.write = depth, memory.write_port()
        self.reads = [memory.read_port() for _ in range(readers)]

    def store(self, m, *, enable, index, line):
        """Store a line as the host writes it in the next cycle, if ``enable``."""
        region = data.View(region_layout(), line)
        m.d.comb += [self.write.en.eq(enable), self.write.addr.eq(index)]
        m.d.comb += [getattr(self.write.data, name).eq(getattr(region, name))
                     for name in stored_layout().members]


def allows(m, region, *, key, domain, address, length):
    """Whether the region ``region`` of the table holds so many bytes from ``address`` on.

    Returns a signal. ``length`` must be below 2**32.
    """
    end, limit = (Signal(ADDRESS_BITS + 1, name=name) for name in ("end", "limit"))
    m.d.comb += [end.eq(address + length), limit.eq(region.base + region.length)]
    good = Signal()
    m.d.comb += good.eq((key != 0) & (region.key == key) & (region.domain == domain)
                        & (address >= region.base) & (end <= limit)
                        & (address[ADDRESS_BITS:] == 0))
    return good
