"""Rewrites byte enables so that a simulator writes one whole word of a memory."""
import re

LOOP = re.compile(
    r"(?P<indent> *)integer i;\n(?P<whole>(?:.*\n){0,4}?) *begin\n"
    r" */\* verilator unroll_disable \*/\n *for (?P<steps>\(i = 0; .*\))\n"
    r" *if \((?P<enable>.*)\[i\]\)\n"
    r" *(?P<place>(?P<memory>[\w\\$.]+ ?)\[.*\])\[(?P<part>\d+ \* i \+: \d+)\] <= "
    r"(?P<data>[\w\\$.]+ ?)\[(?P=part)\];\n *end\n")


def whole_words(text):
    """Verilog ``text`` in which a masked write reads the word, changes it and writes it back.

    It is the same as long as nothing else writes to that memory at the same edge, which no
    memory with one write port does; others are left alone. A simulator then needs no queue of
    partial writes for the memory, which costs time even in cycles without a write.
    """
    def rewritten(match):
        start = text.rfind("\nmodule ", 0, match.start())
        module = text[start:text.find("\nendmodule", match.end())]
        memory, place = match["memory"], match["place"]
        width = re.search(rf"^ *reg (\[\d+:0\]) {re.escape(memory)} *\[", module, re.MULTILINE)
        writes = re.findall(rf"(?<![\w\\$.]){re.escape(memory)}\[.*?<=", module)
        own = re.findall(rf"(?<![\w\\$.]){re.escape(memory)}\[.*?<=", match.group())
        if not width or len(writes) != len(own):
            return match.group()
        indent = match["indent"]
        lines = ["begin", f"  kept = {place};", "  /* verilator unroll_disable */",
                 f"  for {match['steps']}", f"    if ({match['enable']}[i])",
                 f"      kept[{match['part']}] = {match['data']}[{match['part']}];",
                 f"  {place} <= kept;", "end"]
        return (f"{indent}integer i;\n{indent}reg {width[1]} kept;\n{match['whole']}"
                + "".join(f"{indent}{line}\n" for line in lines))

    return LOOP.sub(rewritten, text)
