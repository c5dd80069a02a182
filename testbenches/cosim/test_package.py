"""Tests of cosim/package.py: a whole package behind the driver, in threads and in processes."""
import json
from dataclasses import replace

import numpy as np
import pytest

from chiplets import packages
from cosim.package import Package
from host.driver import Device, DeviceError
from host.isa import Code, Operand, Region
from host.program import Program

# Small enough to build in a minute; everything but the sizes is as in the real packages.
TINY = packages.Package(
    name="tiny450", size="sim", compute_chiplets=2, io_chiplets=1,
    compute=packages.ComputeParameters(rows=1, columns=2, local_lines=256, local_banks=4,
                                       dot_rows=1, mx4_lanes=1, bank_lines=1024, hbm_tiles=1,
                                       tile_channels=3, hbm_rows=4))
# The host's interface on the one compute chiplet, as in the 300.
TINY_300 = replace(TINY, name="tiny300", compute_chiplets=1, io_chiplets=0,
                   compute=replace(TINY.compute, host=True, hbm_tiles=2, tile_channels=2))
JOINED = replace(TINY, name="joined450", compute=replace(TINY.compute, grid=(1, 2)))
pytestmark = pytest.mark.system


def pattern(count, seed):
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8)


def move(source, target, rows):
    """A program that brings ``rows`` lines into local memory and back out."""
    program = Program(local_lines=256)
    buffer = program.buffer(2 * rows)
    program.dma_in(Operand(buffer, release=rows), source, row_bytes=64 * rows)
    program.dma_out(Operand(buffer, wait=rows, release=rows), target, row_bytes=64 * rows)
    return program


def test_registers_identify_the_package():
    with Package(TINY) as package:
        assert package.read_register("identification") == int.from_bytes(b"mxlt", "little")
        configuration = package.read_register("configuration")
        assert configuration & 0xff == package.configuration.dies == 2
        assert configuration >> 8 & 0xffff == 450
        package.write_register("scratch", 0x12345678)
        assert package.read_register("scratch") == 0x12345678
        with pytest.raises(ValueError, match="Register must be one of .*, not 'nothing'"):
            package.read_register("nothing")


@pytest.mark.parametrize("tiny", [TINY, TINY_300], ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("region", [Region.SRAM, Region.HBM])
def test_copies_to_every_die_come_back(region, tiny):
    with Package(tiny) as package:
        device = Device(package)
        for die in device.dies:
            content = pattern(3001, die)
            at = device.alloc(die, len(content), region)
            device.write(at, content).wait()
            np.testing.assert_array_equal(device.read(at, len(content)), content)
        if region == Region.HBM:
            lines = pattern(3001, die)[:1024].reshape(-1, 64)
            stored = np.concatenate([package.memory(die, f"hbm{i}")[:1024].reshape(-1, 64)
                                     for i in range(tiny.compute.addresses.channels)])
            assert all((stored == line).all(axis=1).any() for line in lines)


def run_programs(**options):
    """Every PE of both dies moves data of its own; returns what shows how it went."""
    with Package(TINY, **options) as package:
        device = Device(package)
        events, results, rows = [], [], 5
        for die in device.dies:
            source = device.alloc(die, 64 * rows * len(device.pes))
            target = device.alloc(die, 64 * rows * len(device.pes))
            content = pattern(64 * rows * len(device.pes), 7 + die)
            device.write(source, content, stream=die)
            programs = {pe: move(source + 64 * rows * pe, target + 64 * rows * pe, rows)
                        for pe in device.pes}
            events.append(device.launch(die, programs, stream=die))
            results.append((target, content))
        for event, (target, content) in zip(events, results, strict=True):
            assert event.wait().code == Code.OK
            np.testing.assert_array_equal(device.read(target, len(content)), content)
        package.run(2000)
        statistics = package.statistics()
        return (package.cycle, statistics["hashes"], statistics["channel_bytes"],
                statistics["host"]), statistics


@pytest.fixture(scope="module")
def reference():
    return run_programs()[0]


@pytest.mark.parametrize("options", [{"threads": 3}, {"processes": 3}, {"gating": False}], ids=str)
def test_programs_give_the_same_hash_however_the_package_is_run(reference, options):
    result, statistics = run_programs(**options)
    assert result == reference
    skipped = sum(statistics["skipped_cycles"].values())
    assert skipped == 0 if "gating" in options else skipped > statistics["cycles"]


def cross(described=JOINED, **options):
    """The PEs of each die bring data from the other die, HBM or SRAM, and take them back there."""
    with Package(described, **options) as package:
        device, rows, moves = Device(package), 90, []
        assert package.configuration.grid == (1, 2)
        for die in device.dies:
            for pe, region in zip(device.pes, (Region.SRAM, Region.HBM), strict=True):
                content = pattern(64 * rows, 10 * die + pe)
                source, target = (device.alloc(1 - die, 64 * rows, region) for _ in range(2))
                device.write(source, content, stream=die)
                moves.append((die, pe, source, target, content))
        device.synchronize()
        events = [device.launch(die, {pe: move(source, target, rows) for at, pe, source, target, _
                                      in moves if at == die}, stream=die) for die in device.dies]
        for event in events:
            assert event.wait().code == Code.OK
        for _, _, _, target, content in moves:
            np.testing.assert_array_equal(device.read(target, len(content)), content)
        return package.cycle, package.statistics()["hashes"]


def test_dies_work_with_the_memory_of_each_other():
    assert cross() == cross(processes=3)


def test_error_of_another_die_reaches_the_host():
    with Package(JOINED) as package:
        program = Program(local_lines=256)
        buffer = program.buffer(4)
        program.dma_in(Operand(buffer, release=4), 1 << 44 | 1 << 39, row_bytes=256)
        with pytest.raises(DeviceError, match=r"BAD_ADDRESS \(die 0, PE 1"):
            Device(package).launch(0, {1: program}).wait()


def test_error_of_a_program_reaches_the_host():
    with Package(TINY) as package:
        device = Device(package)
        program = Program(local_lines=256)
        buffer = program.buffer(4)
        program.dma_in(Operand(buffer, release=4), 1 << 44 | 1 << 39, row_bytes=256)
        with pytest.raises(DeviceError, match=r"BAD_ADDRESS \(die 1, PE 1"):
            device.launch(1, {1: program}).wait()


def test_completion_names_the_address_that_failed():
    with Package(TINY) as package:
        device = Device(package)
        for at in (1 << 44 | 1 << 39, 1 << 44 | 1 << 40 | 1 << 39):     # SRAM, HBM
            program = Program(local_lines=256)
            buffer = program.buffer(4)
            program.dma_in(Operand(buffer, release=4), at + 70, row_bytes=100)
            with pytest.raises(DeviceError, match=f"address {at + 64:#x}|address {at + 128:#x}"):
                device.launch(1, {1: program}).wait()


def test_streams_wait_for_each_other_without_the_host():
    """Each of two streams takes in turn what the other has made; one doorbell for all."""
    with Package(TINY) as package:
        device = Device(package)
        content, rows = pattern(64 * 4, 3), 4
        places = [device.alloc(0, 64 * rows) for _ in range(7)]
        device.write(places[0], content).wait()
        made = [device.prepare(0, {n % 2: move(places[n], places[n + 1], rows)}) for n in range(6)]
        device.synchronize()
        events = [device.event() for _ in range(2)]
        with device.batch():
            for n, one in enumerate(made):
                stream = n % 2
                if n:
                    device.wait(events[1 - stream], stream)
                device.start(one, stream=stream)
                device.record(events[stream], stream)
        device.synchronize()
        np.testing.assert_array_equal(device.read(places[6], len(content)), content)


def test_trace_shows_the_units_that_worked(tmp_path):
    path = tmp_path / "trace.json"
    with Package(TINY, trace=path) as package:
        device = Device(package)
        source = device.alloc(0, 4096)
        device.launch(0, {1: move(source, source, 8)}).wait()
    events = json.loads(path.read_text())["traceEvents"]
    busy = {e["tid"] for e in events if e["ph"] == "X" and e["name"] == "busy"}
    assert {1, 2} <= busy and {e["pid"] for e in events if e["ph"] == "X"} == {2}
