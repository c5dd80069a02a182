"""System tests: jobs and mistakes on the co-simulated package, RTL of every chiplet."""
import os
import signal

import numpy as np
import pytest

from cosim.golden import simd
from cosim.golden import transformer as golden
from cosim.golden.norm import Norm
from host.bench import gemm
from host.bench.multicast import launched
from host.driver import Device, DeviceError
from host.embed import Encoder
from host.isa import LINE, Code, Format, Op, Region, Rule, Unit, address, command
from host.kernels import rows
from host.kernels.matmul import matmul
from host.models import minilm
from host.outcome import Options
from host.program import Program, use
from host.tensor import pack
from host.transport import PackageError, open_package

pytestmark = pytest.mark.system


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check_product(device, m, n, k, a, b):
    x, w = pack(numbers(1, m, k), b), pack(numbers(2, n, k), a)
    tx, tw = device.put(x, 0), device.put(w, 0)
    ty = device.empty(0, m, n, Format.FP32)
    device.launch(0, matmul(tx, tw, ty, pes=device.pes)).wait(2_000_000)
    wanted = gemm.golden(w, x)
    np.testing.assert_array_equal(device.get(ty).view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("a, b", [(Format.E2M1, Format.E2M1), (Format.E4M3, Format.E5M2),
                                  (Format.E2M1, Format.E4M3), (Format.E2M1, Format.BF16),
                                  (Format.FP16, Format.FP16)])
def test_product_is_bit_exact(device, a, b):
    check_product(device, 13, 40, 96, a, b)


def test_product_whose_pes_read_together_is_bit_exact_and_reads_less(device):
    c, fetched = device.configuration, []
    x, w = pack(numbers(1, 32, 256), Format.E4M3), pack(numbers(2, 96, 256), Format.E4M3)
    tx, tw, ty = device.put(x, 0), device.put(w, 0), device.empty(0, 32, 96, Format.FP32)
    for grid in (None, (c.rows, c.columns)):
        programs = matmul(tx, tw, ty, pes=device.pes, grid=grid)
        fetched.append(int(launched(device, Region.SRAM, programs)[1]))
        assert np.array_equal(device.get(ty).view(np.uint32), gemm.golden(w, x).view(np.uint32))
    assert fetched[1] < 0.7 * fetched[0]


def test_row_kernels_are_bit_exact(device):
    x = numbers(3, 20, 100)
    tx, ty = device.put(pack(x, Format.FP32), 1), device.empty(1, 20, 100, Format.FP32)
    device.launch(1, rows.softmax_rows(tx, ty, pes=device.pes)).wait(1_000_000)
    np.testing.assert_array_equal(device.get(ty).view(np.uint32), golden.softmax(golden.bits(x)))


def test_norms_and_rotations_are_bit_exact(device):
    """More rows than a group has; the rotation is by positions in memory."""
    m, n = 150, 100
    x, gamma, beta, table = (numbers(i, r, n) for i, r in ((4, m), (5, 1), (6, 1), (7, 40)))
    tx, tg, tb, tt = (device.put(pack(v, Format.FP32), 1) for v in (x, gamma, beta, table))
    ty, tz = (device.empty(1, m, n, Format.FP32) for _ in range(2))
    device.launch(1, rows.layer_norm_rows(tx, tg, tb, ty, pes=device.pes)).wait(1_000_000)
    wanted = golden.layer_norm(golden.bits(x), gamma[0], beta[0], 1e-5)
    np.testing.assert_array_equal(device.get(ty).view(np.uint32), wanted)
    device.launch(1, rows.rms_norm_rows(tx, tg, tz, pes=device.pes)).wait(1_000_000)
    wanted = simd.simd(golden.bits(x), golden.bits(gamma), norm=Norm.RMS, epsilon=1e-5)
    np.testing.assert_array_equal(device.get(tz).view(np.uint32), wanted)

    positions = np.random.default_rng(1).integers(0, 40, m).astype("<u4")
    at = device.alloc(1, positions.nbytes)
    device.write(at, positions).wait(1_000_000)
    device.launch(1, rows.rotary_rows(tx, tt, at, tz, pes=device.pes)).wait(1_000_000)
    wanted = simd.simd(golden.bits(x), golden.bits(table[positions]),
                       operation=simd.Operation.ROTATE)
    np.testing.assert_array_equal(device.get(tz).view(np.uint32), wanted)


def test_copies_of_any_length_and_place(device):
    data = np.random.default_rng(0).integers(0, 256, 3001, dtype=np.uint8)
    for region in (Region.SRAM, Region.HBM):
        at = device.alloc(1, 4096, region) + 7
        device.write(at, data).wait(1_000_000)
        np.testing.assert_array_equal(device.read(at, len(data), timeout=1_000_000), data)


def bad_program(change):
    program = Program()
    change(program)
    return program


def fails(device, change, code, unit=None, **options):
    """The launch of a program ends with ``code``; then a product still comes out right."""
    with pytest.raises(DeviceError) as caught:
        device.launch(0, {2: bad_program(change)}, **options).wait(2_000_000)
    completion = caught.value.completion
    assert completion.code == code and completion.pe == 2 and completion.failed == 4
    assert unit is None or completion.unit == unit
    check_product(device, 5, 20, 64, Format.E4M3, Format.E4M3)
    return completion


def test_unknown_command(device):
    done = fails(device, lambda p: p.commands.append(command(0x77, tag=9)), Code.BAD_COMMAND)
    assert done.command == 9


def test_buffer_too_small_for_its_operand(device):
    def change(p):
        cb = p.buffer(4)
        p.dma_in(use(cb, wait=8, release=8), address(0, Region.SRAM), row_bytes=512)
    done = fails(device, change, Code.CB_TOO_SMALL, Unit.DMA_IN)
    assert done.field == 0


def test_address_outside_its_window(device):
    def change(p):
        cb = p.buffer(4)
        p.dma_in(use(cb, wait=1, release=1), address(0, Region.SRAM, 1 << 36), row_bytes=64)
    fails(device, change, Code.BAD_ADDRESS, Unit.DMA_IN)


def test_field_that_the_unit_does_not_take(device):
    def change(p):
        cb = p.buffer(4)
        p.add(Op.DMA_IN, w2=use(cb, wait=1, release=1), w6=0, w7=64)
    done = fails(device, change, Code.BAD_FIELD, Unit.DMA_IN)
    assert done.field == 6


def test_watchdog_names_who_waits_for_which_buffer(device):
    def change(p):
        p.buffer(4)
        cb = p.buffer(4)
        p.dma_out(use(cb, wait=1, release=1), address(0, Region.SRAM, 1 << 20), row_bytes=64)
    done = fails(device, change, Code.WATCHDOG, Unit.DMA_OUT, watchdog=2000)
    assert done.field == 1


def test_copy_outside_memory_and_launch_on_no_die(device):
    with pytest.raises(DeviceError, match="BAD_ADDRESS"):
        device.write(address(0, 9), np.zeros(64, np.uint8)).wait(1_000_000)
    event = device.start((7, device.alloc(0, LINE), 1))     # which gives the table back
    with pytest.raises(DeviceError, match="BAD_FIELD"):
        event.wait(1_000_000)
    check_product(device, 5, 20, 64, Format.E4M3, Format.E4M3)


def test_doorbell_past_the_end_of_the_ring(device):
    device.transport.write_register("submission_tail", 1000)
    assert device.transport.read_register("error_status") & 1
    assert device.transport.read_register("error_info") == 1000
    device.transport.write_register("error_status", 1)
    check_product(device, 5, 20, 64, Format.E4M3, Format.E4M3)


def test_three_layers_of_the_main_job_are_bit_exact(device):
    """Three, as two buffers take turns to hold the parameters of a layer."""
    parameters = minilm.load()
    parameters = minilm.Weights(parameters.words, parameters.positions, parameters.norm,
                                parameters.layers[:3])
    encoder = Encoder(device, parameters, weight_format=Format.E2M1, weight_rule=Rule.EVEN,
                      rule=Rule.RCEIL)
    result = encoder.run(minilm.tokenise(["A small test.", "Two short sentences are enough."]))
    states, vectors = encoder.golden(result.shares)
    for mine, theirs in zip(result.states, states, strict=True):
        for x, y in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(result.vectors.view(np.uint32), vectors)


def cycles_and_hashes(options):
    with open_package(options) as transport:
        check_product(Device(transport), 13, 40, 96, Format.E2M1, Format.E2M1)
        return transport.cycle, transport.package.statistics()["hashes"]


def test_threads_and_processes_give_the_same_cycles():
    single = cycles_and_hashes(Options(threads=1))
    assert cycles_and_hashes(Options(threads=3)) == single
    assert cycles_and_hashes(Options(processes=2)) == single


def test_killed_worker_ends_in_one_clear_error():
    with open_package(Options(processes=2)) as transport:
        device = Device(transport)
        os.kill(transport.package.engine.worker_pids()[0], signal.SIGKILL)
        with pytest.raises(PackageError):
            device.read(device.alloc(0, 64), 64)
