"""Message engines and NICs of several nodes without time: what programs may do, step by step.

A node is a message engine with its memory and queue pairs. Which of the possible steps comes next
is random, from a seed: every order that docs/network.md allows can come. So a program that relies
on an order it did not ask for gives wrong bits for some seed; besides, two entries under way that
touch the same bytes, one of them writing, are reported as a race, whatever the bits. When nothing
can happen any more, each program that has not ended is told who waits for whom.
"""
import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from cosim.golden import near_memory
from cosim.golden.formats import MX_FORMATS, SPECS, Format, pack, unpack
from cosim.golden.message_nic import NAMES, RECV, QueuePair, Region, Request

LINE = 64
UNDER_WAY = 16      # entries of a subgraph
WAIT, SET, REDUCE, COPY, ARRIVE = 0x20, 0x21, 0x22, 0x23, 0x24
KINDS = NAMES | {WAIT: "WAIT", SET: "SET", REDUCE: "REDUCE", COPY: "COPY", ARRIVE: "ARRIVE"}
COMPARE = (lambda a, b: a == b, lambda a, b: a != b, lambda a, b: a < b, lambda a, b: a >= b)
DONE, BAD_FIELD, BAD_ADDRESS, WATCHDOG, NETWORK = 0, 2, 4, 5, 9
PACES = (0.03, 0.3, 1.0)


class BadAddress(Exception):
    """An access outside memory."""


class Memory:
    """Pieces of memory by the address of their first byte."""

    def __init__(self, pieces):
        self.pieces = dict(pieces)

    def read(self, at, count):
        if not count:
            return np.zeros(0, np.uint8)
        for base, data in self.pieces.items():
            if base <= at and at + count <= base + len(data):
                return data[at - base:at - base + count]
        raise BadAddress(f"{at:#x} to {at + count:#x} is outside memory")

    def write(self, at, data):
        self.read(at, len(data))[:] = data


@dataclass(frozen=True)
class Report:
    """How a program ended: a code as of a PE, and what a person would want to know."""

    code: int = DONE
    subgraph: int = 0
    entry: int = 0
    status: int = 0
    text: str = ""


@dataclass(eq=False)
class Running:
    """An entry under way; ``at``: bytes of a REDUCE or COPY that are done."""

    index: int
    kind: int
    fence: bool
    at: int = 0


@dataclass(eq=False)
class Subgraph:
    """A list of entries, as ``host.network_isa.ENTRY`` has them, and how far it is."""

    node: object
    number: int
    entries: object
    next: int = 0
    running: dict = field(default_factory=dict)
    pace: float = 1.0

    @property
    def ended(self):
        return self.next == len(self.entries) and not self.running

    def name(self, index):
        e = self.entries[index]
        kind = int(e["kind"])
        what = f"entry {index} ({KINDS.get(kind, kind)}"
        if kind in NAMES:
            pair, _ = self.node.bells.get(int(e["third"]), (None, None))
            what += f" of {int(e['length'])} bytes"
            if pair is not None and pair.peer is not None:
                what += f", queue pair {pair.number} with {pair.peer.node.name}"
        return what + ")"

    def blocked(self):
        """Why the next entry cannot start, or None."""
        e, flags = self.entries[self.next], int(self.entries[self.next]["flags"])
        fences = [r.index for r in self.running.values() if r.fence]
        before = self.next - int(e["back"])
        if fences:
            return f"waits for {self.name(fences[0])}, a fence"
        if len(self.running) >= UNDER_WAY:
            return f"waits for one of {UNDER_WAY} entries, the first {self.name(min(self.running))}"
        if e["back"] and before in self.running:
            return f"waits for {self.name(before)}"
        waits = [i for i, r in self.running.items() if flags & 4 or flags & 2 and r.kind == RECV]
        return f"waits for {self.name(waits[0])}" if waits else None

    def step(self, chance):
        """Start the next entry, or go on with one under way; False if nothing can be done."""
        own = [r for r in self.running.values() if r.kind not in NAMES]
        chance.shuffle(own)
        actions = [lambda r=r: self.node.go_on(self, r, chance) for r in own]
        if self.next < len(self.entries) and self.blocked() is None:
            actions.insert(chance.randrange(len(actions) + 1), self.start)
        return any(action() for action in actions)

    def start(self):
        index = self.next
        self.next += 1
        e = self.entries[index]
        self.running[index] = Running(index, int(e["kind"]), bool(e["flags"] & 1))
        self.node.begin(self, index, e)
        return True

    def end(self, index):
        self.node.release((self, index))
        del self.running[index]


class Node:
    """A message engine, its memory and its queue pairs. Made by :meth:`MessageSystem.node`.

    ``arrived``: called for ARRIVE, tells whether the PEs have come. ``starts``: of each kind.
    """

    def __init__(self, system, name, memory):
        self.system, self.name, self.memory = system, name, Memory(memory)
        self.regions, self.bells, self.touched = {}, {}, {}
        self.subgraphs, self.report = [], Report()
        self.arrived, self.starts = lambda: True, Counter()

    def register(self, key, base, length, **rights):
        self.regions[key] = Region(base, length, **rights)

    def allows(self, key, at, count, domain, right=None):
        region = self.regions.get(key)
        return (region is not None and region.holds(at, count, domain)
                and (right is None or getattr(region, right)))

    def start(self, subgraphs):
        """Start a program: lists of entries."""
        self.report = Report()
        self.subgraphs = [Subgraph(self, n, entries, pace=self.system.chance.choice(PACES))
                          for n, entries in enumerate(subgraphs)]
        self.system.running.append(self)

    @property
    def ended(self):
        return self.report.code != DONE or all(s.ended for s in self.subgraphs)

    def fail(self, subgraph, index, code, text, status=0):
        """End the program with an error; the first one counts."""
        if self.report.code == DONE:
            self.report = Report(code, subgraph.number, index, status,
                                 f"{self.name}, subgraph {subgraph.number}, "
                                 f"{subgraph.name(index)}: {text}")
            self.touched.clear()

    def touch(self, owner, at, count, writes, what):
        """Note bytes in use until :meth:`release`, and any conflict with others in use."""
        if not count:
            return
        for other, used in self.touched.items():
            for start, end, written, name in used:
                if at < end and start < at + count and (writes or written) and other != owner:
                    self.system.races.append(f"{self.name}: {what} and {name} both use "
                                             f"{max(at, start):#x}")
        self.touched.setdefault(owner, []).append((at, at + count, writes, what))

    def release(self, owner):
        self.touched.pop(owner, None)

    def begin(self, subgraph, index, e):
        """What happens at the start of an entry."""
        kind, length = int(e["kind"]), int(e["length"])
        local, remote, third = (int(e[name]) for name in ("local", "remote", "third"))
        owner, what = (subgraph, index), f"subgraph {subgraph.number} {subgraph.name(index)}"
        self.starts[kind] += 1
        if kind in NAMES:
            pair, receives = self.bells.get(third, (None, None))
            if pair is None or receives != (kind == RECV):
                self.fail(subgraph, index, BAD_ADDRESS, f"{third:#x} is no such doorbell")
                return
            self.touch(owner, local, length, kind in (RECV, 4), what)
            pair.post(Request(kind, length, local, int(e["local_key"]),
                              lambda status: self.ends(subgraph, index, status),
                              remote, int(e["remote_key"]), int(e["immediate"])))
        elif kind in (REDUCE, COPY):
            self._begin_sum(subgraph, index, e, owner, what)
        elif kind not in KINDS:
            self.fail(subgraph, index, BAD_FIELD, f"kind {kind} is unknown")

    def _begin_sum(self, subgraph, index, e, owner, what):
        length, format = int(e["length"]), int(e["codes"]) >> 4
        places = [int(e["local"]), int(e["remote"]), int(e["third"])][:3 - (e["kind"] == COPY)]
        mx = e["kind"] == REDUCE and format in MX_FORMATS
        scales = [int(e[f"scales_{name}"]) for name in "sab"]
        unit = 32 if mx else SPECS[Format(format)].bits // 8 if e["kind"] == REDUCE else 1
        aligned = [*places, *(p + s for p, s in zip(places, scales, strict=False))] if mx else [
            places[0]]
        if any(at % LINE for at in aligned) or length % unit or format == Format.E2M1:
            self.fail(subgraph, index, BAD_FIELD, "an address, length or format that cannot be")
            return
        for n, at in enumerate(places):
            if n and at != places[0] and abs(at - places[0]) < length:
                self.fail(subgraph, index, BAD_FIELD, "S overlaps A or B")
                return
            self.touch(owner, at, length, n == 0, what)
            if mx:
                self.touch(owner, at + scales[n], length // 32, n == 0, what + ", its scales")

    def ends(self, subgraph, index, status):
        """A work request has ended."""
        if self.report.code == DONE and index in subgraph.running:
            if status:
                self.fail(subgraph, index, NETWORK, f"ended with status {status}", status)
            else:
                subgraph.end(index)

    def go_on(self, subgraph, entry, chance):
        """A step of an entry that is no NIC's; False if it waits."""
        e = subgraph.entries[entry.index]
        local, length = int(e["local"]), int(e["length"])
        try:
            if entry.kind == WAIT:
                word = int(self.memory.read(local, 4).view("<u4")[0]) & int(e["local_key"])
                if not COMPARE[int(e["codes"]) & 15](word, int(e["immediate"])):
                    return False
            elif entry.kind == SET:
                self.memory.write(local, np.array([e["immediate"]], "<u4").view(np.uint8))
            elif entry.kind == ARRIVE:
                if not self.arrived():
                    return False
            elif entry.at < length:
                count = min(LINE * chance.choice((1, 2, 8, 64)), length - entry.at)
                self._sum(e, entry.at, count)
                entry.at += count
            if entry.kind not in (REDUCE, COPY) or entry.at == length:
                subgraph.end(entry.index)
        except BadAddress as error:
            self.fail(subgraph, entry.index, BAD_ADDRESS, str(error))
        return True

    def _sum(self, e, at, count):
        s, a, b = (int(e[name]) + at for name in ("local", "remote", "third"))
        first = self.memory.read(a, count)
        if e["kind"] == COPY:
            self.memory.write(s, first.copy())
            return
        format = Format(int(e["codes"]) >> 4)
        second = self.memory.read(b, count)
        if format not in MX_FORMATS:
            self.memory.write(s, pack(format, near_memory.add(
                unpack(format, first), unpack(format, second), format)))
            return
        scale = [int(e[n]) + int(e[f"scales_{x}"]) + at // 32 for x, n in
                 (("s", "local"), ("a", "remote"), ("b", "third"))]
        codes, scales = near_memory.add_mx(
            first, self.memory.read(scale[1], count // 32), second,
            self.memory.read(scale[2], count // 32), format, int(e["rule"]))
        self.memory.write(s, codes)
        self.memory.write(scale[0], scales)


class MessageSystem:
    """Nodes and their connections. ``races``: sentences, of all that was run."""

    def __init__(self, *, seed=0, frame_bytes=4096):
        self.chance, self.frame_bytes = random.Random(seed), frame_bytes
        self.nodes, self.running, self.awake, self.races = [], [], [], []

    def node(self, name, memory):
        """Add a node; ``memory``: arrays of bytes by address."""
        self.nodes.append(Node(self, name, memory))
        return self.nodes[-1]

    def join(self, a, b, bells_a, bells_b, *, numbers=(0, 0), domain=0):
        """Connect two nodes; ``bells``: addresses of the send and the receive doorbell of each."""
        ends = [QueuePair(node, number, self.frame_bytes, domain,
                          pace=self.chance.choice(PACES))
                for node, number in zip((a, b), numbers, strict=True)]
        for end, peer, bells in zip(ends, ends[::-1], (bells_a, bells_b), strict=True):
            end.peer = peer
            for at, receives in zip(bells, (False, True), strict=True):
                end.node.bells[at] = end, receives
        return ends

    def wake(self, pair):
        if pair not in self.awake:
            self.awake.append(pair)

    def run(self):
        """Run until all programs have ended or nothing can happen; reports by name of the node.

        A program that can never end is reported with the code of the watchdog.
        """
        quiet = False
        while not all(node.ended for node in self.running):
            agents = [s for node in self.running if not node.ended
                      for s in node.subgraphs if not s.ended] + self.awake
            self.chance.shuffle(agents)
            moved = False
            for agent in agents:
                if (quiet or self.chance.random() < agent.pace) and not self._dead(agent):
                    moved |= agent.step(self.chance)
            if not moved and quiet:
                self._stuck()
            quiet = not moved
            self.awake = [pair for pair in self.awake if not pair.idle]
        reports = {node.name: node.report for node in self.running}
        self.running = []
        return reports

    @staticmethod
    def _dead(agent):
        return isinstance(agent, Subgraph) and agent.node.report.code != DONE

    def _stuck(self):
        """Nothing can happen: the watchdogs end what is left."""
        for node in self.running:
            left = [s for s in node.subgraphs if not s.ended]
            if node.report.code == DONE and left:
                reasons = []
                for s in left:
                    reasons += [f"subgraph {s.number} {s.name(i)} has not ended"
                                for i in sorted(s.running)[:4]]
                    if s.next < len(s.entries):
                        reasons.append(f"subgraph {s.number} {s.name(s.next)} {s.blocked()}")
                first = min(left[0].running, default=left[0].next)
                node.fail(left[0], first, WATCHDOG, "nothing moves: " + "; ".join(reasons))
