"""Surroundings of the SIMD engine: operands in local memory, commands, the memory to expect."""
import random

import numpy as np

from cosim.golden.formats import SPECS, Format, pack
from cosim.golden.norm import Norm
from cosim.golden.quantise import Rule
from cosim.golden.simd import Operation, Reduce, Source1, simd
from testbenches.pe.unit_bench import Bench, command, operand, seed

LINES = 256
LINE = 64
SIMD = 0x30
# CB: base line, lines; sources, destination, scales
BUFFERS = {1: [3, 80], 2: [90, 60], 3: [151, 84], 4: [236, 17]}


def float_word(value):
    return int(np.float32(value).view(np.uint32))


def words(count, kind="normal"):
    """FP32 patterns: "normal" numbers near one, "any" bits, or "special" ones mixed in."""
    if kind == "any":
        return np.random.randint(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32)
    scale = np.exp2(np.random.randint(-4, 5, count))
    values = (np.random.standard_normal(count) * scale).astype(np.float32).view(np.uint32)
    if kind == "special":
        odd = np.random.choice(np.array([0x7F800000, 0xFF800000, 0x7FC00001, 0, 1 << 31, 1,
                                         0x807FFFFF, 0x7F7FFFFF], np.uint32), count)
        values = np.where(np.random.random(count) < 0.08, odd, values)
    return values.astype(np.uint32)


def source(shape, format, kind="normal"):
    """Random codes of a source format."""
    patterns = words(int(np.prod(shape)), kind)
    if format == Format.BF16:
        patterns = (patterns >> 16).astype(np.uint16)
    elif format == Format.FP16:
        with np.errstate(all="ignore"):
            patterns = patterns.view(np.float32).astype(np.float16).view(np.uint16)
    return patterns.reshape(shape)


class SimdBench(Bench):
    """A bench that lays out operands, sends commands and knows what they should have written."""

    def __init__(self, dut, *, write_ready=None, **options):
        super().__init__(dut, lines=LINES, buffers=dict(BUFFERS), far_bytes=LINE, **options)
        self.write_ready = self.ready if write_ready is None else write_ready
        self.reads = {"source0": None, "source1": None}
        self.writer = "destination"
        self.model = None
        self.tag = 0

    def _write(self, name):
        ready, self.ready = self.ready, self.write_ready
        super()._write(name)
        self.ready = ready

    def write_bytes(self, memory, buffer, producer, at, content):
        """Write bytes at an offset into an operand, around the end of its CB."""
        base, size = self.buffers[buffer]
        first = self.pointers[buffer, producer] * LINE + at
        where = base * LINE + (first + np.arange(len(content))) % (size * LINE)
        memory[where] = content

    def put_rows(self, buffer, codes, format, stride, offset):
        for row, code in enumerate(np.atleast_2d(codes)):
            content = pack(format, code)
            for memory in (self.local, self.model):
                self.write_bytes(memory, buffer, 0, (offset + row * stride) * LINE, content)

    def execute(self, rows, columns, *, format0=Format.FP32, format1=Format.FP32,
                destination=Format.FP32, operation=Operation.NONE, function=0,
                reduce=Reduce.NONE, mode=Source1.FULL, rule=Rule.FLOOR, stochastic=False,
                affine=None, seed=0, kind="normal", gap=0, scale_stride=None, offset=0,
                norm=Norm.NONE, epsilon=1e-5):
        """Queue one command with random operands; ``gap``: lines between rows, ``offset``: lines
        before every operand, the scales' a quarter of it. A norm has rows of parameters.
        """
        def row_lines(format, count):
            return -(-count * SPECS[format].bits // 8 // LINE) or 1
        if self.model is None:
            self.model = self.local.copy()
        stride0 = row_lines(format0, columns) + gap
        first = source((rows, columns), format0, kind)
        self.put_rows(1, first, format0, stride0, offset)
        second, stride1, fields = None, 0, {}
        if norm:
            mode, affine = Source1.ROW, (1 / columns, epsilon)
            shape = (norm, columns)
        elif operation:
            mode = Source1(mode)
            format1 = Format.FP32 if mode == Source1.SCALAR else format1
            shape = {0: (rows, columns), 1: (columns,), 2: (rows,)}[mode]
        if norm or operation:
            second = source(shape, format1, kind)
            stride1 = row_lines(format1, columns) + gap
            self.put_rows(2, second, format1, stride1, offset)
            fields |= operand(4, 2, offset=offset, wait=1)
        result = simd(first, second, format0=format0, format1=format1, destination=destination,
                      operation=operation, function=function, reduce=reduce, mode=mode, rule=rule,
                      stochastic=stochastic, affine=affine, seed=seed, norm=norm)
        mx = SPECS[destination].block and not reduce
        padded = -(-columns // 32) * 32 if mx else columns
        stride = row_lines(destination, padded) + gap
        if scale_stride is None:
            scale_stride = 1 << max(padded // 32 - 1, 0).bit_length() if padded <= 2048 else 128
        if mx:
            fields |= operand(13, 4, offset=offset // 4, wait=1)
            for row, scales in enumerate(result[1]):
                self.write_bytes(self.model, 4, 1, offset // 4 * LINE + row * scale_stride, scales)
        self._expect(result, destination, reduce, mx, stride, offset)
        multiplier, addend = affine or (0.0, 0.0)
        self.tag += 1
        self.commands.append(command(
            SIMD, self.tag, w1=format0 | format1 << 4 | destination << 8 | operation << 12
            | function << 16 | reduce << 20 | mode << 22 | rule << 24 | stochastic << 27
            | (affine is not None and not norm) << 28 | norm << 29,
            w8=rows | columns << 16, w9=stride0 | stride1 << 16,
            w10=stride | scale_stride << 16, w11=float_word(multiplier), w12=float_word(addend),
            w15=seed, **operand(2, 1, offset=offset, wait=1),
            **operand(6, 3, offset=offset, wait=1), **fields))

    def _expect(self, result, destination, reduce, mx, stride, offset):
        if reduce:
            self.write_bytes(self.model, 3, 1, offset * LINE, pack(Format.FP32, result))
            return
        for row, codes in enumerate(result[0] if mx else result):
            content = pack(destination, codes)
            if not mx:
                content = np.concatenate([content, np.zeros(-len(content) % LINE, np.uint8)])
            self.write_bytes(self.model, 3, 1, (offset + row * stride) * LINE, content)

    def turn(self):
        """Move every CB's pointers to a random line, so that operands wrap."""
        for buffer, (_, size) in self.buffers.items():
            self.pointers[buffer, 0] = self.pointers[buffer, 1] = random.randrange(size)

    async def compare(self, limit=20000):
        """Run what is queued to its end and compare all of local memory with the model."""
        await self.finish(limit)
        wrong = np.flatnonzero(self.local != self.model)
        assert not len(wrong), (f"{len(wrong)} bytes differ, first at line {wrong[0] // LINE} byte "
                                f"{wrong[0] % LINE}: {self.local[wrong[0]]:02x}, not "
                                f"{self.model[wrong[0]]:02x}")


async def begin(dut, **options):
    seed()
    bench = SimdBench(dut, **options)
    await bench.start()
    return bench
