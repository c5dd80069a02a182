"""All-reduces while the network loses, repeats, reorders and damages frames, and links go down."""
import numpy as np

from cosim.fabric import Fabric, Faults
from host.bench.ranks import Summands, open_system
from host.collectives import CollectiveError, Group
from host.driver import DeviceTimeout
from host.isa import Format
from host.outcome import Outcome

RANKS = 3
COUNT = 1 << 18         # elements on each rail
MANY = 3 << 20          # for frames that are hardly ever lost
FAULTS = {
    "none": Faults(), "loss_1e-4": Faults(loss=1e-4), "loss_1e-3": Faults(loss=1e-3),
    "loss_1e-2": Faults(loss=1e-2), "duplicates": Faults(duplicate=0.05),
    "reorder": Faults(reorder=0.05, reorder_cycles=2000), "corruption": Faults(corrupt=0.01),
    "all": Faults(loss=1e-2, duplicate=0.02, corrupt=0.01, reorder=0.02),
}
COUNTS = {"loss_1e-4": MANY}
HAPPENED = {"loss_1e-4": "lost", "loss_1e-3": "lost", "loss_1e-2": "lost",
            "duplicates": "duplicated", "reorder": "reordered", "corruption": "corrupted",
            "flap": "link_down", "restart": "restarted", "cut": "link_down"}
BREAK_AFTER, BREAK_CYCLES = 10_000, 20_000      # of links and switches, within an all-reduce
WATCHDOG = 2_000_000    # cycles without progress of a program, also of one whose peer is gone
SHORT = WATCHDOG // 10  # the same where a rank will not come back
TIMEOUT = 20_000_000
ENDED = {"cut", "stopped"}      # of these the ranks must say so


def attempt(group, rng, between=None, *, count=COUNT, **options):
    """One all-reduce on each rail. Returns "right", "wrong", "hung" or what an error says; cycles.

    ``between``: called when it has been launched; ``options`` are those of the collective.
    """
    parts = Summands(group, Format.BF16, count, rng)
    for device in group.devices:
        device.synchronize()
    handles = group.all_reduce(parts.buffers, algorithm="ring", **{"watchdog": WATCHDOG} | options)
    if between:
        between()
    cycles, errors = 0, []
    for handle in handles:
        try:
            cycles = max(cycles, handle.wait(TIMEOUT))
        except CollectiveError as error:
            errors.append(str(error))
        except DeviceTimeout:
            return "hung", 0
    if errors:
        found, cycles = errors[0], 0
    else:
        found = "right" if parts.summed("ring") else "wrong"
    parts.release()
    return found, cycles


def measure(system, fabric, rng, step=lambda at, name: None):
    """What came of each fault: by name a result, its cycles, what became of frames meanwhile."""
    group, found = Group(system), {}
    nics = sorted({port.number for rail in system.rails for port in rail.ports})
    places = [(rank, nic) for rank in range(len(system.devices)) for nic in nics]
    clock = system.devices[0].transport

    def tried(name, *arguments, **options):
        step(len(found), name)
        before = fabric.totals()
        result = attempt(group, rng, *arguments, **options)
        found[name] = (*result, {k: n - before[k] for k, n in fabric.totals().items()})

    def breaks(**cycles):
        for nic in nics:
            fabric.link_down(1, nic, at=clock.cycle + BREAK_AFTER, **cycles)

    for name, faults in FAULTS.items():
        for place in places:
            fabric.set_faults(*place, faults)
        tried(name, count=COUNTS.get(name, COUNT))
    for place in places:
        fabric.set_faults(*place, Faults())
    tried("flap", lambda: breaks(cycles=BREAK_CYCLES))
    tried("restart", lambda: fabric.restart(fabric.switches[0], at=clock.cycle + BREAK_AFTER,
                                            cycles=BREAK_CYCLES))
    tried("cut", breaks, watchdog=SHORT)
    for nic in nics:
        fabric.link_up(1, nic)
    tried("stopped", absent={len(group) - 1}, watchdog=SHORT)
    tried("afterwards")
    return found


def run(options):
    """On every rank the right bits or a clean error, whatever the network does.

    A link flaps, a switch restarts, a link is cut for good within an all-reduce; a rank never
    starts. ``<fault>_frames``: those to which it happened.
    """
    outcome, total = Outcome("faults", options.package), len(FAULTS) + 5
    with open_system(options, RANKS, Fabric()) as (cluster, system):
        found = measure(system, cluster.fabric, np.random.default_rng(0),
                        lambda at, name: options.step(at, total, name))
        frames = cluster.fabric.totals()
    options.step(total, total, "done")
    results = {name: result for name, (result, *_) in found.items()}
    outcome.metrics = {f"{name}_cycles": cycles for name, (_, cycles, _) in found.items() if cycles}
    outcome.metrics |= {f"{name}_frames": found[name][2][kind] for name, kind in HAPPENED.items()}
    outcome.metrics |= {f"frames_{name}": frames[name] for name in (
        "lost", "duplicated", "reordered", "corrupted", "link_down")}
    outcome.checks = {
        "never_wrong": "wrong" not in results.values(),
        "never_hangs": "hung" not in results.values(),
        "right_or_named": all((result == "right") != (name in ENDED) for name, result
                              in results.items()),
        "faults_happened": all(found[name][2][kind] for name, kind in HAPPENED.items()),
        "lost_ranks_are_named": all("rank" in results[name] for name in ENDED)}
    outcome.config = {"ranks": RANKS, "elements": COUNT, "elements_of_loss_1e-4": MANY,
                      "results": results}
    return outcome
