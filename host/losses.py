"""Where the time of the HBM pseudo-channels went, from the counters that each of them keeps."""
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
