"""What a person sees: the report of the main job, tables of figures, pictures."""
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from host.counters import STATES
from host.isa import Unit

NAMES = {Unit.DMA_IN: "DMA in", Unit.DMA_OUT: "DMA out", Unit.A_LOADER: "A loader",
         Unit.DOT: "dot product", Unit.REDUCTION: "reduction", Unit.SIMD: "SIMD",
         Unit.LAYOUT: "layout", Unit.SOFTMAX: "softmax"}


def outcome_table(outcome):
    """Metrics and checks of one outcome."""
    table = Table(title=f"{outcome.name} on {outcome.package}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in outcome.metrics.items():
        table.add_row(name, number(value))
    for name, value in outcome.checks.items():
        table.add_row(name, "yes" if value else "NO")
    return table


def number(value):
    """A figure as people read it."""
    value = float(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def print_embed(report, console=None):
    """Print the report of the main job."""
    console = console or Console()
    matrix = Table(title="Similarity of the sentences: package / FP32 model",
                   title_justify="left")
    matrix.add_column("")
    for i in range(len(report.texts)):
        matrix.add_column(str(i + 1), justify="right")
    for i, text in enumerate(report.texts):
        row = [f"{a:.3f} / {b:.3f}" for a, b in zip(report.similarity[i], report.reference[i],
                                                    strict=True)]
        matrix.add_row(f"{i + 1} {text[:44]}", *row)
    console.print(matrix)
    exact = Table(title="Bit-exact against the golden model", title_justify="left")
    for name in ("stage", "elements compared", "equal", "bit-exact"):
        exact.add_column(name, justify="left" if name == "stage" else "right")
    last = len(report.layers) - 1
    for i, (count, equal) in enumerate(report.layers):
        stage = "embedding" if i == 0 else "sentence vectors" if i == last else f"layer {i}"
        exact.add_row(stage, f"{count:,}", f"{equal:,}", "yes" if count == equal else "NO")
    console.print(exact)
    units = Table(title="Units of the PEs, share of the cycles of their programs",
                  title_justify="left")
    for name in ("unit", *STATES):
        units.add_column(name, justify="left" if name == "unit" else "right")
    for unit, name in NAMES.items():
        units.add_row(name, *(f"{report.totals.fraction(unit, s):.1%}" for s in STATES))
    console.print(units)
    print_figures(report, console)


def print_packages(reports, console=None):
    """Print the main job on several packages side by side; reports by package."""
    console = console or Console()
    first = next(iter(reports.values())).outcome.metrics["microseconds"]
    table = Table(title="The main job on each package", title_justify="left")
    table.add_column("")
    for name in reports:
        table.add_column(name, justify="right")
    m = {name: report.outcome.metrics for name, report in reports.items()}
    c = {name: report.outcome.config for name, report in reports.items()}
    for title, row in (
            ("compute dies x PEs", lambda n: f"{c[n]['dies']} x {c[n]['pes'] // c[n]['dies']}"),
            ("clock, MHz", lambda n: f"{c[n]['megahertz']:,}"),
            ("weights", lambda n: c[n]["weights"]),
            ("attention unit", lambda n: "yes" if c[n]["attention_unit"] else "no"),
            ("cycles", lambda n: f"{m[n]['cycles']:,}"),
            ("time, us", lambda n: f"{m[n]['microseconds']:,.1f}"),
            ("times as fast", lambda n: f"{first / m[n]['microseconds']:.2f}"),
            ("useful MACs a cycle", lambda n: f"{m[n]['useful_macs_per_cycle']:,.0f}"),
            ("dot product busy", lambda n: f"{m[n]['dot_busy']:.1%}"),
            ("least cosine to FP32", lambda n: f"{reports[n].cosines.min():.4f}"),
            ("elements compared", lambda n: f"{m[n]['elements_compared']:,}"),
            ("bit-exact", lambda n: "yes" if reports[n].outcome.passed else "NO")):
        table.add_row(title, *(row(name) for name in reports))
    console.print(table)


def print_figures(report, console):
    m, s = report.outcome.metrics, report.statistics
    cosines = " ".join(f"{c:.4f}" for c in report.cosines)
    console.print(f"cosine to FP32, by sentence: {cosines}")
    for name, count in s["bytes"].items():
        console.print(f"bytes over {name}: {count:,}")
    console.print(f"cycles: {m['cycles']:,.0f}   simulated: {m['simulated_khz']:.1f} kHz, "
                  f"{m['mac_evals_per_second'] / 1e6:.1f} million useful MACs a second")
    print_attention(report, console)
    exact = all(n == equal for n, equal in report.layers)
    console.print(f"bit-exact: {'yes' if exact else 'NO'}, {m['elements_compared']:,.0f} elements "
                  "compared")


def print_attention(report, console):
    """What the attention unit does for a layer: projections and attention alone, both ways."""
    attention = report.attention
    without = attention.phases[False].cycles
    text = (f"a layer's projections: {attention.projections:,} cycles; with attention "
            f"{without:,} by products and SIMD")
    if True in attention.phases:
        cycles = attention.phases[True].cycles
        text += (f", {cycles:,} by the attention unit: together {without / cycles:.2f} times as "
                 "fast")
        if cycles > attention.projections:      # else it costs nothing beside them
            text += f", what attention adds {attention.speedup:.2f} times"
    console.print(text)


def pictures(report, folder):
    """Draw the similarity matrices and the timeline; returns the files."""
    import matplotlib
    matplotlib.use("Agg")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [draw_similarity(report, folder / "similarity.png")]
    if report.timeline is not None:
        files.append(draw_timeline(report.timeline, folder / "timeline.png"))
    return files


def draw_packages(reports, folder):
    """Draw the time of the main job on each package; returns the file."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = [report.outcome.metrics for report in reports.values()]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, key, title in ((axes[0], "microseconds", "time of the main job [us]"),
                             (axes[1], "useful_macs_per_cycle", "useful MACs a cycle")):
        bars = axis.bar(list(reports), [m[key] for m in metrics], color="#1a73c0")
        axis.bar_label(bars, fmt="{:,.0f}")
        axis.set_title(title, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    path = folder / "packages.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_similarity(report, path):
    from matplotlib import pyplot as plt
    count = len(report.texts)
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.5 + 0.12 * count), layout="constrained")
    for axis, matrix, title in ((axes[0], report.similarity, "package, bit-exact co-simulation"),
                                (axes[1], report.reference, "FP32 model")):
        image = axis.imshow(matrix, vmin=-0.1, vmax=1, cmap="viridis")
        axis.set_title(title)
        axis.set_xticks(range(count), range(1, count + 1))
        axis.set_yticks(range(count), [f"{i + 1}" for i in range(count)])
        for i, j in np.ndindex(matrix.shape) if count <= 12 else ():
            axis.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8,
                      color="black" if matrix[i, j] > 0.6 else "white")
    axes[0].set_yticks(range(count), [f"{i + 1}  {t[:48]}" for i, t in enumerate(report.texts)])
    figure.colorbar(image, ax=axes, label="cosine")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_timeline(timeline, path, *, columns=1400):
    """One lane a unit and PE: colour tells whether it was busy, starved or blocked, and how much.

    ``timeline``: ``names`` of lanes and ``states``: [lane] arrays of (cycle, state) changes.
    """
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch
    lanes = [(name, changes) for name, changes in timeline.lanes if len(changes) > 1]
    colours = np.array([[1, 1, 1], [0.10, 0.45, 0.75], [0.95, 0.75, 0.30], [0.80, 0.30, 0.25]])
    image = np.ones((len(lanes), columns, 3))
    first, last = timeline.first, timeline.last
    edges = np.linspace(first, last, columns + 1)
    for row, (_, changes) in enumerate(lanes):
        cycles = np.array([first, *(c for c, _ in changes), last], float)
        states = np.array([0, *(s for _, s in changes), 0])
        shares = np.zeros((4, columns))
        for state in range(4):
            busy = np.concatenate([[0], np.cumsum(np.diff(cycles) * (states[:-1] == state))])
            shares[state] = np.diff(np.interp(edges, cycles, busy))
        shares /= np.maximum(shares.sum(0), 1e-9)
        image[row] = shares.T @ colours
    figure, axis = plt.subplots(figsize=(15, 1.5 + 0.16 * len(lanes)), layout="constrained")
    axis.imshow(image, aspect="auto", interpolation="nearest",
                extent=(first, last, len(lanes), 0))
    axis.set_yticks(np.arange(len(lanes)) + 0.5, [name for name, _ in lanes], fontsize=6)
    axis.set_xlabel("cycle")
    axis.set_title("What each unit did when", loc="left")
    axis.legend(handles=[Patch(color=colours[i], label=STATES[i - 1]) for i in (1, 2, 3)],
                loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
