"""Tests of rtl/pe/simd.py: norms and rotation, whole commands against cosim/golden/norm.py."""
import random

import cocotb

from cosim.golden.formats import Format
from cosim.golden.function_tables import Function
from cosim.golden.norm import Norm
from cosim.golden.simd import Operation, Reduce, Source1
from rtl.pe.simd import SimdEngine
from testbenches import sim
from testbenches.pe.simd_bench import LINES, begin, command, operand
from testbenches.pe.test_simd import MX, WIDE
from testbenches.pe.unit_bench import error_of

NORMS = [Norm.RMS, Norm.LAYER]


@cocotb.test()
@cocotb.parametrize(norm=NORMS, destination=WIDE + MX)
async def rows_are_normalised_in_any_format(dut, norm, destination):
    bench = await begin(dut)
    for columns in (random.choice([1, 7, 16, 17]), random.choice([30, 32, 33, 48]),
                    random.choice([70, 96, 100])):
        bench.turn()
        bench.execute(random.randint(1, 5), columns, norm=norm, destination=destination,
                      format0=random.choice(WIDE), format1=random.choice(WIDE),
                      gap=random.randint(0, 1), rule=random.randrange(4),
                      kind=random.choice(["normal", "normal", "special"]))
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(norm=NORMS)
async def rows_are_normalised_in_groups(dut, norm):
    """More rows than a group has, and whole groups, in which the pointers go round the CBs."""
    bench = await begin(dut, ready=0.85)
    for rows, columns in ((16, 20), (17, 33), (32, 5), (40, 32), (50, 16)):
        bench.turn()
        bench.execute(rows, columns, norm=norm, destination=random.choice(WIDE),
                      format0=Format.BF16, format1=random.choice(WIDE), kind="special")
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(norm=NORMS)
async def odd_rows_spoil_themselves_alone(dut, norm):
    bench = await begin(dut)
    for kind in ("special", "any"):
        for rows, columns in ((1, 1), (18, 3), (6, 40)):
            bench.turn()
            bench.execute(rows, columns, norm=norm, kind=kind, epsilon=random.choice([0, 1e-12]),
                          destination=random.choice([Format.FP32, Format.E4M3]))
            await bench.compare()


@cocotb.test()
@cocotb.parametrize(norm=NORMS)
async def slow_writes_lose_nothing(dut, norm):
    """Results wait while sums of the next group would come; quantised, with scale lines."""
    bench = await begin(dut, ready=1.0, write_ready=0.2)
    bench.execute(20, 32, norm=norm, destination=Format.E4M3, scale_stride=16, format0=Format.BF16)
    await bench.compare()
    bench.turn()
    bench.execute(35, 16, norm=norm, destination=Format.BF16)
    await bench.compare()


@cocotb.test()
async def stochastic_rounding_counts_rows_over_groups(dut):
    bench = await begin(dut)
    for norm in NORMS:
        bench.turn()
        bench.execute(19, 40, norm=norm, format0=Format.FP16, destination=Format.E2M1,
                      stochastic=True, seed=random.getrandbits(32), scale_stride=2)
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(destination=WIDE + MX)
async def pairs_are_rotated(dut, destination):
    bench = await begin(dut)
    for mode in (Source1.FULL, Source1.ROW, Source1.FULL):
        bench.turn()
        bench.execute(random.randint(1, 4), random.choice([2, 14, 16, 18, 32, 34, 64]),
                      operation=Operation.ROTATE, mode=mode, destination=destination,
                      format0=random.choice(WIDE), format1=random.choice(WIDE),
                      kind=random.choice(["normal", "special"]), gap=random.randint(0, 1))
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(reduce=list(Reduce))
async def rotated_numbers_go_on_as_any_other(dut, reduce):
    bench = await begin(dut)
    for function in (Function.NONE, Function.GELU):
        bench.turn()
        bench.execute(3, 36, operation=Operation.ROTATE, function=function, reduce=reduce)
        await bench.compare()


@cocotb.test()
async def commands_of_all_kinds_follow_each_other(dut):
    """What one of them leaves behind is of no meaning to the next."""
    bench = await begin(dut)
    kinds = [{"norm": Norm.LAYER}, {"operation": Operation.ROTATE}, {"norm": Norm.RMS},
             {"affine": (1.5, -2.0)}, {"operation": Operation.ADD}, {"function": Function.EXP2},
             {"reduce": Reduce.SUM}, {"operation": Operation.MULTIPLY, "mode": Source1.SCALAR}]
    for index in range(24):
        bench.execute(2, 20, offset=index % 12 * 4, **random.choice(kinds))
        if index % 12 == 11:
            await bench.compare()
            bench.turn()


def cycles(norm, rows, columns, destination):
    """Cycles of a norm, as :class:`SimdEngine` states them."""
    beats, groups, quantised = -(-columns // 16), -(-rows // 16), destination in MX
    swept = (2 if norm == Norm.RMS else 4) * rows * beats
    return (swept + (16 if norm == Norm.RMS else 27) * groups + 10 + 4 * quantised
            + rows * (beats % 2) * quantised)


@cocotb.test()
@cocotb.parametrize(norm=NORMS)
async def a_norm_takes_the_cycles_stated(dut, norm):
    """Counted are a command alone and two of them: the difference is what one takes."""
    bench = await begin(dut, ready=1.0)
    for rows, columns, format0, format1, destination in (
            (1, 1, 0, 0, 0), (1, 192, 0, 0, 0), (8, 64, 0, 0, 0), (17, 32, 0, 0, 0),
            (35, 16, 1, 2, 1), (17, 32, 0, 1, 3), (5, 112, 1, 1, 4), (17, 48, 2, 0, 5)):
        totals = []
        for count in (1, 2):
            dut.unit__launch.value = 1
            await bench.step()
            dut.unit__launch.value = 0
            for index in range(count):
                bench.execute(rows, columns, norm=norm, format0=Format(format0),
                              format1=Format(format1), destination=Format(destination),
                              offset=35 * index)
            await bench.compare()
            counters = int(dut.unit__counters.value)
            totals.append(sum(counters >> 32 * i & 0xFFFFFFFF for i in range(3)))
        wanted = cycles(norm, rows, columns, Format(destination))
        dut._log.info("%s: %d rows of %d: %d cycles, %d stated", norm.name, rows, columns,
                      totals[1] - totals[0], wanted)
        assert totals[1] - totals[0] == wanted


@cocotb.test()
async def wrong_norms_and_rotations_are_refused_with_the_number_of_the_word(dut):
    both = operand(2, 1, wait=1) | operand(6, 3, wait=1)
    second = operand(4, 2, wait=1)
    good = {"w8": 2 | 64 << 16, "w9": 4 | 4 << 16, "w10": 4 | 2 << 16}
    row = 1 << 22
    rms, layer, rotate = 1 << 29 | row, 2 << 29 | row, 6 << 12
    cases = [
        (1, {"w1": 3 << 29 | row}), (1, {"w1": 1 << 31}), (1, {"w1": layer ^ row}),
        (1, {"w1": rms ^ 3 << 22}), (1, {"w1": rms | 1 << 12}), (1, {"w1": layer | 3 << 16}),
        (1, {"w1": layer | 1 << 20}), (1, {"w1": rms | 1 << 28}), (1, {"w1": layer | 3 << 4}),
        (1, {"w1": rms | 6 << 12}), (9, {"w1": layer, "w9": 4 | 61 << 16}),
        (9, {"w1": layer, "w8": 1 | 64 << 16, "w9": 4 | 61 << 16}),
        (8, {"w1": layer, "w8": 2}), (9, {"w1": rms, "w9": 81}),
        (1, {"w1": rotate | 1 << 28}), (1, {"w1": rotate | 2 << 22}), (1, {"w1": 7 << 12}),
        (8, {"w1": rotate, "w8": 2 | 63 << 16}), (9, {"w1": rotate, "w9": 4 | 61 << 16}),
    ]
    cases = [(field, second | change) for field, change in cases]
    cases += [(4, {"w1": kind}) for kind in (rms, layer, rotate)]
    bench = await begin(dut)
    for field, change in cases:
        bench.commands.append(command(0x30, 77, **(both | good | change)))
        error = await bench.fail()
        assert error == (2, field, 77), f"{error} for {change}"
        assert not bench.writes
        await bench.clear()
        await bench.step()
    for change in ({"w1": rms, "w9": 4 | 61 << 16}, {"w1": layer},
                   {"w1": rotate | row | 1 << 20}):     # nothing wrong
        bench.commands.append(command(0x30, 5, **(both | good | second | change)))
        await bench.finish()
        assert not error_of(dut)[0]


@cocotb.test()
async def a_cleared_engine_starts_afresh(dut):
    bench = await begin(dut)
    for norm in NORMS:
        for cycles in (30, 60, 100, 140):
            bench.execute(18, 32, norm=norm, format0=Format.BF16, destination=Format.E4M3)
            for _ in range(cycles):
                await bench.step()
            await bench.clear()
            bench.stalled.clear()
            bench.model[:] = bench.local
            bench.execute(3, 20, norm=random.choice(list(Norm)), function=0,
                          destination=Format.BF16)
            await bench.compare()


@sim.on_simulators
def test_simd_norm(tmp_path, simulator):
    sim.run(SimdEngine(lines=LINES), test_module=__name__, build_dir=tmp_path,
            simulator=simulator)
