"""Tests of cosim/cluster.py: packages run together as each of them does alone."""
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from cosim import cluster as under_test
from cosim import engine
from cosim.build import dies as build
from cosim.cluster import Cluster
from cosim.fabric import Fabric
from cosim.package import Package
from host.bench import gemm
from host.boot import Settings
from host.driver import Device, DeviceTimeout
from host.isa import Code, Format
from host.kernels.matmul import matmul
from host.outcome import Options
from host.tensor import pack
from host.transport import CosimTransport, open_cluster
from testbenches.cosim import exerciser, stations
from testbenches.cosim.test_package import TINY, TINY_300, move, pattern

pytestmark = pytest.mark.system
CABLE = 200
ROWS = 6


def submit(device, seed):
    """Every PE moves lines of its own; returns the launches, and where to find what."""
    events, results = [], []
    for die in device.dies:
        content = pattern(64 * ROWS * len(device.pes), seed + die)
        source, target = (device.alloc(die, len(content)) for _ in range(2))
        device.write(source, content, stream=die)
        events.append(device.launch(die, {
            pe: move(source + 64 * ROWS * pe, target + 64 * ROWS * pe, ROWS)
            for pe in device.pes}, stream=die))
        results.append((target, content))
    return events, results


def wait(device, events, results):
    """Check the bits; returns the cycles of the launches."""
    for event in events:
        assert event.wait().code == Code.OK
    for target, content in results:
        np.testing.assert_array_equal(device.read(target, len(content)), content)
    return [event.completion.cycles for event in events]


def job(member, seed=1):
    """All that can be seen of a run: cycles, hashes of dies, bytes of channels, host, HBM."""
    device = Device(member)
    cycles = wait(device, *submit(device, seed))
    member.run(500)
    statistics = member.statistics()
    return cycles, member.cycle, {name: statistics[name] for name in (
        "hashes", "channel_bytes", "host", "hbm", "skipped_cycles")}


def alone(package):
    with Package(package) as running:
        return job(running)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"processes": 3}], ids=str)
def test_a_member_runs_as_alone(rank, options):
    """The same bits, cycles and traffic, whatever stands beside it and wherever it stands."""
    packages = [TINY_300, TINY, TINY_300]
    with Cluster(packages, fabric=Fabric(), **options) as cluster:
        assert job(cluster.members[rank]) == alone(packages[rank])


def test_all_submit_then_all_wait():
    with Cluster([TINY_300, TINY, TINY_300]) as cluster:
        devices = [Device(member) for member in cluster.members]
        submitted = [submit(device, 10 * rank) for rank, device in enumerate(devices)]
        found = [wait(device, *what) for device, what in zip(devices, submitted, strict=True)]
        assert found == [alone(package)[0] for package in cluster.packages]


def test_time_passes_for_all_while_one_waits():
    with Cluster([TINY_300] * 2) as cluster:
        first, second = (Device(member) for member in cluster.members)
        events, results = submit(first, 1)
        others, more = submit(second, 2)
        wait(first, events, results)
        assert cluster.members[1].interrupted and not others[0].done
        start = cluster.cycle
        second.run_until(lambda: others[0].done, 0)     # not a cycle is left to wait
        assert cluster.cycle - start < 1000
        wait(second, others, more)


def test_a_driver_is_not_stopped_by_the_interrupt_of_another():
    with Cluster([TINY_300] * 3) as cluster:
        devices = [Device(member) for member in cluster.members]
        submit(devices[1], 1)
        assert cluster.run_until_interrupt(100_000) == [1]
        start = cluster.cycle
        assert cluster.run_until_interrupt(100_000) == [1] and cluster.cycle - start <= 16
        assert cluster.run_until_interrupt(1000, ranks=[0, 2]) == []
        assert cluster.cycle - start >= 1000
        assert not cluster.members[0].run_until_interrupt(500)
        assert cluster.members[1].run_until_interrupt(500)
        submit(devices[2], 1)
        cluster.run(20_000)
        assert cluster.run_until_interrupt(1000) == [1, 2]


def test_a_rank_that_stands_still_does_not_hold_up_the_others():
    with Cluster([TINY_300] * 2) as cluster:
        devices = [Device(member) for member in cluster.members]
        never = devices[0].event()
        devices[0].record(never, 0).wait()
        never.records += 1
        devices[0].wait(never, 1)
        wait(devices[1], *submit(devices[1], 1))
        with pytest.raises(DeviceTimeout, match="Wait of stream 1"):
            devices[0].synchronize(timeout=5000)
        wait(devices[1], *submit(devices[1], 2))


def test_several_hosts_write_in_the_same_cycle():
    with Cluster([TINY_300] * 5) as cluster:
        start = cluster.cycle
        cluster.members[0].write_register("scratch", 1)
        once = cluster.cycle - start
        cluster.write_registers("scratch", {0: 5, 2: 7, 4: 9})
        assert cluster.cycle - start <= 2 * once
        assert [m.read_register("scratch") for m in cluster.members] == [5, 0, 7, 0, 9]


def test_an_access_that_fails_leaves_the_others_done():
    dies = []
    for rank in range(3):
        dies.append(exerciser.die())
        dies[-1].name = f"io{rank}"
    with engine.Engine(dies) as system:
        with pytest.raises(engine.EngineError, match=r"0x40 by io1\.registers was answered SLVERR"):
            system.access_each([("io0.registers", 4, 11), ("io1.registers", 0x40, None),
                                ("io2.registers", 4, 33)])
        assert system.access_each([(f"io{rank}.registers", 4, None) for rank in range(3)]) \
            == [11, 0, 33]


def with_stations(monkeypatch):
    """Each of two packages gets two network dies with a NIC that talks from the first cycle on."""
    plain, ranks = build.package_dies, itertools.cycle(range(2))

    def package_dies(*arguments, **options):
        dies, channels = plain(*arguments, **options)
        rank, settings = next(ranks), {"peers": 2, "frames": 200, "spread": 63}
        dies += [stations.die(f"net{nic}", rank, nic, **settings) for nic in range(2)]
        return dies, channels
    monkeypatch.setattr(under_test.build, "package_dies", package_dies)


@pytest.mark.parametrize("flow", ["drop", "pause"])
def test_frames_go_between_packages_that_work(monkeypatch, flow):
    """Neither disturbs the other; drivers look as often as without the long cables."""
    expected = alone(TINY_300)
    with_stations(monkeypatch)
    results = []
    for options in ({}, {"processes": 3}):
        with Cluster([TINY_300] * 2, fabric=Fabric(latency_cycles=CABLE, flow=flow),
                     **options) as cluster:
            cycles, end, seen = job(cluster.members[1])
            cluster.run(30_000)
            totals = cluster.fabric.totals()
            assert totals["out_frames"] == totals["in_frames"] == 800
            assert cluster.fabric.switches == ["switch0", "switch1"]
            assert cluster.fabric.counters(1, 1)["in_frames"] == 200
            results.append((cycles, end, seen, totals, cluster.engine.statistics()["hashes"]))
    assert results[0] == results[1]
    assert set(seen["hashes"]) == {"compute0", "net0", "net1"}
    assert (cycles, end) == expected[:2]
    assert seen["hashes"]["compute0"] == expected[2]["hashes"]["compute0"]


def test_names_tell_the_ranks_apart(tmp_path):
    path = tmp_path / "trace.json"
    with Cluster([TINY_300] * 2, trace=path) as cluster:
        device = Device(cluster.members[1])
        wait(device, *submit(device, 1))
        lanes = {(die, lane) for die, lane, *_ in cluster.members[1].events()}
        pes = [f"pe{i}" for i in range(TINY_300.compute.built_pes)]
        assert lanes == {("compute0", pe) for pe in pes}
        assert list(cluster.members[0].events()) == []
        timeline = CosimTransport(cluster.members[1]).timeline()
        assert {name.split(" ")[0] for name, _ in timeline.lanes} == {"compute0"}
    events = json.loads(path.read_text())["traceEvents"]
    names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {f"p1.compute0 {pe}" for pe in pes}


def test_transports_of_a_cluster_have_memories_of_their_own():
    """And PEs that are left out are so on every rank."""
    options = Options(package=TINY_300, threads=1, settings=Settings(bad_pes=((0, 0, 1),)))
    with open_cluster(options, 2) as (cluster, transports):
        contents = [pattern(640, seed) for seed in (1, 2)]
        for transport, content in zip(transports, contents, strict=True):
            transport.preload(0, 128, content)
        for transport, content in zip(transports, contents, strict=True):
            np.testing.assert_array_equal(transport.peek(0, 128, 640), content)
            assert transport.statistics()["bytes"]["AXI, written by the package"] == 0
        assert all(die.broken == ["pe1"] for die in cluster.engine.dies)
        for rank, transport in enumerate(transports):
            device = Device(transport)
            wait(device, *submit(device, rank))


def test_more_packages_than_eight():
    with Cluster([TINY_300] * 11, fabric=Fabric(), host_memory_bytes=1 << 20) as cluster:
        devices = [Device(member) for member in cluster.members]
        submitted = [submit(device, rank) for rank, device in enumerate(devices)]
        cycles = [wait(d, *what) for d, what in zip(devices, submitted, strict=True)]
        assert len(cycles) == 11 and len({tuple(c) for c in cycles}) == 1


def test_wrong_clusters_are_refused():
    with pytest.raises(ValueError, match="one or more with the same clock, not none"):
        Cluster([])
    with pytest.raises(ValueError, match="same clock, not tiny300, tiny450"):
        Cluster([TINY_300, replace(TINY, core_megahertz=1000)])


def product(device, seed):
    """Submit the product of two matrices; returns what waits for it and checks its bits."""
    generator = np.random.default_rng(seed)
    x, w = (pack(generator.standard_normal((rows, 96)).astype(np.float32), Format.E4M3)
            for rows in (13, 40))
    tx, tw, ty = device.put(x, 0), device.put(w, 0), device.empty(0, 13, 40, Format.FP32)
    event = device.launch(0, matmul(tx, tw, ty, pes=device.pes))

    def check():
        cycles = event.wait().cycles
        np.testing.assert_array_equal(device.get(ty).view(np.uint32),
                                      gemm.golden(w, x).view(np.uint32))
        return cycles
    return check


def test_two_packages_multiply_as_one_does():
    """Real packages: both at once take the cycles that each takes alone."""
    wanted = []
    for seed in (1, 2):
        with Package("mtia300") as package:
            wanted.append(product(Device(package), seed)())
    with Cluster(["mtia300"] * 2, fabric=Fabric(), threads=2) as cluster:
        checks = [product(Device(member), seed)
                  for seed, member in enumerate(cluster.members, start=1)]
        assert [check() for check in checks] == wanted
