"""Which PEs take part in a read."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.noc.packets import MeshLayout, members_layout
from rtl.pe.interfaces import Group


class GroupMembers(wiring.Component):
    """Members of a PE's read: itself, or the PEs of its row, of its column, or all. Latency is 0.

    It is placed: bits of the members that are made of other bits would be a loop to a simulator
    that takes a vector for one signal.

    Parameters
    ----------
    layout : MeshLayout
        The mesh of the die.

    Members
    -------
    group : In(Group)
        Who reads with the PE.
    row, column : In(rows), In(columns)
        Place of the PE, one-hot.
    members : Out(members_layout(...))
        For :class:`rtl.noc.endpoints.Requester`.
    """

    def __init__(self, layout):
        if not isinstance(layout, MeshLayout):
            raise TypeError(f"Layout must be a MeshLayout, not {layout!r}")
        super().__init__({"group": In(Group), "row": In(layout.rows), "column": In(layout.columns),
                          "members": Out(members_layout(layout))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.members.multicast.eq(self.group != Group.ALONE),
            self.members.rows.eq(Mux(self.group == Group.ROW, self.row, ~0)),
            self.members.columns.eq(Mux(self.group == Group.COLUMN, self.column, ~0))]
        return m
