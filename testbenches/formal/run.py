"""``make formal``: runs every proof with SymbiYosys, and shows that what it speaks of happens."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import typer
from amaranth.back import rtlil
from rich.console import Console
from rich.table import Table

from cosim.build.cache import build_root
from testbenches.formal.noc import PROOFS

TOOLS = ("yosys", "yosys-smtbmc", "yosys-witness")     # as sby calls them
SCRIPT = """[options]
mode {mode}
depth {depth}
[engines]
smtbmc yices
[script]
read_rtlil top.il
prep -top top
memory_map -formal
opt_clean
[files]
top.il
"""


def wrappers(folder):
    """Programs by the names that sby calls, which call those of the wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        path = folder / tool
        path.write_text(f'#!/bin/sh\nexec yowasp-{tool} "$@"\n')
        path.chmod(0o755)
    return folder


def run(mode, depth, make, folder):
    """One call of sby; whether it holds, and the end of what it said."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    top = make()
    (folder / "top.il").write_text(rtlil.convert(top, ports=top.ports, name="top"))
    (folder / "proof.sby").write_text(SCRIPT.format(mode=mode, depth=depth))
    binaries = Path(sys.executable).parent
    path = os.pathsep.join([str(wrappers(folder / "bin")), str(binaries), os.environ["PATH"]])
    done = subprocess.run(["yowasp-sby", "-f", "proof.sby"], cwd=folder, text=True, check=False,
                          capture_output=True, env=os.environ | {"PATH": path})
    return done.returncode == 0, "\n".join((done.stdout + done.stderr).splitlines()[-12:])


def main(only: str = typer.Option("", help="Proofs whose name contains this.")):
    """Run all proofs; exit status 1 if one fails, or if what it speaks of never happens."""
    chosen = {name: proof for name, proof in PROOFS.items() if only in name}
    if not chosen:
        print(f"No proof has {only!r} in its name", file=sys.stderr)
        raise typer.Exit(2)
    console, root = Console(), build_root().parent / "formal"
    table = Table("proof", "how", "cycles", "holds", "happens", "seconds", title="Proofs",
                  title_justify="left")
    failed = 0
    for name, (make, mode, depth) in chosen.items():
        begin = time.monotonic()
        holds, said = run(mode, depth, make, root / name)
        happens, covered = run("cover", depth + 4, make, root / f"{name}_cover")
        failed += not (holds and happens)
        if not (holds and happens):
            console.print(said if not holds else covered, markup=False)
        table.add_row(name, {"prove": "induction", "bmc": "bounded"}[mode], str(depth),
                      "yes" if holds else "NO", "yes" if happens else "NO",
                      f"{time.monotonic() - begin:.0f}")
    console.print(table)
    console.print(f"{len(chosen) - failed} of {len(chosen)} proofs hold; logs in {root}")
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
