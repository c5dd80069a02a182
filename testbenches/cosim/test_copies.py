"""Tests of cosim/build/copies.py: copies of many words at once."""
import random
import re
import subprocess

import pytest

from cosim.build.copies import HEADER, whole_copies
from cosim.build.model import INCLUDE

WORDS, LINES = 8, 16


def copy(to, source, first=0, second=0, count=WORDS):
    return [f"    {to}[{first + n}U] \n        = {source}\n [{second + n}U]" for n in range(count)]


def body(*statements):
    return ";\n".join(["void step(State& vlSelfRef) {\n" + statements[0], *statements[1:], "}\n"])


@pytest.mark.parametrize("to, source", [
    ("vlSelfRef.a", "vlSelfRef.b"), ("vlSelfRef.a", "vlSelfRef.store\n[vlSelfRef.i]"),
    ("vlSelfRef.store[(7U & vlSelfRef.i)]", "given"),
    ("vlSelfRef.a", "vlSelfRef.store[((1U == vlSelfRef.i) ? vlSelfRef.p[2U] : 3U)]")])
def test_words_in_turn_are_one_copy(to, source):
    before = ["    vlSelfRef.x[0U] = vlSelfRef.y[0U]"]
    text = whole_copies(body(*before, *copy(to, source), *before))
    assert text.startswith(HEADER) and text.count("copied<8>") == 1 and text.count(" = ") == 2


@pytest.mark.parametrize("statements", [
    copy("vlSelfRef.a", "vlSelfRef.b", count=3),
    copy("vlSelfRef.a", "vlSelfRef.a", second=1),
    copy("vlSelfRef.a", "vlSelfRef.store[vlSelfRef.a[0U]]"),
    copy("vlSelfRef.store[vlSelfRef.store[0U]]", "vlSelfRef.b"),
    copy("vlSelfRef.a", "vlSelfRef.b")[::-1],
    [line.replace("= ", "= ~ ") for line in copy("vlSelfRef.a", "vlSelfRef.b")],
    [line.replace("= ", "= vlSelfRef.c[1U] & ") for line in copy("vlSelfRef.a", "vlSelfRef.b")],
    [line.replace("= ", "|= ") for line in copy("vlSelfRef.a", "vlSelfRef.b")],
    [f"    if (vlSelfRef.c) {{\n{line};\n    }}\n" for line in copy("vlSelfRef.a", "vlSelfRef.b")],
    copy("vlSelfRef.a", "vlSelfRef.b", count=3) + copy("vlSelfRef.a", "vlSelfRef.c", 3, 3, 3)])
def test_everything_else_is_left_as_it_is(statements):
    text = body(*statements)
    assert whole_copies(text) == text


STATE = """#include <cstdint>
#include <cstdio>
struct State { uint32_t a[8], b[8], store[16][8], i; uint8_t small[8], other[8]; };
"""
MAIN = """int main() {
    State s;
    for (unsigned n = 0; n < sizeof s; n++) ((uint8_t*)&s)[n] = n * 37 + n / 5;
    s.i = 5;
    step(s);
    for (unsigned n = 0; n < sizeof s; n++) std::printf("%d ", ((uint8_t*)&s)[n]);
}
"""


def test_what_is_rewritten_does_the_same(tmp_path):
    """Random copies, compiled both ways; elements of a byte as well."""
    wide = ["vlSelfRef.a", "vlSelfRef.b", "vlSelfRef.store[(15U & vlSelfRef.i)]",
            "vlSelfRef.store[(15U & vlSelfRef.a[1U])]", "vlSelfRef.store[3U]"]
    statements = []
    for _ in range(40):
        to, source = random.choices(random.choice(
            [wide, ["vlSelfRef.small", "vlSelfRef.other"]]), k=2)
        count = random.randint(1, 6)
        statements += copy(to, source, random.randint(0, 2), random.randint(0, 2), count)
    text = body(*statements)
    changed = whole_copies(text)
    assert len(re.findall("copied<", changed)) > 3
    outputs = []
    for name, source in (("plain", text), ("whole", changed)):
        path = tmp_path / f"{name}.cpp"
        path.write_text(STATE + source + MAIN)
        subprocess.run(["g++", "-O2", f"-I{INCLUDE}", path, "-o", tmp_path / name], check=True)
        outputs.append(subprocess.run([tmp_path / name], check=True, capture_output=True).stdout)
    assert outputs[0] == outputs[1]
