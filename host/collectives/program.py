"""Programs of message engines from plans: names become addresses, entries lines of memory."""
from dataclasses import dataclass

import numpy as np

from host.collectives.order import ABSOLUTE
from host.collectives.spans import SCALES
from host.isa import LINE, Rule
from host.network_isa import ENTRY, EngineKind, program_header


@dataclass(frozen=True)
class Place:
    """Address of a buffer, and the key of the region that holds it."""

    address: int
    key: int = 0


class Binding:
    """Addresses of a plan.

    Parameters
    ----------
    plan : host.collectives.plan.Plan
    places : dict
        :class:`Place` of "input", "output", "input scales", "output scales", as far as the plan
        uses them, and of "staging". All on lines; scales above their elements, within 4 GiB.
    doorbells : dict
        By (peer, lane): addresses of the send and the receive doorbell of the queue pair.

    :exc:`ValueError` for a place or a queue pair that is missing or cannot be.
    """

    def __init__(self, plan, places, doorbells):
        self.plan, self.doorbells = plan, doorbells
        self.places = {ABSOLUTE: Place(0), **{k: v for k, v in places.items() if k != "staging"}}
        for name, place in places.items():
            if place.address % LINE:
                raise ValueError(f"{name} must start on a line, not at {place.address:#x}")
        if plan.staging_bytes:
            base = places["staging"]
            self.places |= {name: Place(base.address + at, base.key)
                            for name, at in plan.staging.items()}

    def _place(self, where):
        buffer, byte = where
        if buffer not in self.places:
            raise ValueError(f"Rank {self.plan.rank} needs the place of {buffer!r}")
        place = self.places[buffer]
        return place.address + byte, place.key

    def _scales(self, where, elements):
        """How far the scales of an operand are above its elements."""
        buffer, byte = where
        distance = self._place((buffer + SCALES, byte // 32))[0] - elements
        if not 0 <= distance < 1 << 32:
            raise ValueError(f"Scales of {buffer} must be above its elements, within 4 GiB")
        return distance

    def entries(self):
        """Arrays of work-queue entries (``host.network_isa.ENTRY``), one a subgraph."""
        return [self._lane(lane) for lane in self.plan.lanes]

    def _lane(self, lane):
        made = np.zeros(len(lane.steps), ENTRY)
        for entry, step in zip(made, lane.steps, strict=True):
            entry["kind"], entry["back"], entry["length"] = step.kind, step.back, step.length
            entry["flags"] = step.fence | step.rx_sync << 1 | step.sync << 2
            entry["codes"] = step.compare | step.format << 4
            entry["immediate"] = step.immediate
            if step.local:
                entry["local"], key = self._place(step.local)
            if step.queue:
                peer, receives = step.queue
                if (peer, lane.number) not in self.doorbells:
                    raise ValueError(f"Rank {self.plan.rank} needs a queue pair with rank {peer} "
                                     f"for lane {lane.number}")
                entry["third"] = self.doorbells[peer, lane.number][receives]
                entry["local_key"] = key
            if step.kind == EngineKind.WAIT:
                entry["local_key"] = step.mask
            if step.a:
                entry["remote"] = self._place(step.a)[0]
            if step.b:
                entry["third"] = self._place(step.b)[0]
            if step.scales:
                entry["rule"] = Rule.FLOOR
                for name, where, field in (("s", step.local, "local"), ("a", step.a, "remote"),
                                           ("b", step.b, "third")):
                    entry[f"scales_{name}"] = self._scales(where, int(entry[field]))
        return made


class EngineProgram:
    """A message engine's program in a block of memory, beside those of PEs.

    Give it to ``host.driver.Device.prepare`` as the program of number ``pes``.
    """

    def __init__(self, subgraphs):
        self.subgraphs = subgraphs

    def words(self, base=0):
        """[lines, 16] words of the program, if its first line stands at ``base``."""
        at, headers = base + LINE, []
        for entries in self.subgraphs:
            headers.append((at, len(entries)))
            at += LINE * len(entries)
        parts = [program_header(headers), *(entries.view(np.uint8).reshape(-1)
                                            for entries in self.subgraphs)]
        return np.concatenate(parts).view("<u4").reshape(-1, LINE // 4)
