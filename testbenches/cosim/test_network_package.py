"""Tests of packages with message engines and network chiplets, behind the driver."""
import struct
from dataclasses import replace

import numpy as np
import pytest

from chiplets.packages import NetworkParameters
from cosim.package import Package
from host.driver import Device, DeviceError
from host.isa import LINE, Code, Operand, Region, address
from host.program import Program
from testbenches.cosim.test_package import JOINED, cross, move, pattern

NETWORKED = replace(JOINED, name="networked450", network_chiplets=2,
                    network=NetworkParameters(nics=1, qps=4),
                    compute=replace(JOINED.compute, engines=1, networks=1))
COPY = 0x23                 # kind of an entry, see rtl/net/interfaces.py
QP, REGIONS = 0x10000, 0x20000
pytestmark = pytest.mark.system


def copies(source, target, lengths):
    """Work-queue entries that copy runs of bytes that lie one after another."""
    entries, at = [], 0
    for length in lengths:
        entries.append(struct.pack("<BxxxI QQQ", COPY, length, target + at, source + at, 0)
                       .ljust(LINE, b"\0"))
        at += length
    return b"".join(entries)


def launch_engine(device, die, subgraphs, *, beside=None):
    """Start the message engine of a die, and PEs beside it; returns an event."""
    pes = device.configuration.pes
    programs = {pe: program.words().astype("<u4").tobytes()
                for pe, program in (beside or {}).items()}
    base = device.alloc(die, 1 << 14)
    parts, entries, words = [], [0] * 16, [len(subgraphs), 0]
    at = 2      # lines: the table, the engine's program, subgraphs, programs of PEs
    for subgraph in subgraphs:
        place, count = base + LINE * at, len(subgraph) // LINE
        words += [place & 0xFFFFFFFF, place >> 32 | count << 16]
        parts.append(subgraph)
        at += count
    entries[pes] = 1
    for pe, program in programs.items():
        entries[pe] = at
        parts.append(program)
        at += len(program) // LINE
    whole = struct.pack("<16I", *entries) + struct.pack(
        "<16I", *words, *[0] * (16 - len(words))) + b"".join(parts)
    device.write(base, np.frombuffer(whole, np.uint8)).wait()
    mask = 1 << pes | sum(1 << pe for pe in programs)
    return device.start((die, base, mask))


def run_engines(**options):
    """The engine of each die copies from both dies, while a PE works; returns how it went."""
    with Package(NETWORKED, **options) as package:
        device = Device(package)
        assert (package.configuration.engines, package.configuration.networks) == (1, 1)
        found = []
        for die in device.dies:
            content, lengths = pattern(64 * 20, die), (64 * 11, 64 * 9)
            sources = [device.alloc(at, len(content)) for at in device.dies]
            targets = [device.alloc(die, len(content)) for _ in device.dies]
            rows = 4
            near, beside = (device.alloc(die, 64 * rows) for _ in range(2))
            for source in (*sources, near):
                device.write(source, content[:64 * rows] if source == near else content).wait()
            event = launch_engine(device, die, [
                copies(source, target, lengths)
                for source, target in zip(sources, targets, strict=True)],
                beside={1: move(near, beside, rows)})
            assert event.wait().code == Code.OK
            for target in targets:
                np.testing.assert_array_equal(device.read(target, len(content)), content)
            np.testing.assert_array_equal(device.read(beside, 64 * rows), content[:64 * rows])
            words = device.read(address(die, Region.ENGINE), LINE).view("<u4")
            found.append(words.tolist())
        package.run(1000)
        statistics = package.statistics()
        return (package.cycle, {die: value for die, value in statistics["hashes"].items()
                                if not die.startswith("net")}, found), statistics


@pytest.fixture(scope="module")
def reference():
    return run_engines()


def test_engines_run_beside_pes_and_sleep_else(reference):
    (_, _, counters), statistics = reference
    assert all(words[:3] == [1, 0, 4] for words in counters)    # programs, failed ones, entries
    skipped = {name: n for name, n in statistics["skipped_cycles"].items() if "engine" in name}
    assert len(skipped) == 2 and all(n > statistics["cycles"] // 2 for n in skipped.values())


@pytest.mark.parametrize("options", [{"gating": False}, {"network": True}, {
    "network": True, "processes": 3}], ids=str)
def test_the_result_is_the_same_however_it_is_run(reference, options):
    """Also with network chiplets, as long as nothing is said to them."""
    result, statistics = run_engines(**options)
    assert result == reference[0]
    if options.get("network"):
        resting = [n for name, n in statistics["skipped_cycles"].items() if "network" in name]
        assert len(resting) == 2 and min(resting) > statistics["cycles"] - 20   # the reset


def test_work_of_pes_takes_the_same_time_beside_an_engine_and_links_that_rest():
    assert cross(NETWORKED)[0] == cross(JOINED)[0]


def test_nics_are_set_up_by_the_host_and_by_pes_of_either_die():
    """A line written to the address of a NIC is read back; windows that are not there are not."""
    with Package(NETWORKED, network=True) as package:
        device = Device(package)
        for die in device.dies:
            nic = address(die, Region.NETWORK)
            mac = bytes([2, die, 3, 4, 5, 6])
            device.write(nic, np.frombuffer(mac.ljust(LINE, b"\0"), np.uint8)).wait()
            assert device.read(nic, 6).tobytes() == mac
            source = device.alloc(1 - die, LINE)        # a PE of the other die does the same
            device.write(source, np.frombuffer(mac[::-1].ljust(LINE, b"\0"), np.uint8)).wait()
            device.launch(1 - die, {0: move(source, nic, 1)}).wait()
            assert device.read(nic, 6).tobytes() == mac[::-1]
            for place in (nic | 1 << 24, nic | 1 << 20, address(die, Region.ENGINE, 1 << 13)):
                with pytest.raises(DeviceError, match="BAD_ADDRESS"):
                    device.write(place, np.zeros(LINE, np.uint8)).wait()


def test_without_network_chiplets_their_links_go_down():
    with Package(NETWORKED) as package:
        device = Device(package)
        with pytest.raises(DeviceError, match="LINK_DOWN"):
            device.write(address(1, Region.NETWORK), np.zeros(LINE, np.uint8)).wait()
        program = Program(local_lines=256)
        buffer = program.buffer(4)
        program.dma_in(Operand(buffer, release=4), address(1, Region.NETWORK), row_bytes=256)
        with pytest.raises(DeviceError, match=r"LINK_DOWN \(die 0, PE 1"):
            device.launch(0, {1: program}).wait()
        at = device.alloc(1, LINE)      # the rest goes on
        device.write(at, pattern(LINE, 1)).wait()
        np.testing.assert_array_equal(device.read(at, LINE), pattern(LINE, 1))
