"""Tests of cosim/fabric.py and its devices: what goes in comes out, or is counted."""
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from cosim import engine
from cosim.engine.engine import QUIET
from cosim.fabric import (
    BEAT_BYTES,
    DROPS,
    LONGEST_FRAME,
    Fabric,
    Faults,
    RunningFabric,
    connect,
    mac_address,
)
from rtl.net import interfaces
from testbenches.cosim import stations

FAST = Fabric(latency_cycles=20, forward_cycles=10)
LONG = 255      # spread of frames of up to 258 beats
INCAST = {"only": 1, "target": 0, "spread": LONG}


@dataclass(frozen=True)
class Sent:
    cycle: int
    target: int
    number: int


@dataclass(frozen=True)
class Got:
    cycle: int
    source: int
    number: int
    mark: bool
    whole: bool
    error: bool


class Bench:
    """Stations at a fabric. ``settings`` of all of them; ``own`` those of a rank."""

    def __init__(self, fabric=FAST, count=4, *, own=None, options=None, **settings):
        settings = {"peers": count, "frames": 60, "spread": 15} | settings
        self.ranks = [[stations.die(f"station{r}", r, **settings | (own or {}).get(r, {}))]
                      for r in range(count)]
        wiring = connect(fabric, self.ranks)
        dies = [die for dies in self.ranks for die in dies]
        self.engine = engine.Engine(dies + wiring.dies, wiring.channels, **{"trace": True}
                                    | (options or {}))
        self.fabric = RunningFabric(self.engine, fabric, wiring)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.engine.close()

    def run(self, cycles=100_000):
        """Until nothing moves."""
        assert self.engine.run(cycles, until=QUIET) == QUIET
        return self

    def _lane(self, name):
        return {int(die.removeprefix("station")): zip(cycles.tolist(), values.tolist(), strict=True)
                for die, lane, cycles, values in self.engine.events() if lane == name}

    def sent(self):
        return {rank: [Sent(cycle, v & 255, v >> 8 & 0xFFFF) for cycle, v in lane]
                for rank, lane in self._lane("sent").items()}

    def got(self):
        return {rank: [Got(cycle, v & 255, v >> 8 & 0xFFFF, bool(v >> 24 & 1), bool(v >> 25 & 1),
                           bool(v >> 26 & 1)) for cycle, v in lane]
                for rank, lane in self._lane("got").items()}

    def missing(self):
        """Frames sent and not received whole, and how often those were that came too often."""
        sent = Counter((rank, s.target, s.number) for rank, all in self.sent().items() for s in all)
        got = Counter((g.source, rank, g.number) for rank, all in self.got().items() for g in all
                      if g.whole)
        assert set(got) <= set(sent) and set(sent.values()) <= {1}
        return set(sent - got), got - sent

    def check_conservation(self):
        """Every frame that came went, or was dropped for a reason."""
        totals = self.fabric.totals()
        assert totals["in_frames"] + totals["duplicated"] \
            == totals["out_frames"] + sum(totals[name] for name in DROPS)
        return totals

    def check_all_arrived(self):
        assert self.missing() == (set(), Counter())
        for frames in self.got().values():
            for source in {g.source for g in frames}:
                numbers = [g.number for g in frames if g.source == source]
                assert numbers == sorted(numbers)
        totals = self.check_conservation()
        assert not any(totals[name] for name in DROPS)
        return totals


@pytest.mark.parametrize("flow", ["drop", "pause"])
@pytest.mark.parametrize("gaps", [0, 1])
@pytest.mark.parametrize("count", [2, 5])
def test_all_to_all_every_frame_arrives_once_whole_and_in_order(flow, gaps, count):
    with Bench(replace(FAST, flow=flow), count, gaps=gaps, frames=100) as bench:
        totals = bench.run().check_all_arrived()
        assert totals["in_frames"] == 100 * count
        assert all({s.target for s in all} == set(range(count)) for all in bench.sent().values())
        for rank in range(count):
            counters = bench.fabric.counters(rank, 0)
            assert counters["in_frames"] == 100 and counters["out_frames"] == len(bench.got()[rank])
            mac = bench.engine.counters(f"station{rank}.mac_top_nic0")
            assert mac[:4] == [counters[name] for name in (
                "in_frames", "in_bytes", "out_frames", "out_bytes")]


@pytest.mark.parametrize("latency", [1, 20, 200])
@pytest.mark.parametrize("forward", [0, 7, 100])
@pytest.mark.parametrize("flow", ["drop", "pause"])
def test_latency_is_exact(latency, forward, flow):
    fabric = replace(FAST, latency_cycles=latency, latencies={(1, 0): 31}, forward_cycles=forward,
                     flow=flow)
    with Bench(fabric, 2, own={1: {"frames": 0}}, frames=1, only=1, target=1) as bench:
        bench.run()
        (sent,), (got,) = bench.sent()[0], bench.got()[1]
        beats = bench.fabric.counters(0, 0)["in_bytes"] // BEAT_BYTES
        assert beats > 3 and got.cycle - sent.cycle == latency + 31 + forward + 2 * (beats - 1)


def test_a_full_queue_drops_and_says_so():
    fabric = replace(FAST, buffer_bytes=2 * LONGEST_FRAME)
    with Bench(fabric, **INCAST) as bench:
        bench.run()
        missing, twice = bench.missing()
        totals = bench.check_conservation()
        assert 20 < len(missing) == totals["overflowed"]
        assert totals["overflowed"] == bench.fabric.counters(0, 0)["overflowed"]
        assert not twice and totals["longest_queue"] <= fabric.buffer_bytes
        assert totals["longest_queue"] > fabric.buffer_bytes - LONGEST_FRAME
        assert all(g.whole for g in bench.got()[0])


@pytest.mark.parametrize("latency", [1, 20, 150])
def test_paused_senders_lose_nothing(latency):
    """Also with the smallest buffer that is allowed."""
    least = 2 * LONGEST_FRAME + Fabric.headroom(latency)
    fabric = replace(FAST, latency_cycles=latency, flow="pause", buffer_bytes=least)
    with Bench(fabric, **INCAST) as bench:
        totals = bench.run().check_all_arrived()
        assert totals["pauses"] > 10 and totals["paused_cycles"] > 1000
        room = 3 * LONGEST_FRAME if latency > 1 else LONGEST_FRAME
        assert least - room < totals["longest_held"] <= least
        # Half of what makes a pause goes before it ends.
        assert totals["pauses"] * LONGEST_FRAME <= totals["in_bytes"]
        waited = [bench.engine.counters(f"station{r}.mac_top_nic0")[5] for r in range(4)]
        assert all(waited)
    with Bench(replace(fabric, flow="drop"), **INCAST) as bench:
        assert bench.run().check_conservation()["overflowed"]


def test_a_port_at_a_time_sends_at_full_rate():
    """Four senders to one: it hears a beat in every cycle once frames wait."""
    with Bench(replace(FAST, flow="pause"), **INCAST) as bench:
        bench.run()
        cycles = [g.cycle for g in bench.got()[0]]
        beats = bench.fabric.totals()["out_bytes"] // BEAT_BYTES
        assert cycles[-1] - cycles[0] < beats + 10


@pytest.mark.parametrize("mark_bytes", [0, 6000, 30_000])
def test_congested_frames_are_marked(mark_bytes):
    with Bench(replace(FAST, flow="pause", mark_bytes=mark_bytes), **INCAST) as bench:
        totals = bench.run().check_all_arrived()
        frames = [g for g in bench.got()[0]]
        marked = sum(g.mark for g in frames)
        assert marked == totals["marked"] == bench.fabric.counters(0, 0)["marked"]
        assert marked < len(frames) and (marked > 20) == (mark_bytes > 0)
        assert not frames[0].mark


def binomial(count, share):
    """Bounds of five standard deviations."""
    middle, width = count * share, 5 * (count * share * (1 - share)) ** 0.5
    return middle - width, middle + width


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("name", ["loss", "duplicate", "corrupt", "reorder"])
def test_faults_come_at_their_rate_and_are_counted(name, share):
    fabric = replace(FAST, faults=Faults(**{name: share}), mark_bytes=0)
    with Bench(fabric, frames=500, spread=7) as bench:
        bench.run()
        totals, (missing, twice) = bench.check_conservation(), bench.missing()
        counter = {"loss": "lost", "duplicate": "duplicated", "corrupt": "corrupted",
                   "reorder": "reordered"}[name]
        low, high = binomial(totals["in_frames"], share)
        assert totals["in_frames"] == 2000 and low <= totals[counter] <= high
        others = {"lost", "duplicated", "corrupted", "reordered"} - {counter}
        assert not any(totals[other] for other in others)
        frames = [g for all in bench.got().values() for g in all]
        if name == "loss":
            assert len(missing) == totals["lost"] and not twice
        elif name == "duplicate":
            assert not missing and set(twice.values()) == {1}
            assert twice.total() == totals["duplicated"]
        elif name == "corrupt":
            harmless = sum(g.mark and g.whole for g in frames)   # only the mark was hit
            assert len(missing) == totals["corrupted"] - harmless and not twice
            assert len(missing) == totals["unknown"] + sum(not g.whole for g in frames)
        else:
            assert not missing and not twice


def test_a_frame_held_back_is_overtaken():
    held = 3000
    fabric = replace(FAST, faults=Faults(reorder=0.1, reorder_cycles=held))
    with Bench(fabric, 2, own={1: {"frames": 0}}, only=1, target=1, frames=300) as bench:
        bench.run()
        went = {s.number: s.cycle for s in bench.sent()[0]}
        late = {g.number for g in bench.got()[1] if g.cycle - went[g.number] > held}
        assert len(late) == bench.fabric.totals()["reordered"] > 10
        numbers = [g.number for g in bench.got()[1]]
        assert numbers != sorted(numbers) and sorted(numbers) == list(range(1, 301))
        prompt = [n for n in numbers if n not in late]
        assert prompt == sorted(prompt)


def test_wrong_bits_are_one_to_three_and_anywhere():
    fabric = replace(FAST, faults=Faults(corrupt=1), mark_bytes=0)
    with Bench(fabric, 2, frames=4000, spread=0) as bench:
        bench.run(400_000)
        totals = bench.check_conservation()
        # 48 of 384 bits are the target: so many frames have one of one to three bits there.
        share = sum(1 - (336 / 384) ** n for n in (1, 2, 3)) / 3
        low, high = binomial(totals["in_frames"], share)
        # Some still name a station: with one bit wrong, the other one.
        other = totals["in_frames"] / 3 / 384
        assert totals["in_frames"] == 8000 and low - other <= totals["unknown"] <= high


def test_faults_are_those_of_the_seed():
    fabric = replace(FAST, faults=Faults(loss=0.1, duplicate=0.1, corrupt=0.1, reorder=0.1))
    results = []
    for seed in (1, 1, 2):
        with Bench(replace(fabric, seed=seed)) as bench:
            bench.run()
            results.append((bench.engine.statistics()["hashes"], bench.fabric.totals()))
    assert results[0] == results[1] != results[2]


def test_ports_have_faults_of_their_own():
    with Bench(replace(FAST, faults=Faults(loss=0.5)), 2, frames=200) as bench:
        bench.run()
        missing, _ = bench.missing()
        lost = [{number for rank, _, number in missing if rank == port} for port in range(2)]
        assert all(50 < len(numbers) < 150 for numbers in lost)
        assert 50 < len(lost[0] ^ lost[1]) < 150


def busy(options):
    """Everything at once; orders at cycles known before and between runs."""
    faults = Faults(loss=0.01, duplicate=0.02, corrupt=0.03, reorder=0.04, reorder_cycles=300)
    fabric = Fabric(latency_cycles=20, forward_cycles=10, flow="pause", buffer_bytes=20_000,
                    faults=faults, latencies={(2, 0): 33})
    with Bench(fabric, own={1: INCAST, 2: INCAST}, frames=200, spread=127, gaps=1,
               options=options) as bench:
        bench.fabric.link_down(1, 0, at=3000, cycles=700, period=5000)
        bench.fabric.restart("switch0", at=9001, cycles=123)
        bench.engine.run(6005)
        bench.fabric.set_faults(3, 0, Faults(loss=0.5))
        bench.run()
        return (bench.engine.cycle, bench.engine.statistics()["hashes"], bench.check_conservation(),
                bench.sent(), bench.got())


def test_the_result_is_the_same_in_threads_and_processes():
    single = busy({})
    assert all(single[2][name] for name in ("lost", "link_down", "restarted", "pauses", "marked"))
    for options in ({"threads": 3}, {"processes": 3}, {"quantum_cycles": 7}):
        cycle, *rest = busy(options)
        assert rest == list(single[1:]) and abs(cycle - single[0]) <= 20


def test_faults_change_while_the_system_runs():
    with Bench(FAST, 2, frames=1000) as bench:
        bench.engine.run(2000)
        assert bench.fabric.totals()["lost"] == 0
        bench.fabric.set_faults(0, 0, Faults(loss=1))
        bench.engine.run(2000)
        lost = bench.fabric.counters(0, 0)["lost"]
        bench.fabric.set_faults(0, 0, Faults())
        bench.run()
        missing, _ = bench.missing()
        assert 0 < lost == len(missing) == bench.fabric.counters(0, 0)["lost"]
        assert bench.fabric.counters(1, 0)["lost"] == 0 and {rank for rank, _, _ in missing} == {0}


@pytest.mark.parametrize("flow", ["drop", "pause"])
def test_a_link_goes_down_and_comes_up(flow):
    with Bench(replace(FAST, flow=flow), frames=1000, spread=63) as bench:
        bench.engine.run(4000)
        bench.fabric.link_down(2, 0)
        bench.engine.run(4000)
        before = bench.fabric.counters(2, 0)
        assert before["link_down"] > 20
        bench.engine.run(1000)
        during = bench.fabric.counters(2, 0)
        assert during["out_frames"] == before["out_frames"]
        bench.fabric.link_up(2, 0)
        up = bench.engine.cycle
        bench.run()
        totals, (missing, twice) = bench.check_conservation(), bench.missing()
        assert not twice and {2} <= {end for end in missing for end in end[:2]}
        assert all(2 in frame[:2] for frame in missing) and totals["link_down"] == len(missing)
        cut = [g for g in bench.got()[2] if g.error]
        assert len(cut) == 1 and not cut[0].whole and cut[0].cycle < up - 4900
        assert not any(4100 < g.cycle < up for g in bench.got()[2])
        assert any(g.cycle > up for g in bench.got()[2])
        assert max(s.cycle for s in bench.sent()[2]) > up


def test_a_frame_is_lost_if_its_link_is_down_for_a_cycle():
    """Also if none of its beats comes in that cycle."""
    with Bench(FAST, 2, own={1: {"frames": 0}}, gaps=1, frames=100, spread=0) as bench:
        bench.fabric.link_down(0, 0, cycles=1, period=2)
        totals = bench.run().check_conservation()
        assert totals["link_down"] == totals["in_frames"] == 100


def test_a_port_flaps_again_and_again():
    with Bench(FAST, 2, own={1: {"frames": 0}}, only=1, target=1, frames=1000, spread=0) as bench:
        bench.fabric.link_down(1, 0, at=1000, cycles=200, period=1000)
        bench.run()
        cycles = [g.cycle - FAST.latency_cycles for g in bench.got()[1] if not g.error]
        assert cycles[-1] > 3500
        assert not any(c >= 1000 and c % 1000 < 200 for c in cycles)
        assert all(any(c // 1000 == n for c in cycles) for n in range(4))
        bench.check_conservation()


def test_a_paused_sender_goes_on_after_its_link_was_down():
    fabric = replace(FAST, flow="pause", buffer_bytes=2 * LONGEST_FRAME + Fabric.headroom(20))
    with Bench(fabric, frames=100, **INCAST) as bench:
        bench.engine.run(3000)
        for rank in (1, 2, 3):
            bench.fabric.link_down(rank, 0, cycles=50)
        bench.run()
        totals = bench.check_conservation()
        assert totals["pauses"] > 3 and totals["link_down"] and not totals["overflowed"]
        assert all(all[-1].number == 100 for all in bench.sent().values())
        assert len(bench.missing()[0]) == totals["link_down"]


@pytest.mark.parametrize("flow", ["drop", "pause"])
def test_a_switch_that_restarts_loses_what_it_holds(flow):
    fabric = replace(FAST, flow=flow, forward_cycles=300)
    with Bench(fabric, frames=100, **INCAST) as bench:
        bench.engine.run(4000)
        totals = bench.fabric.totals()
        inside = totals["in_frames"] - totals["out_frames"] - totals["overflowed"]
        assert inside > 5
        bench.fabric.restart("switch0", at=4010, cycles=500)
        bench.engine.run(500)
        assert bench.fabric.totals()["restarted"] >= inside - 2
        bench.run()
        totals, (missing, _) = bench.check_conservation(), bench.missing()
        assert len(missing) == totals["restarted"] + totals["overflowed"]
        assert any(g.cycle > 4600 for g in bench.got()[0]) and not totals["link_down"]


def test_what_no_port_can_take_is_dropped_by_its_cause():
    own = {0: {"only": 1, "target": 77}, 1: {"abort": 1}, 2: {"frames": 0},
           3: {"only": 1, "target": 2, "spread": 511}}
    with Bench(replace(FAST, flow="pause"), own=own, frames=50) as bench:
        bench.run()
        totals = bench.check_conservation()
        longest = LONGEST_FRAME // BEAT_BYTES
        assert bench.fabric.counters(0, 0)["unknown"] == totals["unknown"] == 50
        assert bench.fabric.counters(1, 0)["wrong"] == 50
        assert 10 < bench.fabric.counters(3, 0)["wrong"] < 40
        assert bench.fabric.counters(3, 0)["longest_held"] <= 3 * LONGEST_FRAME
        assert len(bench.got()[2]) == 50 - bench.fabric.counters(3, 0)["wrong"]
        assert all(g.whole for g in bench.got()[2]) and longest == 260


@pytest.mark.parametrize("spread, wrong", [(257, False), (258, True)])
def test_the_longest_frame_goes_and_a_beat_more_does_not(spread, wrong):
    """Frames have 3, 4, 259 or 260 beats, or 3, 5, 259 or 261."""
    with Bench(FAST, 2, frames=60, spread=spread) as bench:
        totals = bench.run().check_conservation()
        assert (10 < totals["wrong"] < 60) == wrong and totals["wrong"] == len(bench.missing()[0])


@pytest.mark.parametrize("rails, switches", [(0, 2), (1, 1), (2, 2), (3, 2)])
def test_nics_are_on_their_rails(rails, switches):
    ranks = [[stations.die(f"p{r}.net{n}", r, n, peers=3, frames=40, spread=15) for n in range(2)]
             for r in range(3)]
    fabric = replace(FAST, rails=rails)
    wiring = connect(fabric, ranks)
    dies = [die for dies in ranks for die in dies]
    with engine.Engine(dies + wiring.dies, wiring.channels) as system:
        running = RunningFabric(system, fabric, wiring)
        assert system.run(20_000, until=QUIET) == QUIET
        assert len(running.switches) == switches and len(running.places) == 6
        if switches == 2:
            assert all(switch == f"switch{nic}" for (_, nic), (switch, _) in running.places.items())
        totals = running.totals()
        assert totals["in_frames"] == totals["out_frames"] == 240
        assert all(running.counters(r, n)["out_frames"] == 40 for r in range(3) for n in range(2))


def test_hundreds_of_stations():
    """More than the channels, ports and dies that 8 bits can count."""
    with Bench(FAST, 200, frames=3, options={"trace": False}) as bench:
        bench.run()
        totals = bench.check_conservation()
        assert totals["out_frames"] == 600 and len(bench.engine.channels) == 400
        assert all(bench.fabric.counters(r, 0)["out_frames"] == 3 for r in range(200))


@pytest.mark.parametrize("setting, message", [
    ("short", "station1.mac_top_nic0: tx_tkeep must be all ones"),
    ("deaf", "station1.mac_top_nic0: rx_tready must always be high")])
def test_a_broken_rule_of_the_port_stops_the_simulation(setting, message):
    with Bench(own={1: {setting: 1}}) as bench, pytest.raises(engine.EngineError, match=message):
        bench.run()


@pytest.mark.parametrize("wrong, message", [
    ({"flow": "stop"}, "Flow must be one of drop, pause, not 'stop'"),
    ({"latency_cycles": 0}, "latency_cycles must be 1 or more, not 0"),
    ({"rails": -1}, "rails must be 0 or more, not -1"),
    ({"latencies": {(0, 1): 0}}, r"cable to \(0, 1\) must be 1 or more, not 0"),
    ({"buffer_bytes": 8319}, r"Buffer must be 8320 bytes or more \(flow drop"),
    ({"flow": "pause", "buffer_bytes": 18_879}, "Buffer must be 18880 bytes .*, not 18879")])
def test_wrong_fabrics_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Fabric(**wrong)


def test_wrong_orders_are_refused():
    with pytest.raises(ValueError, match=r"Share of frames \(loss\) must be 0 to 1, not 2"):
        Faults(loss=2)
    with pytest.raises(ValueError, match="Reorder time must be 0 cycles or more, not -1"):
        Faults(reorder_cycles=-1)
    with Bench() as bench:
        with pytest.raises(ValueError, match="not NIC 0 of rank 4"):
            bench.fabric.counters(4, 0)
        with pytest.raises(ValueError, match="Switch must be one of switch0, not 'switch1'"):
            bench.fabric.restart("switch1")
        with pytest.raises(ValueError, match="not 5 of 5"):
            bench.fabric.link_down(0, 0, cycles=5, period=5)


def test_numbers_are_those_of_the_frames():
    layout = interfaces.header_layout()
    assert layout["mark"].offset == 8 * 23 and layout["destination"].offset == 0
    beats = interfaces.HEADER_BEATS + interfaces.TRAILER_BEATS
    assert LONGEST_FRAME == interfaces.MTU_BYTES + beats * interfaces.BEAT_BYTES
    assert mac_address(0x0103, 2).to_bytes(6, "little") == bytes([2, 2, 0, 0, 1, 3])
