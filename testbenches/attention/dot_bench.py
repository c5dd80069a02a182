"""Surroundings of a dot-product engine with attention: P buffers to fill, scores that leave."""
import random

import numpy as np

from cosim.golden import dot
from cosim.golden.formats import Format, decode, pack
from rtl.attention.interfaces import p_content_layout, p_word_layout
from testbenches.pe import dot_bench, unit_bench
from testbenches.pe.dot_bench import ELEMENTS, SCALES, DotBench
from testbenches.pe.unit_bench import command, operand

DOT, SCORE, WEIGH = 0x21, 0x22, 0x23
GROUP = 32


class AttentionBench(DotBench):
    """Fills P buffers word by word; ``scores`` collects the lines of SCORE.

    ``p_rate`` is how often a word is offered, ``scores_rate`` how often a line of scores may leave.
    ``stalls`` counts the cycles in which a word waited.
    """

    def __init__(self, dut, *, rows, p_rate=1.0, scores_rate=1.0, **options):
        super().__init__(dut, **options)
        self.rows, self.p_rate, self.scores_rate = rows, p_rate, scores_rate
        self.scores, self.score_stamps, self.order = [], [], []
        self.p_fills, self.stalls = [], 0

    async def start(self):
        dut = self.dut
        for signal in (dut.p__word__valid, dut.p__word__payload, dut.p__full, dut.p__content,
                       dut.o_scores__ready):
            signal.value = 0
        await super().start()

    async def step(self):
        before = len(self.columns)
        await super().step()
        dut = self.dut
        self.order += ["o"] * (len(self.columns) - before)
        value = self.held("o_scores", dut.o_scores__valid, dut.o_scores__ready,
                          dut.o_scores__payload)
        if value is not None:
            self.scores.append(np.frombuffer(value.to_bytes(64, "little"), "<u4"))
            self.score_stamps.append(self.cycle)
            self.order.append("scores")
        dut.o_scores__ready.value = int(random.random() < self.scores_rate)
        self._fill_p()

    def _fill_p(self):
        """One word of each row of P, or hand the buffer over once all of them were accepted.

        The first word of the next buffer is offered at once, whether or not that one is free.
        """
        dut = self.dut
        waits = int(dut.p__word__valid.value)
        if waits and dut.p__word__ready.value:
            self.p_fills[0][0].pop()
            waits = 0
        self.stalls += waits
        dut.p__full.value = 0
        if self.p_fills and not self.p_fills[0][0] and random.random() < self.p_rate:
            dut.p__full.value, dut.p__content.value = 1, self.p_fills.pop(0)[1]
        if not waits:       # a stalled word must not change
            offered = bool(self.p_fills and self.p_fills[0][0]) and random.random() < self.p_rate
            dut.p__word__valid.value = int(offered)
            if offered:
                dut.p__word__payload.value = self.p_fills[0][0][-1]

    def load_p(self, tensor):
        """Fill the next free P buffer, the words in any order."""
        groups = tensor.codes.shape[1] // GROUP
        data = pack(tensor.format, tensor.codes).view("<u8")
        words = [unit_bench.pack(p_word_layout(rows=self.rows), index=i, data=sum(
            int(word) << 64 * row for row, word in enumerate(data[:, i])))
            for i in range(data.shape[1])]
        random.shuffle(words)
        content = unit_bench.pack(p_content_layout(), format=int(tensor.format), groups=groups)
        self.p_fills.append((words, content))


def random_operand(format, rows, elements):
    """As that of the engine's other tests, but with NaN and infinities in few of the rows.

    Of 2048 random E4M3 codes some are NaN, and then all sums are, whatever the engine does.
    """
    operand = dot_bench.random_operand(format, rows, elements)
    if format not in (Format.E4M3, Format.E5M2):
        return operand
    wild = ~np.isfinite(decode(format, operand.codes)) & (np.random.random((rows, 1)) < 0.95)
    return dot.Operand(format, operand.codes & np.where(wild, 0xBF, 0xFF).astype(np.uint8),
                       operand.scales)


def random_p(format, rows, groups):
    """Random codes of P, without scales, of whole groups of keys."""
    return dot.Operand(format, random_operand(format, rows, groups * GROUP).codes)


def attend(opcode, a, b, columns, blocks, stride, scale_stride, *, tag=0, release=0, pair=0,
           offset=0, scale_offset=0, rest=0):
    """A ``SCORE``, ``WEIGH`` or ``DOT``; ``rest``: bits of word 1 for other units."""
    return command(opcode, tag, w1=int(a) | int(b) << 4 | release << 8 | pair << 10 | rest,
                   w8=columns | blocks << 16, w9=stride | scale_stride << 16,
                   **operand(2, ELEMENTS, offset=offset, wait=1, release=0),
                   **operand(4, SCALES, offset=scale_offset, wait=0, release=0))


def lines_of(a, b, pair):
    """Lines of a product, FP32 [lines, 16], and which of their values count."""
    result = np.zeros((len(b.codes), 16), np.float32)
    result[:, :len(a.codes)] = dot.matmul(a, b)
    if not pair:
        return result, np.ones(result.shape, bool)
    wanted = np.zeros((-(-len(result) // 2), 16), np.float32)
    wanted[:, :8] = result[0::2, :8]
    wanted[:len(result) // 2, 8:] = result[1::2, 8:]
    counts = np.ones(wanted.shape, bool)
    counts[len(result) // 2:, 8:] = False
    return wanted, counts
