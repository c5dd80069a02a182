"""Surroundings of a dot-product engine: random operands in local memory and in the A buffers."""
import random

import numpy as np

from cosim.golden import dot
from cosim.golden.formats import SPECS, Format, pack
from rtl.pe.a_buffer import content_layout
from testbenches.pe import unit_bench
from testbenches.pe.unit_bench import Bench, command, operand

ELEMENTS, SCALES = 4, 9
WIDE = (Format.BF16, Format.FP16)


def is_mx(format):
    return format not in WIDE


def random_operand(format, rows, elements, *, special=0.02):
    """Random codes and scales near 2^0; some blocks have a scale or codes from the far ends."""
    spec = SPECS[format]
    if is_mx(format):
        codes = np.random.randint(0, 1 << spec.bits, (rows, elements))
        plain = np.random.randint(110, 140, (rows, -(-elements // 32)))
        ends = np.random.choice([0, 1, 0xFE, 0xFF], plain.shape)
        scales = np.where(np.random.random(plain.shape) < special, ends, plain)
        return dot.Operand(format, codes.astype(spec.code_dtype), scales.astype(np.uint8))
    top = np.random.randint(-6, 6, (rows, elements)) + spec.bias
    codes = (np.random.randint(0, 2, (rows, elements)) << 15 | top << spec.mantissa_bits
             | np.random.randint(0, 1 << spec.mantissa_bits, (rows, elements)))
    wild = np.random.randint(0, 1 << 16, (rows, elements))
    return dot.Operand(format, np.where(np.random.random(codes.shape) < special / 16, wild, codes)
                       .astype(np.uint16), None)


def row_bytes(tensor):
    """Packed elements, one row of bytes a row."""
    return pack(tensor.format, tensor.codes)


class DotBench(Bench):
    """A unit with local memory, A buffers that the test fills at once, and a drain.

    ``columns`` collects the lines that left, as arrays of 16 FP32 values; ``drain`` is how often
    they may leave.
    """

    def __init__(self, dut, *, lines, buffers, drain=1.0, **options):
        super().__init__(dut, lines=lines, buffers=buffers, **options)
        self.reads = {"elements": None, "scales": None}
        self.drain, self.columns, self.stamps = drain, [], []
        self.fills = []

    async def start(self):
        dut = self.dut
        for signal in (dut.fill__element_valid, dut.fill__scale_valid, dut.fill__full,
                       dut.o__ready, dut.fill__row, dut.fill__line, dut.fill__word,
                       dut.fill__scale_row, dut.fill__elements, dut.fill__scales,
                       dut.fill__content):
            signal.value = 0
        await super().start()

    async def step(self):
        await super().step()
        dut = self.dut
        for name in self.reads:
            self.held(name, *(getattr(dut, f"{name}__address__{part}")
                              for part in ("valid", "ready", "payload")))
        value = self.held("o", dut.o__valid, dut.o__ready, dut.o__payload)
        if value is not None:
            self.columns.append(np.frombuffer(value.to_bytes(64, "little"), "<u4"))
            self.stamps.append(self.cycle)
        dut.o__ready.value = int(random.random() < self.drain)
        self._fill()

    def _fill(self):
        """One line and one word of the operand that is loaded, or hand the buffer over."""
        dut = self.dut
        dut.fill__element_valid.value = dut.fill__scale_valid.value = dut.fill__full.value = 0
        if not self.fills or not dut.fill__free.value or self.just_full:
            self.just_full = False
            return
        lines, words, content = self.fills[0]
        if lines:
            row, line, value = lines.pop()
            dut.fill__element_valid.value, dut.fill__row.value = 1, row
            dut.fill__line.value, dut.fill__elements.value = line, value
        if words:
            row, word, value = words.pop()
            dut.fill__scale_valid.value, dut.fill__scale_row.value = 1, row
            dut.fill__word.value, dut.fill__scales.value = word, value
        if not lines and not words:
            dut.fill__full.value, dut.fill__content.value = 1, content
            self.just_full = True
            self.fills.pop(0)

    just_full = False

    def load(self, tensor, blocks, *, whole=1):
        """Fill the next free A buffer with an operand."""
        lines, words = [], []
        data = row_bytes(tensor)
        for row, bits in enumerate(data):
            padded = np.concatenate([bits, np.random.randint(0, 256, -len(bits) % 64,
                                                             dtype=np.uint8)])
            lines += [(row, i, int.from_bytes(padded[64 * i:64 * i + 64].tobytes(), "little"))
                      for i in range(len(padded) // 64)]
        if tensor.scales is not None:
            for row, scales in enumerate(tensor.scales):
                padded = np.concatenate([scales, np.random.randint(0, 256, -len(scales) % 8,
                                                                   dtype=np.uint8)])
                words += [(row, i, int.from_bytes(padded[8 * i:8 * i + 8].tobytes(), "little"))
                          for i in range(len(padded) // 8)]
        content = unit_bench.pack(content_layout(), format=int(tensor.format), rows=len(data),
                                  blocks=blocks, whole=whole)
        self.fills.append((lines, words, content))

    def store(self, tensor, *, offset=0, scale_offset=0, stride=None, scale_stride=None):
        """Put operand B into local memory; gives its strides."""
        data = row_bytes(tensor)
        stride = stride if stride is not None else -(-data.shape[1] // 64)
        place = self.place(ELEMENTS, 0, offset)
        for row, bits in enumerate(data):
            self.local[place.bytes(row * stride * 64, len(bits))] = bits
        if tensor.scales is None:
            return stride, 0
        count = tensor.scales.shape[1]
        small = [s for s in (1, 2, 4, 8, 16, 32, 64, 128) if s >= count]
        scale_stride = scale_stride or random.choice(small[:3])
        place = self.place(SCALES, 0, scale_offset)
        for row, scales in enumerate(tensor.scales):
            self.local[place.bytes(row * scale_stride, count)] = scales
        return stride, scale_stride


def dot_command(a, b, columns, blocks, stride, scale_stride, *, tag=0, release=1, accumulate=0,
                offset=0, scale_offset=0, used=0):
    """A ``DOT`` without its output operand; releases ``used`` lines of elements."""
    return command(0x21, tag, w1=int(a) | int(b) << 4 | release << 8 | accumulate << 9,
                   w8=columns | blocks << 16, w9=stride | scale_stride << 16,
                   **operand(2, ELEMENTS, offset=offset, wait=1, release=used),
                   **operand(4, SCALES, offset=scale_offset, wait=0, release=0))


def same_bits(got, expected):
    """FP32 patterns agree; every NaN pattern stands for the canonical one."""
    wanted = np.asarray(expected, np.float32)
    return np.where(np.isnan(wanted), 0x7FC00000, wanted.view(np.uint32)) == got
