"""docs/evidence.md and the tests: what the page names exists, and every test is on the page."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evidence.md").read_text()
FILES = dict(re.findall(r"`([A-Z])` (testbenches/\S+\.py)", PAGE))
NAMED = re.findall(r"\b([A-Z]) `(\w+)`", PAGE)


def named_in(path):
    """Names of cocotb tests (decorated coroutines), or where there are none of pytest functions."""
    nodes = ast.parse((ROOT / path).read_text()).body
    cocotb = {n.name for n in nodes if isinstance(n, ast.AsyncFunctionDef) and n.decorator_list}
    return cocotb or {n.name for n in nodes
                      if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


def test_the_page_names_files():
    assert len(FILES) >= 12 and all((ROOT / path).is_file() for path in FILES.values())
    assert {letter for letter, _ in NAMED} == set(FILES)


@pytest.mark.parametrize("letter", FILES)
def test_every_test_is_on_the_page_and_exists(letter):
    assert {name for at, name in NAMED if at == letter} == named_in(FILES[letter])


def test_every_row_is_complete():
    rows = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    for row in rows[1:]:
        assert len(row) == 4 and all(cell.strip() for cell in row)
        assert re.search(r"[A-Z] `\w+`", row[3]), row
