"""Tests of rtl/noc/interleave.py."""
import random

import pytest
from amaranth import *
from amaranth.sim import Simulator

from rtl.noc.interleave import spread

BITS = 31


@pytest.mark.parametrize("ways", [1, 2, 3, 4, 6, 12, 24])
def test_lines_are_spread_in_turn(ways):
    """The remainder and the quotient, for small, large and random numbers."""
    m, value, index, rest = Module(), Signal(BITS), Signal(8), Signal(BITS)
    m.d.comb += [signal.eq(part) for signal, part in zip((index, rest), spread(value, ways),
                                                         strict=True)]
    values = [*range(200), *range((1 << BITS) - 100, 1 << BITS)]
    values += [random.getrandbits(BITS) for _ in range(2000)]

    async def testbench(ctx):
        for number in values:
            ctx.set(value, number)
            assert (ctx.get(index), ctx.get(rest)) == (number % ways, number // ways)

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("ways", [0, 5, 9, 10])
def test_other_numbers_of_ways_are_refused(ways):
    with pytest.raises(ValueError, match=f"power of two or three times one, not {ways}"):
        spread(Signal(8), ways)
