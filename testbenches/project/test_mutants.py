"""The list of mutants fits the sources: each changes one place, and names a test that exists."""
from collections import Counter
from pathlib import Path

import pytest

from testbenches.mutants.run import MUTANTS, changed

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{Path(m.path).stem}: {m.what}")
def test_a_mutant_changes_one_place(mutant):
    text = (ROOT / mutant.path).read_text()
    assert changed(text, mutant) != text
    assert (ROOT / mutant.test.split("::")[0]).is_file()


def test_there_are_enough_and_all_differ():
    assert len(MUTANTS) >= 30
    assert max(Counter((m.path, m.old, m.new) for m in MUTANTS).values()) == 1
    assert max(Counter(m.what for m in MUTANTS).values()) == 1
