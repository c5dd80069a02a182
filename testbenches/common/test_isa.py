"""The commands of hardware, of software and of the documentation are the same."""
import re
from pathlib import Path

from host import isa as software
from rtl.common import isa as hardware
from rtl.pe import functions, simd_command
from rtl.pe.interfaces import LINE_BYTES, AccessError, ErrorCode, Group, Hint, Unit, UnitState

PAGE = (Path(__file__).parents[2] / "docs" / "programming-model.md").read_text()


def numbers(names):
    return {member.name: member.value for member in names}


def test_hints_agree():
    assert numbers(Hint) == numbers(software.Hint)
    assert numbers(Group) == numbers(software.Group)


def test_opcodes_agree():
    documented = {name: int(code, 16) for code, name in
                  re.findall(r"^\| 0x([0-9A-F]{2}) \| `(\w+)` \|", PAGE, re.MULTILINE)}
    assert numbers(hardware.Opcode) == numbers(software.Op) == documented


def test_error_codes_agree():
    table = PAGE[PAGE.index("### Errors"):]
    documented = {name: int(code) for code, name in
                  re.findall(r"^\| (\d) \| `(\w+)` \|", table, re.MULTILINE)}
    assert numbers(ErrorCode) == numbers(software.Code) == documented


def test_units_agree():
    assert numbers(Unit) == numbers(software.Unit)
    assert LINE_BYTES == software.LINE
    for unit in Unit:
        assert re.search(rf"^\| [^|]+ \| {unit.value} \|", PAGE, re.MULTILINE), unit


def test_codes_of_the_simd_command_agree():
    """By number: the names are shorter in software and on the page."""
    row = next(line for line in PAGE.splitlines() if "binary op: 0 none" in line)
    for field, hard, soft in (("binary op", simd_command.Operation, software.Binary),
                              ("function", functions.Function, software.Function),
                              ("reduce", simd_command.Reduce, software.Reduce),
                              ("source 1", simd_command.Source1, software.Source1),
                              ("norm", simd_command.Norm, software.Norm)):
        codes = re.search(rf"\d {field}: ([^;|]+)", row).group(1)
        documented = {int(number): name.lower()[:3] for number, name in
                      re.findall(r"(\d) ([^,]+)", codes)}
        values = [member.value for member in hard]
        assert values == [member.value for member in soft] == sorted(documented), field
        if field in ("binary op", "norm"):
            for enum in (hard, soft):
                assert {m.value: m.name.lower()[:3] for m in enum} == documented | {
                    code: name for code, name in ((0, "non"), (3, "mul")) if code in documented}


def test_every_opcode_is_routed_or_executed_by_the_command_processor():
    routed = {route.opcode.name for route in hardware.ROUTES}
    own = {"NOP", "CB_CONFIG", "FENCE", "BARRIER", "END"}
    assert routed | own == set(numbers(hardware.Opcode)) and not routed & own


def test_commands_of_a_unit_that_is_missing_are_unknown():
    open_ = {missing: {r.opcode.name for r in hardware.ROUTES if r.open_to(set(Unit) - {missing})}
             for missing in Unit}
    everything = {r.opcode.name for r in hardware.ROUTES}
    assert everything - open_[Unit.SOFTMAX] == {"SCORE", "WEIGH"}
    assert everything - open_[Unit.REDUCTION] == {"DOT", "WEIGH", "REDUCE"}
    assert everything - open_[Unit.DOT] == {"DOT", "SCORE", "WEIGH"}
    assert everything - open_[Unit.LAYOUT] == {"TRANSPOSE"}


def test_codes_of_hardware_alone_keep_their_values():
    """The co-simulation's probes and traces rely on them."""
    assert numbers(AccessError) == {"NONE": 0, "ADDRESS": 1, "POISON": 2, "LINK_DOWN": 3}
    assert numbers(UnitState) == {"IDLE": 0, "BUSY": 1, "STARVED": 2, "BLOCKED": 3}
