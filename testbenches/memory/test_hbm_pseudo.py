"""Tests of cosim/devices/hbm_pseudo.hpp: each rule, broken by one clock and just kept."""
import dataclasses
import subprocess
from pathlib import Path

import pytest

from cosim.build import compiler
from cosim.build.cache import cached, digest
from rtl.memory.hbm.timing import LEAST, HbmTiming

HERE = Path(__file__).parent
DEVICES = HERE.parents[1] / "cosim" / "devices"
T = HbmTiming()


def timing_arguments(timing):
    return [f"{name}={value}" for name, value in dataclasses.asdict(timing).items()]


@pytest.fixture(scope="module")
def judge():
    """A function that gives a script of commands to the device and returns its verdict."""
    sources = [HERE / "native" / "pseudo_rules.cpp", *(
        DEVICES / name for name in ("hbm_pseudo.hpp", "hbm_faults.hpp", "hbm_code.hpp"))]
    key = digest("pseudo_rules", compiler.identity(), *(s.read_text() for s in sources))
    folder, _ = cached(f"pseudo_rules_{key}", lambda folder: compiler.run(
        ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{DEVICES}", sources[0],
         "-o", folder / "rules"], cwd=folder))

    def run(*commands, timing=T):
        script = "".join(f"{clock} {op} {bank} {place}\n"
                         for clock, op, bank, place in sorted(commands))
        return subprocess.run([folder / "rules", *timing_arguments(timing)], input=script,
                              text=True, capture_output=True, check=True).stdout.strip()
    return run


def open_banks(*banks):
    """Activates far enough apart to be legal, done well before clock 300."""
    return [(100 + 30 * n, "A", bank, 1) for n, bank in enumerate(banks)]


# rule: commands before, the command that keeps or breaks it, its bank, the clock it counts from,
# and the least distance
RULES = {
    "RCDRD": (open_banks(0), "R", 0, 100, T.rcdrd),
    "RCDWR": (open_banks(0), "W", 0, 100, T.rcdwr),
    "RP": ([*open_banks(0), (300, "P", 0, 0)], "A", 0, 300, T.rp),
    "RP all": ([*open_banks(0, 5), (300, "Q", 0, 0)], "A", 5, 300, T.rp),
    "RP refresh": ([*open_banks(5), (300, "P", 5, 0)], "F", 0, 300, T.rp),
    "RAS": (open_banks(0), "P", 0, 100, T.ras),
    "RAS all": (open_banks(7, 3), "Q", 0, 130, T.ras),
    "RC": ([*open_banks(0), (100 + T.ras, "P", 0, 0)], "A", 0, 100, T.rc),
    "RC refresh": ([*open_banks(6), (100 + T.ras, "P", 6, 0)], "F", 0, 100, T.rc),
    "RTP": ([*open_banks(0), (300, "R", 0, 0)], "P", 0, 300, T.rtp),
    "RTP all": ([*open_banks(9), (300, "R", 9, 0)], "Q", 0, 300, T.rtp),
    "WR": ([*open_banks(0), (300, "W", 0, 0)], "P", 0, 300, T.cwl + T.bl + T.wr),
    "WR all": ([*open_banks(2), (300, "W", 2, 0)], "Q", 0, 300, T.cwl + T.bl + T.wr),
    "CCDS read": ([*open_banks(0, 1), (300, "R", 0, 0)], "R", 1, 300, T.ccds),
    "CCDS write": ([*open_banks(0, 1), (300, "W", 0, 0)], "W", 1, 300, T.ccds),
    "CCDL read": ([*open_banks(0, 4), (300, "R", 0, 0)], "R", 4, 300, T.ccdl),
    "CCDL read same bank": ([*open_banks(3), (300, "R", 3, 0)], "R", 3, 300, T.ccdl),
    "CCDL write": ([*open_banks(0, 4), (300, "W", 0, 0)], "W", 4, 300, T.ccdl),
    "RRDS": ([(100, "A", 0, 1)], "A", 1, 100, T.rrds),
    "RRDL": ([(100, "A", 0, 1)], "A", 12, 100, T.rrdl),
    "FAW": ([(100 + T.rrds * n, "A", n, 1) for n in range(4)], "A", 4, 100, T.faw),
    "WTRS": ([*open_banks(0, 1), (300, "W", 0, 0)], "R", 1, 300, T.cwl + T.bl + T.wtrs),
    "WTRL": ([*open_banks(0, 4), (300, "W", 0, 0)], "R", 4, 300, T.cwl + T.bl + T.wtrl),
    "RTW": ([*open_banks(0, 1), (300, "R", 0, 0)], "W", 1, 300, T.rtw),
    "RTW same bank": ([*open_banks(0), (300, "R", 0, 0)], "W", 0, 300, T.rtw),
    "RP bank refresh": ([*open_banks(5), (300, "P", 5, 0)], "B", 5, 300, T.rp),
    "RC bank refresh": ([*open_banks(6), (100 + T.ras, "P", 6, 0)], "B", 6, 100, T.rc),
    "RFC": ([(300, "F", 0, 0)], "A", 3, 300, T.rfc),
    "RFC bank refresh": ([(300, "F", 0, 0)], "B", 3, 300, T.rfc),
    "RFCPB": ([(300, "B", 3, 0)], "A", 3, 300, T.rfcpb),
    "RFCPB refresh": ([(300, "B", 3, 0)], "F", 0, 300, T.rfcpb),
    "RREFD": ([(300, "B", 3, 0)], "A", 4, 300, T.rrefd),
    "RREFD same group": ([(300, "B", 3, 0)], "A", 7, 300, T.rrefd),
    "RREFD refresh": ([(300, "B", 3, 0)], "B", 4, 300, T.rrefd),
    "RRDS refresh": ([(100, "A", 0, 1)], "B", 1, 100, T.rrds),
    "RRDL refresh": ([(100, "A", 0, 1)], "B", 12, 100, T.rrdl),
    "RFC refresh": ([(300, "F", 0, 0)], "F", 0, 300, T.rfc),
}


@pytest.mark.parametrize("case", RULES)
def test_a_rule_is_broken_one_clock_early_and_kept_on_the_clock(judge, case):
    before, op, bank, since, least = RULES[case]
    place = 1 if op == "A" else 0
    early = since + least - 1
    assert judge(*before, (early, op, bank, place)) == f"{case.split()[0]} {early}"
    assert judge(*before, (early + 1, op, bank, place)) == "legal"


@pytest.mark.parametrize("case", RULES)
def test_every_rule_follows_its_own_value(judge, case):
    """With all distances but the tested one at a third, the verdicts are the same."""
    name = case.split()[0].lower()
    kept = {name, "refi", {"rcdwr": "rcdrd", "ccds": "ccdl", "rrds": "rrdl", "wtrs": "wtrl"}.get(
        name, name)}
    kept |= {"cwl", "bl"} if name in ("wr", "wtrs", "wtrl") else set()
    timing = HbmTiming(**{k: v if k in kept else max(LEAST.get(k, 1), v // 3)
                          for k, v in dataclasses.asdict(T).items()})
    before, op, bank, since, least = RULES[case]
    if name in ("ras", "rc"):
        before = [(c if c < since + 1 else since + timing.ras, *rest) for c, *rest in before]
    early = since + least - 1
    place = 1 if op == "A" else 0
    assert judge(*before, (early, op, bank, place), timing=timing) == f"{name.upper()} {early}"
    assert judge(*before, (early + 1, op, bank, place), timing=timing) == "legal"


def test_the_fifth_activate_counts_from_the_first_of_the_last_four(judge):
    """The window of four slides: activates at its full rate are legal for ever."""
    step = T.faw // 4
    script = [(100 + step * n, "A", n, 1) for n in range(16)]
    assert judge(*script) == "legal"
    late = [(c + 1 if n < 4 else c, *rest) for n, (c, *rest) in enumerate(script)]
    assert judge(*late) == f"FAW {100 + 4 * step}"


@pytest.mark.parametrize(("commands", "verdict"), [
    ([(5, "R", 0, 0)], "CLOSED 5"),
    ([(5, "A", 0, 1), (200, "A", 0, 2)], "OPEN 200"),
    ([(5, "A", 9, 1), (200, "F", 0, 0)], "OPEN 200"),
    ([(5, "A", 0, 1), (200, "P", 0, 0), (200, "R", 0, 0)], "CLOSED 200"),
    ([(5, "A", 0, 8)], "ROW 5"),
    ([(5, "A", 16, 0)], "BANK 5"),
    ([(5, "A", 0, 0), (200, "R", 0, 32)], "COLUMN 200"),
    ([(5, "P", 3, 0), (6, "Q", 0, 0)], "legal"),
    ([(5, "A", 0, 1), (200, "R", 0, 0), (200, "A", 1, 1)], "legal"),
    ([(5, "A", 9, 1), (200, "B", 9, 0)], "OPEN 200"),
    ([(5, "A", 9, 1), (200, "B", 8, 0), (200, "R", 9, 0)], "legal"),
    ([(5, "B", 16, 0)], "BANK 5"),
    ([(9 * T.refi, "P", 0, 0)], "legal"),
    ([(9 * T.refi + 1, "P", 0, 0)], f"REFI {9 * T.refi + 1}"),
    ([(50, "F", 0, 0), (9 * T.refi + 50, "P", 0, 0)], "legal"),
    ([(50, "F", 0, 0), (9 * T.refi + 51, "P", 0, 0)], f"REFI {9 * T.refi + 51}"),
])
def test_state_of_a_bank_and_refresh_are_judged(judge, commands, verdict):
    assert judge(*commands) == verdict


def all_banks(clock, order=range(16), step=T.rrefd):
    """Each bank refreshed once; the last one at the clock after ``clock`` + 15 ``step``."""
    return [(clock + step * n, "B", bank, 0) for n, bank in enumerate(order)]


def test_each_bank_has_its_own_time_to_the_next_refresh(judge):
    """Bank 5 comes last in the first turn and first in the second: only it is in time."""
    first, second = all_banks(1000, [*range(5), *range(6, 16), 5]), 9 * T.refi + 1000
    assert judge(*first, (second, "B", 5, 0)) == "legal"
    assert judge(*first, (second, "B", 5, 0), (second + 1, "P", 0, 0)) == f"REFI {second + 1}"
    assert judge(*first, (second - 50, "B", 0, 0), (second + T.rrefd + 1, "P", 0, 0)) == (
        f"REFI {second + T.rrefd + 1}")
    assert judge(*first, (second - 50, "B", 0, 0), (second + T.rrefd, "P", 0, 0)) == "legal"


def test_a_refresh_of_all_banks_counts_for_each(judge):
    late = 9 * T.refi + 50
    assert judge((50, "F", 0, 0), (late - 400, "B", 0, 0), (late, "P", 0, 0)) == "legal"
    assert judge((50, "F", 0, 0), (late + 1, "P", 0, 0)) == f"REFI {late + 1}"


def test_more_than_eight_refreshes_may_not_be_postponed(judge):
    """Each turn is in time after the one before, but there are too few of them."""
    one = all_banks(8 * T.refi)
    assert judge(*one, (10 * T.refi, "P", 0, 0)) == "legal"
    assert judge(*one, (10 * T.refi + 1, "P", 0, 0)) == f"POSTPONED {10 * T.refi + 1}"


def test_no_bank_is_refreshed_again_before_all_were(judge):
    some = all_banks(100)
    assert judge(*some[:15], (2000, "B", 0, 0)) == "TURN 2000"
    assert judge(*some, (2000, "B", 0, 0)) == "legal"
    assert judge(*some[:15], (2000, "F", 0, 0), (4000, "B", 0, 0)) == "legal"


@pytest.mark.parametrize(("field", "value"), [
    ("refi", 15), ("cl", 0), ("rp", -1), ("ras", 1.5), ("rcdwr", 32), ("rtp", 2), ("ccds", 5),
    ("rrds", 6), ("wtrs", 11)])
def test_timing_refuses_values_that_make_no_sense(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        HbmTiming(**{field: value})
