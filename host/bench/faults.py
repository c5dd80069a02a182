"""All-reduces while the network loses, repeats, reorders and damages frames, and links go down."""
import numpy as np

from cosim.fabric import Fabric, Faults
from cosim.golden import collectives as golden
from host.bench.ranks import numbers, open_system, put, release, same
from host.collectives import CollectiveError, Group
from host.driver import DeviceTimeout
from host.isa import Format
from host.outcome import Outcome

RANKS = 3
COUNT = 20_001
FAULTS = {
    "none": Faults(), "loss_1e-4": Faults(loss=1e-4), "loss_1e-3": Faults(loss=1e-3),
    "loss_1e-2": Faults(loss=1e-2), "duplicates": Faults(duplicate=0.05),
    "reorder": Faults(reorder=0.05, reorder_cycles=2000), "corruption": Faults(corrupt=0.01),
    "all": Faults(loss=1e-2, duplicate=0.02, corrupt=0.01, reorder=0.02),
}
FLAP_AFTER, FLAP_CYCLES = 1500, 20_000
WATCHDOG = 2_000_000    # cycles without progress of a program, also of one whose peer is gone
TIMEOUT = 20_000_000


def attempt(group, rng, between=None):
    """One all-reduce. Returns "right", "wrong", "hung" or the message of an error, and cycles.

    ``between``: called when it has been launched.
    """
    die = group.system.rails[0].die
    x = [numbers(rng, Format.BF16, COUNT) for _ in group.ranks]
    buffers = [put(d, die, v) for d, v in zip(group.devices, x, strict=True)]
    handle, cycles = group.all_reduce(buffers, algorithm="ring", watchdog=WATCHDOG), 0
    if between:
        between()
    try:
        cycles = handle.wait(TIMEOUT)
    except CollectiveError as error:
        found = str(error)
    except DeviceTimeout:
        return "hung", 0
    else:
        want = golden.all_reduce(x, "ring")
        good = all(same(d, b, want) for d, b in zip(group.devices, buffers, strict=True))
        found = "right" if good else "wrong"
    release(group.devices, buffers)
    return found, cycles


def stopped(group, rng):
    """A rank that never starts: the others must say so. Its part is not launched."""
    die = group.system.rails[0].die
    buffers = [put(d, die, numbers(rng, Format.BF16, COUNT)) for d in group.devices]
    try:
        group.all_reduce(buffers, algorithm="ring", watchdog=WATCHDOG // 10,
                         absent={len(group) - 1}).wait(TIMEOUT)
    except CollectiveError as error:
        return str(error)
    except DeviceTimeout:
        return "hung"
    return "wrong"


def measure(system, fabric, rng, step=lambda at, name: None):
    """What came of each fault, and its cycles."""
    group, found = Group(system), {}
    nics = sorted({port.number for rail in system.rails for port in rail.ports})
    places = [(rank, nic) for rank in range(len(system.devices)) for nic in nics]
    for at, (name, faults) in enumerate(FAULTS.items()):
        step(at, name)
        for place in places:
            fabric.set_faults(*place, faults)
        found[name] = attempt(group, rng)
    for place in places:
        fabric.set_faults(*place, Faults())
    step(len(FAULTS), "a link goes down and comes back")

    def flap():
        for nic in nics:
            fabric.link_down(1, nic, cycles=FLAP_CYCLES)

    found["flap"] = attempt(group, rng, flap)
    step(len(FAULTS) + 1, "a rank is stopped")
    found["stopped"] = stopped(group, rng), 0
    found["afterwards"] = attempt(group, rng)
    return found


def run(options):
    """On every rank the right bits or a clean error, whatever the network does."""
    outcome, total = Outcome("faults", options.package), len(FAULTS) + 2
    with open_system(options, RANKS, Fabric()) as (cluster, system):
        found = measure(system, cluster.fabric, np.random.default_rng(0),
                        lambda at, name: options.step(at, total, name))
        frames = cluster.fabric.totals()
    options.step(total, total, "done")
    results = [result for result, _ in found.values()]
    outcome.metrics = {f"{name}_cycles": cycles for name, (_, cycles) in found.items() if cycles}
    outcome.metrics |= {f"frames_{name}": frames[name] for name in (
        "lost", "duplicated", "reordered", "corrupted", "link_down")}
    outcome.checks = {"never_wrong": "wrong" not in results, "never_hangs": "hung" not in results,
                      "right_without_faults": found["none"][0] == found["afterwards"][0] == "right",
                      "faults_happened": all(frames[name] for name in (
                          "lost", "duplicated", "reordered", "corrupted")),
                      "stopped_rank_is_named": "rank" in found["stopped"][0]}
    outcome.config = {"ranks": RANKS, "elements": COUNT,
                      "results": {name: result for name, (result, _) in found.items()}}
    return outcome
