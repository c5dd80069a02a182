"""Tests of rtl/pe/simd.py: whole commands against cosim/golden/simd.py, memory and all."""
import random

import cocotb

from cosim.golden.formats import Format
from cosim.golden.function_tables import Function
from cosim.golden.simd import Operation, Reduce, Source1
from rtl.pe.simd import SimdEngine
from testbenches import sim
from testbenches.pe.simd_bench import LINES, begin, command, operand
from testbenches.pe.unit_bench import error_of

WIDE = [Format.FP32, Format.BF16, Format.FP16]
MX = [Format.E4M3, Format.E5M2, Format.E2M1]


@cocotb.test()
@cocotb.parametrize(operation=[o for o in Operation if o not in (Operation.NONE,
                                                                 Operation.ROTATE)])
async def binary_operations_in_every_mode(dut, operation):
    bench = await begin(dut)
    for mode in Source1:
        bench.turn()
        rows = random.randint(1, 18) if mode == Source1.SCALAR else random.randint(1, 4)
        bench.execute(rows, random.choice([1, 15, 16, 17, 30, 33]), operation=operation,
                      mode=mode, format0=random.choice(WIDE), format1=random.choice(WIDE),
                      destination=random.choice(WIDE), kind="special")
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(destination=WIDE)
async def wide_formats_convert_and_pad_rows_with_zeros(dut, destination):
    bench = await begin(dut)
    for format0 in WIDE:
        bench.turn()
        bench.execute(3, random.choice([5, 16, 31, 32, 35, 47]), format0=format0,
                      destination=destination, kind="any", gap=random.randint(0, 1))
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(function=list(Function)[1:])
async def functions_with_and_without_affine(dut, function):
    bench = await begin(dut)
    for affine in (None, (1.25, -0.5)):
        bench.turn()
        bench.execute(2, 37, function=function, affine=affine, kind="special",
                      operation=random.choice([0, 3]), mode=Source1.ROW)
        await bench.compare()


@cocotb.test()
async def affine_alone(dut):
    bench = await begin(dut)
    bench.execute(2, 21, affine=(-3.0, 1e-3), format0=Format.BF16, destination=Format.BF16)
    await bench.compare()


@cocotb.test()
@cocotb.parametrize(reduce=[Reduce.SUM, Reduce.MAX])
async def rows_of_any_length_are_reduced(dut, reduce):
    bench = await begin(dut)
    for rows, columns in ((1, 1), (3, 7), (17, 16), (4, 18), (2, 100), (33, 5)):
        bench.turn()
        bench.execute(rows, columns, reduce=reduce, kind=random.choice(["normal", "special"]),
                      format0=random.choice(WIDE), destination=random.choice(MX))
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(destination=MX, rule=[0, 1, 2, 3])
async def results_are_quantised(dut, destination, rule):
    bench = await begin(dut)
    for columns in (random.choice([1, 16, 17, 32]), random.choice([33, 64, 70, 96])):
        bench.turn()
        bench.execute(random.randint(1, 5), columns, destination=destination, rule=rule,
                      format0=random.choice(WIDE), kind=random.choice(["normal", "any"]),
                      gap=random.randint(0, 1))
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(destination=MX)
async def stochastic_rounding_is_that_of_the_golden_model(dut, destination):
    bench = await begin(dut)
    for _ in range(2):
        bench.turn()
        bench.execute(3, random.choice([40, 64]), destination=destination, stochastic=True,
                      seed=random.getrandbits(32))
        await bench.compare()


@cocotb.test()
@cocotb.parametrize(scale_stride=[1, 2, 4, 8, 16, 32, 64, 128])
async def scales_go_to_rows_of_their_own(dut, scale_stride):
    bench = await begin(dut)
    columns = 32 * random.randint(1, min(scale_stride, 4)) - random.choice([0, 3])
    rows = min(9 if scale_stride < 64 else 4, 80 // ((columns + 15) // 16))
    bench.turn()
    bench.execute(rows, columns, destination=Format.E2M1, scale_stride=scale_stride)
    await bench.compare()


@cocotb.test()
@cocotb.parametrize(destination=[Format.E2M1, Format.BF16])
async def slow_writes_lose_nothing(dut, destination):
    """Short rows, each with a line of elements and one of scales, and a port that seldom writes."""
    bench = await begin(dut, ready=1.0, write_ready=0.2)
    bench.execute(14, 32, destination=destination, scale_stride=64)
    await bench.compare()


@cocotb.test()
async def a_row_of_more_scales_than_a_line_holds(dut):
    bench = await begin(dut, ready=1.0)
    bench.turn()
    bench.execute(1, 32 * 70, format0=Format.BF16, destination=Format.E2M1, scale_stride=128)
    await bench.compare()


@cocotb.test()
async def commands_follow_each_other_and_operands_are_released(dut):
    bench = await begin(dut)
    for index in range(0, 48, 12):
        bench.execute(2, 20, operation=Operation.ADD, function=random.choice([0, 1, 4]),
                      offset=index)
        bench.execute(2, 40, destination=Format.E4M3, affine=(2.0, 0.5), offset=index + 6)
    await bench.compare()
    bench.commands.append(command(0x30, 9, w8=1 | 16 << 16, **operand(2, 1, wait=1, release=1),
                                  **operand(6, 3, wait=1, release=1)))
    await bench.finish()
    assert bench.releases == [(1, 0, 1), (3, 1, 1)]


@cocotb.test()
@cocotb.parametrize(case=["wide", "reduce", "quantise"])
async def sixteen_elements_a_cycle_in_steady_state(dut, case):
    bench = await begin(dut, ready=1.0)
    options = {"wide": {"operation": Operation.MULTIPLY, "affine": (2.0, 1.0), "function": 4},
               "reduce": {"reduce": Reduce.SUM},
               "quantise": {"destination": Format.E4M3, "rule": 2}}[case]
    beats = 72 if case == "reduce" else 48
    rows, columns = {"reduce": (72, 16)}.get(case, (3, 256))
    bench.execute(rows, columns, **options)
    await bench.compare()
    busy = int(dut.unit__counters.value) & 0xFFFFFFFF
    assert int(dut.unit__counters.value) >> 128 & 0xFFFFFFFF == beats
    assert beats <= busy <= beats + 24, f"{busy} cycles for {beats} beats"


@cocotb.test()
async def wrong_fields_are_refused_with_the_number_of_the_word(dut):
    both = operand(2, 1, wait=1) | operand(6, 3, wait=1)
    second, scales = operand(4, 2, wait=1), operand(13, 4, wait=1)
    good = {"w8": 2 | 64 << 16, "w9": 4 | 4 << 16, "w10": 4 | 2 << 16}
    cases = [
        (1, {"w1": 3}), (1, {"w1": 6 << 8}), (1, {"w1": 7 << 12}), (1, {"w1": 6 << 16}),
        (1, {"w1": 3 << 20}), (1, {"w1": 4 << 24 | 3 << 8} | scales), (1, {"w1": 1 << 27}),
        (1, {"w1": 1 << 29}), (1, {"w1": 1 << 12 | 3 << 22} | second),
        (1, {"w1": 1 << 12 | 3 << 4} | second), (4, {"w1": 1 << 12}),
        (8, {"w8": 64 << 16}), (8, {"w8": 2}), (9, {"w9": 81}),
        (9, {"w1": 1 << 12, "w9": 4 | 61 << 16} | second), (10, {"w10": 3}),
        (10, {"w10": 85}), (10, {"w1": 5 << 8, "w10": 1 | 3 << 16} | scales),
        (10, {"w1": 5 << 8, "w10": 1 | 1 << 16} | scales),
        (10, {"w1": 5 << 8, "w10": 1 | 18 << 22} | scales), (10, {"w1": 3 << 8, "w10": 0} | scales),
        (13, {"w1": 3 << 8}), (1, {"w1": 1 << 27 | 1 << 20 | 3 << 8} | scales),
    ]
    bench = await begin(dut)
    for field, change in cases:
        bench.commands.append(command(0x30, 77, **(both | good | change)))
        error = await bench.fail()
        assert error == (2, field, 77), f"{error} for {change}"
        assert not bench.writes
        await bench.clear()
        await bench.step()  # until the error is seen to be gone
    for change in ({"w1": 3 << 22 | 7 << 4}, {"w8": 1 | 64 << 16, "w9": 99, "w10": 0},
                   {"w1": 1 << 20, "w10": 0}, {"w1": 2 << 20 | 15 << 8},
                   {"w1": 5 << 8, "w8": 1 | 64 << 16, "w10": 0} | scales):  # nothing wrong
        bench.commands.append(command(0x30, 5, **(both | good | change)))
        await bench.finish()
        assert not error_of(dut)[0]


@cocotb.test()
async def a_cleared_engine_starts_afresh(dut):
    bench = await begin(dut)
    for cycles in (12, 25, 40):
        bench.execute(4, 48, operation=Operation.ADD, destination=Format.E4M3)
        for _ in range(cycles):
            await bench.step()
        await bench.clear()
        bench.stalled.clear()
        bench.model[:] = bench.local
        bench.execute(3, 20, function=Function.EXP2, destination=Format.BF16)
        await bench.compare()


@sim.on_simulators
def test_simd(tmp_path, simulator):
    sim.run(SimdEngine(lines=LINES), test_module=__name__, build_dir=tmp_path,
            simulator=simulator)
