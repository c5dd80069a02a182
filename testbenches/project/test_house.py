"""Tests of the house: who imports whom, lengths, figures in README.md."""
import ast
import re
from pathlib import Path

import pytest

from host import figures

ROOT = Path(__file__).parents[2]
FORBIDDEN = {   # folder: top-level packages that it may not import
    "rtl": {"chiplets", "cosim", "host", "fpga", "testbenches"},
    "chiplets": {"cosim", "host", "fpga", "testbenches"},
    "cosim": {"host", "testbenches"},
    "host": {"rtl", "chiplets", "testbenches"},
}


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_imports_go_one_way():
    wrong = [f"{path.relative_to(ROOT)}: {name}" for folder, banned in FORBIDDEN.items()
             for path in sources(folder) for name in imported(path)
             if name.split(".")[0] in banned]
    assert not wrong


def test_only_the_build_of_the_co_simulation_knows_the_chiplets():
    wrong = [str(path.relative_to(ROOT)) for path in sources("cosim")
             for name in imported(path) if name.split(".")[0] in ("chiplets", "rtl")
             and (ROOT / "cosim" / "build") not in path.parents]
    assert not wrong


def test_golden_models_do_not_import_what_they_check():
    wrong = [str(path.relative_to(ROOT)) for path in sources("cosim/golden")
             for name in imported(path) if name.split(".")[0] in ("amaranth", "rtl", "chiplets")]
    assert not wrong


def test_files_and_elaborate_methods_are_short():
    long = []
    for folder in (*FORBIDDEN, "testbenches"):
        for path in sources(folder):
            text = path.read_text()
            if len(text.splitlines()) > 500:
                long.append(str(path.relative_to(ROOT)))
            for node in ast.walk(ast.parse(text)):
                if (isinstance(node, ast.FunctionDef) and node.name == "elaborate"
                        and node.end_lineno - node.lineno + 1 > 100):
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not long


@pytest.mark.parametrize("name", figures.PLACES)
def test_figures_in_documents_are_those_of_the_benchmarks(name):
    text = (ROOT / name).read_text()
    shown = re.search(f"{figures.BEGIN}\n(.*)\n{figures.END}", text, re.DOTALL)
    assert shown and shown.group(1) == figures.PLACES[name]()


def test_every_benchmark_is_shown():
    assert {p.stem for p in (ROOT / "benchmarks").glob("*.json")} == set(figures.SHOWN)


def test_every_dependency_says_why():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    named = [line for line in lines if re.match(r'\s+"[\w-]+[><=]', line)]
    assert named and all("#" in line for line in named)
