"""Tests of cosim/trace.py and of waveforms: what was recorded, and that recording costs nothing."""
import json

import numpy as np

from cosim import engine, trace
from testbenches.cosim import parts


def test_spans_cover_every_state_between_changes():
    cycles, values = np.array([10, 20, 25, 40]), np.array([0b0001, 0b1001, 0b1000, 0])
    found = list(trace.spans(cycles, values, 50))
    assert found == [(0, 1, 10, 15), (1, 2, 20, 20)]


def test_last_span_ends_with_the_recording():
    assert list(trace.spans(np.array([10]), np.array([3 << 14]), 12)) == [(7, 3, 10, 2)]


def test_trace_of_a_die_has_its_lanes_and_the_same_hash(tmp_path):
    die = parts.company("die", workers=2)
    with engine.Engine([die]) as system:
        system.run(1000)
        plain = system.hash("die")
        assert list(system.events()) == []
    for options in ({}, {"processes": 1}):
        with engine.Engine([die], trace=True, **options) as system:
            system.run(1000)
            assert system.hash("die") == plain
            recorded = list(system.events())
    assert [lane for _, lane, _, _ in recorded] == ["pe0", "pe1"]
    for _, _, cycles, values in recorded:
        assert len(cycles) > 20 and (np.diff(cycles) > 0).all() and (np.diff(values) != 0).all()
    trace.write(tmp_path / "t.json", recorded, end_cycle=1000, clock_hertz=1e9)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    names = {e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names == {"die pe0", "die pe1", *trace.UNITS}
    busy = [e for e in events if e["ph"] == "X"]
    assert busy and all(e["ts"] == e["args"]["cycle"] * 1e6 / 1e9 for e in busy)


def test_worker_processes_record_the_same_events():
    dies = [parts.company(f"die{i}", workers=2) for i in range(2)]
    results = []
    for processes in (1, 2):
        with engine.Engine(dies, trace=True, processes=processes) as system:
            system.run(700)
            results.append([(d, n, c.tolist(), v.tolist()) for d, n, c, v in system.events()])
    assert results[0] == results[1] and len(results[0]) == 4


def test_waveforms_are_written_and_change_nothing(tmp_path):
    with engine.Engine([parts.company("die", workers=1)]) as system:
        system.run(500)
        plain = system.hash("die")
    die = parts.company("die", workers=1, waves=True)
    for processes in (1, 2):
        with engine.Engine([die], waves=tmp_path / f"w{processes}", processes=processes) as system:
            system.run(500)
            assert system.hash("die") == plain
        for model in ("base", "pe0"):
            content = (tmp_path / f"w{processes}.die.{model}.fst").read_bytes()
            assert len(content) > 500 and content[0] == 0  # the header block of an FST file
