"""Streams driven and watched once a clock: sources and sinks of packets for the mesh tests."""
import random


class Source:
    """Offers queued payloads on stream ``name`` with random gaps; holds what is stalled."""

    def __init__(self, dut, name, *, rate=1.0):
        self.valid, self.ready, self.payload = (
            getattr(dut, f"{name}__{field}") for field in ("valid", "ready", "payload"))
        self.rate, self.queue, self.offered, self.sent = rate, [], None, 0
        self.valid.value = 0

    def edge(self):
        """Call after each rising edge, before new values are driven; True if one was taken."""
        taken = self.offered is not None and bool(self.ready.value)
        if taken:
            self.offered, self.sent = None, self.sent + 1
            self.valid.value = 0
        if self.offered is None and self.queue and random.random() < self.rate:
            self.offered = self.queue.pop(0)
            self.valid.value, self.payload.value = 1, self.offered
        return taken


class Sink:
    """Takes payloads from stream ``name`` with random gaps; checks that a stalled one holds."""

    def __init__(self, dut, name, *, rate=1.0):
        self.valid, self.ready, self.payload = (
            getattr(dut, f"{name}__{field}") for field in ("valid", "ready", "payload"))
        self.name, self.rate, self.willing, self.stalled = name, rate, False, None
        self.ready.value = 0

    def edge(self):
        """Call after each rising edge; the payload that was taken, or None."""
        got = None
        if self.valid.value:
            # fields without a meaning may be unknown
            value = int(str(self.payload.value).replace("X", "0"), 2)
            assert self.stalled in (None, value), f"{self.name} changed while it was stalled"
            self.stalled = None if self.willing else value
            got = value if self.willing else None
        else:
            assert self.stalled is None, f"{self.name} was withdrawn while it was stalled"
        willing = random.random() < self.rate
        if willing != self.willing:
            self.ready.value = self.willing = willing
        return got

