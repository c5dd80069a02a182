"""Surroundings of a softmax unit: scores, P buffers, a taker of factors; and the golden results."""
import random
from dataclasses import dataclass, field

import numpy as np

from cosim.golden import attention as golden
from cosim.golden.formats import Format
from rtl.attention.interfaces import factors_layout, p_content_layout, p_word_layout
from testbenches.pe.unit_bench import LINE_BYTES, Bench, command, operand, seed, unpack

LINES, ROWS, HALF, GROUP = 64, 16, 8, 32
FORMATS = (Format.BF16, Format.FP16, Format.E4M3)
LEAST, MOST = -(1 << 31), (1 << 31) - 1
ONE = 0x3F800000
NAN, INFINITY = 0x7FC00000, 0x7F800000
SINK_BUFFER, SINK_LINES = 7, 40     # the circular buffer of the sinks, and its size
SPECIAL = [0, 1, 0x80000000, 0x807FFFFF, 0x7F7FFFFF, 0xFF7FFFFF, INFINITY, INFINITY | 1 << 31, NAN,
           0xFFC12345]


@dataclass
class Block:
    """A block of keys: its scores [rows, keys] as patterns, and the fields of its command."""

    scores: np.ndarray = field(repr=False)
    format: Format
    pair: int = 0
    first: int = 1
    last: int = 1
    state: int = 0
    low: int = LEAST
    high: int = MOST
    share: int = 0
    scale: int = ONE
    cap: golden.Cap | None = None
    sinks: np.ndarray | None = None     # patterns of 16 rows, of which a pair uses 8

    @property
    def keys(self):
        return self.scores.shape[1]

    @property
    def lines(self):
        return -(-self.keys // (1 + self.pair))

    def command(self, *, tag=0, **words):
        """The command; fields that only the dot-product engine reads are random."""
        word1 = (random.randrange(6) | random.randrange(6) << 4 | random.getrandbits(1) << 8
                 | self.pair << 10 | self.first << 11 | self.last << 12 | self.state << 13
                 | int(self.format) << 16 | self.share << 20 | (self.cap is not None) << 24)
        fields = {f"w{n}": random.getrandbits(32) for n in (2, 3, 4, 5, 9)}
        fields |= {"w1": word1, "w8": self.keys | random.getrandbits(16) << 16, "w10": self.low,
                   "w11": self.high, "w12": self.scale}
        if self.cap is not None:
            fields |= {"w13": self.cap.offset, "w14": self.cap.slope}
        return command(0x22, tag, **(fields | words))

    def line_values(self):
        """Lines of the dot-product engine; what a last line lacks is random."""
        if not self.pair:
            lines = self.scores.T
        else:
            wide = np.random.randint(0, 1 << 32, (HALF, 2 * self.lines), dtype=np.uint32)
            wide[:, :self.keys] = self.scores
            lines = np.concatenate([wide[:, 0::2], wide[:, 1::2]]).T
        return [int.from_bytes(line.astype("<u4").tobytes(), "little") for line in lines]

    def seen(self):
        place = np.arange(len(self.scores)) >> self.share
        return golden.visible(self.keys, self.low + place, self.high + place)


class Rows:
    """The golden model of one tile after another."""

    state = None

    def block(self, block):
        """What the unit must give: words of P [row][index], entries of factors as dicts."""
        if block.first:
            self.state = golden.State.start(len(block.scores))
        codes = golden.softmax_block(block.scores, block.seen(), self.state,
                                     scale=np.uint32(block.scale).view(np.float32),
                                     format=block.format, lanes=1 + block.pair, cap=block.cap,
                                     sinks=None if block.sinks is None
                                     else block.sinks[:len(block.scores)])
        padded = np.zeros((len(codes), -(-block.keys // GROUP) * GROUP), codes.dtype)
        padded[:, :block.keys] = codes
        words = padded.view("<u8")
        factor = np.full(len(codes), ONE) if block.first else self.state.factor
        inverse = golden.inverse(self.state) if block.last else np.zeros(len(codes), np.uint32)
        total, peak = golden.exported(self.state)
        if block.pair:
            words, factor, inverse, total, peak = (
                np.concatenate([v, v]) for v in (words, factor, inverse, total, peak))
        entries = [{"factor": to_int(factor), "inverse": to_int(inverse),
                    "moved": int((factor != ONE).any()), "state": block.state}]
        if block.state:
            entries.append({"factor": to_int(peak), "inverse": to_int(total), "state": 0})
        return words, entries


def to_int(patterns):
    return int.from_bytes(np.asarray(patterns).astype("<u4").tobytes(), "little")


def random_scores(rows, keys, *, wild=0.2):
    """Patterns of scores: most rows are plain, some hold values of every kind."""
    spread = 2.0 ** np.random.randint(-3, 5, (rows, 1))
    plain = (np.random.standard_normal((rows, keys)) * spread).astype(np.float32).view(np.uint32)
    kind = np.random.random((rows, 1))
    any_ = np.random.randint(0, 1 << 32, plain.shape, dtype=np.uint32)
    small = any_ & 0x807FFFFF
    whole = np.random.randint(-4, 5, plain.shape).astype(np.float32).view(np.uint32)
    ends = np.random.choice(np.array(SPECIAL, np.uint32), plain.shape)
    few = np.where(np.random.random(plain.shape) < 0.05, ends, plain)
    result = plain
    for n, other in enumerate((any_, small, whole, ends, few)):
        result = np.where((kind >= n * wild / 5) & (kind < (n + 1) * wild / 5), other, result)
    return result.astype(np.uint32)


def random_limits(keys):
    """``low, high, share`` of a mask of any kind."""
    share = random.randrange(5)
    return random.choice([
        (LEAST, MOST, 0), (LEAST, random.randint(-17, keys + 1), share),
        (random.randint(-17, keys + 1), MOST, share),
        (random.randint(-17, keys), random.randint(0, keys + 17), share),
        (random.choice([LEAST, LEAST + 1, MOST - 3, MOST, 0]),
         random.choice([LEAST, LEAST + 5, MOST - 9, MOST, keys - 1]), share)])


def random_cap():
    """A soft cap, seldom one of any numbers."""
    if random.random() < 0.8:
        return golden.Cap.of(random.choice([1.0, 15.0, 30.0, 50.0, random.uniform(0.1, 200)]))
    return golden.Cap(*(random.choice([*SPECIAL, random.getrandbits(32)]) for _ in range(2)))


def random_sinks(*, wild=0.3):
    """Patterns of 16 rows: some near the scores, some far from them, some special."""
    near = np.random.standard_normal(ROWS) * np.random.choice([1, 5, 60, 2e9], ROWS)
    ends = np.random.choice(np.array(SPECIAL, np.uint32), ROWS)
    return np.where(np.random.random(ROWS) < wild, ends, golden.bits(near)).astype(np.uint32)


def random_block(keys, format, pair, **fields):
    scores = random_scores(HALF if pair else ROWS, keys)
    low, high, share = random_limits(keys)
    plain = int(np.float32(random.uniform(0.05, 2)).view(np.uint32))
    scale = plain if random.random() < 0.8 else random.choice(SPECIAL + [ONE, 0xBF800000])
    values = {"low": low, "high": high, "share": share, "scale": scale} | fields
    return Block(scores, format, pair, **values)


def random_tile(sizes, format, pair, *, states=0.0, **fields):
    """Blocks of one tile, of the given numbers of keys.

    ``states``: how likely its first or last block exports the state.
    """
    blocks = [random_block(keys, format, pair, first=int(n == 0), last=int(n == len(sizes) - 1),
                           **fields) for n, keys in enumerate(sizes)]
    if random.random() < states:
        block = random.choice([blocks[0], blocks[-1]])
        block.last, block.state = 0, 1
    return blocks


class SoftmaxBench(Bench):
    """A softmax unit; each stream moves as often as its probability says.

    ``offer``: scores, ``drain``: words of P, ``fetch``: factors; a full P buffer is emptied in a
    cycle with probability ``empty``. ``blocks`` collects ``(content, words)`` of P, ``factors``
    the factors, ``full_cycles`` and ``take_cycles`` when P was handed over and scores were taken.
    """

    def __init__(self, dut, *, offer=0.9, drain=0.9, fetch=0.5, empty=0.3, **options):
        super().__init__(dut, lines=LINES, buffers={6: [0, 8], SINK_BUFFER: [8, SINK_LINES]},
                         **options)
        self.sink_count = self.sink_pointer = 0
        self.offer, self.drain, self.fetch, self.empty = offer, drain, fetch, empty
        self.scores, self.blocks, self.factors, self.words = [], [], [], []
        self.full_cycles, self.take_cycles, self.factor_cycles = [], [], []
        self.expected, self.model, self.used = [], Rows(), 0

    async def start(self):
        dut = self.dut
        for signal in (dut.i__valid, dut.i__payload, dut.p__word__ready, dut.factors__ready):
            signal.value = 0
        dut.p__free.value = 1
        await super().start()

    def add(self, *blocks):
        """Queue commands and scores, and what must come of them."""
        for block in blocks:
            words = {} if block.sinks is None else self.place_sinks(block.sinks)
            self.commands.append(block.command(tag=len(self.expected), **words))
            self.scores += block.line_values()
            self.expected.append((block, *self.model.block(block)))

    def place_sinks(self, sinks):
        """Put a line into local memory, as many lines on as its command will be behind.

        Some commands release lines: those after them count from there.
        """
        at, release = self.sink_count % SINK_LINES, random.choice([0, 0, 1, 3])
        line = self.buffers[SINK_BUFFER][0] + at
        self.local[line * LINE_BYTES:][:LINE_BYTES] = sinks.astype("<u4").view(np.uint8)
        words = operand(6, SINK_BUFFER, offset=(at - self.sink_pointer) % SINK_LINES, wait=1,
                        release=release)
        self.sink_count, self.sink_pointer = self.sink_count + 1, self.sink_pointer + release
        return words

    async def step(self):
        await super().step()
        dut = self.dut
        if dut.i__valid.value and dut.i__ready.value:
            self.scores.pop(0)
            self.take_cycles.append(self.cycle)
            dut.i__valid.value = 0
            more = bool(self.scores)
        else:
            more = self.scores and not dut.i__valid.value
        if more and random.random() < self.offer:
            dut.i__valid.value, dut.i__payload.value = 1, self.scores[0]
        self._p()
        value = self.held("factors", dut.factors__valid, dut.factors__ready, dut.factors__payload)
        if value is not None:
            self.factors.append(unpack(factors_layout(), value))
        if dut.factors__valid.value:
            self.factor_cycles.append(self.cycle)
        dut.factors__ready.value = int(random.random() < self.fetch)

    def _p(self):
        dut = self.dut
        value = self.held("p.word", dut.p__word__valid, dut.p__word__ready, dut.p__word__payload)
        if dut.p__full.value:       # not in the cycle in which the last word is accepted
            assert self.used < 2, "a P buffer was filled that is not free"
            self.used += 1
            self.full_cycles.append(self.cycle)
            content = unpack(p_content_layout(), dut.p__content.value)
            self.blocks.append((content, self.words))
            self.words = []
        elif self.used and random.random() < self.empty:
            self.used -= 1
        if value is not None:
            fields = unpack(p_word_layout(rows=ROWS), value)
            assert fields["index"] == len(self.words), "words of P out of order"
            assert not dut.p__full.value and self.used < 2
            self.words.append(fields["data"])
        dut.p__word__ready.value = int(random.random() < self.drain)
        dut.p__free.value = int(self.used < 2)

    async def finish(self, limit=20000):
        await super().finish(limit)
        entries = sum(len(entries) for _, _, entries in self.expected)
        await self.until(lambda: len(self.factors) >= entries, limit)

    def check(self, skip=0):
        """Everything that came, from entry ``skip`` on, is what the golden model gives."""
        assert len(self.blocks) == len(self.expected) - skip
        found_entries = iter(self.factors)
        for n, (block, words, entries) in enumerate(self.expected[skip:]):
            content, got = self.blocks[n]
            assert content == {"format": int(block.format), "groups": -(-block.keys // GROUP)}
            assert len(got) == words.shape[1], f"words of P of block {n}: {block}"
            found = np.array([np.frombuffer(word.to_bytes(8 * ROWS, "little"), "<u8")
                              for word in got]).T
            wrong = np.argwhere(found != words)
            assert not len(wrong), f"P of block {n}: {block}\n" + "\n".join(
                f"row {r} word {i}: {found[r, i]:016x}, not {words[r, i]:016x}"
                for r, i in wrong[:20])
            for entry, got in zip(entries, found_entries, strict=False):
                for name, value in entry.items():
                    assert got[name] == value, \
                        f"{name} of block {n}: {got[name]:0128x}, not {value:0128x}"
        assert not list(found_entries)


async def new_bench(dut, **options):
    seed()
    bench = SoftmaxBench(dut, **options)
    await bench.start()
    return bench


FULL_SPEED = {"offer": 1.0, "drain": 1.0, "fetch": 1.0, "empty": 1.0, "ready": 1.0}
