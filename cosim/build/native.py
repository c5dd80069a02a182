"""The engine's own shared library, built once for all systems."""
from pathlib import Path

from cosim.build import compiler
from cosim.build.cache import cached, digest

COSIM = Path(__file__).parents[1]


def build_engine():
    """Path of the engine's library."""
    folders = [COSIM / "engine" / "native", COSIM / "devices"]
    files = sorted(p for f in folders for p in f.iterdir() if p.suffix in (".hpp", ".cpp"))
    flags = ["-O3", "-march=native", *(f"-I{f}" for f in folders), "-Wall"]
    key = digest("engine", compiler.identity(), compiler.BASE, flags[:2],
                 Path(__file__).read_text(), *(f"{p.name}\n{p.read_text()}" for p in files))

    def make(folder):
        objects = compiler.compile_all([(p, []) for p in files if p.suffix == ".cpp"],
                                       folder=folder, flags=flags)
        compiler.link(objects, output=folder / "engine.so")

    folder, _ = cached(f"engine_{key}", make)
    return folder / "engine.so"
