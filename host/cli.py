"""The command ``mxlet``."""
import errno
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from host import transport
from host.boot import BootError, Settings
from host.collectives import CollectiveError
from host.driver import DeviceError, DeviceTimeout
from host.models.minilm import SENTENCES, ModelError
from host.outcome import Options
from host.parallel import LayerError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="An open, cycle-accurate model of an MTIA-class accelerator family.")
console = Console()
messages = Console(stderr=True)


class UserError(Exception):
    """A mistake of the user: one sentence that says what was wrong and what would be right."""


EVERY = "all"
Package = Annotated[str, typer.Option("--package", help="package to run on")]
Size = Annotated[str, typer.Option("--size", help="sim or full")]
Json = Annotated[str | None, typer.Option("--json", help="write JSON to this file, or - ")]
BadPes = Annotated[list[str] | None, typer.Option(
    "--bad-pe", help="DIE:ROW:COLUMN of a PE that does not work; the spare of its column is used")]


def layer_option(text, *names):
    """Option of a layer that is split over packages."""
    return Annotated[int | None, typer.Option(*names, help=f"tp: {text}")]


Threads = Annotated[int, typer.Option(help="worker threads of the co-simulation")]
Processes = Annotated[int, typer.Option(help="worker processes instead of threads")]


@contextmanager
def progress():
    """Progress callback: a bar on a terminal, plain lines elsewhere."""
    if not messages.is_terminal:
        last = [None, 0.0]

        def plain(done, total, text):
            now = time.monotonic()
            if text != last[0] or now - last[1] > 5 or done == total:
                messages.print(f"[{done}/{total}] {text}", markup=False, highlight=False)
                last[:] = text, now
        yield plain
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                  TimeElapsedColumn(), console=messages, transient=True) as bar:
        task = bar.add_task("start", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total,
                                                   description=text)


def options(package, threads, processes, callback, **more):
    if package not in transport.packages():
        raise UserError(f"Package {package!r} does not exist; there are "
                        f"{', '.join(transport.packages())}")
    if threads < 1 or processes < 0:
        raise UserError("Workers must be positive: --threads 1 or more, --processes 0 or more")
    return Options(package, threads, processes, progress=callback, **more)


def places(texts):
    """Die, row and column of each text such as 0:1:2."""
    found = []
    for text in texts or ():
        parts = text.split(":")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise UserError(f"Bad PE must be DIE:ROW:COLUMN, such as 0:1:2, not {text!r}")
        found.append(tuple(map(int, parts)))
    return tuple(found)


def sentences(file):
    """The sentences of a text file, one a line."""
    try:
        texts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"File {str(file)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"File {str(file)!r} is no UTF-8 text") from None
    if not texts:
        raise UserError(f"File {str(file)!r} has no sentence: give at least one line")
    return texts


def writable(*paths, folder=None):
    """Find out before the work whether its results can be written; makes missing folders."""
    for path in (*paths, folder):
        if path is None or str(path) == "-":
            continue
        place = path if path is folder else Path(path).parent
        try:
            place.mkdir(parents=True, exist_ok=True)
            if not os.access(place, os.W_OK) or (path is not folder and Path(path).is_dir()):
                raise PermissionError(errno.EACCES, "not writable")
        except OSError as error:
            raise UserError(f"Cannot write to {str(path)!r}: {error.strerror}") from None


def check_size(size):
    if size not in transport.sizes():
        raise UserError(f"Size must be one of {', '.join(transport.sizes())}, not {size!r}")


@app.command()
def packages(size: Size = "sim", json: Json = None):
    """Show the packages side by side: published, structure and peaks, measured."""
    check_size(size)
    writable(json)
    rows = transport.package_rows(size=size)
    if json:
        transport.write_packages(rows, json, size=size)
        return
    table = Table(title=f"Packages, {size} size", title_justify="left")
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right")
    keys = dict.fromkeys(key for row in rows.values() for key in row)
    for key in keys:
        table.add_row(key.replace("_", " "), *(
            f"{row[key]:,.6g}" if key in row else "-" for row in rows.values()))
    console.print(table)


@app.command()
def generate(top: Annotated[str, typer.Argument(help="a chiplet, or all")],
             out: Annotated[Path, typer.Option("-o", "--out", help="folder")],
             size: Size = "sim",
             check: Annotated[bool, typer.Option(help="lint with Verilator and Icarus")] = True):
    """Write the Verilog of a chiplet."""
    tops = transport.tops()
    names = list(tops) if top == "all" else [top]
    if names[0] not in tops:
        raise UserError(f"Top {top!r} does not exist; there are {', '.join(tops)}, all")
    check_size(size)
    writable(folder=out)
    failed = False
    for name in names:
        path, problems = transport.generate(name, out, size=size, check=check)
        console.print(f"{name}: {path}", highlight=False, soft_wrap=True)
        for problem in problems:
            failed = True
            messages.print(problem, markup=False)
    if failed:
        raise typer.Exit(1)


JOBS = ("embed", "tp")


@app.command()
def run(job: Annotated[str, typer.Argument(help=" or ".join(JOBS))],
        package: Annotated[str, typer.Option(
            "--package", help="package to run on, or all: side by side")] = "mtia450",
        text: Annotated[list[str] | None, typer.Option(help="a sentence; may be repeated")] = None,
        file: Annotated[Path | None, typer.Option(help="a file with a sentence a line")] = None,
        weights: Annotated[str, typer.Option(help="mxfp8 or mxfp4")] = "mxfp8",
        upload: Annotated[bool, typer.Option(
            help="copy the parameters through host interface and link")] = False,
        out: Annotated[Path | None, typer.Option(help="folder for pictures")] = None,
        waves: Annotated[Path | None, typer.Option(help="write waveforms (FST)")] = None,
        trace: Annotated[Path | None, typer.Option(help="write a Perfetto trace")] = None,
        bad_pe: BadPes = None, threads: Threads = 2, processes: Processes = 0,
        json: Json = None,
        ranks: layer_option("packages that a layer is split over, 2 to 8; default 8") = None,
        count: layer_option("sentences of its input", "--sentences") = None,
        tokens: layer_option("tokens of each sentence") = None,
        width: layer_option("width of a token") = None,
        heads: layer_option("heads of its attention") = None,
        inner: layer_option("width inside its feed-forward network") = None,
        pieces: layer_option("pieces that the tokens of a die are cut into") = None,
        sums: Annotated[str | None, typer.Option(
            help="tp: partial sums, bf16 or fp32; default bf16")] = None):
    """Run a job on co-simulated packages.

    embed: sentences through a trained transformer on one package. tp: a transformer layer split
    over several packages, and on one.
    """
    from host import report
    from host.bench import embed
    if job not in JOBS:
        raise UserError(f"Job {job!r} does not exist; there are {', '.join(JOBS)}")
    if weights not in embed.FORMATS:
        raise UserError(f"Weights must be {' or '.join(embed.FORMATS)}, not {weights!r}")
    layer = {"ranks": ranks, "sentences": count, "tokens": tokens, "width": width, "heads": heads,
             "inner": inner, "pieces": pieces, "sums": sums}
    if job == "tp":
        refuse("embed, not for tp", {"text": text, "file": file, "upload": upload})
        writable(waves, trace, json, folder=out)
        tensor_parallel(layer, weights, out, json, package, threads, processes, waves=waves,
                        trace=trace, settings=Settings(bad_pes=places(bad_pe)))
    refuse("tp, not for embed", layer)
    texts = list(text or [])
    if file is not None:
        texts += sentences(file)
    writable(waves, trace, json, folder=out)
    if package == EVERY:
        compare_packages(texts or SENTENCES, weights, not upload, out, threads, processes, json,
                         only_one=[waves, trace, bad_pe])
    with progress() as callback:
        result = embed.job(
            options(package, threads, processes, callback, waves=waves, trace=trace,
                    settings=Settings(bad_pes=places(bad_pe))),
            texts or SENTENCES, weights, resident=not upload, record=out is not None)
    if json != "-":
        report.print_embed(result, console)
    if out is not None:
        for path in report.pictures(result, out):
            messages.print(f"picture: {path}", highlight=False, soft_wrap=True)
    finish(result.outcome, json)


def refuse(whom, values):
    """An option that was given is for another job."""
    for name, value in values.items():
        if value is not None and value is not False:
            raise UserError(f"--{name} is for {whom}")


def tensor_parallel(layer, weights, out, json, package, threads, processes, **more):
    """A layer on several packages and on one; ends the command."""
    from host import report_parallel
    from host.bench import tp
    given = {name: value for name, value in layer.items() if value is not None}
    with progress() as callback:
        result = tp.job(options(package, threads, processes, callback, **more),
                        tp.job_of(package, weights, **given))
    if json != "-":
        report_parallel.print_parallel(result, console)
    if out is not None:
        messages.print(f"picture: {report_parallel.picture(result, out)}", highlight=False,
                       soft_wrap=True)
    finish(result.outcome, json)


def compare_packages(texts, weights, resident, out, threads, processes, json, *, only_one):
    """The main job on every package, side by side; ends the command."""
    from host import report
    from host.bench import embed
    if any(only_one):
        raise UserError("--waves, --trace and --bad-pe are for one package, not for all")
    with progress() as callback:
        reports, outcome = embed.across(
            options(transport.packages()[0], threads, processes, callback), texts, weights,
            resident=resident)
    if json != "-":
        report.print_packages(reports, console)
    if out is not None:
        messages.print(f"picture: {report.draw_packages(reports, out)}", highlight=False,
                       soft_wrap=True)
    finish(outcome, json)


@app.command()
def bench(name: Annotated[str | None, typer.Argument(help="a measurement, such as gemm")] = None,
          every: Annotated[bool, typer.Option("--all", help="all of them")] = False,
          package: Package = "mtia450", threads: Threads = 2, processes: Processes = 0,
          json: Json = None):
    """Measure; figures go to benchmarks/NAME.json as well when all are measured."""
    from host import figures
    from host.bench import BENCHES
    from host.report import outcome_table
    if not every and name not in BENCHES:
        raise UserError(f"Bench {name!r} does not exist; there are {', '.join(BENCHES)}")
    writable(json)
    passed = True
    for each in BENCHES if every else [name]:
        with progress() as callback:
            outcome = BENCHES[each](options(package, threads, processes, callback))
        outcome.config["commit"] = transport.commit()
        if json != "-":
            console.print(outcome_table(outcome))
        if every:
            outcome.write(Path("benchmarks") / f"{each}.json")
        elif json:
            outcome.write(json)
        passed &= outcome.passed
    if every:
        figures.update()
    raise typer.Exit(0 if passed else 1)


def finish(outcome, json):
    if json:
        outcome.write(json)
    raise typer.Exit(0 if outcome.passed else 1)


def main():
    """Run the command line; a user's mistake ends in one sentence and status 2."""
    try:
        app()
    except (UserError, ModelError, LayerError, BootError, transport.PackageError) as error:
        messages.print(f"mxlet: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except (DeviceError, DeviceTimeout, CollectiveError) as error:
        messages.print(f"mxlet: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
