"""Tests of cosim/build/model.py: clocks in one evaluation and in two; what is built when."""
import os
import random

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from chiplets import verilog
from cosim.build.cache import building_seconds
from cosim.build.model import Recipe, build, build_beside, clock_once
from rtl.common.clockgate import gated_domain
from testbenches.cosim.driven import Driven


class Gated(wiring.Component):
    """Registers behind a gate, and behind one more, beside the same with clock enables.

    The outer gate's enable comes straight from an input and from a register of ``sync``.
    """

    i: In(8)
    outer: In(1)
    gated: Out(24)
    expected: Out(24)

    def elaborate(self, platform):
        m = Module()
        core, counted = Module(), Signal(8)
        gated_domain(m, name="outer", enable=self.outer | (counted[:2] == 3))
        first, second, after = Signal(8), Signal(8), Signal(8)
        gated_domain(core, name="inner", enable=ResetSignal("sync") | (first[:2] == 1))
        m.d.sync += [counted.eq(counted + 1), after.eq(first ^ second)]
        core.d.sync += first.eq(first + (self.i ^ after))
        core.d.inner += second.eq(second + first + self.i)
        m.submodules.core = DomainRenamer("outer")(core)
        m.d.comb += self.gated.eq(Cat(first, second, after))

        one, two, three = Signal(8), Signal(8), Signal(8)
        outer = self.outer | (counted[:2] == 3)
        m.d.sync += three.eq(one ^ two)
        with m.If(outer):
            m.d.sync += one.eq(one + (self.i ^ three))
            with m.If(one[:2] == 1):
                m.d.sync += two.eq(two + one + self.i)
        m.d.comb += self.expected.eq(Cat(one, two, three))
        return m


@pytest.mark.parametrize("waves", [False, True])
def test_gated_registers_act_as_with_a_clock_enable(waves):
    """Inputs change just before each cycle, as in the engine."""
    driven = Driven(build(Gated(), waves=waves))
    held = moved = 0
    for cycle in range(30000):
        before = driven["gated"]
        driven["rst"] = int(cycle < 3)
        driven["i"] = random.getrandbits(8)
        driven["outer"] = int(cycle < 3 or random.getrandbits(2) == 0)
        driven.cycle()
        assert driven["gated"] == driven["expected"], cycle
        held += driven["gated"] & 0xFFFF == before & 0xFFFF
        moved += driven["gated"] >> 8 & 0xFF != before >> 8 & 0xFF
    assert held > 10000 and moved > 3000
    driven.close()


def test_other_clocks_need_two_evaluations(tmp_path):
    text = verilog.write(Gated(), name="model", path=tmp_path / "model.v").read_text()
    assert "negedge" in text
    once, evaluations = clock_once(text)
    assert evaluations == 1 and "negedge" not in once and "posedge" not in once
    assert ".fall_clk(clk)" in text     # what feeds the outer gate
    for left, right in ((".fall_clk(clk)", ".fall_clk(~clk)"), ("fall_clk & enabled", "~fall_clk"),
                        ("@(posedge clk)", "@(negedge clk)"),
                        ("endmodule", "  assign clk = i[0] & clk;\nendmodule")):
        assert left in text
        changed = text.replace(left, right, 1)
        assert clock_once(changed) == (changed, 2)


def test_missing_models_are_built_beside_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("MXLET_BUILD", str(tmp_path))
    makers = tmp_path / "makers"

    def recipe(number):
        def make():
            with makers.open("a") as file:
                file.write(f"{os.getpid()}\n")
            return Gated()
        return Recipe(make, ("gated", number), "Gated")

    for _ in range(2):  # the second time nothing is made
        models = build_beside([recipe(0), recipe(1)])
        assert [m.library for m in models] == 2 * [models[0].library]  # the same component
        pids = {*makers.read_text().split()}
        assert len(pids) == 2 and str(os.getpid()) not in pids
    build_beside([recipe(0), recipe(2)])
    assert str(os.getpid()) in makers.read_text().split()  # one alone: here


def test_a_build_that_fails_beside_another_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("MXLET_BUILD", str(tmp_path))

    def fail():
        raise ValueError("Nothing to make")

    recipes = [Recipe(Gated, ("gated",), "Gated"), Recipe(fail, ("none",), "None")]
    with pytest.raises(ValueError, match="Nothing to make"):
        build_beside(recipes)
    assert recipes[0].found()


def test_time_in_which_two_were_built_counts_once(tmp_path):
    for name, start, end in (("a", 100, 110), ("b", 105, 130), ("c", 106, 109), ("d", 200, 205)):
        (tmp_path / name).mkdir()
        note = tmp_path / name / "done"
        note.write_text(f"{end - start:.1f}\n")
        os.utime(note, (end, end))
    assert building_seconds([tmp_path / name for name in "dcba"]) == pytest.approx(35)
