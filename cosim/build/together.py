"""Writes a step of several instances of a model, piece by piece of its code for all in turn.

A step of a large model is code that runs once, more of it than an instruction cache holds: one
instance after the other fetches all of it again. In turn for all instances, each piece of it is
fetched once (``docs/decisions/0017``).
"""
import re
from dataclasses import dataclass

ROOT = "Vmodel___024root"
PIECE = 400_000  # characters of C++, about 20 KB of code: most of a cache of 32 KB
NAME = "Vmodel__Together.cpp"
FUNCTION = re.compile(rf"^void {ROOT}___(\w+)\({ROOT}\* vlSelf\) \{{\n(.*?)^\}}",
                      re.MULTILINE | re.DOTALL)
CALL = re.compile(rf"\b{ROOT}___(\w+)\(vlSelf\);")
ANY_CALL = re.compile(rf"\b({ROOT}___\w+)\(")
DECLARED = re.compile(rf"^void ({ROOT}___\w+)\([^;{{}}]*\)(?=;| \{{)", re.MULTILINE)
CONSTANT = re.compile(r"^extern const [^;]*\b(Vmodel__ConstPool__\w+);\n", re.MULTILINE)
ANY_CONSTANT = re.compile(r"\bVmodel__ConstPool__\w+\b")
LOCAL = re.compile(r"^    [\w<>:, ]+/\*[^*]*\*/ (\w+);\n(?:    \1 = 0;\n)?", re.MULTILINE)
GUARDED = re.compile(r"    if \(\((\w+)ULL & vlSelfRef\.(__V\w+Triggered)\[(\d+)U\]\)\) \{\n"
                     r"(.*)    \}\n", re.DOTALL)
FIRST = re.compile(r"__VicoTriggered\[0U\] = \(\(0xf{15}eULL\s*"
                   r"& vlSelfRef\.__VicoTriggered\s*\[0U\]\)\s*"
                   r"\| \(IData\)\(\(IData\)\(vlSelfRef\.__VicoFirstIteration\)\)\);\s*$")
PREAMBLE = f"    {ROOT}& vlSelfRef = *vlSelf;\n    auto vlSymsp VL_ATTR_UNUSED = vlSelf->vlSymsp;\n"


class Unknown(Exception):
    """The C++ is not of the form that this module knows."""


@dataclass(frozen=True)
class Statement:
    """What runs if one of the bits ``mask`` of word ``word`` of the triggers is set."""

    mask: int
    word: int
    body: str


def step_of_several(texts):
    """C++ source of ``step_together``, or None for a model that it cannot be written for.

    Parameters
    ----------
    texts : iterable of str
        The C++ that Verilator wrote of a model that is evaluated once a cycle.
    """
    functions, declared = {}, {}
    for text in texts:
        functions |= {found[1]: found[2] for found in FUNCTION.finditer(text)}
        declared |= {found[1]: f"{found[0]};\n" for found in DECLARED.finditer(text)}
        declared |= {found[1]: found[0] for found in CONSTANT.finditer(text)}
    try:
        logic, inputs = _pieces(functions, "nba"), []
        if "eval_ico" in functions:
            if not FIRST.search(functions.get("eval_triggers_vec__ico", "")):
                raise Unknown("Inputs have triggers of their own")
            inputs = _pieces(functions, "ico")
        return _source(inputs, logic, declared)
    except Unknown:
        return None


def _pieces(functions, region):
    """The statements of a region in groups, each with the locals that it needs."""
    statements, local = [], {}
    for text in _parts(functions, f"eval_{region}"):
        declared, _, body = text.partition("    // Body\n")
        _, _, declared = declared.partition("    // Locals\n")
        found = {line[1]: line[0] for line in LOCAL.finditer(declared)}
        if LOCAL.sub("", declared) or local.keys() & found:
            raise Unknown("A declaration of another form, or one name for two variables")
        local |= found
        statements += _statements(body, functions)
    if not statements:
        raise Unknown(f"Nothing in the region {region}")
    pieces, size = [[]], 0
    for statement in statements:
        weight = _weight(statement.body, functions)
        if pieces[-1] and size + weight > PIECE:
            pieces.append([])
            size = 0
        pieces[-1].append(statement)
        size += weight
    texts = ["".join(s.body for s in piece) for piece in pieces]
    used = [[n for n in local if re.search(rf"\b{n}\b", text)] for text in texts]
    if sum(map(len, used)) != len(local):
        raise Unknown("A local variable of several pieces")
    return [("".join(map(local.get, names)), piece)
            for names, piece in zip(used, pieces, strict=True)]


def _parts(functions, name):
    """The functions that Verilator cut a long one into, or that one itself."""
    text = functions.get(name, "")
    _, found, body = text.partition("    // Body\n")
    if not found:
        raise Unknown(f"No function {name}")
    parts = CALL.findall(body)
    if body != "".join(f"    {ROOT}___{part}(vlSelf);\n" for part in parts):
        return [text]
    return [whole for part in parts for whole in _parts(functions, part)]


def _statements(body, functions):
    """The statements of a function's body, a long one of calls alone as one for each call."""
    for text in re.split(r"(?<=^    \}\n)", body, flags=re.MULTILINE):
        if not text:
            continue
        found = GUARDED.fullmatch(text)
        if not found:
            raise Unknown("A statement without a trigger")
        mask, word, inner = int(found[1], 0), int(found[3]), found[4]
        calls_alone = not re.sub(rf"        {CALL.pattern}\n", "", inner)
        split = calls_alone and _weight(inner, functions) > PIECE
        for part in inner.splitlines(keepends=True) if split else [inner]:
            yield Statement(mask, word, part)


def _weight(text, functions):
    return len(text) + sum(len(functions.get(name, "")) for name in CALL.findall(text))


def _source(inputs, logic, declared):
    """C++ of the step from the pieces of both regions."""
    bodies = [s.body for _, piece in inputs + logic for s in piece]
    called = {n for body in bodies for find in (ANY_CALL, ANY_CONSTANT) for n in find.findall(body)}
    called |= {f"{ROOT}___eval_triggers_vec__ico"} if inputs else set()
    if not called <= declared.keys():
        raise Unknown("A function or a table that is declared nowhere")
    declarations = "".join(map(declared.get, sorted(called)))
    functions = "".join(_function(region, number, local, piece)
                        for region, pieces in (("ico", inputs), ("nba", logic))
                        for number, (local, piece) in enumerate(pieces))
    first = f"""    for (uint32_t i = 0; i < count; i++) {{
        models[i]->__VicoFirstIteration = 1;
        {ROOT}___eval_triggers_vec__ico(models[i]);
        models[i]->__VicoFirstIteration = 0;
    }}
{_calls("ico", inputs, "    ")}""" if inputs else ""
    return f"""#include "Vmodel__pch.h"
#include "copied.hpp"
{declarations}bool {ROOT}___eval_phase__act({ROOT}* vlSelf);
{functions}
// As `eval` of each; reorders `models`.
void step_together({ROOT}** models, uint32_t count) {{
{first}    for (;;) {{
        decltype({ROOT}::__VnbaTriggered) any{{}};
        constexpr size_t words = sizeof any / sizeof any[0];
        uint32_t left = 0;
        for (uint32_t i = 0; i < count; i++) {{
            while ({ROOT}___eval_phase__act(models[i])) {{}}
            uint64_t fired = 0;
            for (size_t word = 0; word < words; word++) {{
                any[word] |= models[i]->__VnbaTriggered[word];
                fired |= models[i]->__VnbaTriggered[word];
            }}
            if (fired) std::swap(models[left++], models[i]);
        }}
        if (!left) return;
        count = left;
{_calls("nba", logic, "        ", "any")}        for (uint32_t i = 0; i < count; i++)
            for (size_t word = 0; word < words; word++) models[i]->__VnbaTriggered[word] = 0;
    }}
}}
"""


def _function(region, number, local, piece):
    body = "".join(f"    if (vlSelfRef.__V{region}Triggered[{s.word}] & {s.mask:#x}ull) {{\n"
                   f"{s.body}    }}\n" for s in piece)
    return (f"static inline void {region}_{number}({ROOT}* vlSelf) {{\n"
            f"{PREAMBLE}{local}{body}}}\n")


def _calls(region, pieces, indent, any_of=None):
    """A loop over all models for each piece, left out while none of them has its triggers."""
    text = ""
    for number, (_, piece) in enumerate(pieces):
        guard = ""
        if any_of:
            masks = {}
            for s in piece:
                masks[s.word] = masks.get(s.word, 0) | s.mask
            tests = (f"{any_of}[{word}] & {mask:#x}ull" for word, mask in masks.items())
            guard = f"if ({' || '.join(f'({t})' for t in tests)}) "
        text += (f"{indent}{guard}for (uint32_t i = 0; i < count; i++) "
                 f"{region}_{number}(models[i]);\n")
    return text
