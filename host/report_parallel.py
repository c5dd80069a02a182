"""What a person sees of a tensor-parallel layer: where the time of each rank went."""
from pathlib import Path

from rich.console import Console
from rich.table import Table

from host.bench.tp import PARTS, union
from host.report import number

COLOURS = {"compute": "#1a73c0", "communication": "#d98324"}


def print_parallel(report, console=None):
    """Print the report of ``mxlet run tp``."""
    console = console or Console()
    m, c = report.outcome.metrics, report.outcome.config
    table = Table(title=f"Cycles of each rank, of {m['cycles']:,.0f} from the first command to the "
                        f"last end", title_justify="left")
    table.add_column("rank")
    for name in PARTS:
        table.add_column(name, justify="right")
    for rank, each in enumerate(report.parts):
        table.add_row(str(rank), *(f"{n:,.0f}" for n in each))
    table.add_section()
    table.add_row("mean", *(f"{m[f'{name}_cycles']:,.0f}" for name in PARTS))
    table.add_row("share", *(f"{m[f'{name}_cycles'] / m['cycles']:.1%}" for name in PARTS))
    console.print(table)
    console.print("compute: a PE runs a program; communication: an all-reduce is under way; "
                  "overlapped: both; of each die, mean of a rank's dies", highlight=False)
    console.print(f"layer: {c['sentences']} x {c['tokens']} tokens, width {c['width']}, "
                  f"{c['heads']} heads, inner width {c['inner']}; weights {c['weights']}, partial "
                  f"sums {c['sums']}, {c['pieces']} pieces a die", highlight=False)
    console.print(f"cycles: {m['cycles']:,.0f} on {c['ranks']} packages, "
                  f"{m['cycles_one_package']:,.0f} on one: {m['speedup']:.2f} times as fast; "
                  f"{m['communication_hidden']:.1%} of the communication is overlapped",
                  highlight=False)
    console.print(f"against float64: largest error {number(m['max_abs_error'])}, least cosine of a "
                  f"token {m['min_cosine']:.5f}", highlight=False)
    for name, text in (("bit_exact", "bit-exact on every rank"),
                       ("same_as_one_package", "same bits as one package"),
                       ("all_reduces_between_their_stages", "all-reduces between their stages")):
        console.print(f"{text}: {'yes' if report.outcome.checks[name] else 'NO'}"
                      + (f", {m['elements_compared']:,.0f} elements compared"
                         if name == "bit_exact" else ""), highlight=False)


def picture(report, folder):
    """Draw what each die computed and communicated when; returns the file."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = report.window[0]
    figure, axis = plt.subplots(figsize=(13, 1.6 + 0.32 * len(report.lanes)),
                                layout="constrained")
    for at, lane in enumerate(report.lanes):
        for part, (name, colour) in enumerate(COLOURS.items()):
            runs = [(a - first, b - a) for a, b in union(getattr(lane, name))]
            axis.broken_barh(runs, (at + 0.08 + 0.42 * part, 0.42), facecolor=colour,
                             edgecolor="white", linewidth=0.5)
    axis.set_yticks([at + 0.5 for at in range(len(report.lanes))],
                    [f"rank {lane.rank} die {lane.die}" for lane in report.lanes])
    axis.set_ylim(len(report.lanes), 0)
    axis.set_xlabel("cycle")
    axis.set_title("Programs of PEs and all-reduces", loc="left")
    axis.legend(handles=[Patch(color=colour, label=name) for name, colour in COLOURS.items()],
                loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axis.spines[["top", "right"]].set_visible(False)
    path = folder / "ranks.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
