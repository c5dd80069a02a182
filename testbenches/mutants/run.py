"""``make mutants``: changes the RTL in one place at a time, and sees that a test fails."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from testbenches.mutants import (
    attention,
    collectives,
    control,
    hbm,
    memory,
    net,
    nic,
    noc,
    peers,
)

MUTANTS = (*attention.MUTANTS, *collectives.MUTANTS, *control.MUTANTS, *hbm.MUTANTS,
           *memory.MUTANTS, *net.MUTANTS, *nic.MUTANTS, *noc.MUTANTS, *peers.MUTANTS)
ROOT = Path(__file__).parents[2]
FOLDERS = ("rtl", "chiplets", "cosim", "host", "testbenches")
LIMIT_SECONDS = 1800
FAILED = re.compile(r"cocotb\.regression .* failed$", re.MULTILINE)


def copied(folder, mutant=None):
    """A copy of the sources, changed by the mutant."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    if mutant:
        path = folder / mutant.path
        path.write_text(changed(path.read_text(), mutant))


def changed(text, mutant):
    """The text with the mutant in it; :exc:`ValueError` unless it fits in one place."""
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.path} must hold {mutant.old!r} once, "
                         f"not {text.count(mutant.old)} times")
    return text.replace(mutant.old, mutant.new)


def passes(test, mutant=None):
    """Whether a test passes, on Verilator, in a copy of the sources; it ends at the first failure.

    :exc:`RuntimeError` if it did not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        copied(folder, mutant)
        environment = os.environ | {"PYTHONPATH": str(folder), "MXLET_BUILD": str(folder / "build")}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
                   f"--basetemp={folder / 'run'}", test, "-k", "not icarus"]
        with (folder / "output.txt").open("w+") as output:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output,
                                       stderr=subprocess.STDOUT, start_new_session=True)
            try:
                if not watch(process, folder / "run"):
                    return False
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if process.returncode not in (0, 1):    # neither passed nor failed
                output.seek(0)
                raise RuntimeError(f"{test} did not run: {output.read()[-3000:]}")
            return process.returncode == 0


def watch(process, folder):
    """Wait for the end of the process; False as soon as a cocotb test failed or time is up."""
    end = time.monotonic() + LIMIT_SECONDS
    while process.poll() is None:
        if time.monotonic() > end or any(
                FAILED.search(log.read_text(errors="replace"))
                for log in folder.glob("*/test.log")):
            return False
        time.sleep(0.5)
    return True


def main(only: str = typer.Option("", help="Mutants whose file or text contains this."),
         jobs: int = typer.Option(2, help="Mutants tried at once.")):
    """Try all mutants; exit status 1 if one is not found."""
    chosen = [m for m in MUTANTS if only in m.path or only in m.what]
    if not chosen:
        print(f"No mutant has {only!r} in its file or text", file=sys.stderr)
        raise typer.Exit(2)
    console = Console()
    with ThreadPoolExecutor(jobs) as pool:
        tests = sorted({m.test for m in chosen})
        for test, well in zip(tests, pool.map(passes, tests), strict=True):
            if not well:
                console.print(f"{test} fails without any change")
                raise typer.Exit(1)
            console.print(f"{test} passes without any change", highlight=False)
        table = Table("mutant", "file", "found", title="Mutants", title_justify="left")
        survived = 0
        for mutant, alive in zip(chosen, pool.map(lambda m: passes(m.test, m), chosen),
                                 strict=True):
            survived += alive
            console.print(f"{'NOT FOUND' if alive else 'found':9} {mutant.path}: {mutant.what}",
                          highlight=False, soft_wrap=True)
            table.add_row(mutant.what, mutant.path, "NO" if alive else "yes")
    console.print(table)
    console.print(f"{len(chosen) - survived} of {len(chosen)} mutants found")
    raise typer.Exit(1 if survived else 0)


if __name__ == "__main__":
    typer.run(main)
