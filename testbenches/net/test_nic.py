"""Tests of rtl/net/nic: two NICs, joined by a wire that may do what wires do."""
import random

import cocotb

from rtl.net.interfaces import Opcode, Status
from testbenches import sim
from testbenches.net.nic_bench import COMPLETIONS, Bench, NicPair


def ends(found):
    """What completions say, as (opcode, status, cookie)."""
    return [(c.opcode, c.status, c.cookie) for c in found]


@cocotb.test()
@cocotb.parametrize(length=[0, 1, 15, 16, 17, 64, 4095, 4096, 4097, 8192, 9000])
async def a_send_fills_a_receive(dut, length):
    bench = Bench(dut)
    await bench.start()
    a, b = bench.sides
    to, start = 0x8000 + random.randrange(64), 0x100 + random.randrange(64)
    wanted = bytes(b.memory[:to]) + a.memory[start:start + length] + b.memory[to + length:
                                                                          COMPLETIONS]
    bench.post(1, Opcode.RECV, cookie=77, length=length + 3, local=to)
    await bench.rest(100)
    bench.post(0, Opcode.SEND, cookie=5, length=length, local=start)
    sent, received = await bench.completions((1, 1))
    assert ends(sent) == [(Opcode.SEND, Status.OK, 5)] and sent[0].qp == 1
    assert ends(received) == [(Opcode.RECV, Status.OK, 77)] and received[0].qp == 2
    assert received[0].length == length
    assert bytes(b.memory[:COMPLETIONS]) == wanted
    await bench.sleep()


@cocotb.test()
@cocotb.parametrize(opcode=[Opcode.READ, Opcode.SEND, Opcode.WRITE], late=[4, 200])
async def a_completion_comes_after_the_last_byte(dut, opcode, late):
    """Several frames; memory may be slow to write."""
    bench = Bench(dut)
    await bench.start()
    length, to, start = 9001, 0x8003, 0x107
    for side in bench.sides:
        side.latency = (1, late)
    source, target = bench.sides[::-1] if opcode == Opcode.READ else bench.sides
    wanted = bytes(source.memory[start:start + length])
    if opcode == Opcode.SEND:
        bench.post(1, Opcode.RECV, length=length, local=to)
        await bench.rest(100)
    local, remote = (to, start) if opcode == Opcode.READ else (start, to)
    bench.post(0, opcode, length=length, local=local, remote=remote)
    for counts in ((0, 1), (1, 0)) if opcode == Opcode.SEND else ((1, 0),):
        await bench.completions(counts)
        assert bytes(target.memory[to:to + length]) == wanted
    await bench.sleep()


async def traffic(bench, rng, count):
    """Random requests of both sides at once; every byte of both memories is checked."""
    # Of each memory one half is read from, the other written, each place once.
    places = {n: [0x10000, 0x10000] for n in range(2)}
    wanted = [bytearray(side.memory[:COMPLETIONS]) for side in bench.sides]
    posted = [[], []]
    receives, window = [0, 0], 24

    def place(n, length):
        at = places[n][0]
        places[n][0] = at + length + rng.randrange(3)
        assert places[n][0] < COMPLETIONS
        return at

    jobs = [[], []]
    for n in range(2):
        for cookie in range(count):
            opcode = rng.choice([Opcode.SEND, Opcode.WRITE, Opcode.WRITE_IMM, Opcode.READ])
            length = rng.choice([0, 1, 7, 64, 100, 1000, rng.randrange(5000)])
            start = rng.randrange(0x10000 - length)
            if opcode == Opcode.READ:
                to = place(n, length)
                wanted[n][to:to + length] = bench.sides[1 - n].memory[start:start + length]
                jobs[n].append((opcode, cookie, length, to, start))
            else:
                to = place(1 - n, length)
                wanted[1 - n][to:to + length] = bench.sides[n].memory[start:start + length]
                jobs[n].append((opcode, cookie, length, start, to))
    for n in range(2):
        for opcode, cookie, length, _, to in jobs[1 - n]:
            if opcode in (Opcode.SEND, Opcode.WRITE_IMM):
                at = to if opcode == Opcode.SEND else 0
                bench.post(n, Opcode.RECV, cookie=0x100 + cookie, local=at,
                           length=length if opcode == Opcode.SEND else 0)
                posted[n].append((Opcode.RECV if opcode == Opcode.SEND else Opcode.RECV_IMM,
                                  Status.OK, 0x100 + cookie))
                receives[n] += 1
    assert max(receives) <= window
    await bench.rest(20 * max(receives) + 50)
    for n in range(2):
        for opcode, cookie, length, local, remote in jobs[n]:
            bench.post(n, opcode, cookie=cookie, length=length, local=local, remote=remote,
                       immediate=cookie * 0x1010101)
    sent = [[(job[0], Status.OK, job[1]) for job in jobs[n]] for n in range(2)]
    found = await bench.completions([len(s) + len(p) for s, p in zip(sent, posted, strict=True)],
                                    limit=400000)
    for n in range(2):
        mine = [c for c in found[n] if c.opcode.value < Opcode.RECV.value]
        others = [c for c in found[n] if c.opcode.value >= Opcode.RECV.value]
        assert ends(mine) == sent[n] and ends(others) == posted[n]
        for c in others:
            job = jobs[1 - n][c.cookie - 0x100]
            assert c.length == job[2]
            assert c.opcode == Opcode.RECV or c.immediate == job[1] * 0x1010101
    await bench.sleep()
    for n in range(2):
        assert bytes(bench.sides[n].memory[:COMPLETIONS]) == bytes(wanted[n])
    assert not bench.wire.bad


@cocotb.test()
@cocotb.parametrize(stalls=[0.0, 0.4])
async def every_kind_of_request_in_both_directions(dut, stalls):
    bench = Bench(dut)
    await bench.start()
    for side in bench.sides:
        side.stalls = stalls
    await traffic(bench, random, 16)


@cocotb.test()
@cocotb.parametrize(fault=["loss", "twice", "late", "wrong", "mark", "all"])
async def faults_of_the_wire_do_no_harm(dut, fault):
    names = ["loss", "twice", "late", "wrong", "mark"] if fault == "all" else [fault]
    bench = Bench(dut, **dict.fromkeys(names, 0.1))
    await bench.start(tries=30, timeout_log2=11)
    await traffic(bench, random, 16)


@sim.on_simulators
def test_nic(tmp_path, simulator):
    sim.run(NicPair(), test_module=__name__, build_dir=tmp_path, simulator=simulator)
