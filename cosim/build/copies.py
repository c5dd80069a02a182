"""Rewrites copies of wide values, which Verilator writes word by word, so that each is one copy."""
import re

HEADER = '#include "copied.hpp"\n'
LEAST = 4       # words that are worth it; this project's choice
LONGEST = 1000  # characters of what is copied to: behind them is an assignment of another kind
NAME = re.compile(r"(?P<name>(?:vlSelfRef\.)?\w+)(?P<index>(?:\s*\[.*\])?)\s*\[(?P<word>\d+)U\]\s*",
                  re.DOTALL)
TAIL = re.compile(r"[{}]\s*(?=[^{}]*$)")


def whole_copies(text):
    """C++ ``text`` in which words of one place that go to words of another in turn go at once.

    A compiler cannot do that itself where an index is not constant, as in a read of a memory: it
    does not know that a word written is none of those that are still to be read.
    """
    statements, written, at = text.split(";\n"), [], 0
    while at < len(statements):
        first = statements[at]
        start = found.end() if (found := TAIL.search(first)) else 0
        start += len(first[start:]) - len(first[start:].lstrip())
        copy, end = _parsed(first[start:]), at + 1
        while copy and end < len(statements) and _follows(statements[end], copy, end - at):
            end += 1
        if end - at >= LEAST:
            to, source, words = copy
            first = (f"{first[:start]}copied<{end - at}>"
                     f"({to}[{words[0]}U], {source}[{words[1]}U])")
        else:
            end = at + 1
        written.append(first)
        at = end
    changed = ";\n".join(written)
    return HEADER + changed if len(written) < len(statements) else text


def _follows(statement, copy, distance):
    """Whether a statement copies the word so far after that of ``copy``."""
    to, source, words = copy
    return _parsed(statement.strip()) == (to, source, tuple(w + distance for w in words))


def _parsed(statement):
    """Whence to where a statement copies a word, and the numbers of both words; else None."""
    at = statement.find("= ")
    if not 0 < at < LONGEST or statement[at - 1] in "=!<>|&^+-":
        return None
    to, source = NAME.fullmatch(statement, 0, at), NAME.fullmatch(statement, at + 2)
    if not to or not source or not (_is_index(to["index"]) and _is_index(source["index"])):
        return None
    # What is written must be no part of what is read, nor of where that is.
    if re.search(rf"\b{re.escape(to['name'])}\b", "".join(source.group("name", "index"))
                 + to["index"]):
        return None
    return (to["name"] + to["index"], source["name"] + source["index"],
            (int(to["word"]), int(source["word"])))


def _is_index(text):
    """Whether a text is nothing, or indexes in brackets alone."""
    depth = 0
    for character in text:
        if depth == 0 and character != "[" and not character.isspace():
            return False
        depth += (character in "[(") - (character in "])")
    return depth == 0
