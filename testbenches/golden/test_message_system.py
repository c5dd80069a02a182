"""Tests of cosim/golden/message_system.py: it does what programs ask, and finds what is wrong."""
import numpy as np
import pytest

from cosim.golden.message_system import (
    BAD_ADDRESS,
    BAD_FIELD,
    DONE,
    NETWORK,
    WATCHDOG,
    MessageSystem,
)
from host.isa import Format
from host.network_isa import ENTRY, Compare, EngineKind, Status, doorbells, line, nic_window

BASE = [0x10000, 0x20000]
KEY = 7
BELLS = doorbells(nic_window(0, 0), 3)
SEEDS = range(12)
SIZE = 4096


def entries(*made):
    return np.array([line(ENTRY, **fields) for fields in made], ENTRY)


def pair(seed, **rights):
    """Two joined nodes with memories of random bytes."""
    system = MessageSystem(seed=seed, frame_bytes=128)
    nodes = []
    for number, base in enumerate(BASE):
        memory = np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)
        nodes.append(system.node(f"rank {number}", {base: memory}))
        nodes[-1].register(KEY, base, SIZE, **rights)
    system.join(*nodes, BELLS, BELLS, numbers=(3, 3))
    return system, nodes


def request(kind, rank, at, length, **fields):
    bell = BELLS[kind == EngineKind.RECV]
    return {"kind": kind, "local": BASE[rank] + at, "length": length, "third": bell,
            "local_key": KEY} | fields


def bytes_of(node, at, count):
    (memory,) = node.memory.pieces.values()
    return memory[at:at + count].copy()


def go(system, nodes, programs):
    for node, program in zip(nodes, programs, strict=True):
        if program is not None:
            node.start([entries(*subgraph) for subgraph in program])
    return list(system.run().values())


S, R, W, RD = EngineKind.SEND, EngineKind.RECV, EngineKind.WRITE, EngineKind.READ


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_fill_the_receives_in_order(seed):
    system, nodes = pair(seed)
    want = bytes_of(nodes[0], 5, 300), bytes_of(nodes[0], 1000, 77)
    reports = go(system, nodes, [
        [[request(S, 0, 5, 300), request(S, 0, 0, 0), request(S, 0, 1000, 77)]],
        [[request(R, 1, 64, 301), request(R, 1, 0, 0), request(R, 1, 513, 77)]]])
    assert [r.code for r in reports] == [DONE, DONE] and not system.races
    assert np.array_equal(bytes_of(nodes[1], 64, 300), want[0])
    assert np.array_equal(bytes_of(nodes[1], 513, 77), want[1])


@pytest.mark.parametrize("seed", SEEDS)
def test_memory_of_the_peer_is_written_and_read(seed):
    system, nodes = pair(seed, remote_read=True, remote_write=True)
    sent, there = bytes_of(nodes[0], 0, 500), bytes_of(nodes[1], 2000, 300)
    reports = go(system, nodes, [
        [[request(W, 0, 0, 500, remote=BASE[1] + 3, remote_key=KEY),
          request(RD, 0, 1024, 300, remote=BASE[1] + 2000, remote_key=KEY),
          request(EngineKind.WRITE_IMM, 0, 9, 20, remote=BASE[1] + 800, remote_key=KEY)]],
        [[request(R, 1, 0, 0)]]])
    assert [r.code for r in reports] == [DONE, DONE]
    assert np.array_equal(bytes_of(nodes[1], 3, 500), sent)
    assert np.array_equal(bytes_of(nodes[0], 1024, 300), there)
    assert np.array_equal(bytes_of(nodes[1], 800, 20), sent[9:29])


REDUCE = {"kind": EngineKind.REDUCE, "format": Format.FP32, "length": 256, "local": BASE[0] + 512,
          "remote": BASE[0], "third": BASE[0] + 1024}


@pytest.mark.parametrize("condition", [{"back": 1}, {"rx_sync": 1}, {"sync": 1}, "fence", None])
def test_a_sum_needs_a_condition_to_come_after_its_receive(condition):
    """Without one, some order gives wrong bits, and every one that does is called a race."""
    wrong = 0
    for seed in SEEDS:
        system, nodes = pair(seed)
        a, b = bytes_of(nodes[1], 0, 256), bytes_of(nodes[0], 1024, 256)
        receive = request(R, 0, 0, 256) | ({"fence": 1} if condition == "fence" else {})
        total = REDUCE | (condition if isinstance(condition, dict) else {})
        reports = go(system, nodes, [[[receive, total]], [[request(S, 1, 0, 256)]]])
        assert [r.code for r in reports] == [DONE, DONE]
        with np.errstate(all="ignore"):
            want = a.view("<f4") + b.view("<f4")
        found = bytes_of(nodes[0], 512, 256).view("<f4")
        right = np.array_equal(found, want, equal_nan=True)
        assert right or system.races
        assert not (condition and system.races)
        wrong += not right
    assert (wrong == 0) == (condition is not None)


def test_bytes_that_change_while_they_are_sent_are_a_race():
    copy = {"kind": EngineKind.COPY, "length": 640, "local": BASE[0], "remote": BASE[0] + 1024}
    wrong = races = 0
    for seed in SEEDS:
        system, nodes = pair(seed)
        want = bytes_of(nodes[0], 0, 600)
        go(system, nodes, [[[request(S, 0, 0, 600), copy]], [[request(R, 1, 0, 600)]]])
        wrong += not np.array_equal(bytes_of(nodes[1], 0, 600), want)
        races += any("COPY" in r and "SEND" in r for r in system.races)
    assert wrong > 0 and races > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_subgraphs_meet_by_words(seed):
    system, nodes = pair(seed)
    word = BASE[0] + 2048
    wait = {"kind": EngineKind.WAIT, "local": word, "immediate": 0x34, "local_key": 0xFFFF,
            "compare": Compare.EQUAL, "fence": 1}
    copy = {"kind": EngineKind.COPY, "length": 64, "local": BASE[0] + 64, "remote": BASE[0]}
    put = {"kind": EngineKind.SET, "local": word, "immediate": 0x7700_0034, "back": 1}
    first = {"kind": EngineKind.COPY, "length": 64, "local": BASE[0], "remote": BASE[0] + 1024}
    reports = go(system, nodes[:1], [[[wait, copy], [first, put]]])
    assert reports[0].code == DONE and not system.races
    assert np.array_equal(bytes_of(nodes[0], 64, 64), bytes_of(nodes[0], 1024, 64))


@pytest.mark.parametrize("compare, word, holds", [
    (Compare.EQUAL, 5, True), (Compare.EQUAL, 6, False), (Compare.NOT_EQUAL, 5, False),
    (Compare.NOT_EQUAL, 6, True), (Compare.LESS, 4, True), (Compare.LESS, 5, False),
    (Compare.AT_LEAST, 5, True), (Compare.AT_LEAST, 4, False)])
def test_words_are_compared(compare, word, holds):
    system, nodes = pair(0)
    (memory,) = nodes[0].memory.pieces.values()
    memory[128:132] = np.array([word | 0x100], "<u4").view(np.uint8)
    wait = {"kind": EngineKind.WAIT, "local": BASE[0] + 128, "immediate": 5, "local_key": 0xFF,
            "compare": compare}
    reports = go(system, nodes[:1], [[[wait]]])
    assert reports[0].code == (DONE if holds else WATCHDOG)


def test_a_deadlock_tells_who_waits_for_whom():
    """Each receives before it sends."""
    system, nodes = pair(1)
    programs = [[[request(R, r, 0, 64), request(S, r, 64, 64, back=1)]] for r in range(2)]
    reports = go(system, nodes, programs)
    assert [r.code for r in reports] == [WATCHDOG, WATCHDOG]
    assert ("entry 0 (RECV of 64 bytes, queue pair 3 with rank 1) has not ended; subgraph 0 entry "
            "1 (SEND of 64 bytes, queue pair 3 with rank 1) waits for entry 0 (RECV"
            ) in reports[0].text
    assert "rank 1, subgraph 0, entry 0" in reports[1].text


def test_the_17th_entry_waits_for_the_first():
    """So receives posted too far ahead of the send that brings them are a deadlock."""
    for ahead, code in ((15, DONE), (16, WATCHDOG)):
        system, nodes = pair(2)
        mine = [request(R, 0, 64 * n, 64) for n in range(ahead)] + [request(S, 0, 2048, 64)]
        theirs = [request(R, 1, 0, 64)] + [request(S, 1, 1024, 64, sync=1)] * ahead
        reports = go(system, nodes, [[mine], [theirs]])
        assert [r.code for r in reports] == [code, code], ahead
    assert "one of 16 entries" in reports[0].text


def test_a_queue_has_16_places():
    system, nodes = pair(3)
    reports = go(system, nodes[:1], [[[request(R, 0, 64 * n, 64) for n in range(9)],
                                      [request(R, 0, 64 * n + 1024, 64) for n in range(9)]]])
    assert (reports[0].code, reports[0].status) in ((NETWORK, Status.OVERRUN),
                                                    (NETWORK, Status.FLUSHED))
    system, nodes = pair(3)
    reports = go(system, nodes[:1], [[[request(R, 0, 64 * n, 64) for n in range(8)],
                                      [request(R, 0, 64 * n + 1024, 64) for n in range(8)]]])
    assert reports[0].code == WATCHDOG


@pytest.mark.parametrize("wrong, code, status", [
    ({"local_key": 8}, NETWORK, Status.LOCAL_PROTECTION),
    ({"length": SIZE + 1}, NETWORK, Status.LOCAL_PROTECTION),
    ({"third": BELLS[1]}, BAD_ADDRESS, 0),
    ({"kind": EngineKind.WRITE, "remote": BASE[1], "remote_key": KEY}, NETWORK,
     Status.REMOTE_PROTECTION),
    ({"kind": 0x33}, BAD_FIELD, 0)])
def test_wrong_requests_end_the_program(wrong, code, status):
    system, nodes = pair(4)
    reports = go(system, nodes, [[[request(S, 0, 0, 64) | wrong]], [[request(R, 1, 0, 64)]]])
    assert (reports[0].code, reports[0].status) == (code, status)
    assert reports[1].code in (NETWORK, WATCHDOG)


def test_a_message_longer_than_its_receive_is_an_error_of_both():
    system, nodes = pair(5)
    before = bytes_of(nodes[1], 0, SIZE)
    reports = go(system, nodes, [[[request(S, 0, 0, 65)]], [[request(R, 1, 0, 64)]]])
    assert {(r.code, r.status) for r in reports} == {(NETWORK, Status.LENGTH)}
    assert np.array_equal(bytes_of(nodes[1], 0, SIZE), before)


@pytest.mark.parametrize("wrong", [
    {"local": BASE[0] + 516}, {"length": 254}, {"remote": BASE[0] + 500},
    {"format": Format.E4M3, "remote": BASE[0] + 32, "scales_a": 32},
    {"format": Format.E4M3, "scales_s": 40}])
def test_wrong_sums_end_the_program(wrong):
    system, nodes = pair(6)
    reports = go(system, nodes[:1], [[[REDUCE | wrong]]])
    assert reports[0].code == BAD_FIELD
    reports = go(system, nodes[:1], [[[REDUCE | {"remote": BASE[0] + 512}]]])      # S is A
    assert reports[0].code == DONE


def test_sums_outside_memory_end_the_program():
    system, nodes = pair(7)
    reports = go(system, nodes[:1], [[[REDUCE | {"remote": 0x5000}]]])
    assert reports[0].code == BAD_ADDRESS and "outside memory" in reports[0].text
