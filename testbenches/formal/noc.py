"""Proofs of the mesh: what enters leaves at the right nodes, once, in order and in time."""
from unittest import mock

from amaranth import *
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import data

from rtl.common.clockgate import ClockGate
from rtl.noc.mesh import Mesh
from rtl.noc.packets import MeshLayout, members_layout, node_layout
from rtl.noc.router import Queue
from rtl.noc.shaper import LeakyBucket
from testbenches.twins import always


def stays(m, valid, ready, payload):
    """Assume that a stream keeps what was not taken."""
    stalled, before = Signal(), Signal.like(payload)
    m.d.sync += [stalled.eq(valid & ~ready), before.eq(payload)]
    m.d.comb += Assume(~stalled | (valid & (payload == before)))


class MeshProof(Elaboratable):
    """One packet among any others on a 2x2 mesh with queues of 2: nobody else carries its mark.

    Any node offers any packets in any cycles. The marked packet leaves at each of its targets once
    and nowhere else; with ``within`` and nodes that always take, that many cycles after it was
    taken it has left everywhere.
    """

    def __init__(self, *, within=0, multicast=False):
        self.within, self.multicast = within, multicast
        self.layout = MeshLayout(2, 2, ())
        widths = {"valid": 1, "target": 2, "marked": 1, "ready": 1,
                  "members": members_layout(self.layout).size}
        self.inputs = {(name, i): Signal(width, name=f"{name}{i}")
                       for name, width in widths.items() for i in range(4)}
        self.ports = list(self.inputs.values())

    def elaborate(self, platform):
        m = Module()
        layout, pes = self.layout, range(4)
        shape = data.StructLayout({"target": node_layout(), "marked": 1}
                                  | ({"members": members_layout(layout)} if self.multicast else {}))
        names = [f"pe{i}" for i in pes]
        mesh = Mesh(shape, layout, sources=names, targets=names, depth=2,
                    multicast=self.multicast)
        with mock.patch.object(ClockGate, "elaborate", always):     # one clock
            m.submodules.mesh = Fragment.get(mesh, None)
        m.d.comb += Assume(~ResetSignal("sync"))
        entered, wanted, left = Signal(), Signal(4), Signal(4)
        enters, leaves, wants = Signal(4), Signal(4), [Signal(4, name=f"wants{i}") for i in pes]
        for i, name in enumerate(names):
            stream, target = getattr(mesh, f"i_{name}"), self.inputs["target", i]
            packet = stream.payload
            m.d.comb += [stream.valid.eq(self.inputs["valid", i]),
                         packet.marked.eq(self.inputs["marked", i])]
            with m.Switch(target):
                for to, place in enumerate(layout.group("pe")):
                    with m.Case(to):
                        m.d.comb += packet.target.eq(place.const())
            alone = 1 << target
            if self.multicast:
                members = packet.members
                m.d.comb += [members.eq(self.inputs["members", i]),
                             Assume(members.rows.any() & members.columns.any())]
                among = Cat(members.rows[to // 2] & members.columns[to % 2] for to in pes)
                alone = Mux(members.multicast, among, alone)
            m.d.comb += wants[i].eq(alone)
            stays(m, stream.valid, stream.ready, packet.as_value())
            m.d.comb += [enters[i].eq(stream.valid & stream.ready & packet.marked),
                         Assume(~(stream.valid & packet.marked & entered))]
            out = getattr(mesh, f"o_{name}")
            m.d.comb += [out.ready.eq(1 if self.within else self.inputs["ready", i]),
                         leaves[i].eq(out.valid & out.ready & out.payload.marked)]
        offered = Cat(getattr(mesh, f"i_{n}").valid & getattr(mesh, f"i_{n}").payload.marked
                      for n in names)
        m.d.comb += Assume((offered & (offered - 1)) == 0)
        with m.If(enters.any()):
            m.d.sync += entered.eq(1)
            for i in pes:
                with m.If(enters[i]):
                    m.d.sync += wanted.eq(wants[i])
        m.d.sync += left.eq(left | leaves)
        m.d.comb += [Assert((leaves & ~wanted) == 0, "a packet left where nobody wants it"),
                     Assert((leaves & left) == 0, "a packet left twice"),
                     Cover(entered & (left == wanted))]
        if self.within:
            age = Signal(range(self.within + 1))
            with m.If(entered & (age != self.within)):
                m.d.sync += age.eq(age + 1)
            m.d.comb += Assert((age != self.within) | (left == wanted), "a packet is late")
        return m


class QueueProof(Elaboratable):
    """Slots of a queue are given in turn, none twice; never more than ``depth``; order is kept."""

    def __init__(self, *, depth):
        self.depth, self.queue = depth, Queue(depth=depth, ways=2, multicast=True)
        self.ports = [Signal(name="push"), Signal(name="pop"),
                      Signal(self.queue.i.shape().size, name="value"), Signal(name="choose")]

    def elaborate(self, platform):
        m = Module()
        queue, (push, pop, value, choose) = self.queue, self.ports
        m.submodules.queue = queue
        level, ahead, mine, slot = Signal(4), Signal(4), Signal(len(value)), Signal(2)
        follows = Signal()
        m.d.comb += [Assume(~ResetSignal("sync")), queue.push.eq(push & ~queue.full),
                     queue.pop.eq(pop & queue.valid), queue.i.eq(value)]
        m.d.sync += level.eq(level + queue.push - queue.pop)
        # one packet is followed: how many are before it, what it is, where it is kept
        with m.If(queue.push & choose & ~follows):
            m.d.sync += [follows.eq(1), mine.eq(value), slot.eq(queue.write),
                         ahead.eq(level - queue.pop)]
        with m.Elif(follows & queue.pop):
            m.d.sync += [ahead.eq(ahead - 1), follows.eq(ahead != 0)]
        first, last, bits = queue.first, queue.last, len(queue.first)
        kept = queue.records.read_port(domain="comb")
        m.d.comb += kept.addr.eq(slot)
        m.d.comb += [
            Assert(level <= self.depth), Assert(queue.valid == (level != 0)),
            Assert(queue.full == (level == self.depth)),
            Assert((last - first)[:bits] == level),
            Assert(~follows | (ahead < level)),
            Assert(~follows | (kept.data.as_value() == mine)),
            Assert(~follows | (slot == (first + ahead)[:bits - 1])),
            Assert(~(follows & (ahead == 0)) | ((queue.o.as_value() == mine)
                                                & (queue.read == slot))),
            Assert(~(follows & queue.push) | (queue.write != slot)),
            Cover(follows & (ahead == self.depth - 1))]
        return m


class BucketProof(Elaboratable):
    """The permit stays until it is spent while rate and burst stay; the level keeps its limit."""

    def __init__(self):
        self.ports = [Signal(9, name="rate"), Signal(8, name="burst"), Signal(name="spend")]

    def elaborate(self, platform):
        m = Module()
        m.submodules.bucket = bucket = LeakyBucket()
        rate, burst, spend = self.ports
        old, permitted = Signal(17), Signal()
        m.d.comb += [Assume(~ResetSignal("sync")), Assume(rate <= 256), bucket.rate.eq(rate),
                     bucket.burst.eq(burst), bucket.spend.eq(spend & bucket.permit)]
        started = Signal()
        m.d.sync += [old.eq(Cat(rate, burst)), permitted.eq(bucket.permit & ~spend),
                     started.eq(1)]
        m.d.comb += [Assume(~started | (old == Cat(rate, burst))),
                     Assert(~permitted | bucket.permit, "a permit was withdrawn"),
                     Assert((rate == 0) | ~started
                            | (bucket.level >> 8 <= Mux(burst == 0, 1, burst))),
                     Cover(permitted & (rate == 100) & (burst == 1))]
        return m


PROOFS = {  # name: what is proved, how, cycles
    "queue_2": (lambda: QueueProof(depth=2), "prove", 3),
    "queue_3": (lambda: QueueProof(depth=3), "prove", 3),
    "queue_4": (lambda: QueueProof(depth=4), "prove", 3),
    "bucket": (BucketProof, "prove", 3),
    "mesh": (lambda: MeshProof(), "bmc", 9),
    "mesh_in_time": (lambda: MeshProof(within=8), "bmc", 11),
    "mesh_multicast": (lambda: MeshProof(within=8, multicast=True), "bmc", 11),
}
