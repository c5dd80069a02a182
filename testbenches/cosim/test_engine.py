"""Tests of cosim/engine: the same result however a system is cut, spread and skipped."""
import os
import signal

import numpy as np
import pytest

from cosim import engine
from cosim.build import model
from cosim.engine.engine import QUIET, RESET_CYCLES, WATCH
from testbenches.cosim import parts

CYCLES = 3000


def ring_hashes(count=3, cycles=CYCLES, latencies=None, **options):
    dies, channels = parts.ring(count, latencies=latencies)
    with engine.Engine(dies, channels, **options) as system:
        system.run(cycles)
        assert system.cycle == cycles
        return system.statistics()["hashes"]


@pytest.fixture(scope="module")
def reference():
    return ring_hashes()


@pytest.mark.parametrize("options", [
    {"threads": 2}, {"threads": 3}, {"processes": 2}, {"processes": 3}, {"processes": 8},
    {"quantum_cycles": 1}, {"quantum_cycles": 7}, {"threads": 3, "quantum_cycles": 5}],
    ids=str)
def test_ring_has_the_same_hash_however_it_is_run(reference, options):
    assert ring_hashes(**options) == reference
    assert len(set(reference.values())) == 3


def test_hash_depends_on_every_cycle(reference):
    assert ring_hashes(cycles=CYCLES + 200) != reference
    assert ring_hashes(latencies=[16, 16, 17]) != reference
    latencies = [16, 40, 25]
    assert ring_hashes(latencies=latencies) == ring_hashes(latencies=latencies, processes=3)


def test_runs_in_pieces_equal_one_run(reference):
    dies, channels = parts.ring(3)
    with engine.Engine(dies, channels, threads=2) as system:
        for cycles in (1, 15, 17, 100, CYCLES - 133):
            system.run(cycles)
        assert system.statistics()["hashes"] == reference


def test_channel_delays_by_its_latency():
    """The station hears exactly the phits that were sent ``latency`` cycles before."""
    heard = {}
    for latency in (1, 5, 16):
        dies, channels = parts.ring(2, latency_cycles=latency)
        watch = [(f"die{i}", "top", "heard") for i in range(2)]
        with engine.Engine(dies, channels, watch=watch) as system:
            system.run(500)
            heard[latency] = system.watched(1)
            carried = system.statistics()["channel_phits"]["0->1"]
        with engine.Engine(dies, channels, watch=watch) as system:
            system.run(500 - latency)
            arrived = system.statistics()["channel_phits"]["0->1"]
        assert heard[latency] in (arrived, arrived - 1)  # the register behind the pins
        assert carried > heard[latency] or latency == 1


def test_stop_condition_is_seen_in_the_same_cycle_by_all():
    cycles = set()
    for options in ({}, {"threads": 2}, {"processes": 2}):
        dies, channels = parts.ring(2)
        with engine.Engine(dies, channels, watch=[("die1", "top", "alarm")], **options) as system:
            assert system.run(5000, until=WATCH) == WATCH
            cycles.add(system.cycle)
            assert system.run(5000, until=WATCH) == WATCH  # it is still high
    assert len(cycles) == 1 and 100 < cycles.pop() < 400


def test_conditions_are_looked_at_in_the_same_cycles_after_any_run():
    cycles = set()
    for before in (16, 21, 30):
        dies, channels = parts.ring(2)
        with engine.Engine(dies, channels, watch=[("die1", "top", "alarm")]) as system:
            system.run(before)
            assert system.run(5000, until=WATCH) == WATCH
            cycles.add(system.cycle)
    assert len(cycles) == 1 and cycles.pop() % 16 == 0


def per_cycle(die, cycles=CYCLES, **options):
    with engine.Engine([die], **options) as system:
        system.run(cycles)
        skipped = sum(system.statistics()["skipped_cycles"].values())
        return system.memory(f"{die.name}.probe").view(np.uint64)[:cycles].copy(), skipped


def test_partitioned_die_equals_the_whole_one_in_every_cycle():
    whole, _ = per_cycle(parts.company("die", workers=3, whole=True))
    cut, _ = per_cycle(parts.company("die", workers=3))
    assert len(np.unique(whole[RESET_CYCLES:])) == CYCLES - RESET_CYCLES  # silent in reset
    np.testing.assert_array_equal(whole, cut)


@pytest.mark.parametrize("gate", [None, engine.Gate(linger_cycles=0)])
@pytest.mark.parametrize("waves", [False, True])
def test_a_model_with_held_inputs_equals_one_without(gate, waves):
    """It is evaluated after its neighbours, asleep or not, and sees what it saw before."""
    whole, _ = per_cycle(parts.company("die", workers=3, whole=True))
    cut, skipped = per_cycle(parts.company("die", workers=3, gate=gate, held=("pe",), waves=waves))
    np.testing.assert_array_equal(whole, cut)
    assert (skipped > 0) == (gate is not None)


def test_inputs_that_are_not_held_are_refused():
    die = parts.company("die", workers=2, held=("pe0",))
    with pytest.raises(ValueError, match="Input base.pe1__.* must be held"):
        engine.Engine([die])


@pytest.mark.parametrize("linger", [0, 3, 32])
def test_sleeping_models_change_nothing(linger):
    die = parts.company("die", workers=3, gate=engine.Gate(linger_cycles=linger))
    asleep, skipped = per_cycle(die)
    awake, none = per_cycle(die, gating=False)
    np.testing.assert_array_equal(awake, asleep)
    assert none == 0 and skipped > (0 if linger == 32 else CYCLES // 10)


def test_a_gate_that_ignores_its_wake_bits_is_seen():
    """The comparison of the test above can fail: a model that sleeps too early differs."""
    die = parts.company("die", workers=3, gate=engine.Gate(idle="task__ready", linger_cycles=0))
    die.pulses = lambda model: ()
    asleep, _ = per_cycle(die)
    awake, _ = per_cycle(die, gating=False)
    assert (asleep != awake).any()


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_worker_is_one_clear_error(victim):
    dies, channels = parts.ring(2)
    with engine.Engine(dies, channels, processes=2) as system:
        system.run(1000)
        os.kill(system.worker_pids()[victim], signal.SIGKILL)
        with pytest.raises(engine.EngineError,
                           match=rf"Worker process {victim} \(die{victim}\) was killed by "
                                 r"signal 9 near cycle 1000"):
            system.run(1_000_000)
        with pytest.raises(engine.EngineError, match="killed by signal 9"):
            system.run(1)


@pytest.mark.parametrize("waves", [False, True])
def test_second_clock_has_its_share_of_the_edges(waves):
    """As many as asked for in any stretch, and what crosses between the clocks arrives."""
    built = model.build(parts.TwoClocks(), waves=waves)
    watch = [("die", "top", port) for port in ("cycles", "ticks", "total")]
    for ticks, cycles in ((0, 1), (1, 1), (16, 19), (1600, 1847), (1, 3)):
        die = engine.Die("die", {"top": built}, second_clock=(ticks, cycles))
        with engine.Engine([die], watch=watch) as system:
            system.run(RESET_CYCLES + 1000)
            assert system.watched(0) == 1000
            total = (RESET_CYCLES + 1000) * ticks // cycles
            before = RESET_CYCLES * ticks // cycles
            late = 0 if total == before else 2      # edges until the reset has crossed
            assert system.watched(1) == total - before - late
            sent = range(1, 1000, 2)
            if 2 * ticks >= cycles:
                assert system.watched(2) in {sum(sent[:n]) for n in range(480, 500)}


def test_second_clock_that_is_faster_is_refused():
    with pytest.raises(ValueError, match="at most as many edges as the first, not 3 in 2 cycles"):
        engine.Die("die", {}, second_clock=(3, 2))


def test_workers_end_with_their_engine():
    dies, channels = parts.ring(2)
    system = engine.Engine(dies, channels, processes=2)
    pids = system.worker_pids()
    assert len(pids) == 2
    system.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(engine.EngineError, match="closed"):
        system.run(1)


def test_quiet_system_stops():
    die = parts.company("die", workers=1, gate=engine.Gate())
    with engine.Engine([die]) as system:
        assert system.run(1000, until=QUIET) == QUIET
        assert system.cycle <= 2 * max(16, RESET_CYCLES)


def test_wrong_descriptions_are_refused():
    dies, channels = parts.ring(2)
    with pytest.raises(ValueError, match="Quantum must be 1 to 16 cycles"):
        engine.Engine(dies, channels, quantum_cycles=17)
    with pytest.raises(ValueError, match="one of them 1"):
        engine.Engine(dies, channels, threads=2, processes=2)
    with pytest.raises(engine.EngineError, match="has no port nothing"):
        engine.Engine(dies, channels, watch=[("die0", "top", "nothing")])
    die = parts.company("die", workers=2)
    die.joins.append(engine.Join("base", "pe2__", "pe1"))
    with pytest.raises(ValueError, match=r"Port pe1\.task__valid must have a partner"):
        engine.Engine([die])
    die.joins.pop()
    die.devices.append(engine.Device("toaster", "t", {}))
    with pytest.raises(engine.EngineError, match=r"Device die\.t has the unknown kind toaster"):
        engine.Engine([die])
