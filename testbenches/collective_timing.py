"""How long programs of message engines take on simple hardware: links, sums, latencies.

Nothing is computed: it tells whether the conditions of the entries let messages and sums overlap.
Each rank has one link that sends frames of its queue pairs in turn, and one unit for sums.
"""
import heapq
from collections import deque
from dataclasses import dataclass
from itertools import count

UNDER_WAY = 16


@dataclass(frozen=True)
class Timing:
    """Cycles, and bytes a cycle. The defaults are this project's choice, of a simulated NIC."""

    link: float = 16.0
    sums: float = 32.0
    frame: int = 4096
    wire: int = 300         # from the last byte sent to the receive's completion at the engine
    answer: int = 300       # from there to the send's completion
    start: int = 10         # of an entry of a subgraph after the one before
    sum_latency: int = 150


class Rank:
    def __init__(self, run, plan):
        self.run, self.rank = run, plan.rank
        self.lanes = [Lane(self, lane) for lane in plan.lanes]
        self.sending, self.busy, self.sum_free, self.sent = deque(), False, 0.0, 0
        self.receives, self.early = {}, {}

    def send(self, lane, index, step):
        self.sending.append([lane, index, step, step.length])
        if not self.busy:
            self.frame()

    def frame(self):
        """Send the next frame; queue pairs take turns."""
        self.busy = bool(self.sending)
        if not self.busy:
            return
        message = self.sending.popleft()
        size = min(message[3], self.run.timing.frame)
        message[3] -= size
        self.sent += size
        behind = [m for m in self.sending if m[0] is message[0]]

        def done():
            if message[3]:
                if behind:      # a queue pair sends its messages in order
                    self.sending.insert(self.sending.index(behind[0]), message)
                else:
                    self.sending.append(message)
            else:
                lane, index, step, _ = message
                peer = self.run.ranks[step.queue[0]]
                self.run.after(self.run.timing.wire,
                               lambda: peer.arrive(self.rank, lane, index))
            self.frame()

        self.run.after(size / self.run.timing.link, done)

    def arrive(self, sender, lane, index):
        key = sender, lane.number
        if self.receives.get(key):
            own, at = self.receives[key].popleft()
            own.end(at)
            self.run.after(self.run.timing.answer, lambda: lane.end(index))
        else:
            self.run.early += 1
            self.early.setdefault(key, deque()).append((lane, index))

    def receive(self, lane, index, step):
        key = step.queue[0], lane.number
        self.receives.setdefault(key, deque()).append((lane, index))
        if self.early.get(key):
            self.arrive(key[0], *self.early[key].popleft())


class Lane:
    def __init__(self, rank, lane):
        self.rank, self.number, self.steps = rank, lane.number, lane.steps
        self.next, self.running, self.waiting = 0, set(), False

    def go(self):
        """Start the next entry if its conditions hold."""
        if self.waiting or self.next == len(self.steps) or len(self.running) >= UNDER_WAY:
            return
        step = self.steps[self.next]
        if (step.back and self.next - step.back in self.running
                or step.sync and self.running
                or any(self.steps[n].fence for n in self.running)
                or step.rx_sync and any(self.steps[n].kind.name == "RECV" for n in self.running)):
            return
        index, self.next, self.waiting = self.next, self.next + 1, True
        self.running.add(index)
        run, rank = self.rank.run, self.rank
        run.after(run.timing.start, self.again)
        match step.kind.name:
            case "SEND":
                rank.send(self, index, step)
            case "RECV":
                rank.receive(self, index, step)
            case "REDUCE" | "COPY":
                rank.sum_free = max(rank.sum_free, run.now) + step.length / run.timing.sums
                run.after(rank.sum_free - run.now + run.timing.sum_latency,
                          lambda: self.end(index))
            case _:
                run.after(run.timing.start, lambda: self.end(index))

    def again(self):
        self.waiting = False
        self.go()

    def end(self, index):
        self.running.discard(index)
        self.go()


class Run:
    """Run the plans of all ranks; ``cycles`` until the last has ended, ``early`` messages."""

    def __init__(self, plans, timing=None):
        self.timing, self.now, self.early = timing or Timing(), 0.0, 0
        self.events, self.order = [], count()
        self.ranks = [Rank(self, plan) for plan in plans]
        for rank in self.ranks:
            for lane in rank.lanes:
                lane.go()
        while self.events:
            self.now, _, event = heapq.heappop(self.events)
            event()
        self.cycles = self.now
        self.ended = all(lane.next == len(lane.steps) and not lane.running
                         for rank in self.ranks for lane in rank.lanes)

    def after(self, cycles, event):
        heapq.heappush(self.events, (self.now + cycles, next(self.order), event))
