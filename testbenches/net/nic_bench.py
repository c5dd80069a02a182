"""Two NICs joined by a wire that may lose, repeat, delay, change and mark frames."""
import random
from collections import deque

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped
from cocotb.triggers import RisingEdge

from cosim.golden.frames import BEAT, MARK, parse
from rtl.net import interfaces as net
from rtl.net.nic.nic import Nic
from rtl.pe import interfaces as pe
from rtl.pe.interfaces import AccessError
from testbenches import sim

QPS, REGIONS = 4, 8
MAC = [0x020000000001, 0x020000000002]      # as integers of the bytes in their order
MEMORY_BYTES = 1 << 17
HOLE = 0x40_0000        # addresses from here on do not exist
POISON = 0x20_0000      # and those from here on to the hole are poisoned
COMPLETIONS = 0x1_E000  # of memory: a ring for each queue pair
RING_LOG2 = 5           # of its lines


class NicPair(wiring.Component):
    """Two NICs side by side: ports of the first begin with ``a``, of the second with ``b``."""

    def __init__(self):
        self.nics = [Nic(qps=QPS, regions=REGIONS) for _ in range(2)]
        super().__init__({f"{side}_{name}": member for side in "ab"
                          for name, member in self.nics[0].signature.members.items()})

    def elaborate(self, platform):
        m = Module()
        for side, nic in zip("ab", self.nics, strict=True):
            m.submodules[f"nic_{side}"] = nic
            for name, member in nic.signature.members.items():
                its, own = getattr(nic, name), getattr(self, f"{side}_{name}")
                if not member.is_signature:
                    m.d.comb += own.eq(its)
                else:
                    connect(m, its, flipped(own))
        return m


def bits(layout, **fields):
    return layout.const(fields).as_value().value


def ring(qp):
    """Address of the completions of a queue pair."""
    return COMPLETIONS + (64 << RING_LOG2) * qp


class Side:
    """What is around one NIC: memory, who accesses its window, and its end of the wire."""

    def __init__(self, dut, name, number):
        self.name, self.mac = name, MAC[number]
        self.pins = {pin: getattr(dut, f"{name}_{pin}") for pin in (
            "request__valid", "request__ready", "request__payload", "response__valid",
            "response__payload", "access__valid", "access__ready", "access__payload",
            "access_response__valid", "access_response__ready", "access_response__payload",
            "mac__tx_tvalid", "mac__tx_tready", "mac__tx_tdata", "mac__tx_tlast",
            "mac__rx_tvalid", "mac__rx_tdata", "mac__rx_tlast", "mac__rx_tuser", "awake")}
        self.memory = bytearray(random.randbytes(MEMORY_BYTES))
        self.memory[COMPLETIONS:] = bytes(MEMORY_BYTES - COMPLETIONS)
        self.completed = [0] * QPS
        self.accesses, self.offered, self.answers = deque(), None, []
        self.waiting = []       # answers of memory: (cycle, bits, what is stored then)
        self.beats, self.sent = [], deque()  # of the frame that comes out; whole frames
        self.arriving = deque()             # beats to the NIC: (data, last)
        self.latency, self.stalls = (5, 40), 0.0
        self.plays_mac = True

    def drive_low(self):
        return [self.pins[n] for n in ("request__ready", "response__valid", "access__valid",
                                       "access_response__ready", "mac__tx_tready",
                                       "mac__rx_tvalid", "mac__rx_tlast", "mac__rx_tuser",
                                       "response__payload", "access__payload", "mac__rx_tdata")]

    def _serve(self, payload, cycle):
        """Memory does an access; its answer comes later."""
        request = pe.request_layout().from_bits(payload)
        address, error, data, stored = request.address, AccessError.NONE, 0, None
        if address >= HOLE:
            error = AccessError.ADDRESS
        elif address >= POISON:
            error = AccessError.POISON
        elif request.write:
            stored = address, request.data.to_bytes(64, "little"), request.mask
        else:
            data = int.from_bytes(self.memory[address:address + 64], "little")
        answer = bits(pe.response_layout(), tag=request.tag, write=request.write, error=error,
                      data=data)
        self.waiting.append((cycle + random.randint(*self.latency), answer, stored))

    def _store(self, stored):
        """A write is done when it is answered."""
        if stored is None:
            return
        address, line, mask = stored
        for n in range(64):
            if mask >> n & 1:
                self.memory[address + n] = line[n]

    def edge(self, cycle):
        """Look at what this edge of the clock sampled."""
        p = self.pins
        if p["request__valid"].value and p["request__ready"].value:
            self._serve(int(p["request__payload"].value), cycle)
        if p["access__valid"].value and p["access__ready"].value:
            self.offered = None
        if p["access_response__valid"].value and p["access_response__ready"].value:
            self.answers.append(pe.response_layout().from_bits(
                int(p["access_response__payload"].value)))
        if self.plays_mac and p["mac__tx_tvalid"].value and p["mac__tx_tready"].value:
            self.beats.append(int(p["mac__tx_tdata"].value).to_bytes(BEAT, "little"))
            if p["mac__tx_tlast"].value:
                self.sent.append(b"".join(self.beats))
                self.beats = []

    def drive(self, cycle):
        """Drive what the next edge samples."""
        p = self.pins
        p["request__ready"].value = random.random() >= self.stalls
        p["access_response__ready"].value = random.random() >= self.stalls
        due = [w for w in self.waiting if w[0] <= cycle]
        if due:
            chosen = random.choice(due)
            self.waiting.remove(chosen)
            p["response__payload"].value = chosen[1]
            self._store(chosen[2])
        p["response__valid"].value = bool(due)
        if self.offered is None and self.accesses:
            self.offered = self.accesses.popleft()
            p["access__payload"].value = self.offered
        p["access__valid"].value = self.offered is not None
        if self.plays_mac:
            self._drive_mac()

    def _drive_mac(self):
        p = self.pins
        p["mac__tx_tready"].value = random.random() >= self.stalls
        come = bool(self.arriving) and random.random() >= self.stalls
        if come:
            data, last = self.arriving.popleft()
            p["mac__rx_tdata"].value, p["mac__rx_tlast"].value = data, last
        p["mac__rx_tvalid"].value = come

    def window(self, offset, line, mask=(1 << 64) - 1):
        """Write a line of the NIC's window."""
        self.accesses.append(bits(pe.request_layout(), address=offset, write=1, data=line,
                                  mask=mask))

    def deliver(self, frame):
        self.arriving.extend((int.from_bytes(frame[at:at + BEAT], "little"),
                              at + BEAT == len(frame)) for at in range(0, len(frame), BEAT))

    def completions(self):
        """Those that are new."""
        found = []
        for qp in range(QPS):
            while True:
                at = ring(qp) + 64 * (self.completed[qp] % (1 << RING_LOG2))
                line = int.from_bytes(self.memory[at:at + 64], "little")
                if not line:
                    break
                self.memory[at:at + 64] = bytes(64)
                self.completed[qp] += 1
                found.append(net.completion_layout().from_bits(line))
        return found


class Wire:
    """Takes frames across, with faults: probabilities of each."""

    def __init__(self, *, latency=30, loss=0.0, twice=0.0, late=0.0, wrong=0.0, mark=0.0):
        self.latency, self.loss, self.twice, self.late = latency, loss, twice, late
        self.wrong, self.mark, self.under_way = wrong, mark, []
        self.lost = self.bad = 0        # frames; those that the NIC sent with a wrong checksum
        self.cut = False

    def take(self, frame, target, cycle):
        try:
            parse(frame)
        except ValueError:
            self.bad += 1
        if self.cut or random.random() < self.loss:
            self.lost += 1
            return
        for _ in range(1 + (random.random() < self.twice)):
            changed = bytearray(frame)
            if random.random() < self.wrong:
                for _ in range(random.randint(1, 3)):
                    changed[random.randrange(len(frame))] ^= 1 << random.randrange(8)
            if random.random() < self.mark:
                changed[MARK] = 1
            delay = self.latency + (random.randint(0, 300) if random.random() < self.late else 0)
            self.under_way.append((cycle + delay, target, bytes(changed)))

    def give(self, cycle):
        for item in [w for w in self.under_way if w[0] <= cycle]:
            self.under_way.remove(item)
            item[1].deliver(item[2])


class Bench:
    """Both sides and the wire."""

    def __init__(self, dut, **faults):
        self.dut, self.wire, self.cycle = dut, Wire(**faults), 0
        self.sides = [Side(dut, name, number) for number, name in enumerate("ab")]

    def set(self, side, qp, state=net.QpState.READY, **fields):
        """Write the context of a queue pair."""
        self.sides[side].window(0x10000 + 64 * qp, bits(
            net.qp_layout(), state=state, domain=7, peer_mac=MAC[1 - side],
            completions=ring(qp), ring_log2=RING_LOG2, **fields))

    async def start(self, *, window=8, timeout_log2=12, tries=7, psn=(0xFFFFF0, 5), qps=(1, 2)):
        """Reset; queue pair ``qps[0]`` of the first is joined to ``qps[1]`` of the second."""
        await sim.reset(self.dut, *self.sides[0].drive_low(), *self.sides[1].drive_low())
        for n, side in enumerate(self.sides):
            side.window(0, side.mac)
            self.region(n, 1, base=0, length=COMPLETIONS)
            self.set(n, qps[n], peer_qp=qps[1 - n], timeout_log2=timeout_log2, tries=tries,
                     window=window, send_psn=psn[n], receive_psn=psn[1 - n])
        self.qps = qps

    def region(self, side, index, *, base, length, key=0xA5000000, domain=7, read=1, write=1):
        self.sides[side].window(0x20000 + 64 * index, bits(
            net.region_layout(), key=key + index, domain=domain, remote_read=read,
            remote_write=write, base=base, length=length))

    def post(self, side, opcode, *, qp=None, cookie=0, length=0, local=0, remote=0, immediate=0,
             local_key=0xA5000001, remote_key=0xA5000001):
        qp = self.qps[side] if qp is None else qp
        doorbell = 0x80000 if opcode == net.Opcode.RECV else 0x40000
        self.sides[side].window(doorbell + 64 * qp, bits(
            net.work_layout(), opcode=opcode, cookie=cookie, length=length, local=local,
            remote=remote, local_key=local_key, remote_key=remote_key, immediate=immediate))

    async def step(self):
        await RisingEdge(self.dut.clk)
        self.cycle += 1
        for n, side in enumerate(self.sides):
            side.edge(self.cycle)
            while side.sent:
                self.wire.take(side.sent.popleft(), self.sides[1 - n], self.cycle)
        self.wire.give(self.cycle)
        for side in self.sides:
            side.drive(self.cycle)

    async def completions(self, counts, *, limit=20000):
        """Run until each side has so many; gives them as two lists."""
        found = [[], []]
        for _ in range(limit):
            await self.step()
            for n, side in enumerate(self.sides):
                if self.cycle % 8 == 0:
                    found[n] += side.completions()
            if all(len(f) >= c for f, c in zip(found, counts, strict=True)):
                break
        else:
            raise AssertionError(f"completions are missing: {counts} wanted, {found}")
        return found

    async def rest(self, cycles=200):
        for _ in range(cycles):
            await self.step()

    async def sleep(self, *, limit=100000):
        """Run until the clocks of both NICs rest: what the wire lost is sent again until then."""
        for _ in range(limit // 100):
            await self.rest(100)
            if not any(side.pins["awake"].value for side in self.sides):
                return
        raise AssertionError("a NIC does not come to rest")
