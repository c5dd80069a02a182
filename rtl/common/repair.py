"""Spare units of a column: any one bad unit is left out, and nobody sees a difference."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class ColumnRepair(wiring.Component):
    """Connects ``places`` to as many of ``places + 1`` units of equal ports, past a bad one.

    Units before the bad one serve the place of their own number, units after it the place before
    it; the bad one sees zeros, and what it says is not listened to. Without a bad unit the last one
    is the spare that is left out. While the column is not ``open``, all that is one bit wide, as
    valid and ready are, is low on both sides. Latency is 0 cycles whichever unit is bad, so that
    cycle counts do not depend on it. Source: one spare row with a repair in each column, as
    published for the MTIA 300 (ISCA 2026); the way is this project's choice.

    Parameters
    ----------
    signature : wiring.Signature
        Ports of a unit, as the unit sees them.
    places : int
        Units that are used. :exc:`ValueError` unless positive.

    Members
    -------
    unit<n> : In(signature)
        The units, of which there is one more than places.
    place<n> : Out(signature)
        The units that are used, in order.
    bad : In(range(places + 1))
        Number of the unit that is left out; must not change while any of them works.
    open : In(1)
        The units are listened to. What is bad is known only after reset, and until then speaks.
    """

    def __init__(self, signature, places):
        if not isinstance(places, int) or places < 1:
            raise ValueError(f"Places must be a positive integer, not {places!r}")
        self.places, self.unit = places, signature
        super().__init__({**{f"unit{n}": In(signature) for n in range(places + 1)},
                          **{f"place{n}": Out(signature) for n in range(places)},
                          "bad": In(range(places + 1)), "open": In(1)})

    def elaborate(self, platform):
        m = Module()
        units = [self._leaves(f"unit{n}") for n in range(self.places + 1)]
        places = [self._leaves(f"place{n}") for n in range(self.places)]
        for n, place in enumerate(places):
            later = self.bad <= n
            for path, (spoken, value) in place.items():
                if spoken:
                    m.d.comb += value.eq(self._opened(
                        Mux(later, units[n + 1][path][1], units[n][path][1]), value))
        for n, unit in enumerate(units):
            for path, (spoken, value) in unit.items():
                if spoken:
                    continue
                before = places[n - 1][path][1] if n else 0
                own = places[n][path][1] if n < self.places else 0
                m.d.comb += value.eq(self._opened(
                    Mux(self.bad > n, own, Mux(self.bad == n, 0, before)), value))
        return m

    def _opened(self, value, port):
        return value & self.open if len(port) == 1 else value

    def _leaves(self, name):
        """Ports by path: whether the unit drives it, and the value."""
        return {path: (member.flow is Out, Value.cast(value)) for path, member, value
                in self.unit.flatten(getattr(self, name))}
