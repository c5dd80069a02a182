"""Traffic on a mesh alone: what is sent, what arrived, and what its links can carry at most."""
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cosim.build import compiler
from cosim.build.cache import cached, digest
from cosim.build.mesh import COUNTERS, build_mesh

__all__ = ["ALWAYS", "Flow", "Result", "bisection_bound", "build_mesh", "routing_bound", "run"]

FOLDER = Path(__file__).parent
NATIVE = [FOLDER.parent / "engine" / "native", FOLDER.parent / "devices"]
ALWAYS = None   # a load: the source always has a packet


@dataclass(frozen=True)
class Flow:
    """What a PE sends: chosen evenly from ``targets``, each a PE or a pair of masks (multicast).

    ``load`` in packets a cycle, up to 1, or ``ALWAYS``.
    """

    source: int
    targets: tuple
    load: float | None = ALWAYS


@dataclass(frozen=True)
class Result:
    """What was measured.

    ``sent``: packets generated; ``arrived``: deliveries; ``least``: those of the source with
    fewest; ``seconds``: of processor time in the model; ``latency``, ``latency_max``: from
    generation to delivery [cycle]; ``counters``: those of the mesh, by name.
    """

    cycles: int
    sent: int
    arrived: int
    least: int
    seconds: float
    latency: float
    latency_max: int
    counters: dict = field(default_factory=dict)


def program():
    """The traffic program, built once."""
    source = FOLDER / "traffic.cpp"
    flags = ["-std=c++20", "-O2", "-Wall", *(f"-I{folder}" for folder in NATIVE)]
    headers = sorted(p for folder in NATIVE for p in folder.glob("*.hpp"))

    def make(folder):
        compiler.run(["g++", *flags, source, "-o", "traffic", "-ldl"], folder)

    key = digest("traffic", flags[:3], compiler.identity(), source.read_text(),
                 *(p.read_text() for p in headers))
    return cached(f"traffic_{key}", make)[0] / "traffic"


def members(mesh, target):
    """PEs that a target names."""
    if isinstance(target, int):
        return [target]
    rows, columns = target
    return [row * mesh.layout.columns + column for row in range(mesh.layout.rows)
            for column in range(mesh.layout.columns) if rows >> row & 1 and columns >> column & 1]


def run(mesh, flows, *, cycles, warm_up=2000, seed=1, takes=None):
    """Simulate traffic; every delivery is checked: right PE, once, in order, none lost.

    Parameters
    ----------
    mesh : cosim.build.mesh.MeshModel
        Where.
    flows : list of Flow
        What is sent, at most one flow for each PE.
    cycles, warm_up : int
        What is measured, and what comes before [cycle].
    takes : dict from int to int
        PEs that take packets in fewer than 256 of 256 cycles, and in how many.

    :exc:`RuntimeError` if a delivery is wrong or missing.
    """
    pes, kinds = range(len(mesh.places)), {}
    for flow in flows:
        for target in flow.targets:
            kinds.setdefault(target, len(kinds))
    words = [mesh.model.library, warm_up, cycles, seed, mesh.bits, mesh.body, len(kinds)]
    for target in kinds:
        value = mesh.packet(target) if isinstance(target, int) else mesh.packet_for(*target)
        words += [f"{value >> 32 * i & 0xFFFFFFFF:x}" for i in range(-(-mesh.bits // 32))]
        words += [len(members(mesh, target)), *members(mesh, target)]
    words.append(len(pes))
    for pe in pes:
        words += [f"o_pe{pe}", (takes or {}).get(pe, 256)]
    words.append(len(flows))
    for flow in flows:
        load = 1 << 32 if flow.load is ALWAYS else min(int(flow.load * (1 << 32)), (1 << 32) - 1)
        words += [f"i_pe{flow.source}", load, len(flow.targets), *(kinds[t] for t in flow.targets)]
    done = subprocess.run([program()], input=" ".join(map(str, words)), text=True, check=False,
                          capture_output=True)
    if done.returncode:
        raise RuntimeError(f"The mesh failed: {done.stderr.strip() or done.returncode}")
    sent, arrived, least, seconds, latency, latest, *counters = done.stdout.split()
    return Result(cycles, int(sent), int(arrived), int(least), float(seconds),
                  int(latency) / max(int(arrived), 1), int(latest),
                  dict(zip(COUNTERS, map(int, counters), strict=True)))


def bisection_bound(rows, columns):
    """Packets a cycle and PE that no mesh exceeds, uniform to all others.

    The least of injection and of every cut between two rows or two columns: ``k`` PEs on one side
    send ``k (N - k) / (N - 1)`` of their packets over as many links as the cut has.
    """
    total, bound = rows * columns, 1.0
    for lines, across in ((columns, rows), (rows, columns)):
        for n in range(1, lines):
            inside = n * across
            bound = min(bound, across * (total - 1) / (inside * (total - inside)))
    return bound


def routing_bound(mesh, flows):
    """Packets a cycle and source at which X-then-Y routing fills some link, entry or exit."""
    loads = {}
    for flow in flows:
        loads["in", flow.source] = 1.0
        for target in flow.targets:
            part = 1 / len(flow.targets)
            (row, column), (end_row, end_column) = mesh.places[flow.source], mesh.places[target]
            path = [("out", target)]
            while column != end_column:
                step = 1 if end_column > column else -1
                path.append((row, column, row, column + step))
                column += step
            while row != end_row:
                step = 1 if end_row > row else -1
                path.append((row, column, row + step, column))
                row += step
            for link in path:
                loads[link] = loads.get(link, 0) + part
    return 1 / max(loads.values())
