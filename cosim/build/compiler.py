"""Calls of the C++ compiler."""
import functools
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cosim.build.cache import cached, digest
from cosim.build.tools import verilator_root

JOBS = min(2, os.cpu_count() or 1)  # translation units compiled at once (memory, not only cores)
# -fno-gnu-unique: every library keeps its own copy of the Verilator runtime's statics
BASE = ["-std=c++20", "-fPIC", "-fno-gnu-unique", "-fvisibility=hidden", "-pthread"]
FAST = ["-O2", "-march=native"]  # of generated code: -O3 takes longer and is no faster
SLOW = ["-O0"]  # code that runs once: construction, reset values, tracing declarations
DEFINES = ["-DVERILATOR=1", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0",
           "-DVM_TRACE_VCD=0", "-DVM_TRACE_SAIF=0"]


class BuildError(Exception):
    """A tool refused its input; the message holds its last lines."""


def run(command, cwd):
    """Run a tool quietly; :exc:`BuildError` with the end of its output if it fails."""
    try:
        result = subprocess.run([str(c) for c in command], cwd=cwd, text=True, check=False,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed: apt-get install g++") from None
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-30:])
        raise BuildError(f"{command[0]} failed with status {result.returncode}:\n{tail}")
    return result.stdout


@functools.cache
def identity():
    """Compiler version and the flags that ``-march=native`` means on this machine."""
    if not shutil.which("g++"):
        raise BuildError("g++ is not installed: apt-get install g++")
    return run(["g++", "-march=native", "-Q", "--help=target", "--version"], cwd=None)


def defines(waves):
    return [*DEFINES, f"-DVM_TRACE={int(waves)}", f"-DVM_TRACE_FST={int(waves)}"]


def includes():
    include = verilator_root() / "include"
    return [f"-isystem{include}", f"-isystem{include / 'vltstd'}"]


def precompile(header, *, flags, variants):
    """Precompile a header, once with each of the lists of flags ``variants``, into a new folder.

    g++ takes what fits its flags from there if a source includes ``header`` before all else.
    Returns the folder.
    """
    folder = header.with_name(header.name + ".gch")
    folder.mkdir()
    _compile([(header, folder / str(number), [*extra, "-x", "c++-header"])
              for number, extra in enumerate(variants)], cwd=header.parent, flags=flags)
    return folder


def compile_all(sources, *, folder, flags):
    """Compile ``[(source, extra flags)]`` into ``folder``; returns the object files."""
    ordered = sorted(sources, key=lambda item: -item[0].stat().st_size)  # longest first
    return _compile([(source, folder / (source.stem + ".o"), [*extra, "-c"])
                     for source, extra in ordered], cwd=folder, flags=flags)


def _compile(jobs, *, cwd, flags):
    """Run g++ for each ``(source, target, extra flags)``; returns the targets."""
    def one(job):
        source, target, extra = job
        run(["g++", *BASE, *flags, *extra, source, "-o", target], cwd=cwd)
        return target

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(one, jobs))


def link(objects, *, output):
    """Link a shared library that exports only what its sources mark as visible."""
    run(["g++", "-shared", "-Wl,-Bsymbolic", "-pthread", *objects, "-o", output], output.parent)
    return output


def runtime(waves):
    """Objects of the Verilator runtime, compiled once for all models."""
    include = verilator_root() / "include"
    names = ["verilated.cpp", "verilated_threads.cpp"]
    names += ["verilated_fst_c.cpp"] if waves else []
    sources = [include / n for n in names]
    flags = [*defines(waves), *includes(), f"-isystem{include / 'fstcpp'}",
             "-idirafter", str(Path(__file__).parent / "include")]
    key = digest("runtime", identity(), BASE, FAST, flags, *(s.read_text() for s in sources))
    folder, _ = cached(f"runtime_{key}", lambda f: compile_all(
        [(s, FAST) for s in sources], folder=f, flags=flags))
    return sorted(folder.glob("*.o"))
