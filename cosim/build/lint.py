"""Checks of generated Verilog by Verilator and Icarus."""
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from cosim.build.tools import verilator_environment, verilator_root

# Findings that are left alone, with the reason for each.
ACCEPTED = {
    "DECLFILENAME": "all modules of a top are in one file",
    "WIDTH": "Yosys writes constants and shifts wider than their use",
    "CASEOVERLAP": "Yosys writes priority as overlapping wildcards",
    "UNUSEDSIGNAL": "ports of a stream that one side does not need",
    "UNDRIVEN": "initial values of memories are left out",
    "SYMRSVDWORD": "port names of the documented interface",
    "CMPCONST": "range checks of fields whose every value is allowed in this configuration",
    "PINMISSING": "outputs that the enclosing module does not use",
}
MODULE = re.compile(r"^module +([^\s(]+) *\(.*?^endmodule", re.MULTILINE | re.DOTALL)
FUNCTION = re.compile(r"^\s*function .*?^\s*endfunction", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"^ *(input|output) (?:\[.*?\] )?(\S+) *;", re.MULTILINE)


def lint(top, path):
    """Findings of Verilator and, where it is installed, Icarus, one a line."""
    waived = [f"-Wno-{name}" for name in ACCEPTED]
    commands = [[str(verilator_root() / "bin" / "verilator"), "--lint-only", *waived,
                 "--top-module", top, str(path)]]
    if shutil.which("iverilog"):
        commands.append(["iverilog", "-g2012", "-t", "null", "-s", top, str(path)])
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False,
                                env=verilator_environment())
        for line in (result.stdout + result.stderr).splitlines():
            if result.returncode or "%Warning" in line or "warning:" in line:
                yield f"{top}: {line}"


def stub(text):
    """A module with the ports of the module ``text`` whose outputs are 0."""
    bare = FUNCTION.sub("", text)
    ports = list(PORT.finditer(bare))
    driven = [f"assign {port[2]} = 0;" for port in ports if port[1] == "output"]
    return "\n".join([bare[:bare.index(";") + 1], *(port[0] for port in ports), *driven,
                      "endmodule"])


def lint_placed(path):
    """As :func:`lint`, one placed module after another, and what it places as bare ports.

    A simulator unfolds what is placed a hundred times a hundred times; so a top of full size needs
    no more memory than the largest of its parts does. A loop through several parts is not seen:
    :func:`lint` of the same chiplet at size ``sim`` sees it.
    """
    groups = {}
    for found in MODULE.finditer(Path(path).read_text()):
        root = found[1].removeprefix("\\").split(".")[0]
        groups.setdefault(root, []).append(found[0])
    roots = {root: next(t for t in texts if t.startswith(f"module {root}("))
             for root, texts in groups.items()}
    with tempfile.TemporaryDirectory() as folder:
        for root, texts in groups.items():
            whole = "\n".join(texts)
            named = re.findall(r"^  (\w+) \S+ *\($", whole, re.MULTILINE)
            placed = (set(named) & roots.keys()) - {root}
            stubs = "\n".join(stub(roots[name]) for name in sorted(placed))
            part = Path(folder) / f"{root}.v"
            part.write_text(f"{whole}\n{stubs}\n")
            yield from (line.replace(f"{folder}/", "") for line in lint(root, part))
