"""Where the time of memories and meshes went, from the counters that each of them keeps."""
from dataclasses import dataclass

import numpy as np

from host.isa import LINE, Region, address

CLOCKS = ("reading", "writing", "refresh", "turnaround", "row", "group", "idle", "ecc")
EVENTS = ("activates", "precharges", "bank_refreshes", "refreshes", "corrected", "uncorrectable",
          "conflicts")


@dataclass(frozen=True)
class HbmCounts:
    """Counters of every pseudo-channel, [die, channel, counter], modulo 2^32.

    Counters: all clocks of the HBM, clocks by use or cause (``CLOCKS``), ``EVENTS``.
    """

    values: np.ndarray

    @classmethod
    def read(cls, device):
        """What the counters are now; reading them takes simulated time."""
        count = device.configuration.hbm_channels
        lines = [device.read(address(die, Region.CHANNEL, 0), count * LINE, stream=die % 4)
                 for die in device.dies]
        return cls(np.stack(lines).view("<u4").reshape(len(lines), count, LINE // 4).astype(int))

    def since(self, before):
        """What was counted from ``before`` to these."""
        return HbmCounts((self.values - before.values) % (1 << 32))

    def share(self, name):
        """Share of the clocks that went to this use or cause, over all pseudo-channels."""
        return float(self[name].sum() / self.values[..., 0].sum())

    def __getitem__(self, name):
        return self.values[..., 1 + (CLOCKS + EVENTS).index(name)]

    def metrics(self, prefix="hbm_"):
        """Shares of all clocks, and lines moved for each row that was opened."""
        shares = {f"{prefix}{name}_share": self.share(name) for name in CLOCKS}
        bursts = self["reading"].sum() + self["writing"].sum()
        opened = max(int(self["activates"].sum()), 1)
        return shares | {f"{prefix}lines_of_an_activate": float(bursts / 4 / opened)}

    def rows(self):
        """Peak, achieved and losses of each pseudo-channel: (name, shares by name)."""
        for die, channels in enumerate(self.values):
            for channel, counts in enumerate(channels):
                yield f"die {die} channel {channel}", {
                    name: counts[1 + at] / counts[0] for at, name in enumerate(CLOCKS)}


MESHES = ("requests", "responses")
NOC_LINE = 6        # of the control registers, see docs/programming-model.md
CARRIED = ("hops", "delivered", "blocked", "conflicts", "lost", "busiest")


@dataclass(frozen=True)
class NocCounts:
    """Counters of the meshes of every die, modulo 2^32.

    Parameters
    ----------
    cycles : np.ndarray
        Time [die].
    values : np.ndarray
        ``CARRIED`` of ``MESHES`` [die, mesh, counter].
    links, outputs : np.ndarray
        How many each mesh has [die, mesh].
    """

    cycles: np.ndarray
    values: np.ndarray
    links: np.ndarray
    outputs: np.ndarray

    @classmethod
    def read(cls, device):
        """What the counters are now; reading them takes simulated time."""
        lines = np.stack([
            device.read(address(die, Region.CONTROL, NOC_LINE * LINE), LINE).view("<u4")
            for die in device.dies]).astype(int)
        meshes = lines[:, 1:15].reshape(len(lines), len(MESHES), len(CARRIED) + 1)
        sizes = meshes[..., -1]
        return cls(lines[:, 0], meshes[..., :-1], sizes & 0xffff, sizes >> 16)

    def since(self, before):
        """What was counted from ``before`` to these; of the busiest link, at least."""
        return NocCounts((self.cycles - before.cycles) % (1 << 32),
                         (self.values - before.values) % (1 << 32), self.links, self.outputs)

    def __getitem__(self, name):
        return self.values[..., CARRIED.index(name)]

    def metrics(self):
        """Shares of the time of all outputs, and of that of the links between routers.

        An output ``carried`` a packet in a cycle, or was ``blocked`` with one, or ``idle``.
        """
        found, time = {}, self.cycles[:, None]
        whole = (self.outputs * time).sum(0)
        carried = (self["hops"] + self["delivered"]).sum(0) / whole
        blocked = self["blocked"].sum(0) / whole
        links = self["hops"].sum(0) / (self.links * time).sum(0)
        for at, mesh in enumerate(MESHES):
            found |= {f"noc_{mesh}_carried_share": float(carried[at]),
                      f"noc_{mesh}_blocked_share": float(blocked[at]),
                      f"noc_{mesh}_idle_share": float(1 - carried[at] - blocked[at]),
                      f"noc_{mesh}_link_use": float(links[at]),
                      f"noc_{mesh}_busiest_link_use": float(
                          (self["busiest"][:, at] / self.cycles).max())}
        return found


@dataclass(frozen=True)
class Counts:
    """What memories and meshes did."""

    hbm: HbmCounts
    noc: NocCounts

    @classmethod
    def read(cls, device):
        """What the counters are now; reading them takes simulated time."""
        return cls(HbmCounts.read(device), NocCounts.read(device))

    def since(self, before):
        """What was counted from ``before`` to these."""
        return Counts(self.hbm.since(before.hbm), self.noc.since(before.noc))

    def metrics(self):
        """Shares of the time of all, see :class:`HbmCounts` and :class:`NocCounts`."""
        return self.hbm.metrics() | self.noc.metrics()
