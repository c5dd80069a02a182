"""Rewrites byte enables so that a simulator writes one whole word of a memory."""
import re

LOOP = re.compile(
    r"(?P<indent> *)integer i;\n(?P<whole>(?:.*\n){0,4}?) *begin\n"
    r" */\* verilator unroll_disable \*/\n *for (?P<steps>\(i = 0; .*\))\n"
    r" *if \((?P<enable>.*)\[i\]\)\n"
    r" *(?P<place>(?P<memory>[\w\\$.]+ ?)\[.*\])\[(?P<part>\d+ \* i \+: \d+)\] <= "
    r"(?P<data>[\w\\$.]+ ?)\[(?P=part)\];\n *end\n")


MODULE = re.compile(r"^module .*?^endmodule", re.MULTILINE | re.DOTALL)


def whole_words(text):
    """Verilog ``text`` in which a masked write reads the word, changes it and writes it back.

    It is the same as long as nothing else writes to that memory at the same edge, which no
    memory with one write port does; others are left alone. A simulator then needs no queue of
    partial writes for the memory, which costs time even in cycles without a write. Nor is what is
    written chosen in these, if only this memory takes it: it is, where it is written.
    """
    return MODULE.sub(lambda module: _of_module(module.group()), text)


def _of_module(text):
    chosen = []     # assignments that went to the writes

    def rewritten(match):
        memory, place, data = match["memory"], match["place"], match["data"]
        width = re.search(rf"^ *reg (\[\d+:0\]) {re.escape(memory)} *\[", text, re.MULTILINE)
        writes, own = (re.findall(rf"(?<![\w\\$.]){re.escape(memory)}\[.*?<=", part)
                       for part in (text, match.group()))
        if not width or len(writes) != len(own):
            return match.group()
        first, whole = [], match["whole"]
        found = _only_here(text, match, data.strip())
        if found and width[1] in found["declared"]:
            chosen.extend(found.group(n) for n in ("declared", "assigned"))
            first = [f"reg {width[1]} given;", f"given = {found['value']};"]
            whole, data = whole.replace(f"<= {data};", "<= given;"), "given"
        indent = match["indent"]
        lines = ["begin", f"  kept = {place};", "  /* verilator unroll_disable */",
                 f"  for {match['steps']}", f"    if ({match['enable']}[i])",
                 f"      kept[{match['part']}] = {data}[{match['part']}];",
                 f"  {place} <= kept;", "end"]
        return (f"{indent}integer i;\n{indent}reg {width[1]} kept;\n"
                + "".join(f"{indent}{line}\n" for line in first) + whole
                + "".join(f"{indent}{line}\n" for line in lines))

    changed = LOOP.sub(rewritten, text)
    for line in chosen:
        changed = changed.replace(line, "", 1)
    return changed


def _only_here(text, write, name):
    """The declaration and the assignment of a wire that nothing but the write reads, else None."""
    token = rf"(?<![\w\\$.]){re.escape(name)}(?![\w$.])"
    found = re.search(rf"(?P<declared>^ *wire \[\d+:0\] {token} *;\n)(?:.*\n)*?"
                      rf"(?P<assigned>^ *assign {token} += (?P<value>[^;\n]*);\n)", text,
                      re.MULTILINE)
    used, inside = len(re.findall(token, text)), len(re.findall(token, write.group()))
    return found if found and used == inside + 2 else None
