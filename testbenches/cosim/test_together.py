"""Tests of cosim/build/together.py: several instances of a model stepped piece by piece."""
import random

import pytest

from cosim.build import together
from cosim.build.model import build
from rtl.memory.hbm.channel import HbmChannel
from testbenches.cosim.driven import Driven, cycle_together
from testbenches.cosim.test_model import Gated

MOST = 32  # instances at once, in glue.cpp


def channel():
    return HbmChannel(rows=64, name_bits=9)


@pytest.mark.parametrize("make, piece, instances, cycles", [
    (Gated, 1, 5, 2000), (Gated, together.PIECE, MOST + 1, 500), (channel, 2000, 3, 1500)])
def test_instances_together_do_what_each_does_alone(make, piece, instances, cycles, monkeypatch):
    """Each has its own inputs, so that their gates are open in different cycles."""
    monkeypatch.setattr(together, "PIECE", piece)
    model = build(make())
    alone, beside = ([Driven(model) for _ in range(instances)] for _ in range(2))
    inputs = [p for p in model.ports.values() if p.input and not p.name.endswith("clk")]
    seen = set()
    for cycle in range(cycles):
        tick = random.getrandbits(1)
        for one, other in zip(alone, beside, strict=True):
            for port in inputs:
                value = random.getrandbits(port.bits) if random.random() < 0.7 else 0
                one[port.name] = other[port.name] = int(cycle < 3) if port.name == "rst" else value
            one.cycle(tick)
        cycle_together(random.sample(beside, instances), tick)
        outputs = [one.outputs() for one in alone]
        assert [other.outputs() for other in beside] == outputs, cycle
        seen |= {tuple(o.values()) for o in outputs}
    assert len(seen) > cycles
    for driven in alone + beside:
        driven.close()


def sources(model):
    folder = model.library.parent
    return [p.read_text() for p in sorted(folder.glob("Vmodel___024root__*.cpp"))
            if "Slow" not in p.name]


def test_pieces_keep_the_order_of_all_statements(monkeypatch):
    """Whatever the pieces are: what is run for one instance is the whole of `eval_nba` in turn."""
    texts = sources(build(channel()))
    functions = {m[1]: m[2] for text in texts for m in together.FUNCTION.finditer(text)}
    expected = together.CALL.findall(functions["eval_nba"])
    expected = [c for name in expected if name.startswith("eval_nba")
                for c in together.CALL.findall(functions[name])] or expected
    for piece, least, most in ((1, 10, 1000), (10**9, 1, 1)):
        monkeypatch.setattr(together, "PIECE", piece)
        text = together.step_of_several(texts)
        logic = text[text.index("void nba_0("):text.index("// As `eval`")]
        assert together.CALL.findall(logic) == expected
        assert least <= logic.count("void nba_") <= most


@pytest.mark.parametrize("change", [
    ("    // Body\n    if ((", "    // Body\n    vlSelfRef.x = 1U;\n    if (("),
    ("(IData)((IData)(vlSelfRef.__VicoFirstIteration))", "(IData)((IData)(vlSelfRef.p_rst))"),
    ("eval_nba(", "eval_other(")])
def test_unknown_code_is_left_to_be_stepped_one_by_one(change):
    texts = sources(build(channel()))
    assert together.step_of_several(texts)
    assert together.step_of_several(text.replace(*change) for text in texts) is None


@pytest.mark.parametrize("change", [
    ("0(vlSelf);\n", "0(vlSelf);\n    vlSelfRef.c = 1U;\n"),     # more than its parts
    ("0(vlSelf);\n", "2(vlSelf);\n"),                            # a part that is not there
    ("CData/*0:0*/ __Vx;", "Other __Vx;"),                       # a declaration of another form
    ("__Vy", "__Vx")])                                           # two variables of one name
def test_a_step_in_parts_is_taken_whole_or_not_at_all(change):
    def function(name, body):
        return f"void {together.ROOT}___{name}({together.ROOT}* vlSelf) {{\n{body}}}\n"

    part = ("    // Locals\n    CData/*0:0*/ __V{0};\n    __V{0} = 0;\n    // Body\n"
            "    if ((1ULL & vlSelfRef.__VnbaTriggered[0U])) {{\n"
            "        vlSelfRef.{0} = __V{0};\n    }}\n")
    calls = "".join(f"    {together.ROOT}___eval_nba__{n}(vlSelf);\n" for n in range(2))
    texts = [function("eval_nba", f"    // Body\n{calls}"),
             function("eval_nba__0", part.format("x")), function("eval_nba__1", part.format("y"))]
    text = together.step_of_several(texts)
    assert text.index("vlSelfRef.x = __Vx;") < text.index("vlSelfRef.y = __Vy;")
    assert together.step_of_several(text.replace(*change) for text in texts) is None


def test_functions_with_more_arguments_are_declared():
    call = "Vmodel___024root____Vdpiimwrap_f_TOP(vlSelfRef.a, (IData)(vlSelfRef.b));"
    function = ("void Vmodel___024root___eval_nba(Vmodel___024root* vlSelf) {\n    // Body\n"
                f"    if ((1ULL & vlSelfRef.__VnbaTriggered[0U])) {{\n        {call}\n    }}\n}}\n")
    declaration = "void Vmodel___024root____Vdpiimwrap_f_TOP(QData/*63:0*/ a, IData/*31:0*/ &b)"
    for end in (";", " {\n}"):
        text = together.step_of_several([f"{declaration}{end}\n", function])
        assert text.count(f"{declaration};\n") == 1 and call in text
    assert together.step_of_several([function]) is None


def test_tables_of_constants_are_declared():
    table = "Vmodel__ConstPool__TABLE_h0123abcd_0"
    function = ("void Vmodel___024root___eval_nba(Vmodel___024root* vlSelf) {\n    // Body\n"
                "    if ((1ULL & vlSelfRef.__VnbaTriggered[0U])) {\n"
                f"        vlSelfRef.a = {table}[vlSelfRef.b];\n    }}\n}}\n")
    declaration = f"extern const VlUnpacked<VlWide<16>/*511:0*/, 16> {table};\n"
    text = together.step_of_several([declaration + function, declaration])
    assert text.count(declaration) == 1 and text.index(declaration) < text.index(f"{table}[")
    assert together.step_of_several([function]) is None


def test_a_local_variable_is_of_one_piece(monkeypatch):
    monkeypatch.setattr(together, "PIECE", 1)
    guard = "    if ((1ULL & vlSelfRef.__VnbaTriggered[0U])) {{\n        {}\n    }}\n"

    def step(*statements):
        text = "".join(map(guard.format, statements))
        head = "void Vmodel___024root___eval_nba(Vmodel___024root* vlSelf) {\n    // Locals\n"
        local = "    CData/*0:0*/ __Vx;\n    __Vx = 0;\n"
        return together.step_of_several([f"{head}{local}    // Body\n{text}}}\n"])

    assert step("__Vx = vlSelfRef.a; vlSelfRef.b = __Vx;", "vlSelfRef.c = 1U;")
    assert step("__Vx = vlSelfRef.a;", "vlSelfRef.b = __Vx;") is None
