# amaranth: UnusedElaboratable=no
"""Wrong parameters of rtl/net/engine.py, and wrong fields of its golden model."""
import pytest

from cosim.golden.message_engine import Kind, encode
from rtl.net.engine import MessageEngine
from rtl.net.interfaces import Compare, EngineKind, entry_layout


@pytest.mark.parametrize("subgraphs", [0, 8, 1.0, "7"])
def test_wrong_subgraphs_are_refused(subgraphs):
    with pytest.raises(ValueError, match="Subgraphs must be an integer in 1 to 7, not"):
        MessageEngine(subgraphs=subgraphs)


def test_the_golden_model_has_the_same_entries():
    """The layout and the numbers, field by field."""
    assert {kind.name: kind.value for kind in Kind} == {
        kind.name: kind.value for kind in EngineKind if kind is not EngineKind.NONE}
    assert [compare.value for compare in Compare] == [0, 1, 2, 3]
    for name, field in entry_layout():
        if not name.startswith("_"):
            value = (0xA5A5A5A5A5A5A5A5 | 1) & (1 << field.width) - 1
            bits = entry_layout().const({}).as_value().value | value << field.offset
            assert int.from_bytes(encode(**{name: value}), "little") == bits, name


def test_fields_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="back must fit in 8 bits, not 256"):
        encode(kind=Kind.COPY, back=256)
