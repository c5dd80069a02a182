"""Tests of rtl/net/nic: what users, peers and memories do wrong; others are not disturbed."""
import random

import cocotb

from cosim.golden import frames
from rtl.net.interfaces import Opcode, QpState, Status
from rtl.pe.interfaces import AccessError
from testbenches import sim
from testbenches.net.nic_bench import COMPLETIONS, HOLE, MAC, POISON, Bench, NicPair
from testbenches.net.test_nic import ends

OTHER = (0, 3)      # a second pair of queue pairs


async def start(dut, **options):
    """A bench with a second, healthy pair of queue pairs, whose completions go elsewhere."""
    bench = Bench(dut)
    await bench.start(**options)
    for n in range(2):
        bench.set(n, OTHER[n], peer_qp=OTHER[1 - n], timeout_log2=12, tries=7, window=8,
                  send_psn=100, receive_psn=100)
    return bench


async def others_go_on(bench):
    """A message of the other queue pair still arrives, in both directions."""
    for n in range(2):
        bench.post(n, Opcode.RECV, qp=OTHER[n], cookie=0x900, length=64, local=0xE000)
    await bench.rest(100)
    for n in range(2):
        bench.post(n, Opcode.SEND, qp=OTHER[n], cookie=0x901, length=64, local=0xF000)
    for found in await bench.completions((2, 2)):
        assert sorted(ends(found), key=lambda e: e[2]) == [
            (Opcode.RECV, Status.OK, 0x900), (Opcode.SEND, Status.OK, 0x901)]
    for n, side in enumerate(bench.sides):
        other = bench.sides[1 - n]
        assert side.memory[0xE000:0xE040] == other.memory[0xF000:0xF040]


LOCAL = {
    "no_region": ({"local_key": 0xA5000005}, Status.LOCAL_PROTECTION),
    "wrong_key": ({"local_key": 0xA6000001}, Status.LOCAL_PROTECTION),
    "no_key": ({"local_key": 0}, Status.LOCAL_PROTECTION),
    "other_domain": ({"local_key": 0xA5000002}, Status.LOCAL_PROTECTION),
    "before": ({"local_key": 0xA5000003, "local": 0x3FF}, Status.LOCAL_PROTECTION),
    "past_the_end": ({"local_key": 0xA5000003, "local": 0x481}, Status.LOCAL_PROTECTION),
    "far_past": ({"local_key": 0xA5000003, "local": (1 << 48) - 0x100}, Status.LOCAL_PROTECTION),
    "too_long": ({"length": 1 << 31}, Status.FIELD),
    "no_address": ({"local": 1 << 48}, Status.FIELD),
    "opcode": ({"opcode": Opcode.READ_RESPONSE}, Status.FIELD),
    "poison": ({"local_key": 0xA5000004, "local": POISON + 4}, Status.MEMORY),
    "hole": ({"local_key": 0xA5000004, "local": HOLE + 4}, Status.MEMORY),
}


def regions(bench, n):
    """Of another domain; a small one; one with addresses that are no memory; only to be read."""
    bench.region(n, 2, base=0, length=COMPLETIONS, domain=8)
    bench.region(n, 3, base=0x400, length=0x100)
    bench.region(n, 4, base=0, length=1 << 40)
    bench.region(n, 6, base=0, length=COMPLETIONS, write=0)
    bench.region(n, 7, base=0, length=COMPLETIONS, read=0)


@cocotb.test()
@cocotb.parametrize(case=list(LOCAL))
async def a_bad_request_ends_with_its_status(dut, case):
    """The request behind it is flushed, later ones as well, and the peer's memory is untouched."""
    changed, status = LOCAL[case]
    bench = await start(dut)
    regions(bench, 0)
    before = bytes(bench.sides[1].memory[:COMPLETIONS])
    request = {"opcode": Opcode.WRITE, "length": 0x80, "local": 0x400} | changed
    bench.post(0, cookie=1, remote=0x4000, **request)
    bench.post(0, Opcode.WRITE, cookie=2, length=64, local=0, remote=0x5000)
    sent, _ = await bench.completions((2, 0), limit=100000)
    assert ends(sent) == [(request["opcode"], status, 1), (Opcode.WRITE, Status.FLUSHED, 2)]
    assert bool(bench.wire.bad) == (status == Status.MEMORY)
    bench.post(0, Opcode.RECV, cookie=3, length=64)
    assert ends((await bench.completions((1, 0)))[0]) == [(Opcode.RECV, Status.FLUSHED, 3)]
    await bench.rest(3000)
    assert bytes(bench.sides[1].memory[:COMPLETIONS]) == before
    await others_go_on(bench)


REMOTE = {
    "wrong_key": ({"remote_key": 0xA6000001}, Status.REMOTE_PROTECTION),
    "other_domain": ({"remote_key": 0xA5000002}, Status.REMOTE_PROTECTION),
    "past_the_end": ({"remote_key": 0xA5000003, "remote": 0x481}, Status.REMOTE_PROTECTION),
    "read_only": ({"remote_key": 0xA5000006}, Status.REMOTE_PROTECTION),
    "write_only": ({"remote_key": 0xA5000007, "opcode": Opcode.READ}, Status.REMOTE_PROTECTION),
    "hole": ({"remote_key": 0xA5000004, "remote": HOLE}, Status.REMOTE_MEMORY),
}


@cocotb.test()
@cocotb.parametrize(case=list(REMOTE))
async def a_peer_cannot_touch_what_was_not_registered_for_it(dut, case):
    changed, status = REMOTE[case]
    bench = await start(dut)
    regions(bench, 1)
    bench.post(1, Opcode.RECV, cookie=9, length=64)
    request = {"opcode": Opcode.WRITE, "remote": 0x400} | changed
    before = bytes(bench.sides[1].memory[:COMPLETIONS])
    bench.post(0, cookie=1, length=0x80, local=0x400, **request)
    bench.post(0, Opcode.WRITE, cookie=2, length=64, local=0, remote=0x5000)
    sent, received = await bench.completions((2, 1), limit=100000)
    assert ends(sent)[0] == (request["opcode"], status, 1)
    assert ends(sent)[1] == (Opcode.WRITE, Status.FLUSHED, 2)
    assert ends(received) == [(Opcode.RECV, Status.FLUSHED, 9)]     # both ends are in error
    if status == Status.REMOTE_PROTECTION:
        assert bytes(bench.sides[1].memory[:COMPLETIONS]) == before
    await others_go_on(bench)


@cocotb.test()
async def a_message_longer_than_its_receive(dut):
    bench = await start(dut)
    bench.post(1, Opcode.RECV, cookie=9, length=99, local=0x800)
    before = bytes(bench.sides[1].memory[:COMPLETIONS])
    await bench.rest(100)
    bench.post(0, Opcode.SEND, cookie=1, length=100)
    sent, received = await bench.completions((1, 1))
    assert ends(sent) == [(Opcode.SEND, Status.LENGTH, 1)]
    assert ends(received) == [(Opcode.RECV, Status.LENGTH, 9)]
    assert bytes(bench.sides[1].memory[:COMPLETIONS]) == before
    await others_go_on(bench)


@cocotb.test()
async def a_receive_into_memory_that_fails(dut):
    bench = await start(dut)
    regions(bench, 1)
    bench.post(1, Opcode.RECV, cookie=9, length=9000, local=HOLE, local_key=0xA5000004)
    bench.post(1, Opcode.RECV, cookie=10, length=9000)
    await bench.rest(100)
    bench.post(0, Opcode.SEND, cookie=1, length=9000)
    sent, received = await bench.completions((1, 2))
    assert ends(sent) == [(Opcode.SEND, Status.REMOTE_MEMORY, 1)]
    assert [c.cookie for c in received] == [9, 10]
    assert received[0].status in (Status.MEMORY, Status.FLUSHED)
    assert received[1].status == Status.FLUSHED
    await others_go_on(bench)


@cocotb.test()
@cocotb.parametrize(opcode=[Opcode.SEND.value, Opcode.WRITE_IMM.value], late=[True, False])
async def a_message_without_a_receive_waits_and_then_fails(dut, opcode, late):
    bench = await start(dut, timeout_log2=10, tries=3)
    bench.post(0, Opcode(opcode), cookie=1, length=64, local=0x40, remote=0x2000)
    await bench.rest(700)
    if late:
        bench.post(1, Opcode.RECV, cookie=9, length=64, local=0x2000)
        sent, received = await bench.completions((1, 1))
        assert ends(sent) == [(Opcode(opcode), Status.OK, 1)] and received[0].cookie == 9
        assert bench.sides[1].memory[0x2000:0x2040] == bench.sides[0].memory[0x40:0x80]
    else:
        sent, _ = await bench.completions((1, 0))
        assert ends(sent) == [(Opcode(opcode), Status.NOT_READY, 1)]
    await others_go_on(bench)


@cocotb.test()
async def nobody_answers(dut):
    bench = await start(dut, timeout_log2=9, tries=2)
    bench.wire.cut = True
    for cookie in range(3):
        bench.post(0, Opcode.SEND, cookie=cookie, length=64)
    sent, _ = await bench.completions((3, 0))
    assert ends(sent) == [(Opcode.SEND, Status.UNREACHABLE, 0), (Opcode.SEND, Status.FLUSHED, 1),
                          (Opcode.SEND, Status.FLUSHED, 2)]
    assert bench.cycle > 3 << 9
    bench.wire.cut = False
    await others_go_on(bench)


@cocotb.test()
@cocotb.parametrize(receive=[False, True])
async def more_requests_than_places(dut, receive):
    """24 stand; the next one ends with OVERRUN, and all others are flushed."""
    bench = await start(dut, timeout_log2=14)
    bench.wire.cut = True
    opcode = Opcode.RECV if receive else Opcode.SEND
    for cookie in range(25):
        bench.post(0, opcode, cookie=cookie, length=64)
    sent, _ = await bench.completions((25, 0))
    assert ends(sent) == [(opcode, Status.OVERRUN, 24)] + [
        (opcode, Status.FLUSHED, cookie) for cookie in range(24)]
    bench.wire.cut = False
    await others_go_on(bench)


@cocotb.test()
async def a_queue_pair_in_the_wrong_state(dut):
    """Before it was set up, and after the host has stopped it; then it starts afresh."""
    bench = await start(dut)
    for n, side in enumerate(bench.sides):
        bench.set(n, bench.qps[n], QpState.RESET)
        side.completed[bench.qps[n]] = 0
    bench.post(0, Opcode.SEND, cookie=1, length=64)
    bench.post(0, Opcode.RECV, cookie=2, length=64)
    sent, _ = await bench.completions((2, 0))
    assert sorted(ends(sent), key=lambda e: e[2]) == [
        (Opcode.SEND, Status.STATE, 1), (Opcode.RECV, Status.STATE, 2)]
    for n, side in enumerate(bench.sides):
        side.completed[bench.qps[n]] = 0
        bench.set(n, bench.qps[n], peer_qp=bench.qps[1 - n], timeout_log2=12, tries=7, window=8,
                  send_psn=7, receive_psn=7)
    bench.post(1, Opcode.RECV, cookie=3, length=64, local=0x2000)
    bench.post(1, Opcode.RECV, cookie=4, length=64, local=0x2000)
    await bench.rest(100)
    bench.post(0, Opcode.SEND, cookie=5, length=64)
    await bench.completions((1, 1))
    assert bench.sides[1].memory[0x2000:0x2040] == bench.sides[0].memory[:0x40]
    bench.set(1, bench.qps[1], QpState.ERROR)
    _, received = await bench.completions((0, 1))
    assert ends(received) == [(Opcode.RECV, Status.FLUSHED, 4)]


@cocotb.test()
async def the_window_refuses_what_does_not_exist(dut):
    """Reads and writes of what is not there, and writes of a part of a line: an error each."""
    bench = await start(dut)
    side = bench.sides[0]
    await bench.rest(100)
    side.answers.clear()
    for offset in (0x10000 + 64 * 4, 0x20000 + 64 * 8, 0x40000 + 64 * 4, 0x80000 + 64 * 4,
                   64 * 16, 0x30000):
        side.window(offset, 0)
    side.window(0x40000, 1, mask=0xFF)
    await bench.rest(100)
    assert [a.error for a in side.answers] == [AccessError.ADDRESS] * 7
    await others_go_on(bench)


@cocotb.test()
async def frames_of_strangers_are_dropped(dut):
    """Of another peer, to a queue pair that does not exist, to another address, with a bad form."""
    bench = await start(dut)
    await bench.rest(100)
    side, before = bench.sides[1], bytes(bench.sides[1].memory)
    mine, peer = (mac.to_bytes(6, "little") for mac in (MAC[1], MAC[0]))
    good = {"destination": mine, "source": peer, "kind": frames.WRITE, "qp": 2, "source_qp": 1,
            "psn": 0xFFFFF0, "key": 0xA5000001, "address": 0x100, "total": 64,
            "payload": bytes(64)}
    for changed in ({"source": mine}, {"qp": 1}, {"qp": 9}, {"source_qp": 2}, {"psn": 0},
                    {"destination": peer}):
        side.deliver(frames.Frame(**good | changed).pack())
    text = bytearray(frames.Frame(**good).pack())
    text[-16] ^= 1
    side.deliver(bytes(text))
    await bench.rest(600)
    assert bytes(side.memory) == before
    for _ in range(300):        # what comes of anything at all: never a write, never a stop
        frame = bytearray(frames.Frame(**good | {
            "psn": 0xFFFFF0, "kind": random.randrange(256), "first": random.randrange(2),
            "last": random.randrange(2), "key": random.choice([0xA5000001, 5]),
            "address": random.randrange(1 << 48), "total": random.randrange(1 << 32),
            "payload": bytes(random.randrange(100)), "source_qp": 3}).pack())
        side.deliver(bytes(frame))
    await bench.rest(6000)
    assert bytes(side.memory) == before
    await others_go_on(bench)


@sim.on_simulators
def test_nic_errors(tmp_path, simulator):
    sim.run(NicPair(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
