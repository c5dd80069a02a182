"""Surroundings of a unit under test: circular buffers, local memory, and the memory it talks to."""
import logging
import random

import numpy as np
from cocotb.triggers import RisingEdge

from cosim.golden.moves import LINE_BYTES, Place
from rtl.pe.interfaces import (
    acquire_layout,
    grant_layout,
    release_layout,
    request_layout,
    response_layout,
)
from testbenches import sim


def pack(layout, **values):
    """Integer with the given fields of a struct layout; the others are zero."""
    return sum((value & ((1 << layout[name].width) - 1)) << layout[name].offset
               for name, value in values.items())


def unpack(layout, value):
    """Fields of a struct layout as a dict of integers."""
    return {name: (int(value) >> field.offset) & ((1 << field.width) - 1)
            for name, field in layout}


def error_of(dut):
    """``(valid, code, field, tag)`` of the unit's error port."""
    value = int(dut.unit__error.value)
    return value & 1, (value >> 1) & 0xFF, (value >> 9) & 0xFF, (value >> 17) & 0xFFFF


def address_of(dut):
    """Address that the unit's error port names."""
    return int(dut.unit__error.value) >> 33


def command(opcode, tag=0, **words):
    """A 64-byte command; ``w3=7`` sets word 3."""
    value = opcode | tag << 16
    for name, word in words.items():
        value |= (word & 0xFFFFFFFF) << (32 * int(name[1:]))
    return value


def operand(word, buffer, *, offset=0, wait=0, release=0):
    """Words of a CB operand, for :func:`command`."""
    return {f"w{word}": buffer | offset << 8, f"w{word + 1}": wait | release << 16}


class Bench:
    """Drives a unit cycle by cycle; a probability says how often each stream may move.

    ``local`` and ``far`` are flat byte arrays. ``buffers`` maps a CB to ``[base, lines]``, from
    whose pointers (one for each side) operands are granted at once, or as soon as ``hold`` is
    false. ``faults`` maps a far line to the error code of its response.
    """

    def __init__(self, dut, *, lines, buffers, ready=0.7, far_bytes=1 << 16, in_order=False,
                 latency=(1, 20), tags=64):
        self.tags = tags            # of the fabric
        self.dut, self.lines, self.buffers, self.ready = dut, lines, buffers, ready
        self.local = np.random.randint(0, 256, lines * LINE_BYTES, dtype=np.uint8)
        self.far = np.random.randint(0, 256, far_bytes, dtype=np.uint8)
        self.pointers = {(cb, side): 0 for cb in buffers for side in range(2)}
        self.commands, self.releases, self.requests, self.pending = [], [], [], []
        self.failed = []            # addresses answered with an error, in order
        self.faults, self.hold, self.in_order, self.latency = {}, False, in_order, latency
        self.cycle, self.most, self.writes, self.silent = 0, 0, 0, False
        self.reads = {name: None for name in ("index", "local", "source")
                      if hasattr(dut, f"{name}__address__valid")}
        self.writer = next((name for name in ("local", "destination")
                            if hasattr(dut, f"{name}__o__valid")), None)
        self.fabric = hasattr(dut, "request__valid")
        self.stalled = {}

    def chance(self):
        return int(random.random() < self.ready)

    async def start(self):
        dut = self.dut
        low = [dut.unit__command__valid, dut.unit__clear, dut.unit__launch,
               dut.buffers__acquire__ready, dut.buffers__release__ready, dut.buffers__grant,
               dut.buffers__too_small]
        for name in self.reads:
            low += [getattr(dut, f"{name}__address__ready"), getattr(dut, f"{name}__valid"),
                    getattr(dut, f"{name}__data")]
        if self.writer:
            low.append(getattr(dut, f"{self.writer}__o__ready"))
        if self.fabric:
            low += [dut.request__ready, dut.response__valid, dut.response__payload]
        await sim.reset(dut, *low)

    def place(self, buffer, producer, offset=0):
        """Where an operand acquired now stands; moves no pointer."""
        base, size = self.buffers[buffer]
        start = base + (self.pointers[buffer, producer] + offset) % size
        return Place(start=start, base=base, limit=base + size)

    def held(self, name, valid, ready, payload):
        """A stalled stream keeps its payload; True if it moves now."""
        valid, ready = int(valid.value), int(ready.value)
        value = int(payload.value) if valid else None
        if name in self.stalled:
            assert valid and value == self.stalled[name], f"{name} changed while it was stalled"
        self.stalled.pop(name, None)
        if valid and not ready:
            self.stalled[name] = value
        return value if valid and ready else None

    async def step(self):
        """One cycle: take what moved at this edge, then drive the next one."""
        await RisingEdge(self.dut.clk)
        self.cycle += 1
        self._commands()
        self._operands()
        for name in self.reads:
            self._read(name)
        if self.writer:
            self._write(self.writer)
        if self.fabric:
            self._fabric()

    def _commands(self):
        port = self.dut
        if port.unit__command__valid.value and port.unit__command__ready.value:
            self.commands.pop(0)
            port.unit__command__valid.value = 0
            pending = self.commands
        else:
            pending = self.commands if not port.unit__command__valid.value else []
        if pending and self.chance():
            port.unit__command__valid.value, port.unit__command__payload.value = 1, pending[0]

    def _operands(self):
        dut = self.dut
        asked = int(dut.buffers__acquire__valid.value)
        if asked:
            fields = unpack(acquire_layout(), dut.buffers__acquire__payload.value)
            key = fields["buffer"], fields["producer"]
        if asked and dut.buffers__acquire__ready.value:
            self.pointers[key] += fields["release"]
            asked = 0
        dut.buffers__acquire__ready.value = 0
        if asked and not self.hold and self.chance():
            place = self.place(*key, fields["offset"])
            dut.buffers__acquire__ready.value = 1
            dut.buffers__grant.value = pack(grant_layout(lines=self.lines), start=place.start,
                                            base=place.base, limit=place.limit)
        if dut.buffers__release__valid.value and dut.buffers__release__ready.value:
            fields = unpack(release_layout(), dut.buffers__release__payload.value)
            self.releases.append((fields["buffer"], fields["producer"], fields["count"]))
        dut.buffers__release__ready.value = self.chance()

    def _read(self, name):
        port = {part: getattr(self.dut, f"{name}__{part}")
                for part in ("address__valid", "address__ready", "address__payload", "data",
                             "valid")}
        moved = int(port["address__valid"].value) and int(port["address__ready"].value)
        port["valid"].value = moved
        line = int(port["address__payload"].value) if moved else random.randrange(self.lines)
        where = line * LINE_BYTES
        port["data"].value = int.from_bytes(self.local[where:where + LINE_BYTES].tobytes(),
                                            "little")
        port["address__ready"].value = self.chance()

    def _write(self, name):
        port = self.dut
        value = self.held(name, getattr(port, f"{name}__o__valid"),
                          getattr(port, f"{name}__o__ready"), getattr(port, f"{name}__o__payload"))
        if value is not None:
            bits = (self.lines - 1).bit_length()
            line, mask = value & ((1 << bits) - 1), value >> (bits + 512)
            store(self.local, line * LINE_BYTES, value >> bits, mask)
            self.writes += 1
        getattr(port, f"{name}__o__ready").value = self.chance()

    def _fabric(self):
        dut = self.dut
        value = self.held("request", dut.request__valid, dut.request__ready, dut.request__payload)
        if value is not None:
            fields = unpack(request_layout(), value)
            assert fields["address"] % LINE_BYTES == 0 and fields["tag"] < self.tags
            assert all(fields["tag"] != other["tag"] for _, other in self.pending)
            self.requests.append(fields)
            self.pending.append((self.cycle + random.randint(*self.latency), fields))
            self.most = max(self.most, len(self.pending))
        if dut.response__valid.value and dut.response__ready.value:
            dut.response__valid.value = 0
            offer = True
        else:
            offer = not dut.response__valid.value
        due = [entry for entry in self.pending if entry[0] <= self.cycle]
        if offer and due and not self.silent and self.chance():
            entry = due[0] if self.in_order else random.choice(due)
            self.pending.remove(entry)
            dut.response__valid.value = 1
            dut.response__payload.value = self.answer(entry[1])
        dut.request__ready.value = self.chance()

    def answer(self, fields):
        address, error = fields["address"], self.faults.get(fields["address"], 0)
        if address + LINE_BYTES > len(self.far):
            error = error or 1
        if error:
            self.failed.append(address)
        line = random.getrandbits(512)
        if not error and fields["write"]:
            store(self.far, address, fields["data"], fields["mask"])
        elif not error:
            line = int.from_bytes(self.far[address:address + LINE_BYTES].tobytes(), "little")
        return pack(response_layout(), tag=fields["tag"], write=fields["write"], error=error,
                    data=line)

    async def until(self, condition, limit=5000):
        """Step until the condition holds; fail with the state after ``limit`` cycles."""
        for _ in range(limit):
            if condition():
                return
            await self.step()
        raise AssertionError(f"still waiting after {limit} cycles: {len(self.commands)} commands, "
                             f"{len(self.pending)} requests, error {error_of(self.dut)}")

    async def finish(self, limit=5000):
        """Run all commands to their end, without an error."""
        dut = self.dut
        await self.until(lambda: not self.commands and not dut.unit__command__valid.value, limit)
        for _ in range(2):
            await self.step()
        await self.until(lambda: dut.unit__idle.value or error_of(dut)[0], limit)
        assert not error_of(dut)[0], f"error {error_of(dut)}"

    async def fail(self, limit=5000):
        """Run until the unit reports an error, which is returned."""
        await self.until(lambda: error_of(self.dut)[0], limit)
        return error_of(self.dut)[1:]

    async def clear(self):
        self.commands.clear()
        self.dut.unit__command__valid.value = 0
        self.dut.unit__clear.value = 1
        await self.step()
        self.dut.unit__clear.value = 0


def store(memory, where, line, mask):
    """Write the bytes of a line that ``mask`` selects."""
    line = (line & ((1 << 512) - 1)).to_bytes(LINE_BYTES, "little")
    for n in range(LINE_BYTES):
        if mask >> n & 1:
            memory[where + n] = line[n]


def seed():
    """Seed both random generators and log it, so that a failure can be run again."""
    value = random.getrandbits(32)
    logging.getLogger("seed").info("seed %d", value)
    random.seed(value)
    np.random.seed(value)
