"""The layouts and codes of the network in hardware and in software are the same."""
import numpy as np
import pytest

from host import network_isa as software
from rtl.net import interfaces as hardware

LAYOUTS = {
    "work": (hardware.work_layout, software.WORK),
    "completion": (hardware.completion_layout, software.COMPLETION),
    "queue pair": (hardware.qp_layout, software.QUEUE_PAIR),
    "region": (hardware.region_layout, software.REGION),
    "entry": (hardware.entry_layout, software.ENTRY),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_field_has_its_place(name):
    make, layout = LAYOUTS[name]
    names = set()
    for field, place in make():
        if field.startswith("_"):
            continue
        names.add(field)
        ones = (1 << place.width) - 1
        line = software.line(layout, **{field: ones})
        assert int.from_bytes(line.tobytes(), "little") == ones << place.offset, field
        assert int(software.field(line, field)) == ones
        with pytest.raises(ValueError, match=f"{field} must have at most {place.width} bits"):
            software.line(layout, **{field: ones + 1})
    packed = software.PACKED.get(layout, {})
    own = {n for n in layout.names if not n.startswith("_")} - {h for h, _, _ in packed.values()}
    assert own | set(packed) == names
    assert layout.itemsize == software.LINE


@pytest.mark.parametrize("name", ["Opcode", "Status", "QpState", "EngineKind", "Compare"])
def test_codes_agree(name):
    hard, soft = getattr(hardware, name), getattr(software, name)
    assert {m.name: m.value for m in hard} == {m.name: m.value for m in soft}


def test_windows_agree():
    assert software.nic_window(2, 3, 1) == (
        2 << 44 | 5 << 40 | 3 << hardware.NETWORK_WINDOW_LOG2 | 1 << hardware.NIC_WINDOW_LOG2)
    send, receive = software.doorbells(software.nic_window(0, 0), 5)
    assert (send & 0xFFFFF, receive & 0xFFFFF) == (0x40000 + 320, 0x80000 + 320)


def test_a_program_starts_with_its_subgraphs():
    header = software.program_header([(0x1234_5678_9A40, 7), (0x80, 65535)]).view("<u4")
    assert header[:6].tolist() == [2, 0, 0x5678_9A40, 0x0007_1234, 0x80, 0xFFFF_0000]
    for wrong in ([], [(0, 1)] * 8, [(0, 0)], [(0, 65536)]):
        with pytest.raises(ValueError, match="must be 1 to"):
            software.program_header(wrong)
    assert not np.any(header[6:])
