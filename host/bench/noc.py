"""The mesh alone: how much of its links' peak it carries, at which latency, and multicast."""
from cosim import noc as network
from cosim.noc import ALWAYS, Flow, bisection_bound, build_mesh, routing_bound
from host.outcome import Outcome

LARGE = ((4, 4), (8, 8))
SMALL = ((2, 2), (2, 3), (1, 5))    # as in packages
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8)   # of the bound
STEP = 0.02
CYCLES = 20000


def uniform(mesh, load=ALWAYS):
    """Every PE to all others, evenly."""
    pes = range(len(mesh.places))
    return [Flow(pe, tuple(to for to in pes if to != pe), load) for pe in pes]


def patterns(mesh):
    """Other traffic by name, for a square mesh."""
    size = mesh.layout.rows
    grid = [(row, column) for row in range(size) for column in range(size)]
    hot = size * size // 2 + size // 2
    spread = uniform(mesh)
    return {
        "uniform": spread,
        "transpose": [Flow(r * size + c, (c * size + r,)) for r, c in grid if r != c],
        "neighbour": [Flow(r * size + c, (r * size + (c + 1) % size,)) for r, c in grid],
        # one in ten goes to one PE
        "hot_spot": [Flow(f.source, f.targets * 9 + (hot,) * (len(f.targets)))
                     for f in spread if f.source != hot]}


def saturation(mesh, bound):
    """The highest load, as a part of the bound, of which at least 99 % arrives in time."""
    best, load = 0.0, 0.80
    while load < 1:
        result = network.run(mesh, uniform(mesh, load * bound), cycles=CYCLES)
        if result.arrived < 0.99 * result.sent:
            break
        best = result.arrived / CYCLES / len(mesh.places) / bound
        load += STEP
    return best


def links(mesh):
    rows, columns = mesh.layout.router_rows, mesh.layout.router_columns
    return 2 * (rows * (columns - 1) + columns * (rows - 1))


def measure_large(size, metrics):
    """Saturation, latency by load, and where a full mesh's cycles went."""
    mesh, bound = build_mesh(*size, multicast=size == LARGE[0]), bisection_bound(*size)
    name = f"{size[0]}x{size[1]}"
    metrics[f"saturation_throughput_{name}"] = saturation(mesh, bound)
    for load in LOADS:
        result = network.run(mesh, uniform(mesh, load * bound), cycles=CYCLES)
        metrics[f"latency_{name}_at_{load * 100:.0f}_percent"] = result.latency
    full = network.run(mesh, uniform(mesh), cycles=CYCLES)
    metrics[f"bound_{name}"] = bound
    metrics[f"full_load_throughput_{name}"] = full.arrived / CYCLES / len(mesh.places) / bound
    metrics[f"full_load_least_source_{name}"] = full.least / CYCLES / bound
    metrics[f"full_load_latency_{name}"] = full.latency
    total = links(mesh) * CYCLES    # peak of a link: one packet a cycle
    metrics[f"link_use_mean_{name}"] = full.counters["hops"] / total
    metrics[f"link_use_busiest_{name}"] = full.counters["busiest"] / CYCLES
    outputs = (links(mesh) + len(mesh.places)) * CYCLES
    metrics[f"output_blocked_{name}"] = full.counters["blocked"] / outputs
    metrics[f"output_conflicts_{name}"] = full.counters["conflicts"] / outputs
    return mesh


def measure_patterns(mesh, metrics):
    """Sources that always have a packet [packet a cycle and source]."""
    for name, flows in patterns(mesh).items():
        result = network.run(mesh, flows, cycles=CYCLES)
        metrics[f"{name}_throughput"] = result.arrived / CYCLES / len(flows)
        # the source that gets least, beside what X-then-Y routing allows if all get the same
        metrics[f"{name}_least_source"] = result.least / CYCLES / routing_bound(mesh, flows)


def measure_multicast(mesh, metrics):
    """The busiest link's packets for as many lines, one by one and as multicasts."""
    size = mesh.layout.rows
    everything = (1 << size) - 1
    for name, rows, columns in (("column", everything, 1 << size - 1), ("all", everything,
                                                                       everything)):
        far = [r * size + c for r in range(size) for c in range(size)
               if columns >> c & 1 and r * size + c]
        alone = network.run(mesh, [Flow(0, tuple(far))], cycles=CYCLES)
        among = network.run(mesh, [Flow(0, ((rows, columns),))], cycles=CYCLES)
        got = len(far) + (1 if columns & 1 else 0)
        lines = alone.arrived / len(far), among.arrived / got
        metrics[f"multicast_{name}_fetch_reduction"] = (
            alone.counters["busiest"] / lines[0]) / (among.counters["busiest"] / lines[1])
        metrics[f"multicast_{name}_hops_reduction"] = (
            alone.counters["hops"] / lines[0]) / (among.counters["hops"] / lines[1])
        metrics[f"multicast_{name}_lines_per_cycle"] = lines[1] / CYCLES


def run(options):
    """Uniform random traffic on meshes of PEs: the part of the bisection bound that is carried.

    A delivery to a wrong PE, twice, out of order or never ends the measurement with an error.
    """
    outcome, metrics = Outcome("noc", options.package), {}
    steps = len(LARGE) + len(SMALL) + 1
    for i, size in enumerate(LARGE):
        options.step(i, steps, f"{size[0]}x{size[1]} mesh (the first time is a build of minutes)")
        mesh = measure_large(size, metrics)
        if i == 0:
            measure_patterns(mesh, metrics)
            measure_multicast(mesh, metrics)
    for i, size in enumerate(SMALL):
        options.step(len(LARGE) + i, steps, f"{size[0]}x{size[1]} mesh")
        mesh, bound = build_mesh(*size), bisection_bound(*size)
        metrics[f"saturation_throughput_{size[0]}x{size[1]}"] = saturation(mesh, bound)
    options.step(steps - 1, steps, "cost of simulation")
    mesh = build_mesh(2, 3, multicast=True, lines=True)
    busy = network.run(mesh, uniform(mesh), cycles=CYCLES)
    idle = network.run(mesh, uniform(mesh, 0.0), cycles=CYCLES)
    flits = busy.counters["hops"] + busy.counters["delivered"]
    metrics["simulation_ns_per_routed_flit"] = busy.seconds / flits * 1e9
    metrics["simulation_ns_per_idle_cycle"] = idle.seconds / CYCLES * 1e9
    outcome.metrics = {"saturation_throughput": min(
        metrics[f"saturation_throughput_{a}x{b}"] for a, b in LARGE)} | metrics
    outcome.checks = {
        "saturation": outcome.metrics["saturation_throughput"] >= 0.85,
        "multicast_once": metrics["multicast_column_fetch_reduction"] > LARGE[0][0] - 0.01}
    outcome.config = {"cycles": CYCLES, "depth": mesh.depth, "body_bits": 64}
    return outcome
