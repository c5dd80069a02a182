"""Tests of cosim/build/lanes.py: arrays compiled for vector instructions do what Verilator's do."""

import numpy as np
import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from cosim.build import lanes, netlist
from cosim.build.model import build
from rtl.common.place import Place
from rtl.pe.beat_sequencer import Path
from rtl.pe.dot_array import PathArray
from testbenches.cosim.driven import Driven


class Wrapped(wiring.Component):
    """A component, placed."""

    def __init__(self, component):
        self.component = component
        super().__init__(component.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = Place(self.component)
        wiring.connect(m, wiring.flipped(self), array)
        return m


def pair(kind, make):
    """The same component from Verilator alone and with its array compiled for vectors."""
    def chosen(component):
        return isinstance(component, kind)

    plain = build(Wrapped(make()), name="plain")
    fast = build(Wrapped(make()), name="lanes", arrays=chosen)
    assert any(path.stem.startswith(kind.__name__)
               for path in fast.library.parent.glob("*.cpp"))
    return Driven(plain), Driven(fast)


def compare(models, cycles, stimulus):
    """Step both with the same inputs; every output is the same in every cycle."""
    plain, fast = models
    assert plain.outputs() == fast.outputs()
    seen = set()
    for cycle in range(cycles):
        for name, value in stimulus(cycle).items():
            plain[name] = fast[name] = value
        plain.cycle()
        fast.cycle()
        outputs = plain.outputs()
        assert fast.outputs() == outputs, f"cycle {cycle}"
        seen.update(outputs.values())
    assert len(seen) > cycles // 4


@pytest.mark.parametrize("rows, columns, halves", [(3, 2, 0), (8, 1, 0), (16, 3, 0), (16, 1, 1)])
def test_array_of_the_dot_product_engine(rows, columns, halves):
    rng = np.random.default_rng(rows)
    models = pair(PathArray, lambda: PathArray(path=Path.MX4, rows=rows, lanes=columns,
                                               halves=bool(halves)))

    def scale():
        return int(rng.choice([0, 1, 126, 127, 128, 254, 255, rng.integers(100, 156)]))

    def stimulus(cycle):
        inputs = {"rst": int(cycle < 2 or rng.random() < 0.01),
                  "valid": int(rng.random() < 0.8), "first": int(rng.random() < 0.1),
                  "last": int(rng.random() < 0.1)}
        for side, count in (("a", rows), ("b", columns + halves)):
            for i in range(count):
                inputs[f"{side}_codes__{i}"] = int.from_bytes(rng.bytes(16), "little")
                inputs[f"{side}_scales__{i}"] = scale()
        return inputs

    compare(models, 400, stimulus)


class Sampler(wiring.Component):
    """Every operation that a cell may use, on registers of odd widths."""

    a: In(70)
    b: In(13)
    flag: In(1)
    o: Out(64)
    wide: Out(70)

    def elaborate(self, platform):
        m = Module()
        low, high, b = self.a[:37], self.a[33:70], self.b
        values = [
            low + high, low - b, low * b, low & high, low | b, low ^ ~high, -b, ~b,
            low.as_signed() + b.as_signed(), low.as_signed() * b.as_signed(),
            low == high[:37], low != b, b < low[:13], b <= low[:13], b > low[:13], b >= low[:13],
            b.as_signed() < low[:13].as_signed(), b.as_signed() >= low[:20].as_signed(),
            low.any(), b.all(), self.a[:64].xor(), ~(b.any()),
            (low << b[:5])[:50], low >> b[:6], low >> b,
            (low << b)[:64], Mux(self.flag, low, b), Mux(b[3], low.as_signed(), b.as_signed()),
            self.a[60:70], Cat(b, high[:20]), abs(b.as_signed()), b.as_signed() >> b[:3],
            low.as_signed() >> b,
        ]
        total = Const(0, 64)
        for i, value in enumerate(values):
            register = Signal(Value.cast(value).shape(), name=f"r{i}")
            with m.If(self.flag | (i % 2 == 0)):
                m.d.sync += register.eq(value)
            total = (total ^ (register.as_unsigned() << (i % 23)))[:64]
        wide = Signal(70, init=0x25_5A5A_5A5A_5A5A_5A5A)
        m.d.sync += wide.eq(self.a ^ Cat(wide[9:], wide[:9]))
        last = Signal(64, init=77)
        m.d.sync += last.eq(total)
        m.d.comb += [self.o.eq(last), self.wide.eq(wide)]
        return m


class Samplers(wiring.Component):
    """Eleven samplers, and as many cells that read them."""

    def __init__(self):
        super().__init__({"a": In(70).array(11), "b": In(13), "flag": In(1), "o": Out(64).array(11),
                          "sums": Out(64).array(11), "low": Out(40), "fixed": Out(7)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.fixed.eq(0x55)
        samplers = [Place(Sampler()) for _ in range(11)]
        for i, sampler in enumerate(samplers):
            m.submodules[f"s{i}"] = sampler
            m.d.comb += [sampler.a.eq(self.a[i]), sampler.b.eq(self.b), sampler.flag.eq(self.flag),
                         self.sums[i].eq(sampler.o)]
        for i in range(11):     # the first eight read across, the last three in their own lane
            source = samplers[i ^ 1 if i < 8 else i]
            m.submodules[f"t{i}"] = after = Place(Follower())
            m.d.comb += [after.x.eq(source.wide), after.y.eq(Cat(Const(5, 3), self.b[2:])),
                         self.o[i].eq(after.o)]
        m.d.comb += self.low.eq(samplers[4].wide[17:57])
        return m


class Follower(wiring.Component):
    """One register of another width."""

    x: In(70)
    y: In(14)
    o: Out(64)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.x[:64] + self.x[64:] + self.y)
        return m


def test_every_operation():
    rng = np.random.default_rng(1)
    models = pair(Samplers, Samplers)

    def stimulus(cycle):
        bits = int.from_bytes(rng.bytes(9), "little")
        masks = [0, (1 << 70) - 1, (1 << 37) - 1]
        inputs = {f"a__{i}": (bits * (2 * i + 1) | int(rng.choice([0, 1])) * masks[cycle % 3])
                  & ((1 << 70) - 1) for i in range(11)}
        return inputs | {"b": int(rng.choice([0, 8191, rng.integers(8192)])),
                         "flag": int(rng.random() < 0.7), "rst": int(rng.random() < 0.02)}

    compare(models, 300, stimulus)


class Leaky(wiring.Component):
    """A cell with a path from its input to its output: no cell of an array."""

    i: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        count = Signal(8)
        m.d.sync += count.eq(count + 1)
        m.d.comb += self.o.eq(self.i + count)
        return m


class Ring(wiring.Component):
    """Cells that read each other."""

    o: Out(64)

    def elaborate(self, platform):
        m = Module()
        m.submodules.a, m.submodules.b = a, b = Place(Follower()), Place(Follower())
        m.d.comb += [a.x.eq(b.o), b.x.eq(a.o), self.o.eq(a.o)]
        return m


class LeakyArray(wiring.Component):
    i: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.leaky = leaky = Place(Leaky())
        m.d.comb += [leaky.i.eq(self.i), self.o.eq(leaky.o)]
        return m


@pytest.mark.parametrize("array, words", [
    (Ring, "each other's outputs in a loop"), (LeakyArray, "path from an input to"),
    (Sampler, "beside placed cells")])
def test_what_is_no_array_is_refused(array, words, tmp_path):
    from chiplets import verilog
    texts = verilog.modules(array(), name="array")
    lanes.write_source(tmp_path / "array.il", texts, "array")
    with pytest.raises(netlist.NetlistError, match=words):
        lanes.compile_array(tmp_path / "array.il", tmp_path, "array")
